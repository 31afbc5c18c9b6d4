package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/cavra/cavra/agent/internal/egress"
	"github.com/cavra/cavra/agent/internal/enrol"
	"github.com/cavra/cavra/agent/internal/publish"
	"github.com/cavra/cavra/agent/internal/spool"
	"github.com/cavra/cavra/schemas/predicate"
)

// openSpool opens the spool of an identity, begins the epoch where it has not
// begun, and tells of what was lost.
func openSpool(ctx context.Context, cfg Config, id enrol.Loaded) (_ *spool.Spool, err error) {
	s, err := spoolOf(cfg, id)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if !s.Begun() {
		if _, err := s.Append(ctx, &predicate.Epoch{Cause: id.EpochCause, Algorithm: id.Key.Public().Algorithm}); err != nil {
			return nil, fmt.Errorf("begin epoch %d: %w", id.Epoch, err)
		}
	}
	if !id.Begun {
		// What was told in another epoch may be lost with it.
		if err := errors.Join(forget(cfg.Dir), enrol.Begin(cfg.Dir, id.Identity)); err != nil {
			return nil, err
		}
	}
	lost, err := s.ReportLoss(ctx)
	if err != nil {
		return nil, err
	}
	if lost > 0 {
		cfg.Log.ErrorContext(ctx, "parts of the spool were lost; gap statements say so, and everything is scanned again", slog.Int("losses", lost))
		return s, forget(cfg.Dir)
	}
	return s, nil
}

func spoolOf(cfg Config, id enrol.Loaded) (*spool.Spool, error) {
	gate, err := egress.NewGate(cfg.Settings.Privacy, egress.Shipped())
	if err != nil {
		return nil, err
	}
	return spool.Open(spool.Config{
		Dir: filepath.Join(cfg.Dir, SpoolDir), Chain: spool.Chain{Tenant: id.Tenant, Agent: id.Agent, Epoch: id.Epoch},
		Signer: id.Key, Gate: gate, MaxBytes: cfg.Settings.Spool.MaxBytes, Log: cfg.Log,
	}, !id.Begun)
}

// forget makes the next round scan and tell everything again.
func forget(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "seen-*.jsonl"))
	if err != nil {
		return fmt.Errorf("forget what was seen: %w", err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			return fmt.Errorf("forget what was seen: %w", err)
		}
	}
	return nil
}

// Status is how an agent's spool stands, read while no agent runs.
type Status struct {
	Tenant   string           `json:"tenant"`
	Agent    string           `json:"agent"`
	KeyID    predicate.Digest `json:"key_id"`
	Epoch    uint64           `json:"epoch"`
	Sequence uint64           `json:"sequence"`
	Head     predicate.Digest `json:"head,omitempty"`
	// Waiting statements are signed and not acknowledged.
	Waiting  uint64 `json:"waiting"`
	Bytes    int64  `json:"disk_bytes"`
	MaxBytes int64  `json:"max_bytes"`
	// Brokers is BrokersReady, or what stands between this agent and its topic
	// and what to do about it.
	Brokers string `json:"brokers"`
}

// BrokersReady says that the brokers take this agent's login and know its topic.
const BrokersReady = "ready"

// checkTimeout bounds the question to the brokers.
const checkTimeout = 10 * time.Second

// StatusOf opens the spool of an agent's folder, asks the brokers, and says how
// it stands. It is an error while an agent runs over the folder.
func StatusOf(ctx context.Context, cfg Config) (Status, error) {
	id, err := enrol.Load(cfg.Dir)
	if err != nil {
		return Status{}, err
	}
	s, err := spoolOf(cfg, id)
	if err != nil {
		return Status{}, err
	}
	st := s.Stats()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	brokers := BrokersReady
	if err := publish.Check(ctx, publish.Access(id.Kafka)); err != nil {
		brokers = err.Error()
	}
	return Status{
		Tenant: id.Tenant, Agent: id.Agent, KeyID: id.KeyID, Epoch: st.Epoch, Sequence: st.Head.Sequence, Head: st.Head.Digest,
		Waiting: st.Statements, Bytes: st.Disk, MaxBytes: st.MaxBytes, Brokers: brokers,
	}, s.Close()
}
