package admit

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/row"
	"github.com/cavra/cavra/schemas/predicate"
)

// recall loads what placing the range's statements asks for: what was seen at
// the sequence of each, before it and after it.
func (a *Admitter) recall(ctx context.Context, r *row.Range, found []finding) (map[control.ChainID]*control.Chain, error) {
	sequences := map[control.ChainID][]uint64{}
	for i := range found {
		if f := &found[i]; f.statement != nil {
			id, n := f.key.Chain(), f.statement.Place().Sequence
			sequences[id] = append(sequences[id], n-1, n, n+1)
		}
	}
	spans := make(map[control.ChainID]control.Span, len(sequences))
	for id, ns := range sequences {
		spans[id] = control.Span{First: slices.Min(ns) + 1, Last: slices.Max(ns) - 1}
	}
	chains, err := a.cfg.Chains.LoadChains(ctx, spans)
	if err != nil {
		return nil, err
	}
	for id, ns := range sequences {
		if err := a.remind(ctx, r, chains[id], ns); err != nil {
			return nil, fmt.Errorf("recall chain %s: %w", id, err)
		}
	}
	return chains, nil
}

// remind adds to a chain what it has forgotten at the sequences and the archive
// still knows.
func (a *Admitter) remind(ctx context.Context, r *row.Range, c *control.Chain, sequences []uint64) error {
	slices.Sort(sequences)
	var forgotten []uint64
	for _, n := range slices.Compact(sequences) {
		if _, err := c.At(n); errors.Is(err, control.ErrForgotten) {
			forgotten = append(forgotten, n)
		} else if err != nil {
			return err
		}
	}
	if len(forgotten) == 0 {
		return nil
	}
	links, err := a.cfg.Archive.Links(ctx, c.ID, forgotten, r)
	if err != nil {
		return err
	}
	kept := map[uint64]bool{}
	for _, l := range links {
		kept[l.Sequence] = true
		c.Add(l)
	}
	for _, n := range forgotten {
		if !kept[n] {
			// Seen, and since dropped by retention: what comes now cannot be
			// told from another statement at its place. The digest that
			// nothing has makes it a fork, which is kept and looked at, and
			// not a replay, which is ignored.
			c.Add(control.Link{Sequence: n, Digest: predicate.ZeroDigest, Previous: predicate.ZeroDigest})
		}
	}
	return nil
}
