package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// commands makes every subcommand, in the order in which help lists them.
var commands = []func() *cobra.Command{
	newScan,
	newAgent,
	newVerify,
	newWitness,
	newResolve,
	newDoctor,
	newRules,
	newVersion,
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "cavra",
		Short: "Find what loading a model could run",
		Long: `CAVRA finds what loading a model or another AI artifact could run. It takes
files apart on this machine, in processes of their own, and reports what it
found and what it could not look at.`,
		Example: `  cavra scan ~/models
  cavra scan --format json --output report.json model.pt
  cavra doctor`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w (see: %s --help)", err, cmd.CommandPath())
	})
	cobra.EnableCommandSorting = false
	for _, make := range commands {
		root.AddCommand(make())
	}
	return root
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "cavra "+version)
			return err
		},
	}
}
