package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/cavra/cavra/aggregator/internal/serve"
)

func agentsCommand() *cobra.Command {
	var c client
	var s shown
	var q serve.AgentQuery
	var all bool
	cmd := &cobra.Command{
		Use:   "agents",
		Short: "Show the fleet, the worst agents first; revoke one",
		Long: `Show the fleet, the worst agents first: what is stale or silent, less isolated
than it should be, behind with its reports, or in contradiction with itself.

A page has 100 agents; --all shows every one.`,
		Example: "  cavra-aggregator agents --token-file ./data/admin.token\n" +
			"  cavra-aggregator agents --trouble less_isolated --all --format json\n" +
			"  cavra-aggregator agents revoke a1b2c3 --token-file ./data/admin.token",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := listAgents(cmd, &c, q, all)
			if err != nil {
				return err
			}
			return s.print(cmd.OutOrStdout(), list, func(w io.Writer) { fleetTables(w, list) })
		},
	}
	c.flags(cmd)
	s.flags(cmd)
	cmd.Flags().StringVar(&q.Trouble, "trouble", "", "only agents with this trouble, as less_isolated")
	cmd.Flags().StringVar(&q.Status, "status", "", "only agents of this status: online, stale, silent, never, revoked")
	cmd.Flags().StringVar(&q.Search, "search", "", "only agents with this in their name, id or version")
	cmd.Flags().Uint32Var(&q.Limit, "limit", 100, "how many agents to show, at most 500")
	cmd.Flags().Uint32Var(&q.Offset, "offset", 0, "how many agents to pass over")
	cmd.Flags().BoolVar(&all, "all", false, "show every agent, page by page")
	cmd.AddCommand(agentsRevoke(), agentsEvents())
	return cmd
}

func agentsEvents() *cobra.Command {
	var c client
	var s shown
	var agent string
	cmd := &cobra.Command{
		Use: "events", Short: "List what is odd: clones, restored snapshots, clocks that are off, tokens that came again", Args: cobra.NoArgs,
		Example: "  cavra-aggregator agents events --token-file ./data/admin.token\n  cavra-aggregator agents events --agent a1b2c3 --format json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			if agent != "" {
				query.Set("agent", agent)
			}
			var list serve.AgentEventList
			if err := c.get(cmd.Context(), "/v1/agent-events", query, &list); err != nil {
				return err
			}
			return s.print(cmd.OutOrStdout(), list, func(w io.Writer) {
				t := newTable(w, "What is odd", "last", "what", "agent", "times", "presented", "known")
				for _, e := range list.Events {
					t.AppendRow(table.Row{clock(&e.LastAt), e.Kind, e.Agent, e.Count, visible(e.Presented), visible(e.Known)})
				}
				t.Render()
				if list.Dropped > 0 {
					_, _ = fmt.Fprintf(w, "%d older ones were dropped\n", list.Dropped)
				}
				if n := list.UnknownTokens; n != nil && *n > 0 {
					_, _ = fmt.Fprintf(w, "join tokens that nobody knows came %d times\n", *n)
				}
			})
		},
	}
	c.flags(cmd)
	s.flags(cmd)
	cmd.Flags().StringVar(&agent, "agent", "", "only those of this agent")
	return cmd
}

func listAgents(cmd *cobra.Command, c *client, q serve.AgentQuery, all bool) (serve.AgentList, error) {
	if all {
		q.Limit = serve.MaxPage
	}
	var list serve.AgentList
	for {
		query := url.Values{"limit": {strconv.FormatUint(uint64(q.Limit), 10)}, "offset": {strconv.FormatUint(uint64(q.Offset), 10)}}
		for name, v := range map[string]string{"trouble": q.Trouble, "status": q.Status, "q": q.Search} {
			if v != "" {
				query.Set(name, v)
			}
		}
		var page serve.AgentList
		if err := c.get(cmd.Context(), "/v1/agents", query, &page); err != nil {
			return list, err
		}
		page.Agents = append(list.Agents, page.Agents...)
		list = page
		if !all || list.Next <= q.Offset {
			return list, nil
		}
		q.Offset = list.Next
	}
}

// fleetTables prints the fleet, its troubles and its agents.
func fleetTables(w io.Writer, list serve.AgentList) {
	f, a := list.Fleet, list.Fleet.Agents
	t := newTable(w, fmt.Sprintf("Fleet of %d agents", a.Total), "online", "stale", "silent", "never heard of", "revoked")
	t.AppendRow(table.Row{a.Online, a.Stale, a.Silent, a.Never, a.Revoked})
	t.Render()
	t = newTable(w, "Troubles", "severity", "trouble", "agents")
	for _, c := range f.Troubles {
		t.AppendRow(table.Row{c.Severity, c.Kind, c.Agents})
	}
	if len(f.Troubles) == 0 {
		t.AppendRow(table.Row{"", "none", ""})
	}
	t.Render()
	t = newTable(w, "Versions", "version", "agents", "plugins")
	for _, v := range f.Versions {
		t.AppendRow(table.Row{visible(v.Version), v.Agents, strings.Join(pluginWords(v.Plugins), ", ")})
	}
	t.Render()
	t = newTable(w, fmt.Sprintf("%d of %d agents", len(list.Agents), list.Total),
		"id", "name", "status", "troubles", "version", "not in force", "privacy", "last seen", "complete round", "in spool", "key", "config")
	for _, a := range list.Agents {
		t.AppendRow(table.Row{
			a.ID, visible(a.Name), a.Status, strings.Join(troubleWords(a.Troubles), " "), visible(a.Version), strings.Join(a.SandboxMissing, " "), a.Privacy,
			clock(a.LastSeen), clock(a.LastComplete), a.SpoolStatements, fmt.Sprintf("%d since %s", a.Epoch, a.EnrolledAt.Format(time.DateOnly)), configWords(a.Configuration),
		})
	}
	t.Render()
	if list.Next > 0 {
		_, _ = fmt.Fprintf(w, "More: --offset %d, or --all\n", list.Next) // as the tables
	}
}

func troubleWords(ts []serve.Trouble) []string {
	out := make([]string, len(ts))
	for i, t := range ts {
		out[i] = t.Kind
	}
	return out
}

// pluginWords marks those that most of the fleet does not run.
func pluginWords(ps []serve.Plugin) []string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = visible(p.Name) + " " + string(p.Digest[:min(19, len(p.Digest))])
		if p.Differs {
			out[i] += " (differs)"
		}
	}
	return out
}

func clock(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.Format("2006-01-02 15:04:05Z")
}

// configWords is the version in use, and what stands between it and the wanted
// one.
func configWords(c *serve.AgentConfig) string {
	switch {
	case c == nil:
		return ""
	case !c.Remote:
		return "own"
	case c.Refused != "" && c.Version != c.Wanted:
		return fmt.Sprintf("%d of %d, refused: %s", c.Version, c.Wanted, c.Refused)
	case c.Version != c.Wanted:
		return fmt.Sprintf("%d of %d", c.Version, c.Wanted)
	case c.Version == 0:
		return "own"
	}
	return strconv.FormatUint(c.Version, 10)
}

func agentsRevoke() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use: "revoke ID", Short: "End an agent's keys and certificates, its join tokens and its access to Kafka", Args: cobra.ExactArgs(1),
		Example: "  cavra-aggregator agents revoke a1b2c3 --token-file ./data/admin.token",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd.Context(), http.MethodPost, "/v1/agents/"+url.PathEscape(args[0])+"/revoke", nil, nil, nil)
		},
	}
	c.flags(cmd)
	return cmd
}
