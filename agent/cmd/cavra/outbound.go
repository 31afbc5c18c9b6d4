package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/cavra/cavra/agent"
	"github.com/cavra/cavra/agent/internal/config"
	"github.com/cavra/cavra/agent/internal/report"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/plugin"
)

func newAgentPreview() *cobra.Command {
	var dir, format string
	c := choices{keyedBelow: unset}
	cmd := &cobra.Command{
		Use:   "preview",
		Short: "Show exactly what the agent would send, and send nothing",
		Long: `Do one round as the agent would and show every statement that it would send.
Nothing is sent, and nothing is written to the agent's folder. All strings that
would leave in the clear are listed; the rest are numbers, times, digests and
keyed hashes. Without --dir it shows what an agent would send that looks after
--scan. The signatures are by a key that is thrown away.

Exit codes: 0 it was shown; 1 the round could not be done; 2 wrong usage or
configuration.`,
		Example: "  cavra agent preview --scan /models\n  cavra agent preview --dir /var/lib/cavra --format json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			show, done, err := outboundWriter(cmd.OutOrStdout(), format, "would be sent")
			if err != nil {
				return err
			}
			settings, err := previewSettings(dir, c)
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			if err := agent.Preview(cmd.Context(), agent.Config{Dir: dir, Settings: settings, Version: version, Log: log}, show); err != nil {
				return &exitError{exitFindings, err}
			}
			return done()
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "the agent's folder, for its scopes and the key of its names")
	f.StringArrayVar(&c.scan, "scan", nil, "a folder or file to look after; may be given again")
	f.StringVar(&c.privacy, "privacy", "", "show it at another level of privacy: strict, names or full-local")
	outboundFormat(cmd, &format)
	return cmd
}

func previewSettings(dir string, c choices) (config.Config, error) {
	if dir == "" && len(c.scan) == 0 {
		return config.Config{}, errors.New("name the agent's folder with --dir, or what to look after with --scan")
	}
	if dir == "" { // no agent has decided; a preview goes on with what works
		c.sandbox = string(plugin.SandboxBestEffort)
	}
	return settingsFor(dir, c)
}

func newAgentSent() *cobra.Command {
	var dir, format string
	cmd := &cobra.Command{
		Use:   "sent",
		Short: "Show what has left this machine",
		Long: `Show every statement that the brokers have acknowledged, from the copy in the
agent's folder; spool.sent_bytes bounds it, and the oldest go first. Each one's
signature is verified. It works while the agent runs, and changes nothing.

Exit codes: 0 it was shown; 1 the copy is damaged; 2 wrong usage.`,
		Example: "  cavra agent sent --dir /var/lib/cavra\n  cavra agent sent --dir /var/lib/cavra --format envelope",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			show, done, err := outboundWriter(cmd.OutOrStdout(), format, "sent")
			if err != nil {
				return err
			}
			if _, err := config.Load(dir); err != nil {
				return err
			}
			if err := agent.Sent(dir, show); err != nil {
				return &exitError{exitFindings, errors.Join(done(), err)}
			}
			return done()
		},
	}
	dirFlag(cmd, &dir)
	outboundFormat(cmd, &format)
	return cmd
}

func outboundFormat(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVar(format, "format", "text", "text sums up; json writes each statement on a line, envelope the bytes that travel")
}

// outboundWriter writes statements in a format; done ends it.
func outboundWriter(w io.Writer, format, title string) (show func(agent.Outbound) error, done func() error, err error) {
	out := bufio.NewWriter(w)
	line := func(b []byte) error {
		_, err := out.Write(append(b[:len(b):len(b)], '\n'))
		return err
	}
	switch format {
	case "json":
		return func(o agent.Outbound) error { return line(o.Payload) }, out.Flush, nil
	case "envelope":
		return func(o agent.Outbound) error { return line(o.Envelope) }, out.Flush, nil
	case "text":
		s := summary{title: title, kinds: map[string]*tally{}, clear: map[string]map[string]int{}}
		return s.add, func() error { return errors.Join(s.write(out), out.Flush()) }, nil
	}
	return nil, nil, fmt.Errorf("--format %q: want text, json or envelope", format)
}

// summary counts statements, and gathers every string in them that a reader
// could understand.
type summary struct {
	title string
	kinds map[string]*tally
	keyed int
	// clear are the strings in the clear, by the field that they are in.
	clear map[string]map[string]int
}

type tally struct{ statements, bytes int }

func (s *summary) add(o agent.Outbound) error {
	kind := predicate.Short(o.Type)
	if s.kinds[kind] == nil {
		s.kinds[kind] = &tally{}
	}
	s.kinds[kind].statements++
	s.kinds[kind].bytes += len(o.Envelope)
	var v any
	if err := json.Unmarshal(o.Payload, &v); err != nil {
		return fmt.Errorf("read %s: %w", kind, err)
	}
	s.strings(kind, v)
	return nil
}

// opaque are strings that tell nothing but that two are the same: digests and
// times.
var opaque = regexp.MustCompile(`^(sha256:)?[0-9a-f]{64}$|^\d{4}-\d\d-\d\dT[0-9:.]+Z$`)

func (s *summary) strings(field string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, item := range v {
			s.strings(strings.TrimSuffix(field, ".predicate")+"."+key, item)
		}
	case []any:
		for _, item := range v {
			s.strings(field, item)
		}
	case string:
		switch {
		case strings.HasPrefix(v, "hmac-sha256:"):
			s.keyed++
		case !opaque.MatchString(v):
			if s.clear[field] == nil {
				s.clear[field] = map[string]int{}
			}
			s.clear[field][v]++
		}
	}
}

// maxShown is how many strings of a field are listed.
const maxShown = 12

func (s *summary) write(w io.Writer) error {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"statement", s.title, "bytes"})
	var all tally
	for _, kind := range slices.Sorted(maps.Keys(s.kinds)) {
		n := s.kinds[kind]
		t.AppendRow(table.Row{kind, n.statements, n.bytes})
		all.statements, all.bytes = all.statements+n.statements, all.bytes+n.bytes
	}
	t.AppendFooter(table.Row{"", all.statements, all.bytes})
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%d names and digests are keyed hashes. In the clear, besides numbers, times and digests:\n", t.Render(), s.keyed)
	fields := table.NewWriter()
	fields.SetStyle(table.StyleLight)
	fields.AppendHeader(table.Row{"field", "strings"})
	for _, field := range slices.Sorted(maps.Keys(s.clear)) {
		fields.AppendRow(table.Row{field, listed(s.clear[field])})
	}
	fields.SetColumnConfigs([]table.ColumnConfig{{Number: 2, WidthMax: 72}})
	b.WriteString(fields.Render() + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func listed(values map[string]int) string {
	all := slices.SortedFunc(maps.Keys(values), func(a, b string) int {
		return cmp.Or(cmp.Compare(values[b], values[a]), strings.Compare(a, b))
	})
	more := ""
	if n := len(all) - maxShown; n > 0 {
		all, more = all[:maxShown], fmt.Sprintf(", and %d more", n)
	}
	for i, v := range all {
		all[i] = report.Printable(v)
	}
	return strings.Join(all, ", ") + more
}
