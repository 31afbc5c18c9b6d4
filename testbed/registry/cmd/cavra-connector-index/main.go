// The cavra-connector-index program is the tests' connector for a registry over
// HTTP.
package main

import (
	"fmt"
	"os"

	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/plugin"
	"github.com/cavra/cavra/testbed/registry/index"
)

func main() {
	err := plugin.ServeRemoteConnector(func(access connector.Access) (connector.Connector, error) {
		return index.New(access), nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "cavra-connector-index:", err)
		os.Exit(2)
	}
}
