package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/cavra/cavra/agent"
	"github.com/cavra/cavra/agent/internal/config"
	"github.com/cavra/cavra/agent/internal/report"
	"github.com/cavra/cavra/schemas/predicate"
)

func newAgentKept() *cobra.Command {
	var dir, format string
	cmd := &cobra.Command{
		Use:   "kept",
		Short: "Show the reports that stay on this machine",
		Long: `Show what an agent of privacy full-local has found: the places that its last
inventory lists and what is known of each, the worst first. Its scans and
inventories are signed statements in a chain of their own, which is never
published; json and envelope write all of them, in order. spool.kept_bytes bounds
the chain, and the oldest go first. Each signature is verified. It works while the
agent runs, and changes nothing.

Exit codes: 0 it was shown; 1 the chain is damaged; 2 wrong usage.`,
		Example: "  cavra agent kept --dir /var/lib/cavra\n  cavra agent kept --dir /var/lib/cavra --format json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := config.Load(dir); err != nil {
				return err
			}
			show, done, err := keptWriter(cmd.OutOrStdout(), format)
			if err != nil {
				return err
			}
			if err := agent.Kept(dir, show); err != nil {
				return &exitError{exitFindings, errors.Join(done(), err)}
			}
			return done()
		},
	}
	dirFlag(cmd, &dir)
	cmd.Flags().StringVar(&format, "format", "text", "text is a report; json writes each statement on a line, envelope each with its signature")
	return cmd
}

func keptWriter(w io.Writer, format string) (show func(agent.Outbound) error, done func() error, err error) {
	if format != "text" {
		return outboundWriter(w, format, "kept")
	}
	out := bufio.NewWriter(w)
	k := keptReport{scans: map[predicate.Digest]*predicate.Scan{}, rounds: map[string]*keptRound{}}
	return k.add, func() error { return errors.Join(k.write(out), out.Flush()) }, nil
}

// keptReport gathers the latest scan of each artifact and the latest inventory
// of each scope.
type keptReport struct {
	first, last uint64
	scans       map[predicate.Digest]*predicate.Scan
	rounds      map[string]*keptRound
}

type keptRound struct {
	id   string
	at   predicate.Time
	refs []predicate.Reference
}

func (k *keptReport) add(o agent.Outbound) error {
	if k.first == 0 {
		k.first = o.Sequence
	}
	k.last = o.Sequence
	p, err := predicate.Parse(o.Payload)
	if err != nil {
		return fmt.Errorf("read statement %d: %w", o.Sequence, err)
	}
	switch p := p.(type) {
	case *predicate.Scan:
		k.scans[p.Artifact.Digest] = p
	case *predicate.Inventory:
		scope := p.Scope.Registry + "\n" + p.Scope.Root.String()
		if r := k.rounds[scope]; r == nil || r.id != p.Round {
			k.rounds[scope] = &keptRound{id: p.Round}
		}
		r := k.rounds[scope]
		r.at, r.refs = p.ListedAt, append(r.refs, p.References...)
	}
	return nil
}

// keptRow is a place and what is known of what it points to.
type keptRow struct {
	rank, score  int
	verdict      string
	place, rules string
}

// verdictOrder lists verdicts from the worst.
var verdictOrder = []string{string(predicate.Fail), string(predicate.Warn), string(predicate.Error), "not scanned", string(predicate.Pass)}

func (k *keptReport) row(r predicate.Reference) keptRow {
	out := keptRow{verdict: "not scanned", place: report.Printable(r.Path.String()), rules: string(r.Problem)}
	if s := k.scans[r.Digest]; s != nil {
		out.verdict, out.score = string(s.Verdict), s.Score
		var rules []string
		for _, f := range s.Findings {
			rules = append(rules, f.Rule)
		}
		out.rules = strings.Join(slices.Compact(rules), ", ")
	}
	out.rank = slices.Index(verdictOrder, out.verdict)
	return out
}

func (k *keptReport) write(w io.Writer) error {
	var rows []keptRow
	var as predicate.Time
	for _, scope := range slices.Sorted(maps.Keys(k.rounds)) {
		if at := k.rounds[scope].at; as.Time().Before(at.Time()) {
			as = at
		}
		for _, r := range k.rounds[scope].refs {
			rows = append(rows, k.row(r))
		}
	}
	if len(rows) == 0 {
		_, err := io.WriteString(w, "Nothing is kept here yet: an agent keeps its reports that was enrolled with --privacy full-local, once a round has ended.\n")
		return err
	}
	slices.SortStableFunc(rows, func(a, b keptRow) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(b.score, a.score), strings.Compare(a.place, b.place))
	})
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"verdict", "score", "place", "found"})
	for _, r := range rows {
		t.AppendRow(table.Row{r.verdict, r.score, r.place, r.rules})
	}
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 4, WidthMax: 60}})
	_, err := fmt.Fprintf(w, "%s\n%d places as of %s; statements %d to %d of the chain that stays here.\n", t.Render(), len(rows), as, k.first, k.last)
	return err
}
