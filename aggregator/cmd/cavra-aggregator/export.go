package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
)

func exportCommand() *cobra.Command {
	var c client
	var artifact, agent, output string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write evidence that `cavra verify` checks offline",
		Long: `export writes all of the evidence, page after page, into one file: every scan
statement of an artifact, or the whole chain of an agent. The file is there once
it is whole.`,
		Example: `  cavra-aggregator export --artifact sha256:… --output evidence.json
  cavra-aggregator export --agent a1b2c3 --output chain.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (artifact == "") == (agent == "") {
				return usage(errors.New("name either --artifact or --agent"))
			}
			path := "/v1/artifacts/" + url.PathEscape(artifact) + "/evidence"
			if agent != "" {
				path = "/v1/agents/" + url.PathEscape(agent) + "/evidence"
			}
			write := func(w io.Writer) error { return c.export(cmd.Context(), path, w) }
			if output == "" || output == "-" {
				return write(cmd.OutOrStdout())
			}
			if err := diskio.Replace(diskio.OS{}, output, 0o644, write); err != nil {
				return fmt.Errorf("write evidence: %w", err)
			}
			return nil
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&artifact, "artifact", "", "an artifact's digest: its scan statements")
	cmd.Flags().StringVar(&agent, "agent", "", "an agent's id: its chain")
	cmd.Flags().StringVar(&output, "output", "", "the file to write (default standard output)")
	return cmd
}

// export writes the pages of an export as one. It keeps one page at a time in
// memory.
func (c *client) export(ctx context.Context, path string, to io.Writer) error {
	w := bufio.NewWriter(to)
	_, err := w.WriteString(`{"envelopes":[`)
	if err != nil {
		return err
	}
	keys := []serve.ExportKey{}
	logs := []serve.LogProof{}
	known := map[predicate.Digest]bool{}
	first := true
	for query := (url.Values{}); ; {
		var page serve.Export
		if err := c.get(ctx, path, query, &page); err != nil {
			return err
		}
		for _, envelope := range page.Envelopes {
			if !first {
				envelope = append([]byte{','}, envelope...)
			}
			first = false
			if _, err := w.Write(envelope); err != nil {
				return err
			}
		}
		for _, k := range page.Keys {
			if !known[k.KeyID] {
				known[k.KeyID] = true
				keys = append(keys, k)
			}
		}
		logs = append(logs, page.Logs...)
		if page.Next == "" {
			break
		}
		if page.Next == query.Get("after") {
			return fmt.Errorf("read evidence: the aggregator gave the page after %q again", page.Next)
		}
		query.Set("after", page.Next)
	}
	rest, err := json.Marshal(struct {
		Keys []serve.ExportKey `json:"keys"`
		Logs []serve.LogProof  `json:"logs,omitempty"`
	}{keys, logs})
	if err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	if _, err := fmt.Fprintf(w, "],%s\n", rest[1:]); err != nil {
		return err
	}
	return w.Flush()
}
