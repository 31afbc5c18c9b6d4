package spool

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
)

// A loss is a file that holds the damaged bytes, if there are any, and whose
// name says what is lost: epoch, first lost sequence, number of frames. Once
// the gap statement is durable, the name ends in toldSuffix.
const (
	asideSuffix = ".corrupt"
	toldSuffix  = ".corrupt.told"
	// maxTold is how many told losses are kept.
	maxTold = 16
)

type loss struct {
	epoch, sequence, frames uint64
	bytes                   int64
	name                    string
}

func (l loss) stem() string { return fmt.Sprintf("%012d-%016d-", l.epoch, l.sequence) }

// covers reports whether l says already all that other says is lost.
func (l loss) covers(other loss) bool {
	return l.epoch == other.epoch && l.sequence <= other.sequence && l.sequence+l.frames >= other.sequence+other.frames
}

// putAside notes a loss durably, unless it is known, or the broker has what is
// lost.
func (s *Spool) putAside(l loss, damaged io.Reader) error {
	if l.frames > 0 && !s.acked.Before(Place{l.epoch, l.sequence + l.frames - 1}) {
		return nil
	}
	all, err := s.losses()
	if err != nil {
		return err
	}
	for _, known := range all {
		if damaged == nil && known.covers(l) {
			return nil
		}
	}
	name := fmt.Sprintf("%s%d%s", l.stem(), l.frames, asideSuffix)
	return diskio.Replace(s.cfg.FS, s.path(name), 0o600, func(w io.Writer) error {
		if damaged == nil {
			return nil
		}
		_, err := io.Copy(w, damaged)
		return err
	})
}

// losses lists what was put aside, oldest first.
func (s *Spool) losses() ([]loss, error) {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return nil, err
	}
	var out []loss
	for _, e := range entries {
		stem := strings.TrimSuffix(strings.TrimSuffix(e.Name(), toldSuffix), asideSuffix)
		if stem == e.Name() {
			continue
		}
		l := loss{name: e.Name()}
		if _, err := fmt.Sscanf(stem, "%d-%d-%d", &l.epoch, &l.sequence, &l.frames); err != nil {
			return nil, fmt.Errorf("file %s is no part of a spool: move it away", e.Name())
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		l.bytes = info.Size()
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b loss) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// noteAside counts what the losses take. Of those that are told, the oldest give
// up their bytes beyond the share, and are deleted beyond maxTold where
// everything that is still here lies behind them.
func (s *Spool) noteAside() error {
	all, err := s.losses()
	if err != nil {
		return err
	}
	s.mu.Lock()
	first := Place{s.segments[0].epoch, s.segments[0].first}
	s.mu.Unlock()
	var total int64
	for i := len(all) - 1; i >= 0; i-- {
		l := all[i]
		told := strings.HasSuffix(l.name, toldSuffix)
		switch {
		case told && len(all)-i > maxTold && (Place{l.epoch, l.sequence}).Before(first):
			err = diskio.Remove(s.cfg.FS, s.path(l.name))
		case told && l.bytes > 0 && total+l.bytes > s.cfg.MaxBytes/asideShare:
			// The name alone still says what was lost.
			err = diskio.WriteFile(s.cfg.FS, s.path(l.name), nil, 0o600)
		default:
			total += l.bytes
		}
		if err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.aside = total
	s.mu.Unlock()
	return nil
}

// ReportLoss appends a gap statement for each loss that has none yet, and
// returns how many there were. The epoch must have begun.
func (s *Spool) ReportLoss(ctx context.Context) (int, error) {
	if !s.Begun() {
		return 0, ErrNotBegun
	}
	all, err := s.losses()
	if err != nil {
		return 0, fmt.Errorf("report loss: %w", err)
	}
	told := 0
	for _, l := range all {
		if strings.HasSuffix(l.name, toldSuffix) {
			continue
		}
		cause := predicate.SpoolCorrupt
		if l.bytes == 0 {
			cause = predicate.SpoolLost
		}
		_, err := s.Append(ctx, &predicate.Gap{Cause: cause, Frames: l.frames, Bytes: uint64(l.bytes)})
		if err == nil {
			err = diskio.Rename(s.cfg.FS, s.path(l.name), s.path(strings.TrimSuffix(l.name, asideSuffix)+toldSuffix))
		}
		if err != nil {
			return told, fmt.Errorf("report loss: %w", err)
		}
		told++
	}
	if err := s.noteAside(); err != nil {
		return told, fmt.Errorf("report loss: %w", err)
	}
	return told, nil
}
