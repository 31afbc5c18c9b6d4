// The cavra-connector-hostile program is a connector that wants a secret out.
package main

import (
	"fmt"
	"os"

	"github.com/cavra/cavra/sdk/plugin"
	"github.com/cavra/cavra/testbed/hostile"
)

// secret is set by the linker.
var secret = "nothing"

func main() {
	if err := plugin.ServeConnector(hostile.Connector{Secret: secret}); err != nil {
		fmt.Fprintln(os.Stderr, "cavra-connector-hostile:", err)
		os.Exit(2)
	}
}
