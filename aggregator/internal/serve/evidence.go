package serve

import (
	"context"
	"errors"
	"fmt"

	"github.com/cavra/cavra/aggregator/internal/clickhouse"
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

// logs proves where statements stand in the log, those of them that it has.
func (s *Service) logs(ctx context.Context, rows []clickhouse.Statement) ([]LogProof, error) {
	if s.cfg.Evidence == nil {
		return nil, nil
	}
	out := LogProof{Key: s.cfg.Evidence.Key()}
	var indexes []uint64
	for _, r := range rows {
		if r.Log == s.cfg.Evidence.ID() { // and not another aggregator's
			indexes = append(indexes, r.LogIndex)
			out.Entries = append(out.Entries, LogEntry{Statement: digestOf(r.Digest), Index: r.LogIndex})
		}
	}
	if len(indexes) == 0 {
		return nil, nil
	}
	proofs, err := s.cfg.Evidence.Include(ctx, indexes)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	out.Checkpoint = string(proofs.Checkpoint)
	for i := range out.Entries {
		out.Entries[i].Proof = proofs.Hashes[i]
	}
	return []LogProof{out}, nil
}
