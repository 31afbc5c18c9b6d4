package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"slices"
)

// letGo makes room for a group where statements stay, by letting the oldest
// segments go: the chain then begins behind them.
func (s *Spool) letGo(ctx context.Context) error {
	if !s.cfg.Keep {
		return nil
	}
	for {
		s.mu.Lock()
		over := len(s.segments) > 1 && s.disk()+groupBytes+segmentHeader > s.cfg.MaxBytes
		oldest := s.segments[0].lastPlace()
		s.mu.Unlock()
		if !over {
			return nil
		}
		s.cfg.Log.WarnContext(ctx, "what is kept has reached its bound: the oldest statements go",
			slog.Uint64("last_sequence", oldest.Sequence), slog.Int64("max_bytes", s.cfg.MaxBytes))
		if err := errors.Join(s.expose(), s.Ack(oldest)); err != nil {
			return err
		}
	}
}

// Kept hands out every statement in the folder of a spool that keeps them, in
// the order of their places. It changes nothing, and works while the spool is
// open. The envelope is valid until emit returns.
func Kept(dir string, emit func(Entry) error) error {
	names, err := listSegments(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	slices.Sort(names)
	buf := make([]byte, maxFrame)
	all := Place{math.MaxUint64, math.MaxUint64}
	for i, name := range names {
		err := sentSegment(dir, name, all, buf, emit)
		if errors.Is(err, errFrame) && i == len(names)-1 {
			return nil // a write that is not done yet
		}
		if err != nil {
			return fmt.Errorf("read what is kept: segment %s: %w", name, err)
		}
	}
	return nil
}
