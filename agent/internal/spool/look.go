package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cavra/cavra/sdk/chain"
	"github.com/cavra/cavra/sdk/diskio"
)

// lockName is the file whose lock keeps a folder to one process.
const lockName = "lock"

// OwnerOf tells which process has the spool in dir open; ok is false when none
// has.
func OwnerOf(dir string) (o diskio.Owner, ok bool, err error) {
	return diskio.OwnerOf(filepath.Join(dir, lockName))
}

// Look tells how a spool stands that no process has open, as Open would find
// it, and changes nothing: what is damaged is counted and left to Open. A folder
// that is not there is an empty spool; one that is open is diskio.ErrLocked.
// While it reads, nobody can open the spool.
func Look(dir string, maxBytes int64) (_ Stats, err error) {
	unlock, err := diskio.LockShared(filepath.Join(dir, lockName))
	if errors.Is(err, os.ErrNotExist) {
		return Stats{MaxBytes: maxBytes}, nil
	}
	if err != nil {
		return Stats{}, fmt.Errorf("look at spool: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	out, err := look(dir, maxBytes)
	if err != nil {
		return Stats{}, fmt.Errorf("look at spool %s: %w", dir, err)
	}
	return out, nil
}

func look(dir string, maxBytes int64) (Stats, error) {
	s := &Spool{cfg: Config{Dir: dir, MaxBytes: maxBytes}}
	s.reader.buf = make([]byte, maxFrame)
	state, err := readCursor(s.path(cursorName))
	if err != nil && !errors.Is(err, errNoCursor) {
		return Stats{}, err
	}
	s.acked = state.acked
	names, err := listSegments(dir)
	if err != nil {
		return Stats{}, err
	}
	damaged := 0
	for _, name := range names {
		g, whole, err := s.readSegment(name, state.exposed)
		if err != nil {
			return Stats{}, err
		}
		if !whole {
			damaged++
		}
		s.segments = append(s.segments, g)
		s.head, s.cfg.Chain.Epoch = g.end(), g.epoch
	}
	if last := (Place{s.cfg.Chain.Epoch, s.head.Sequence}); last.Before(state.exposed.Place) {
		// What may be public is gone: the chain goes on behind it.
		s.head = chain.Head{Sequence: state.exposed.Sequence, Digest: state.exposed.Digest}
		s.cfg.Chain.Epoch = state.exposed.Epoch
	}
	losses, err := s.losses()
	if err != nil {
		return Stats{}, err
	}
	for _, l := range losses {
		s.aside += l.bytes
	}
	out := s.Stats()
	out.Damaged = damaged
	return out, nil
}

// readSegment reads a segment up to the first fault. A write that a crash cut
// short is none.
func (s *Spool) readSegment(name string, exposed mark) (g *segment, whole bool, err error) {
	f, err := os.Open(s.path(name))
	if err != nil {
		return nil, false, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	g, err = readSegmentHeader(f, name)
	if errors.Is(err, errHeader) {
		g, err = s.nameOf(name)
		return g, false, err
	}
	if err != nil {
		return nil, false, err
	}
	broken, err := g.scan(f, s.reader.buf)
	return g, broken == nil || torn(g, broken, exposed), err
}
