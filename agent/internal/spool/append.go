package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/chain"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/faultpoint"
)

// group is what one fsync makes durable.
type group struct {
	bytes []byte
	heads []chain.Head
	first uint64
}

func (g *group) head() chain.Head { return g.heads[len(g.heads)-1] }

// Append gives the statements their places in the chain, signs them, and
// returns when they are durable. It waits while the spool or the disk is full.
// It returns the heads of those that are kept: all of them, or with an error
// those before it. A statement that the gate refuses is an error, and takes no
// sequence number.
func (s *Spool) Append(ctx context.Context, statements ...predicate.Predicate) ([]chain.Head, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	var kept []chain.Head
	for len(statements) > 0 {
		if err := s.letGo(ctx); err != nil {
			return kept, err
		}
		if err := s.room(ctx); err != nil {
			return kept, err
		}
		g, err := s.build(statements)
		if len(g.heads) > 0 {
			if err := s.write(ctx, g); err != nil {
				return kept, err
			}
			kept = append(kept, g.heads...)
			statements = statements[len(g.heads):]
		}
		if err != nil {
			return kept, err
		}
	}
	return kept, nil
}

// SetMaxBytes changes the bound of the folder. What is there already stays.
func (s *Spool) SetMaxBytes(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n = max(n, MinMaxBytes); n != s.cfg.MaxBytes {
		s.cfg.MaxBytes = n
		s.notify()
	}
}

// room waits until the folder has room for a group.
func (s *Spool) room(ctx context.Context) error {
	waited := false
	err := s.await(ctx, func() bool {
		if s.err != nil || s.disk()+groupBytes+segmentHeader <= s.cfg.MaxBytes {
			return true
		}
		if !waited {
			waited = true
			s.full = s.cfg.Now()
			s.notify()
			s.cfg.Log.WarnContext(ctx, "the spool is full: scanning waits until the broker takes statements",
				slog.Int64("bytes", s.disk()), slog.Int64("max_bytes", s.cfg.MaxBytes))
		}
		return false
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if waited {
		s.full = time.Time{}
	}
	return errors.Join(err, s.err)
}

// build signs as many of the statements as one group takes. With an error, the
// group holds those before it.
func (s *Spool) build(statements []predicate.Predicate) (*group, error) {
	s.mu.Lock()
	head := s.head
	s.mu.Unlock()
	g := &group{first: head.Sequence + 1}
	for _, p := range statements {
		if len(g.bytes) >= groupBytes-maxFrame || len(g.heads) == groupFrames {
			break
		}
		*p.Place() = s.link(head)
		faultpoint.Hit("sequence-allocated")
		next, err := s.sign(g, p)
		if err != nil {
			return g, err
		}
		faultpoint.Hit("signed")
		head = next
	}
	return g, nil
}

func (s *Spool) sign(g *group, p predicate.Predicate) (chain.Head, error) {
	kind := predicate.Short(p.PredicateType())
	payload, err := predicate.Marshal(p)
	if err != nil {
		return chain.Head{}, fmt.Errorf("append %s: %w", kind, err)
	}
	if err := s.cfg.Gate.Check(payload); err != nil {
		return chain.Head{}, fmt.Errorf("append %s: %w", kind, err)
	}
	envelope, err := attest.Sign(payload, s.cfg.Signer)
	if err != nil {
		return chain.Head{}, fmt.Errorf("append %s: %w", kind, err)
	}
	l := p.Place()
	head := chain.Head{Sequence: l.Sequence, Digest: attest.Digest(payload)}
	g.bytes = appendFrame(g.bytes, frame{
		kind: kindOf(p.PredicateType()), sequence: l.Sequence, group: g.first, digest: head.Digest, previous: l.Previous,
	}, envelope)
	g.heads = append(g.heads, head)
	return head, nil
}

// write makes a group durable, however long the disk is full.
func (s *Spool) write(ctx context.Context, g *group) error {
	for told := false; ; told = true {
		err := s.tryWrite(g)
		if err == nil {
			return nil
		}
		if !diskio.IsFull(err) || errors.Is(err, diskio.ErrUnsure) {
			return s.fail(err)
		}
		if !told {
			s.cfg.Log.ErrorContext(ctx, "no room on the spool's disk: scanning waits", slog.Any("error", err))
			s.mu.Lock()
			s.full, s.trouble = s.cfg.Now(), err
			s.mu.Unlock()
		}
		timer := time.NewTimer(s.cfg.Retry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(context.Cause(ctx), err, s.active.Revert())
		}
	}
}

// tryWrite writes a group once. What a failed try left behind is written over
// by the next, or cut off when the spool is opened.
func (s *Spool) tryWrite(g *group) error {
	if err := s.rotate(); err != nil {
		return err
	}
	if err := s.active.Append(g.bytes); err != nil {
		return err
	}
	faultpoint.Hit("spool-written")
	if err := s.active.Sync(len(g.bytes)); err != nil {
		return err
	}
	faultpoint.Hit("spool-synced")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head, s.full, s.trouble = g.head(), time.Time{}, nil
	last := s.segments[len(s.segments)-1]
	last.last, last.digest, last.size = s.head.Sequence, s.head.Digest, s.active.Size()
	s.notify()
	return nil
}

// fail notes that nothing more can be appended: nobody knows what the disk
// holds, so the spool has to be opened and read again.
func (s *Spool) fail(err error) error {
	err = fmt.Errorf("%w; the spool has to be opened again", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.trouble = err, err
	s.notify()
	return err
}

// rotate begins a new segment when the active one has its size.
func (s *Spool) rotate() error {
	s.mu.Lock()
	last, head := s.segments[len(s.segments)-1], s.head
	s.mu.Unlock()
	if last.size < s.cfg.SegmentBytes {
		return nil
	}
	sequence, previous := head.Next()
	g := &segment{
		epoch: s.cfg.Chain.Epoch, first: sequence, previous: previous, key: s.cfg.Signer.Public().ID(),
		last: sequence - 1, digest: previous,
	}
	if err := s.createSegment(g, nil); err != nil {
		return err
	}
	return s.activate(g)
}

// activate makes g the segment that is appended to.
func (s *Spool) activate(g *segment) error {
	log, err := diskio.OpenLog(s.cfg.FS, s.path(g.name), g.size)
	if err != nil {
		return err
	}
	if s.active != nil {
		if err := s.active.Close(); err != nil {
			return errors.Join(fmt.Errorf("close segment: %w", err), log.Close())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = log
	if n := len(s.segments); n == 0 || s.segments[n-1] != g {
		s.segments = append(s.segments, g)
	}
	s.notify()
	return nil
}
