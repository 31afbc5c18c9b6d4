// The cavra-scanner-hostile program is a scanner that wants a secret out.
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
	if err := plugin.ServeScanner(hostile.Scanner{Secret: secret}); err != nil {
		fmt.Fprintln(os.Stderr, "cavra-scanner-hostile:", err)
		os.Exit(2)
	}
}
