// The cavra-formats program scans artifacts for the agent.
package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/cavra/cavra/plugins/formats"
	"github.com/cavra/cavra/sdk/plugin"
)

func main() {
	debug.SetMemoryLimit(formats.SoftMemory)
	if err := plugin.ServeScanner(formats.New()); err != nil {
		fmt.Fprintln(os.Stderr, "cavra-formats:", err)
		os.Exit(2)
	}
}
