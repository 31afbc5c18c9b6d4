package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/faultpoint"
)

// Entry is a durable statement.
type Entry struct {
	Place
	PredicateType string
	Digest        predicate.Digest
	Envelope      []byte
}

// reader is where Next reads: behind what is acknowledged.
type reader struct {
	segment string
	file    *os.File
	// from is the place that off stands behind.
	from Place
	off  int64
	// ends are the offsets behind the frames that were handed out last.
	ends map[Place]int64
	buf  []byte
}

func (r *reader) close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file, r.segment = nil, ""
	return err
}

// Next returns the oldest statements that are not acknowledged, at least one
// and within the bounds on number and bytes, in the order of their places. It
// waits until there is one. That they may be public from now on is durable
// before it returns. It is for one caller at a time.
func (s *Spool) Next(ctx context.Context, maxEntries int, maxBytes int) ([]Entry, error) {
	err := s.await(ctx, func() bool { return s.segmentAfter(s.acked) != nil })
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	from := s.acked
	g := *s.segmentAfter(from)
	s.mu.Unlock()
	// After the copy was made: what is appended meanwhile is not handed out.
	if err := s.expose(); err != nil {
		return nil, err
	}
	if err := s.reader.seek(s.path(g.name), &g, from); err != nil {
		return nil, err
	}
	return s.reader.read(&g, maxEntries, maxBytes)
}

// segmentAfter is the first segment that holds a statement behind p, or nil.
// The caller holds mu.
func (s *Spool) segmentAfter(p Place) *segment {
	for _, g := range s.segments {
		if g.last >= g.first && p.Before(g.lastPlace()) {
			return g
		}
	}
	return nil
}

// expose makes it durable that everything that is there may be public.
func (s *Spool) expose() error {
	s.cursing.Lock()
	defer s.cursing.Unlock()
	s.mu.Lock()
	acked, old := s.acked, s.exposed
	now := mark{Place{s.cfg.Chain.Epoch, s.head.Sequence}, s.head.Digest}
	s.mu.Unlock()
	if !old.Before(now.Place) {
		return nil
	}
	if err := s.cursor.set(acked, now); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exposed = now
	return nil
}

// Ack notes durably that the broker has everything up to and with p, and then
// retires the segments that are no longer needed.
func (s *Spool) Ack(p Place) error {
	s.cursing.Lock()
	defer s.cursing.Unlock()
	s.mu.Lock()
	acked, exposed := s.acked, s.exposed
	s.mu.Unlock()
	if exposed.Before(p) {
		return fmt.Errorf("acknowledge %d/%d: it was never handed out", p.Epoch, p.Sequence)
	}
	if !acked.Before(p) {
		return nil
	}
	if err := s.cursor.set(p, exposed); err != nil {
		return err
	}
	faultpoint.Hit("cursor-synced")
	s.mu.Lock()
	s.acked = p
	gone := s.drop()
	s.notify()
	s.mu.Unlock()
	return s.retire(gone)
}

// drop forgets the segments in front that are acknowledged whole; the active
// one stays, since the head derives from it. The caller holds mu.
func (s *Spool) drop() (gone []string) {
	for len(s.segments) > 1 && !s.acked.Before(s.segments[0].lastPlace()) {
		gone = append(gone, s.segments[0].name)
		s.segments = s.segments[1:]
	}
	return gone
}

// seek moves behind the frame at from in segment g.
func (r *reader) seek(path string, g *segment, from Place) error {
	if r.segment != g.name {
		if err := r.close(); err != nil {
			return fmt.Errorf("close segment: %w", err)
		}
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("read spool: %w", err)
		}
		r.file, r.segment = f, g.name
		r.from, r.off, r.ends = Place{g.epoch, g.first - 1}, segmentHeader, nil
	}
	if off, ok := r.ends[from]; ok {
		r.from, r.off = from, off
		return nil
	}
	if r.buf == nil {
		r.buf = make([]byte, maxFrame)
	}
	for r.from.Before(from) && from.Epoch == g.epoch {
		f, _, err := readFrame(r.file, r.off, r.buf)
		if err != nil {
			return fmt.Errorf("read spool: segment %s at %d: %w", g.name, r.off, unsound(err))
		}
		r.off += f.size()
		r.from.Sequence = f.sequence
	}
	return nil
}

// read returns frames of segment g from where the reader stands.
func (r *reader) read(g *segment, maxEntries, maxBytes int) ([]Entry, error) {
	var out []Entry
	ends := make(map[Place]int64)
	total := 0
	for off := r.off; off < g.size && len(out) < maxEntries; {
		f, envelope, err := readFrame(r.file, off, r.buf)
		if err != nil {
			return nil, fmt.Errorf("read spool: segment %s at %d: %w", g.name, off, unsound(err))
		}
		if total += len(envelope); len(out) > 0 && total > maxBytes {
			break
		}
		off += f.size()
		place := Place{g.epoch, f.sequence}
		ends[place] = off
		out = append(out, Entry{
			Place: place, PredicateType: kinds[f.kind], Digest: f.digest, Envelope: append([]byte(nil), envelope...),
		})
	}
	r.ends = ends
	return out, nil
}

// unsound says of a frame that was whole, and is not, what to do.
func unsound(err error) error {
	if errors.Is(err, errFrame) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}
