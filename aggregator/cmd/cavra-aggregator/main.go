// Command cavra-aggregator receives what the agents of a fleet have signed,
// verifies it, keeps it, and shows the posture that follows from it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	engine "github.com/cavra/cavra/aggregator/internal/embedded/clickhouse"
)

// version is set by the linker.
var version = "0.1.0"

// The exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == engine.ChildCommand {
		// The engine's process: it answers to its parent alone.
		if err := engine.RunChild(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(exitFailure)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	var usage *usageError
	switch {
	case err == nil:
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "cavra-aggregator:", err)
		os.Exit(exitUsage)
	default:
		fmt.Fprintln(os.Stderr, "cavra-aggregator:", err)
		os.Exit(exitFailure)
	}
}

// usageError is a wrong command line or configuration.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cavra-aggregator",
		Short: "Receive signed scan statements, verify them, and show the posture",
		Long: `cavra-aggregator receives what the agents of a fleet have signed over Kafka,
verifies who signed it and where it stands in that agent's chain, keeps it in
ClickHouse, and shows the posture by an API and a web page.`,
		Example: `  # Everything in one program and one folder, no service to install
  cavra-aggregator serve --embedded ./data

  # The same program on a Kafka cluster, a ClickHouse cluster and PostgreSQL
  cavra-aggregator serve --config /etc/cavra/aggregator.yaml

  # A one-time token for a new agent, then the posture as a table
  cavra-aggregator join-token create --token-file ./data/admin.token
  cavra-aggregator posture --token-file ./data/admin.token`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	cmd.AddCommand(serveCommand(), tenantCommand(), postureCommand(), agentsCommand(), fleetCommand(), quarantineCommand(),
		exportCommand(), ingestCommand(), logCommand(), joinTokenCommand(), awsRuleCommand(), tokenCommand())
	return cmd
}
