package spool

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/chain"
	"github.com/cavra/cavra/sdk/diskio"
)

// Open opens a spool and mends what a crash or a bad disk left: a torn tail is
// cut off; what is corrupt is put aside, and what is whole behind it kept. See
// ReportLoss for what was lost. Fresh says that nothing of the epoch can be
// public, as after an enrolment; without it, a folder that does not show how far
// the epoch has come is ErrHeadLost. If Begun says no, the next statement to
// append is the epoch's first.
func Open(cfg Config, fresh bool) (*Spool, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if err := diskio.MakeDir(cfg.FS, cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	unlock, err := diskio.Lock(filepath.Join(cfg.Dir, lockName))
	if err != nil {
		if errors.Is(err, diskio.ErrLocked) {
			err = fmt.Errorf("%w: is another agent running on this folder?", err)
		}
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &Spool{cfg: cfg, unlock: unlock, writing: make(chan struct{}, 1), changed: make(chan struct{})}
	s.reader.buf = make([]byte, maxFrame)
	if err := s.recover(fresh); err != nil {
		if s.active != nil {
			err = errors.Join(err, s.active.Close())
		}
		if s.cursor != nil {
			err = errors.Join(err, s.cursor.Close())
		}
		return nil, errors.Join(fmt.Errorf("open spool %s: %w", cfg.Dir, err), unlock())
	}
	return s, nil
}

func (s *Spool) recover(fresh bool) error {
	if err := s.sweep(); err != nil {
		return err
	}
	state, err := readCursor(s.path(cursorName))
	known := err == nil
	if err != nil && !errors.Is(err, errNoCursor) {
		return err
	}
	s.acked = state.acked
	if err := s.recoverSegments(state.exposed, known); err != nil {
		return err
	}
	if err := s.checkOwner(); err != nil {
		return err
	}
	if !known {
		if n := len(s.segments); !fresh && (n == 0 || s.segments[n-1].epoch != s.cfg.Chain.Epoch) {
			return ErrHeadLost
		}
		state = s.firstCursor()
		if err := createCursor(s.cfg.FS, s.path(cursorName), state); err != nil {
			return err
		}
	}
	if s.cursor, err = openCursor(s.cfg.FS, s.path(cursorName)); err != nil {
		return err
	}
	s.acked, s.exposed = state.acked, state.exposed
	if err := s.checkFront(); err != nil {
		return err
	}
	if err := s.recoverHead(known, fresh); err != nil {
		return err
	}
	if err := s.retire(s.drop()); err != nil {
		return err
	}
	return s.noteAside()
}

// sweep deletes what was not finished.
func (s *Spool) sweep() error {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), diskio.TempSuffix) {
			continue
		}
		if err := s.cfg.FS.Remove(s.path(e.Name())); err != nil {
			return err
		}
	}
	// What is listed here may have been made by a process that died before it
	// could sync the folder.
	return s.cfg.FS.SyncDir(s.cfg.Dir)
}

// firstCursor is what is known without a cursor: that what is here was not
// acknowledged, and that all of it may be public.
func (s *Spool) firstCursor() cursorState {
	if len(s.segments) == 0 {
		return cursorState{}
	}
	first, last := s.segments[0], s.segments[len(s.segments)-1]
	return cursorState{
		acked:   Place{first.epoch, first.first - 1},
		exposed: mark{last.lastPlace(), last.end().Digest},
	}
}

// checkFront notes when statements are gone that no broker has acknowledged.
func (s *Spool) checkFront() error {
	if len(s.segments) == 0 {
		return nil
	}
	first, from := s.segments[0], uint64(0)
	if s.acked.Epoch == first.epoch {
		from = s.acked.Sequence
	}
	if first.first <= from+1 {
		return nil
	}
	return s.putAside(loss{epoch: first.epoch, sequence: from + 1, frames: first.first - from - 1}, nil)
}

// checkOwner refuses a folder of another key or of a later epoch.
func (s *Spool) checkOwner() error {
	if len(s.segments) == 0 {
		return nil
	}
	last := s.segments[len(s.segments)-1]
	if last.epoch > s.cfg.Chain.Epoch {
		return fmt.Errorf("the spool is in epoch %d, the identity in epoch %d: was identity.json restored from a backup? %w",
			last.epoch, s.cfg.Chain.Epoch, ErrHeadLost)
	}
	if last.epoch == s.cfg.Chain.Epoch && last.key != s.cfg.Signer.Public().ID() {
		return errors.New("the spool's frames are signed by another key than the agent's")
	}
	return nil
}

// recoverHead derives the head from the frames, and from the cursor where
// frames that may be public are gone.
func (s *Spool) recoverHead(known, fresh bool) error {
	epoch := s.cfg.Chain.Epoch
	s.head = chain.Head{}
	n := len(s.segments)
	have := n > 0 && s.segments[n-1].epoch == epoch
	if have {
		s.head = s.segments[n-1].end()
		if err := s.checkLast(s.segments[n-1]); err != nil {
			return err
		}
	}
	public := s.exposed.Epoch == epoch && known
	switch {
	case public && s.exposed.Sequence == s.head.Sequence && s.head.Sequence > 0 && s.exposed.Digest != s.head.Digest:
		return fmt.Errorf("statement %d is another than the one that was handed out: %w", s.head.Sequence, ErrHeadLost)
	case public && s.exposed.Sequence > s.head.Sequence:
		lost := loss{epoch: epoch, sequence: s.head.Sequence + 1, frames: s.exposed.Sequence - s.head.Sequence}
		if err := s.putAside(lost, nil); err != nil {
			return err
		}
		return s.begin(chain.Head{Sequence: s.exposed.Sequence, Digest: s.exposed.Digest})
	case have:
		if err := s.activate(s.segments[n-1]); err != nil {
			return err
		}
		return s.confirm(s.segments[n-1], known)
	case fresh, s.exposed.Epoch < epoch:
		// The cursor is older than the epoch, so nothing of it is public.
		return s.begin(chain.Head{})
	}
	return ErrHeadLost
}

// confirm makes durable what can be read of the active segment. A sync that
// failed leaves frames behind that read well and are not on the disk, and that no
// later sync writes: so they are written again. What may be public was durable
// before it was handed out.
func (s *Spool) confirm(g *segment, known bool) error {
	from := int64(segmentHeader)
	if known && s.exposed.Epoch == g.epoch && s.exposed.Sequence >= g.first {
		f, err := os.Open(s.path(g.name))
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // it was only read
		for from < g.size {
			fr, _, err := readFrame(f, from, s.reader.buf)
			if err != nil {
				return err
			}
			if fr.sequence > s.exposed.Sequence {
				break
			}
			from += fr.size()
		}
	}
	return s.active.Rewrite(from)
}

// begin opens a segment behind head.
func (s *Spool) begin(head chain.Head) error {
	sequence, previous := head.Next()
	g := &segment{
		epoch: s.cfg.Chain.Epoch, first: sequence, previous: previous, key: s.cfg.Signer.Public().ID(),
		last: sequence - 1, digest: previous,
	}
	s.head = head
	if err := s.createSegment(g, nil); err != nil {
		return err
	}
	return s.activate(g)
}

// checkLast verifies the frame from which the head derives.
func (s *Spool) checkLast(g *segment) error {
	if g.last < g.first {
		return nil
	}
	f, err := os.Open(s.path(g.name))
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	var envelope []byte
	for off := int64(segmentHeader); off < g.size; {
		fr, e, err := readFrame(f, off, s.reader.buf)
		if err != nil {
			return err
		}
		off += fr.size()
		envelope = e
	}
	e, err := attest.Open(envelope)
	if err != nil {
		return err
	}
	key := s.cfg.Signer.Public()
	if g.last == 1 && s.cfg.Opener != nil {
		key = *s.cfg.Opener
	}
	payload, err := e.Verify(key)
	if err != nil {
		return err
	}
	p, err := predicate.Parse(payload)
	if err != nil {
		return err
	}
	if l := p.Place(); e.Digest() != g.digest || l.Sequence != g.last || l.Epoch != g.epoch || l.Tenant != s.cfg.Chain.Tenant || l.Agent != s.cfg.Chain.Agent {
		return fmt.Errorf("the last statement is %d of epoch %d of %s/%s, not of this agent's chain", l.Sequence, l.Epoch, l.Tenant, l.Agent)
	}
	return nil
}

// recoverSegments reads every segment, mends it, and checks that each continues
// the one before.
func (s *Spool) recoverSegments(exposed mark, known bool) error {
	names, err := listSegments(s.cfg.Dir)
	if err != nil {
		return err
	}
	for i := 0; i < len(names); i++ {
		var next *segment
		if i+1 < len(names) {
			if next, err = s.nameOf(names[i+1]); err != nil {
				return err
			}
		}
		g, kept, err := s.mend(names[i], next, exposed, known)
		if err != nil {
			return err
		}
		if kept != "" {
			names = append(names[:i+1], append([]string{kept}, names[i+1:]...)...)
		}
		if g != nil {
			if err := s.join(g); err != nil {
				return err
			}
		}
	}
	return nil
}

// nameOf reads epoch and first sequence off a segment's name.
func (s *Spool) nameOf(name string) (*segment, error) {
	g := &segment{name: name}
	if _, err := fmt.Sscanf(strings.TrimSuffix(name, segmentSuffix), "%d-%d", &g.epoch, &g.first); err != nil || g.first == 0 || segmentName(g.epoch, g.first) != name {
		return nil, fmt.Errorf("file %s is no segment of a spool: move it away", name)
	}
	g.last = g.first - 1
	return g, nil
}

// join puts a mended segment behind the others, and notes a break of the chain.
func (s *Spool) join(g *segment) error {
	if n := len(s.segments); n > 0 && s.segments[n-1].epoch == g.epoch {
		end := s.segments[n-1].end()
		switch {
		case g.first <= end.Sequence:
			return fmt.Errorf("segment %s begins before the end of the one before it: move the damaged one away", g.name)
		case g.first > end.Sequence+1 || g.previous != end.Digest:
			lost := loss{epoch: g.epoch, sequence: end.Sequence + 1, frames: g.first - end.Sequence - 1}
			if err := s.putAside(lost, nil); err != nil {
				return err
			}
		}
	}
	s.segments = append(s.segments, g)
	return nil
}

// mend reads a segment and makes it whole. It returns nil if nothing of it can
// be kept in place, and the name of a new segment if it had to be split.
func (s *Spool) mend(name string, next *segment, exposed mark, known bool) (g *segment, kept string, err error) {
	f, err := os.Open(s.path(name))
	if err != nil {
		return nil, "", err
	}
	defer f.Close() //nolint:errcheck // it was only read
	g, err = readSegmentHeader(f, name)
	var broken *fault
	switch {
	case errors.Is(err, errHeader):
		if g, err = s.nameOf(name); err != nil {
			return nil, "", err
		}
		g.key = s.cfg.Signer.Public().ID()
		g.last = g.first - 1
		broken, err = newFault(f, 0, 0, g.last, s.reader.buf)
	case err == nil:
		broken, err = g.scan(f, s.reader.buf)
	}
	if err != nil || broken == nil {
		return g, "", err
	}
	if next == nil && !known {
		return nil, "", fmt.Errorf("segment %s is damaged at byte %d and there is no cursor: %w", name, broken.at, ErrHeadLost)
	}
	if next == nil && torn(g, broken, exposed) {
		s.cfg.Log.Warn("a write was cut short by a crash: its rest is cut off", slog.String("segment", name), slog.Int64("at", broken.at))
		return g, "", s.truncate(g)
	}
	kept, err = s.split(f, g, broken, next)
	if broken.at == 0 || kept == name {
		g = nil
	}
	return g, kept, err
}

// torn tells a write that a crash cut short from corruption: it is at the end
// of the last segment, no frame behind it was written later, and nothing of it
// can have been handed out.
func torn(g *segment, broken *fault, exposed mark) bool {
	if broken.at == 0 || broken.later {
		return false
	}
	return exposed.Before(Place{g.epoch, g.last + 1})
}

// split puts the damaged bytes of a segment aside, and what is whole behind them
// into a segment of its own, whose name it returns. The order of the steps makes
// that a crash between them changes nothing but that they are done again.
func (s *Spool) split(f *os.File, g *segment, broken *fault, next *segment) (kept string, err error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	end := info.Size()
	lost := loss{epoch: g.epoch, sequence: g.last + 1}
	same := next != nil && next.epoch == g.epoch
	if broken.next >= 0 && (!same || broken.frame.sequence < next.first) {
		rest := &segment{epoch: g.epoch, first: broken.frame.sequence, previous: broken.frame.previous, key: g.key}
		rest.name = segmentName(rest.epoch, rest.first)
		err := diskio.Replace(s.cfg.FS, s.path(rest.name), 0o600, func(w io.Writer) error {
			if _, err := w.Write(rest.header()); err != nil {
				return err
			}
			_, err := io.Copy(w, io.NewSectionReader(f, broken.next, end-broken.next))
			return err
		})
		if err != nil {
			return "", err
		}
		kept, end = rest.name, broken.next
		lost.frames = rest.first - lost.sequence
	} else if same && next.first > lost.sequence {
		lost.frames = next.first - lost.sequence
	}
	if kept == g.name {
		// Only what stands before the first frame was damaged: it is whole again.
		return kept, nil
	}
	if err := s.putAside(lost, io.NewSectionReader(f, broken.at, end-broken.at)); err != nil {
		return "", err
	}
	s.cfg.Log.Error("a segment of the spool is damaged: its bad part is put aside",
		slog.String("segment", g.name), slog.Int64("at", broken.at), slog.Int64("bytes", end-broken.at), slog.Uint64("frames", lost.frames))
	if broken.at == 0 {
		return kept, diskio.Remove(s.cfg.FS, s.path(g.name))
	}
	return kept, s.truncate(g)
}

func (s *Spool) truncate(g *segment) error {
	log, err := diskio.OpenLog(s.cfg.FS, s.path(g.name), g.size)
	if err != nil {
		return err
	}
	return log.Close()
}
