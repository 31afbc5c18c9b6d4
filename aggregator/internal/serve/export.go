package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cavra/cavra/aggregator/internal/clickhouse"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/row"
	"github.com/cavra/cavra/schemas/predicate"
)

// ExportArtifact is the evidence of an artifact: a page of its scan statements,
// the latest first, after the cursor of the page before.
func (s *Service) ExportArtifact(ctx context.Context, tenant string, digest predicate.Digest, after string) (Export, error) {
	place, err := scanPlace(after)
	if err != nil {
		return Export{}, err
	}
	places, err := s.cfg.Rows.ScanStatements(ctx, tenant, row.Artifact(digest), place, maxStatements+1)
	if err != nil {
		return Export{}, err
	}
	var rows []clickhouse.Statement
	more, bytes := false, 0
	for i, p := range places {
		if more = i == maxStatements; more {
			break
		}
		st, ok, err := s.cfg.Rows.Statement(ctx, tenant, p.Statement)
		if err != nil {
			return Export{}, err
		}
		bytes += len(st.Envelope)
		if more = len(rows) > 0 && bytes > maxExportBytes; more {
			break
		}
		if place = p; ok {
			rows = append(rows, st)
		}
	}
	if len(rows) == 0 && after == "" {
		return Export{}, ErrNotFound
	}
	openings, err := s.openings(ctx, tenant, rows)
	if err != nil {
		return Export{}, err
	}
	out, err := s.export(ctx, tenant, append(openings, rows...))
	if more {
		out.Next = fmt.Sprintf("%d-%s", place.ReceivedAt.UnixMilli(), place.Statement)
	}
	return out, err
}

// openings are the first statements of the epochs whose keys others certify, those
// of the epochs before that lead there as well: with them, one key that somebody
// trusts leads to all.
func (s *Service) openings(ctx context.Context, tenant string, rows []clickhouse.Statement) ([]clickhouse.Statement, error) {
	var out []clickhouse.Statement
	done := map[control.ChainID]bool{}
	for _, r := range rows {
		for id := digestOf(r.KeyID); ; {
			key, err := s.key(ctx, tenant, id)
			if err != nil {
				return nil, fmt.Errorf("export: key %s: %w", id, err)
			}
			if key.Authority == "" || done[key.Chain()] {
				break
			}
			done[key.Chain()] = true
			first, _, err := s.cfg.Rows.Chain(ctx, tenant, key.Agent, clickhouse.ChainPage{After: clickhouse.ChainPlace{Epoch: key.Epoch}, Limit: 1, Bytes: maxExportBytes})
			if err != nil {
				return nil, err
			}
			if len(first) == 1 && first[0].Epoch == key.Epoch && first[0].Sequence == 1 {
				out = append(out, first[0])
			}
			id = key.Authority
		}
	}
	return out, nil
}

func scanPlace(cursor string) (clickhouse.ScanPlace, error) {
	if cursor == "" {
		return clickhouse.ScanPlace{}, nil
	}
	at, digest, ok := strings.Cut(cursor, "-")
	n, err := strconv.ParseUint(at, 10, 52)
	if !ok || err != nil || predicate.Digest("sha256:"+digest).Validate() != nil {
		return clickhouse.ScanPlace{}, ErrCursor
	}
	return clickhouse.ScanPlace{Statement: digest, ReceivedAt: time.UnixMilli(int64(n))}, nil
}

// ExportChain is the evidence of an agent: a page of its chain, after the cursor
// of the page before.
func (s *Service) ExportChain(ctx context.Context, tenant, agent, after string, limit uint32) (Export, error) {
	place, err := chainPlace(after)
	if err != nil {
		return Export{}, err
	}
	if _, err := s.cfg.Control.Agent(ctx, tenant, agent); err != nil {
		return Export{}, fmt.Errorf("find agent: %w", err)
	}
	if limit == 0 || limit > MaxExport {
		limit = MaxExport
	}
	rows, more, err := s.cfg.Rows.Chain(ctx, tenant, agent, clickhouse.ChainPage{After: place, Limit: limit, Bytes: maxExportBytes})
	if err != nil {
		return Export{}, err
	}
	out, err := s.export(ctx, tenant, rows)
	if n := len(rows); more && n > 0 {
		last := rows[n-1].Place()
		out.Next = fmt.Sprintf("%d-%d-%s", last.Epoch, last.Sequence, last.Digest)
	}
	return out, err
}

// chainPlace reads a cursor. It names the digest as well, so that a page may end
// between the two sides of a fork and lose neither.
func chainPlace(cursor string) (clickhouse.ChainPlace, error) {
	if cursor == "" {
		return clickhouse.ChainPlace{}, nil
	}
	parts := strings.Split(cursor, "-")
	if len(parts) != 3 || predicate.Digest("sha256:"+parts[2]).Validate() != nil {
		return clickhouse.ChainPlace{}, ErrCursor
	}
	epoch, err := strconv.ParseUint(parts[0], 10, 64)
	sequence, err2 := strconv.ParseUint(parts[1], 10, 64)
	if err != nil || err2 != nil {
		return clickhouse.ChainPlace{}, ErrCursor
	}
	return clickhouse.ChainPlace{Epoch: epoch, Sequence: sequence, Digest: parts[2]}, nil
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
	var err error
	out.Logs, err = s.logs(ctx, tenant, rows)
	return out, err
}
