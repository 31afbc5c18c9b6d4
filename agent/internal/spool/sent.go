package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cavra/cavra/sdk/diskio"
)

// sentDir is the folder, in the spool's, of segments that were acknowledged
// whole: a copy of what has left the machine, for its owner to read.
const sentDir = "sent"

// retire takes segments that nothing needs any more out of the spool: into the
// copy of what was sent, or away.
func (s *Spool) retire(names []string) error {
	if len(names) == 0 {
		return nil
	}
	if s.cfg.SentBytes > 0 {
		if err := diskio.MakeDir(s.cfg.FS, s.path(sentDir), 0o700); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := s.retireOne(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("retire segment: %w", err)
		}
	}
	if err := s.cfg.FS.SyncDir(s.cfg.Dir); err != nil {
		return fmt.Errorf("retire segments: %w", err)
	}
	return s.prune()
}

func (s *Spool) retireOne(name string) error {
	if s.cfg.SentBytes == 0 {
		return s.cfg.FS.Remove(s.path(name))
	}
	return s.cfg.FS.Rename(s.path(name), s.path(filepath.Join(sentDir, name)))
}

// prune deletes the oldest of what was sent, down to the bound.
func (s *Spool) prune() error {
	dir := s.path(sentDir)
	names, err := listSegments(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var total int64
	for _, name := range slices.Backward(names) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("bound what was sent: %w", err)
		}
		if total += info.Size(); total <= s.cfg.SentBytes {
			continue
		}
		if err := s.cfg.FS.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("bound what was sent: %w", err)
		}
	}
	if err := s.cfg.FS.SyncDir(dir); err != nil {
		return fmt.Errorf("bound what was sent: %w", err)
	}
	return nil
}

// Sent hands out every statement in a spool's folder that a broker has
// acknowledged, in the order of their places: those in the copy of what was
// sent, and those that still lie in the spool. It changes nothing, and works
// while the spool is open. The envelope is valid until emit returns.
func Sent(dir string, emit func(Entry) error) error {
	// What is in the spool now may move into the copy meanwhile, and not back.
	waiting, err := listSegments(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	cursor, err := readCursor(filepath.Join(dir, cursorName))
	if errors.Is(err, errNoCursor) {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := listSegments(filepath.Join(dir, sentDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	names = append(names, waiting...)
	slices.Sort(names)
	buf := make([]byte, maxFrame)
	for _, name := range slices.Compact(names) {
		if err := sentSegment(dir, name, cursor.acked, buf, emit); err != nil {
			return fmt.Errorf("read what was sent: segment %s: %w", name, err)
		}
	}
	return nil
}

func sentSegment(dir, name string, acked Place, buf []byte, emit func(Entry) error) error {
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(filepath.Join(dir, sentDir, name))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the bound was met meanwhile
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	g, err := readSegmentHeader(f, name)
	if err != nil {
		return err
	}
	for off := int64(segmentHeader); ; {
		frame, envelope, err := readFrame(f, off, buf)
		place := Place{g.epoch, frame.sequence}
		if errors.Is(err, io.EOF) || err == nil && acked.Before(place) {
			return nil
		}
		if errors.Is(err, errFrame) && !(Place{g.epoch, g.last}).Before(acked) {
			return nil // a write that is not done yet, behind what was sent
		}
		if err != nil {
			return fmt.Errorf("at %d: %w", off, err)
		}
		g.last = frame.sequence
		off += frame.size()
		if err := emit(Entry{Place: place, PredicateType: kinds[frame.kind], Digest: frame.digest, Envelope: envelope}); err != nil {
			return err
		}
	}
}
