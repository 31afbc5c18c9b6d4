package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/cavra/cavra/aggregator/internal/clickhouse"
	"github.com/cavra/cavra/schemas/predicate"
)

// ExportArtifact is the evidence of an artifact: its scan statements, the
// latest first.
func (s *Service) ExportArtifact(ctx context.Context, tenant string, digest predicate.Digest) (Export, error) {
	statements, err := s.cfg.Rows.ScanStatements(ctx, tenant, digest.Hex(), maxStatements)
	if err != nil {
		return Export{}, err
	}
	var rows []clickhouse.Statement
	for _, st := range statements {
		row, ok, err := s.cfg.Rows.Statement(ctx, tenant, st)
		if err != nil {
			return Export{}, err
		}
		if ok {
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return Export{}, ErrNotFound
	}
	return s.export(ctx, tenant, rows)
}

// ExportChain is the evidence of an agent: a page of its chain, after an epoch
// and a sequence.
func (s *Service) ExportChain(ctx context.Context, tenant, agent string, afterEpoch, afterSequence uint64, limit uint32) (Export, error) {
	if _, err := s.Agent(ctx, tenant, agent); err != nil {
		return Export{}, err
	}
	page := clickhouse.ChainPage{AfterEpoch: afterEpoch, AfterSequence: afterSequence, Limit: limit}
	rows, err := s.cfg.Rows.Chain(ctx, tenant, agent, page)
	if err != nil {
		return Export{}, err
	}
	return s.export(ctx, tenant, rows)
}

func (s *Service) export(ctx context.Context, tenant string, rows []clickhouse.Statement) (Export, error) {
	out := Export{Envelopes: make([]json.RawMessage, 0, len(rows)), Keys: []ExportKey{}}
	keys := map[predicate.Digest]bool{}
	for _, row := range rows {
		out.Envelopes = append(out.Envelopes, json.RawMessage(row.Envelope))
		id := digestOf(row.KeyID)
		if keys[id] {
			continue
		}
		keys[id] = true
		key, err := s.key(ctx, tenant, id)
		if err != nil {
			return Export{}, fmt.Errorf("export: key %s: %w", id, err)
		}
		der, err := key.Public.DER()
		if err != nil {
			return Export{}, fmt.Errorf("export: key %s: %w", id, err)
		}
		out.Keys = append(out.Keys, ExportKey{KeyID: id, Algorithm: key.Public.Algorithm, PublicKey: der})
	}
	slices.SortFunc(out.Keys, func(a, b ExportKey) int { return strings.Compare(string(a.KeyID), string(b.KeyID)) })
	return out, nil
}
