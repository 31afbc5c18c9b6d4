package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cavra/cavra/agent/internal/egress"
	"github.com/cavra/cavra/agent/internal/enrol"
	"github.com/cavra/cavra/agent/internal/spool"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/clock"
	"github.com/cavra/cavra/sdk/finding"
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
		if err := begin(ctx, s, id); err != nil {
			return nil, fmt.Errorf("begin epoch %d: %w", id.Epoch, err)
		}
	}
	if !id.Begun {
		if id.EpochCause != predicate.Rotated {
			// What was told in another epoch may be lost with it.
			err = forget(cfg.Dir)
		}
		if err := errors.Join(err, begun(cfg.Dir, id)); err != nil {
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

// begin appends the first statement of an epoch.
func begin(ctx context.Context, s *spool.Spool, id enrol.Loaded) error {
	if id.Opener != nil {
		return s.Begin(ctx, []byte(id.Opening))
	}
	_, err := s.Append(ctx, &predicate.Epoch{Cause: id.EpochCause, Algorithm: id.Key.Public().Algorithm})
	return err
}

func spoolOf(cfg Config, id enrol.Loaded) (*spool.Spool, error) {
	reducer, err := egress.NewReducer(id.NameKey, cfg.Settings.KeyedBelow)
	if err != nil {
		return nil, err
	}
	rules, err := finding.Shipped()
	if err != nil {
		return nil, err
	}
	gate, err := egress.NewGate(egress.GateConfig{Privacy: cfg.Settings.Privacy, Vocabulary: egress.Shipped(), Rules: rules, Reducer: reducer})
	if err != nil {
		return nil, err
	}
	return spool.Open(spool.Config{
		Dir: filepath.Join(cfg.Dir, SpoolDir), Chain: spool.Chain{Tenant: id.Tenant, Agent: id.Agent, Epoch: id.Epoch},
		Signer: signerOf(id), Opener: id.Opener, Gate: gate, MaxBytes: cfg.Settings.Spool.MaxBytes, SentBytes: cfg.Settings.Spool.SentBytes, Log: cfg.Log,
		Now: clock.Now,
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
