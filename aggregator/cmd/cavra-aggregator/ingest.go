package main

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/aggregator/internal/serve/api"
)

func ingestCommand() *cobra.Command {
	var c client
	var s shown
	cmd := &cobra.Command{
		Use:   "ingest",
		Short: "Show how the log is taken in: partitions, what was lost, what was given up",
		Long: `ingest shows how each partition of the log is taken in, at the aggregator that is
asked, and what was lost. It needs an admin token of the aggregator's operator.`,
		Example: "  cavra-aggregator ingest --token-file ./data/admin.token",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var doc serve.IngestHealth
			if err := c.get(cmd.Context(), "/v1/ingest", nil, &doc); err != nil {
				return err
			}
			return s.print(cmd.OutOrStdout(), doc, func(w io.Writer) { ingestTables(w, doc) })
		},
	}
	c.flags(cmd)
	s.flags(cmd)
	cmd.AddCommand(giveUpCommand())
	return cmd
}

func ingestTables(w io.Writer, doc serve.IngestHealth) {
	stamp := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return t.Format("2006-01-02 15:04:05Z")
	}
	t := newTable(w, "Partitions; "+count("lost", doc.Lost), "partition", "state", "next", "log end", "lag", "last commit", "unreadable plan", "last error")
	for _, p := range doc.Partitions {
		plan := ""
		if u := p.Unreadable; u != nil {
			plan = span(u.From, u.Next)
		}
		t.AppendRow(table.Row{p.Partition, p.State, p.Next, p.LogEnd, p.Lag, stamp(p.LastCommitAt), plan, visible(p.LastError)})
	}
	t.Render()
	if len(doc.LostRanges) > 0 {
		t := newTable(w, "Lost", "noticed", "partition", "offsets")
		for _, r := range doc.LostRanges {
			t.AppendRow(table.Row{stamp(&r.At), r.Partition, span(r.First, r.Last+1)})
		}
		t.Render()
	}
	if len(doc.GivenUp) > 0 {
		t := newTable(w, "Given up", "when", "partition", "plan", "messages", "lost before", "by", "reason")
		for _, g := range doc.GivenUp {
			t.AppendRow(table.Row{stamp(&g.At), g.Partition, span(g.From, g.Next), g.Messages, g.LostBefore, visible(g.By), visible(g.Reason)})
		}
		t.Render()
	}
}

func span(from, next int64) string { return fmt.Sprintf("[%d, %d)", from, next) }

func giveUpCommand() *cobra.Command {
	var c client
	var req api.GiveUpRequest
	cmd := &cobra.Command{
		Use:   "give-up",
		Short: "Count what a stopped partition's unreadable plan held as lost, and let it go on",
		Long: `give-up is for a partition that has stopped because the log does not hold any more
what a plan was made of, when the log cannot be restored. The plan's messages count
as lost from then on, and who decided it and why is kept and shown. A plan that
can be read is never given up. Ask the aggregator that has the partition.`,
		Example: `  cavra-aggregator ingest
  cavra-aggregator ingest give-up --partition 2 --from 40 --next 60 --reason "the broker's disk was replaced"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range []string{"partition", "from", "next", "reason"} {
				if !cmd.Flags().Changed(name) {
					return usage(fmt.Errorf("--%s is missing: name the plan as `cavra-aggregator ingest` shows it, and say why", name))
				}
			}
			return c.call(cmd.Context(), http.MethodPost, "/v1/ingest/give-up", nil, req, nil)
		},
	}
	c.flags(cmd)
	f := cmd.Flags()
	f.IntVar(&req.Partition, "partition", 0, "the partition")
	f.Int64Var(&req.From, "from", 0, "the plan's first offset")
	f.Int64Var(&req.Next, "next", 0, "the offset after the plan's last")
	f.StringVar(&req.Reason, "reason", "", "why the log cannot be restored")
	return cmd
}
