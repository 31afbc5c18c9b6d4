// The cavra-formats program scans artifacts for the agent.
package main

import (
	"fmt"
	"os"

	"github.com/cavra/cavra/plugins/formats"
	"github.com/cavra/cavra/sdk/plugin"
)

func main() {
	if err := plugin.ServeScanner(formats.New()); err != nil {
		fmt.Fprintln(os.Stderr, "cavra-formats:", err)
		os.Exit(2)
	}
}
