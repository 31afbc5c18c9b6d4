package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/logproof"
)

// maxCheckpoint bounds a file with a checkpoint, in bytes.
const maxCheckpoint = 64 << 10

func logCommand() *cobra.Command {
	var c client
	var key bool
	var since, trusted string
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Show the transparency log's checkpoint, or prove that it has only grown",
		Long: `log writes the latest checkpoint of the transparency log: its size and root, signed
by it. Keep one, and the log's key that you first saw: with --since, the
aggregator has to prove that its log begins with what the kept checkpoint had,
so that nothing before was changed, moved or taken out.`,
		Example: `  cavra-aggregator log > monday.checkpoint
  cavra-aggregator log --key > log.key
  cavra-aggregator log --since monday.checkpoint --log-key "$(cat log.key)"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if since != "" {
				return c.growth(cmd.Context(), cmd.OutOrStdout(), since, trusted)
			}
			var doc serve.LogState
			if err := c.get(cmd.Context(), "/v1/log", nil, &doc); err != nil {
				return err
			}
			text := doc.Checkpoint
			if key {
				text = doc.Key + "\n"
			}
			_, err := io.WriteString(cmd.OutOrStdout(), text)
			return err
		},
	}
	c.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&key, "key", false, "write the log's public key instead")
	f.StringVar(&since, "since", "", "a `FILE` with an earlier checkpoint: prove that the log extends it")
	f.StringVar(&trusted, "log-key", "", "the log's public key that you trust; without it, the one that the aggregator gives")
	cmd.MarkFlagsMutuallyExclusive("key", "since")
	return cmd
}

// growth checks the proof that the log extends a checkpoint.
func (c *client) growth(ctx context.Context, w io.Writer, file, key string) error {
	kept, err := diskio.ReadFile(file, maxCheckpoint)
	if err != nil {
		return fmt.Errorf("--since: %w", err)
	}
	if key == "" {
		var state serve.LogState
		if err := c.get(ctx, "/v1/log", nil, &state); err != nil {
			return err
		}
		key = state.Key
	}
	old, err := logproof.Open(kept, key)
	if err != nil {
		return fmt.Errorf("--since %s: %w", file, err)
	}
	var doc serve.LogGrowth
	if err := c.get(ctx, "/v1/log/growth", url.Values{"from": {strconv.FormatUint(old.Size, 10)}}, &doc); err != nil {
		return err
	}
	now, err := logproof.Open([]byte(doc.Checkpoint), key)
	if err == nil {
		err = now.Extends(old, doc.Proof)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "log %s has grown from %d to %d entries and begins with the same\n", now.Origin, old.Size, now.Size)
	return err
}
