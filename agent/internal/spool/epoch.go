package spool

import (
	"context"
	"errors"
	"fmt"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/chain"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/identity"
)

// Epoch is an epoch whose key another one certifies: the first statement comes
// signed by that.
type Epoch struct {
	Number uint64
	// Signer signs all but the first statement.
	Signer attest.Signer
	// Opener signed Opening, the envelope of the first statement.
	Opener  identity.PublicKey
	Opening []byte
}

// frame verifies the first statement and makes its frame.
func (e *Epoch) frame(gate Gate, c Chain) ([]byte, chain.Head, error) {
	fail := func(err error) ([]byte, chain.Head, error) {
		return nil, chain.Head{}, fmt.Errorf("open epoch %d: %w", e.Number, err)
	}
	envelope, err := attest.Open(e.Opening)
	if err != nil {
		return fail(err)
	}
	payload, err := envelope.Verify(e.Opener)
	if err == nil {
		err = gate.Check(payload)
	}
	if err != nil {
		return fail(err)
	}
	p, err := predicate.Parse(payload)
	if err != nil {
		return fail(err)
	}
	opening, ok := p.(*predicate.Epoch)
	if !ok || opening.Key == nil || opening.Tenant != c.Tenant || opening.Agent != c.Agent || opening.Epoch != e.Number ||
		opening.KeyID != e.Opener.ID() || opening.Key.KeyID != e.Signer.Public().ID() {
		return fail(errors.New("its first statement certifies another key, or is of another chain"))
	}
	head := chain.Head{Sequence: 1, Digest: envelope.Digest()}
	return appendFrame(nil, frame{
		kind: kindOf(p.PredicateType()), sequence: 1, group: 1, digest: head.Digest, previous: predicate.ZeroDigest,
	}, e.Opening), head, nil
}

// Begin appends the first statement of the spool's epoch, where that was signed
// by Config.Opener.
func (s *Spool) Begin(ctx context.Context, opening []byte) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	if s.cfg.Opener == nil || s.Begun() {
		return fmt.Errorf("open epoch %d: it has begun, or its own key opens it", s.cfg.Chain.Epoch)
	}
	if err := s.room(ctx); err != nil {
		return err
	}
	e := Epoch{Number: s.cfg.Chain.Epoch, Signer: s.cfg.Signer, Opener: *s.cfg.Opener, Opening: opening}
	b, head, err := e.frame(s.cfg.Gate, s.cfg.Chain)
	if err != nil {
		return err
	}
	return s.write(ctx, &group{bytes: b, heads: []chain.Head{head}, first: 1})
}

// Succeed goes over to the next epoch: the next Append continues it. What is in
// the spool of the epoch before is handed out before. With an error that the disk
// is full, it may be tried again.
func (s *Spool) Succeed(ctx context.Context, e Epoch) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	if e.Number <= s.cfg.Chain.Epoch {
		return fmt.Errorf("open epoch %d: the spool is in epoch %d", e.Number, s.cfg.Chain.Epoch)
	}
	if err := s.room(ctx); err != nil {
		return err
	}
	b, head, err := e.frame(s.cfg.Gate, s.cfg.Chain)
	if err != nil {
		return err
	}
	g := &segment{epoch: e.Number, first: 1, previous: predicate.ZeroDigest, key: e.Signer.Public().ID(), last: 1, digest: head.Digest}
	// All of the segment is there or nothing: nobody sees the epoch without its
	// first statement.
	if err := s.createSegment(g, b); err != nil {
		return err
	}
	log, err := diskio.OpenLog(s.cfg.FS, s.path(g.name), g.size)
	if err != nil {
		return s.fail(err)
	}
	old := s.active
	s.mu.Lock()
	s.active, s.segments = log, append(s.segments, g)
	s.cfg.Chain.Epoch, s.cfg.Signer, s.cfg.Opener, s.head = e.Number, e.Signer, &e.Opener, head
	s.notify()
	s.mu.Unlock()
	if err := old.Close(); err != nil {
		return fmt.Errorf("close segment: %w", err)
	}
	return nil
}

// enter makes this the one that appends.
func (s *Spool) enter(ctx context.Context) error {
	select {
	case s.writing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Spool) leave() { <-s.writing }
