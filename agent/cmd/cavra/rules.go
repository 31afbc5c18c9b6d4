package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cavra/cavra/sdk/finding"
)

func newRules() *cobra.Command {
	rules := &cobra.Command{Use: "rules", Short: "Explain the rules that findings name", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	rules.AddCommand(
		&cobra.Command{Use: "list", Short: "List all rules with severity and score", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return listRules(cmd) }},
		&cobra.Command{Use: "show RULE", Short: "Say what a rule means and what to do about it", Args: cobra.ExactArgs(1),
			Example: "  cavra rules show pickle.import.dangerous",
			RunE:    func(cmd *cobra.Command, args []string) error { return showRule(cmd, args[0]) }},
	)
	return rules
}

func listRules(cmd *cobra.Command) error {
	c, err := finding.Shipped()
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, r := range c.Rules() {
		fmt.Fprintf(&b, "%-28s %-9s %3d  %s\n", r.ID, r.Severity, r.Score, r.Title)
	}
	fmt.Fprintf(&b, "Ruleset %s, %s\n", c.Version(), c.Digest())
	_, err = fmt.Fprint(cmd.OutOrStdout(), b.String())
	return err
}

func showRule(cmd *cobra.Command, id string) error {
	c, err := finding.Shipped()
	if err != nil {
		return err
	}
	r, ok := c.Rule(id)
	if !ok {
		return fmt.Errorf("rule %q is not known: cavra rules list shows all", id)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n\n%s.\n%s\n\nSeverity    %s, score %d\nClass       %s\nWhat to do  %s\nReferences  %s\n",
		r.ID, r.Title, r.Description, r.Severity, r.Score, r.Class, r.Fix, strings.Join(r.References, ", "))
	return err
}
