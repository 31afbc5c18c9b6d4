package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/agent/internal/enrol"
	"github.com/cavra/cavra/agent/internal/hidden"
	"github.com/cavra/cavra/agent/internal/inspect/pluginhost"
	"github.com/cavra/cavra/agent/internal/spool"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

// Outbound is a statement that leaves, or would.
type Outbound struct {
	spool.Place
	// Type is the statement's, as in-toto names it.
	Type    string
	Digest  predicate.Digest
	Payload []byte
	// Envelope is the payload with its signature: the bytes that travel.
	Envelope []byte
}

// Preview does one round over the scopes as an agent would and hands out every
// statement that it would send, and sends nothing. All of it passes the same
// gate. The agent's folder is read for its name key and nothing is written to
// it; what is signed is signed by a key that is thrown away. A folder that is not
// enrolled, or none, shows what an agent would send that had been.
func Preview(ctx context.Context, cfg Config, emit func(Outbound) error) (err error) {
	id, err := stranger(cfg.Dir)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "cavra-preview-")
	if err != nil {
		return fmt.Errorf("preview: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg.Dir = dir
	a := &Agent{cfg: cfg, identity: id, connector: map[string]*pluginhost.Connector{}, started: time.Now()}
	defer func() { err = errors.Join(err, a.Close()) }()
	if a.spool, err = spoolOf(cfg, id); err != nil {
		return err
	}
	if err := a.openKept(ctx); err != nil {
		return err
	}
	if a.remote, err = openRemote(ctx, cfg, id); err != nil {
		return err
	}
	if err := a.openPlugins(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if _, err := a.spool.Append(ctx, &predicate.Epoch{Cause: id.EpochCause, Algorithm: id.Key.Public().Algorithm}); err != nil {
			return err
		}
		if err := a.round(ctx); err != nil {
			return err
		}
		if err := a.beat(ctx); err != nil {
			return err
		}
		if err := a.spool.Drained(ctx); err != nil {
			return err
		}
		return errDone
	})
	group.Go(func() error { return a.show(ctx, emit) })
	if err := group.Wait(); !errors.Is(err, errDone) {
		return err
	}
	return nil
}

// stranger is the identity of a folder with a key of nobody's, so that no
// sequence number is ever signed twice by the agent's own.
func stranger(dir string) (enrol.Loaded, error) {
	id := enrol.Loaded{Identity: enrol.Identity{Tenant: "preview", Agent: "preview"}, NameKey: make([]byte, 32)}
	if _, err := rand.Read(id.NameKey); err != nil {
		return id, fmt.Errorf("preview: %w", err)
	}
	if dir != "" {
		switch enrolled, err := enrol.Load(dir); {
		case err == nil:
			id = enrolled
		case !errors.Is(err, enrol.ErrNotEnrolled):
			return id, err
		}
	}
	key, err := identity.Generate(predicate.Ed25519)
	if err != nil {
		return id, fmt.Errorf("preview: %w", err)
	}
	id.Opener, id.SigningKey = nil, enrol.SigningKey{}
	id.Key, id.KeyID, id.Epoch, id.EpochCause, id.Begun = key, key.Public().ID(), 1, predicate.Enrolled, false
	return id, nil
}

// show takes out of the spool what a publisher would.
func (a *Agent) show(ctx context.Context, emit func(Outbound) error) error {
	for {
		entries, err := a.spool.Next(ctx, batchStatements, spool.MinMaxBytes)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := outbound(e, a.identity.Key.Public(), emit); err != nil {
				return err
			}
		}
		if err := a.spool.Ack(entries[len(entries)-1].Place); err != nil {
			return err
		}
	}
}

// Hidden hands out what stands behind the keyed hashes that the agent of a folder
// has made. It works while the agent runs.
func Hidden(dir string, emit func(keyed string, plain []byte) error) error {
	return hidden.Read(filepath.Join(dir, hiddenFile), func(e hidden.Entry) error { return emit(e.Keyed, e.Plain) })
}

// Sent hands out what an agent's folder has of what has left: everything that the
// brokers have acknowledged, up to the bound that is set for its copy. It works
// while the agent runs. A slice is valid until emit returns.
func Sent(dir string, emit func(Outbound) error) error {
	keys, err := enrol.PublicKeys(dir)
	if err != nil {
		return err
	}
	return spool.Sent(filepath.Join(dir, SpoolDir), func(e spool.Entry) error {
		envelope, err := attest.Open(e.Envelope)
		if err != nil {
			return fmt.Errorf("statement %d of epoch %d: %w", e.Sequence, e.Epoch, err)
		}
		key, ok := keys[envelope.KeyID()]
		if !ok {
			return fmt.Errorf("statement %d of epoch %d: its key %s is not in the folder", e.Sequence, e.Epoch, envelope.KeyID())
		}
		return outbound(e, key, emit)
	})
}

func outbound(e spool.Entry, key identity.PublicKey, emit func(Outbound) error) error {
	envelope, err := attest.Open(e.Envelope)
	if err != nil {
		return fmt.Errorf("statement %d of epoch %d: %w", e.Sequence, e.Epoch, err)
	}
	payload, err := envelope.Verify(key)
	if err != nil {
		return fmt.Errorf("statement %d of epoch %d: %w", e.Sequence, e.Epoch, err)
	}
	return emit(Outbound{Place: e.Place, Type: e.PredicateType, Digest: e.Digest, Payload: payload, Envelope: e.Envelope})
}
