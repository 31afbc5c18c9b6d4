// Command demo shows CAVRA end to end on one machine: model files, an agent, the
// embedded aggregator, and the posture at the end. It drives the built programs
// by their command lines and does nothing that a user could not type.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder of the built programs")
	flag.StringVar(&o.models, "models", "", "scan this folder in place of a generated tree")
	flag.StringVar(&o.dir, "dir", "", "keep everything in this folder (default: a temporary one, deleted at the end)")
	flag.BoolVar(&o.once, "once", false, "exit after the table, with an error if a figure is not what the tree implies")
	flag.Parse()
	if flag.NArg() != 0 {
		fmt.Fprintf(os.Stderr, "demo: %q: no arguments are taken; to scan a folder of yours give -models PATH\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	if err != nil && (!interrupted || !errors.Is(err, context.Canceled)) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}
