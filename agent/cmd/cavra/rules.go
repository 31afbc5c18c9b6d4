package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cavra/cavra/sdk/finding"
)

func newRules() *cobra.Command {
	rules := &cobra.Command{Use: "rules", Short: "Explain the rules that findings name", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var all bool
	show := &cobra.Command{Use: "show RULE…", Short: "Say what a rule means, why it matters and what to do about it",
		Example: "  cavra rules show pickle.import.dangerous\n  cavra rules show --all",
		Args: func(_ *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return errors.New("show which rule? Give a RULE, or --all (cavra rules list shows their ids)")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return showRules(cmd.OutOrStdout(), args) }}
	show.Flags().BoolVar(&all, "all", false, "show every rule")
	rules.AddCommand(
		&cobra.Command{Use: "list", Short: "List all rules with severity and score", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return listRules(cmd) }},
		show,
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

// showRules prints the pages of rules; of all of them without ids.
func showRules(w io.Writer, ids []string) error {
	c, err := finding.Shipped()
	if err != nil {
		return err
	}
	pages, err := c.Pages()
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		for _, r := range c.Rules() {
			ids = append(ids, r.ID)
		}
	}
	var b strings.Builder
	for i, id := range ids {
		p, err := pages.Page(id)
		if err != nil {
			return fmt.Errorf("%w: cavra rules list shows all", err)
		}
		if i > 0 {
			b.WriteString("\n")
		}
		writePage(&b, p, pages.ATLASVersion)
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// writePage lays a rule's page out for a terminal.
func writePage(b *strings.Builder, p finding.Page, atlas string) {
	fmt.Fprintf(b, "%s\n%s\n\n", p.ID, p.Title)
	item(b, "What it is", p.Description)
	item(b, "Why it matters", p.Why)
	item(b, "What to do", p.Fix)
	item(b, "Severity", fmt.Sprintf("%s, score %d", p.Severity, p.Score))
	item(b, "Class", p.Class+": "+p.ClassTitle)
	for _, id := range p.CWE {
		item(b, "CWE", id+"  https://cwe.mitre.org/data/definitions/"+strings.TrimPrefix(id, "CWE-")+".html")
	}
	for _, id := range p.CVE {
		item(b, "CVE", id+"  https://www.cve.org/CVERecord?id="+id)
	}
	for _, t := range p.ATLAS {
		item(b, "MITRE ATLAS", t.ID+"  "+t.Title+" ("+atlas+")")
	}
}

// item writes one member of a page, its text folded beside its name.
func item(b *strings.Builder, name, text string) {
	const indent, width = 16, 84
	line := fmt.Sprintf("%-*s", indent, name)
	column := len(line)
	b.WriteString(line)
	for i, word := range strings.Split(text, " ") {
		n := len([]rune(word))
		switch {
		case i == 0:
		case column+1+n > indent+width:
			fmt.Fprintf(b, "\n%*s", indent, "")
			column = indent
		default:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += n
	}
	b.WriteString("\n")
}
