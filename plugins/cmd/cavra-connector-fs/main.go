// The cavra-connector-fs program lists and opens files on disk for the agent.
package main

import (
	"fmt"
	"os"

	"github.com/cavra/cavra/plugins/connectors/fs"
	"github.com/cavra/cavra/sdk/plugin"
)

func main() {
	if err := plugin.ServeConnector(fs.New()); err != nil {
		fmt.Fprintln(os.Stderr, "cavra-connector-fs:", err)
		os.Exit(2)
	}
}
