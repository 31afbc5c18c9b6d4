package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/schemas/predicate"
)

// shown is how a command prints: a table for eyes, JSON for machines.
type shown struct{ format string }

func (s *shown) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.format, "format", "table", "table or json")
}

func (s *shown) print(w io.Writer, document any, tables func(io.Writer)) error {
	switch s.format {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(document)
	case "table":
		tables(w)
		return nil
	}
	return usage(fmt.Errorf("--format %q: want table or json", s.format))
}

func newTable(w io.Writer, title string, header ...any) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.SetTitle("%s", title)
	t.AppendHeader(table.Row(header))
	return t
}

// visible makes a string from outside safe for a terminal.
func visible(s string) string {
	q := strconv.QuoteToGraphic(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

func postureCommand() *cobra.Command {
	var c client
	var s shown
	var worst uint32
	cmd := &cobra.Command{
		Use:     "posture",
		Short:   "Show the posture, and the worst artifacts",
		Example: "  cavra-aggregator posture --token-file ./data/admin.token\n  cavra-aggregator posture --format json | jq .posture.score",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var doc struct {
				Posture serve.Posture      `json:"posture"`
				Worst   serve.ArtifactList `json:"worst"`
			}
			if err := c.get(cmd.Context(), "/v1/posture", nil, &doc.Posture); err != nil {
				return err
			}
			query := url.Values{"limit": {strconv.FormatUint(uint64(worst), 10)}}
			if err := c.get(cmd.Context(), "/v1/artifacts", query, &doc.Worst); err != nil {
				return err
			}
			return s.print(cmd.OutOrStdout(), doc, func(w io.Writer) { postureTables(w, doc.Posture, doc.Worst.Artifacts) })
		},
	}
	c.flags(cmd)
	s.flags(cmd)
	cmd.Flags().Uint32Var(&worst, "worst", 10, "how many of the worst artifacts to show")
	return cmd
}

func postureTables(w io.Writer, p serve.Posture, worst []serve.Artifact) {
	score := "not assessed yet"
	if p.Score != nil {
		score = strconv.FormatFloat(*p.Score, 'f', 1, 64) + " of 100"
	}
	t := newTable(w, "Posture of "+p.Tenant+": "+score, "", "total", "", "", "", "", "")
	a, e := p.Artifacts, p.Exposures
	t.AppendRow(table.Row{"artifacts", a.Total, count("pass", a.Pass), count("warn", a.Warn), count("fail", a.Fail), count("error", a.Error), count("unassessed", a.Unassessed)})
	t.AppendRow(table.Row{"open exposures", e.Total, count("critical", e.Critical), count("high", e.High), count("medium", e.Medium), count("low", e.Low), count("info", e.Info)})
	t.AppendRow(table.Row{"references", p.References.Total, count("unreadable", p.References.Unreadable)})
	t.AppendRow(table.Row{"agents", p.Agents.Total, count("online", p.Agents.Online), count("stale", p.Agents.Stale), count("silent", p.Agents.Silent), count("never", p.Agents.Never), count("revoked", p.Agents.Revoked)})
	st := p.Statements
	t.AppendRow(table.Row{"statements", st.Linked + st.Early + st.Forked, count("linked", st.Linked), count("early", st.Early), count("forked", st.Forked), count("replayed", st.Replayed), count("refused", st.Refused)})
	t.Render()
	if len(worst) == 0 {
		return
	}
	t = newTable(w, "Worst artifacts", "score", "verdict", "format", "complete", "findings", "references", "digest")
	for _, a := range worst {
		t.AppendRow(table.Row{a.Score, a.Verdict, visible(a.Format), a.Coverage.Complete, a.Findings, a.References, short(a.Digest)})
	}
	t.Render()
}

func count(word string, n uint64) string { return strconv.FormatUint(n, 10) + " " + word }

func quarantineCommand() *cobra.Command {
	var c client
	var s shown
	cmd := &cobra.Command{
		Use:     "quarantine",
		Short:   "List the messages that were refused, and why",
		Example: "  cavra-aggregator quarantine --token-file ./data/admin.token",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list serve.RefusedList
			if err := c.get(cmd.Context(), "/v1/quarantine", nil, &list); err != nil {
				return err
			}
			return s.print(cmd.OutOrStdout(), list, func(w io.Writer) {
				t := newTable(w, "Refused", "received", "topic", "partition", "offset", "reason", "bytes", "detail")
				for _, r := range list.Refused {
					t.AppendRow(table.Row{r.ReceivedAt.Format("2006-01-02 15:04:05Z"), visible(r.Topic), r.Partition, r.Offset, r.Reason, r.Bytes, visible(r.Detail)})
				}
				t.Render()
			})
		},
	}
	c.flags(cmd)
	s.flags(cmd)
	return cmd
}

// short is a digest's algorithm and its first digits.
func short(d predicate.Digest) string {
	const shown = 12
	h := d.Hex()
	return d.Algorithm() + ":" + h[:min(shown, len(h))] + "…"
}
