package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cavra/cavra/aggregator/internal/clickhouse"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/evidence"
)

// ErrNoLog says that this aggregator keeps no transparency log.
var ErrNoLog = errors.New("this aggregator keeps no transparency log: set evidence.dir in its configuration")

// ErrLogRange says that the log is not as long as was asked for.
var ErrLogRange = errors.New("the transparency log is not as long")

// LogState is the transparency log as it stands.
func (s *Service) LogState(ctx context.Context) (LogState, error) {
	if s.cfg.Evidence == nil {
		return LogState{}, ErrNoLog
	}
	checkpoint, err := s.cfg.Evidence.Checkpoint(ctx)
	return LogState{s.cfg.Evidence.Key(), string(checkpoint)}, err
}

// LogGrowth proves that the log has only grown since it had a size.
func (s *Service) LogGrowth(ctx context.Context, from uint64) (LogGrowth, error) {
	if s.cfg.Evidence == nil {
		return LogGrowth{}, ErrNoLog
	}
	checkpoint, proof, err := s.cfg.Evidence.Extend(ctx, from)
	if errors.Is(err, evidence.ErrRange) {
		err = ErrLogRange
	}
	return LogGrowth{LogState{s.cfg.Evidence.Key(), string(checkpoint)}, from, proof}, err
}

// logs proves where statements stand in the log, those of them that it has, and
// what happened to the keys of the agents that signed them.
func (s *Service) logs(ctx context.Context, tenant string, rows []clickhouse.Statement) ([]LogProof, error) {
	if s.cfg.Evidence == nil {
		return nil, nil
	}
	out := LogProof{Key: s.cfg.Evidence.Key()}
	var indexes []uint64
	var agents []string
	for _, r := range rows {
		if r.Log != s.cfg.Evidence.ID() { // but another aggregator's
			continue
		}
		indexes = append(indexes, r.LogIndex)
		out.Entries = append(out.Entries, LogEntry{Statement: digestOf(r.Digest), Index: r.LogIndex})
		if !slices.Contains(agents, r.Agent) {
			agents = append(agents, r.Agent)
		}
	}
	if len(indexes) == 0 {
		return nil, nil
	}
	for _, agent := range agents {
		events, err := s.keyEvents(ctx, tenant, agent)
		if err != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
		for _, e := range events {
			indexes = append(indexes, e.LogIndex)
			out.KeyEvents = append(out.KeyEvents, LogKeyEvent{Entry: string(e.Entry), Index: e.LogIndex})
		}
	}
	proofs, err := s.cfg.Evidence.Include(ctx, indexes)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	out.Checkpoint = string(proofs.Checkpoint)
	for i := range out.Entries {
		out.Entries[i].Proof = proofs.Hashes[i]
	}
	for i := range out.KeyEvents {
		out.KeyEvents[i].Proof = proofs.Hashes[len(out.Entries)+i]
	}
	return []LogProof{out}, nil
}

// keyEvents are what the log has of an agent's keys.
func (s *Service) keyEvents(ctx context.Context, tenant, agent string) ([]control.KeyEvent, error) {
	keys, err := s.cfg.Control.AgentKeys(ctx, tenant, agent)
	if err != nil {
		return nil, err
	}
	var out []control.KeyEvent
	for _, k := range keys {
		events, err := s.cfg.Control.KeyEvents(ctx, s.cfg.Evidence.ID(), k.ID)
		if err != nil {
			return nil, err
		}
		out = append(out, events...)
	}
	slices.SortFunc(out, func(a, b control.KeyEvent) int { return cmp.Compare(a.LogIndex, b.LogIndex) })
	return out, nil
}
