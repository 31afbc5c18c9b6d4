package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cavra/cavra/agent/internal/egress"
	"github.com/cavra/cavra/agent/internal/spool"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/clock"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/identity"
)

// What stays on the machine at the level full-local is a chain of its own, in a
// folder of the agent's: signed by a key that lies there too and that nobody was
// told of, so that nothing in it can be taken for a part of the chain that is
// published. Heartbeats carry its head.
const (
	// KeptDir is that folder.
	KeptDir = "kept"
	keptKey = "key.pem"
	// keptEpoch is the one epoch of such a chain: its key is lost with it.
	keptEpoch = 1
	maxPEM    = 4 << 10
)

// openKept opens the chain of what stays, where the level says so, and makes it
// the one that rounds report to.
func (a *Agent) openKept(ctx context.Context) error {
	a.reports = a.spool
	if a.cfg.Settings.Privacy != predicate.FullLocal {
		return nil
	}
	dir := filepath.Join(a.cfg.Dir, KeptDir)
	key, fresh, err := takeKeptKey(dir)
	if err != nil {
		return err
	}
	a.kept, err = spool.Open(spool.Config{
		Dir: dir, Chain: spool.Chain{Tenant: a.identity.Tenant, Agent: a.identity.Agent, Epoch: keptEpoch},
		Signer: key, Gate: egress.KeepGate{}, MaxBytes: a.cfg.Settings.Spool.KeptBytes, Keep: true, Log: a.cfg.Log,
		Now: clock.Now,
	}, fresh)
	if err != nil {
		return err
	}
	a.reports = a.kept
	if !a.kept.Begun() {
		if _, err := a.kept.Append(ctx, &predicate.Epoch{Cause: predicate.Enrolled, Algorithm: key.Public().Algorithm}); err != nil {
			return fmt.Errorf("begin the chain of what stays: %w", err)
		}
		// What it does not hold was told elsewhere, or is lost.
		return forget(a.cfg.Dir)
	}
	lost, err := a.kept.ReportLoss(ctx)
	if err == nil && lost > 0 {
		err = forget(a.cfg.Dir)
	}
	return err
}

// takeKeptKey reads the key of the chain of what stays, or makes one where there
// is no chain yet.
func takeKeptKey(dir string) (key *identity.Key, fresh bool, err error) {
	segments, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		return nil, false, fmt.Errorf("look for what is kept: %w", err)
	}
	if len(segments) > 0 {
		key, err = readKeptKey(dir)
		return key, false, err
	}
	if key, err = identity.Generate(predicate.Ed25519); err != nil {
		return nil, false, fmt.Errorf("make key of what is kept: %w", err)
	}
	pem, err := key.MarshalPEM()
	if err == nil {
		err = diskio.MakeDir(diskio.OS{}, dir, 0o700)
	}
	if err == nil {
		err = diskio.WriteFile(diskio.OS{}, filepath.Join(dir, keptKey), pem, 0o600)
	}
	if err != nil {
		return nil, false, fmt.Errorf("make key of what is kept: %w", err)
	}
	return key, true, nil
}

func readKeptKey(dir string) (*identity.Key, error) {
	pem, err := diskio.ReadFile(filepath.Join(dir, keptKey), maxPEM)
	if err != nil {
		return nil, fmt.Errorf("read key of what is kept: %w", err)
	}
	key, err := identity.ParsePEM(pem)
	if err != nil {
		return nil, fmt.Errorf("read key of what is kept: %w", err)
	}
	return key, nil
}

// keptHead is what a heartbeat says of what stays.
func (a *Agent) keptHead() *predicate.ChainHead {
	if a.kept == nil {
		return nil
	}
	head := a.kept.Stats().Head
	return &predicate.ChainHead{Epoch: keptEpoch, Sequence: head.Sequence, Digest: head.Digest}
}

// Kept hands out what an agent's folder keeps of the statements that never
// leave. It works while the agent runs. A slice is valid until emit returns.
func Kept(dir string, emit func(Outbound) error) error {
	dir = filepath.Join(dir, KeptDir)
	key, err := readKeptKey(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return spool.Kept(dir, func(e spool.Entry) error { return outbound(e, key.Public(), emit) })
}
