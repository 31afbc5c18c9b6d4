package parquet

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/window"
)

// dictionaryPage is the kind of a page that holds the values which others refer to.
const dictionaryPage = 2

// maxTrials bounds the values of one file that are tried as a pickle.
const maxTrials = 1_000_000

// values are those of one page.
type values struct {
	pickle content.Beside
	v      *content.Visit
	w      *window.Reader
	// trials counts the values of the file that were taken for a pickle.
	trials *int
}

// read looks for pickles in the values. Where no value has an end of its own, as in
// columns of a fixed length, they are looked for by their mark.
func (s *values) read(ctx context.Context, kind int64, p page) error {
	v := s.v
	switch {
	case p.kind != dictionaryPage && p.encoding != encodingPlain:
		v.Parsed(0, v.Size) // indices
		return nil
	case kind == kindFixed:
		v.Parsed(0, v.Size)
		return s.marks(ctx)
	}
	start, err := s.first(ctx, p)
	if err != nil {
		return err
	}
	if start < 0 {
		v.Found(ruleMalformed, ID, 0, "values that are not as long as they say")
		v.Unread(0, v.Size, predicate.Malformed)
		return s.marks(ctx)
	}
	v.Parsed(0, v.Size)
	for n := 0; start < v.Size; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		size, err := s.length(start)
		if err != nil {
			return err
		}
		if err := s.value(ctx, start+4, start+4+size); err != nil {
			return err
		}
		start += 4 + size
	}
	return nil
}

// first is where the values begin: behind none, one or two parts of levels, each
// with its length before it. It is -1 where the values would not end with the page.
func (s *values) first(ctx context.Context, p page) (int64, error) {
	start := int64(0)
	for range 3 {
		whole, err := s.whole(ctx, start)
		if err != nil || whole {
			return start, err
		}
		size, err := s.length(start)
		if err != nil || size < 0 || p.kind == dictionaryPage {
			return -1, err
		}
		start += 4 + size
	}
	return -1, nil
}

// whole reports whether values from start on end where the page does.
func (s *values) whole(ctx context.Context, start int64) (bool, error) {
	for n := 0; start < s.v.Size; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		size, err := s.length(start)
		if err != nil || size < 0 {
			return false, err
		}
		start += 4 + size
	}
	return true, nil
}

// length is that of what begins at an offset, or -1.
func (s *values) length(at int64) (int64, error) {
	if s.v.Size-at < 4 {
		return -1, nil
	}
	b, err := s.w.Bytes(at, 4)
	if err != nil {
		return -1, err
	}
	n := int64(binary.LittleEndian.Uint32(b))
	if n > s.v.Size-at-4 {
		return -1, nil
	}
	return n, nil
}

// value scans a value that is a pickle.
func (s *values) value(ctx context.Context, start, end int64) error {
	if end-start < 4 || s.pickle == nil {
		return nil
	}
	likely, err := s.likely(start, end)
	if err != nil || !likely {
		return err
	}
	if *s.trials++; *s.trials > maxTrials {
		if *s.trials == maxTrials+1 {
			s.v.Limited(ID, start, end, predicate.LimitMembers)
		}
		s.v.Unread(start, start, predicate.LimitMembers)
		return nil
	}
	part := io.NewSectionReader(s.v.Bytes, start, end-start)
	var report scanner.Report // of the trial; nothing is claimed by it
	trial, err := content.NewVisit(part, end-start, &report, s.v.Budget, nil)
	if err != nil {
		return err
	}
	found, err := s.pickle.IdentifyBeside(ctx, trial)
	if err != nil || !found {
		return err
	}
	s.v.Found(rulePickle, ID, start)
	_, err = s.v.EnterWith(ctx, s.v.Part(start, end), s.pickle.Scan)
	return err
}

// likely reports whether a value could be a pickle that imports: it begins with
// the mark of a protocol, names in two lines, or has an opcode that names by other
// means.
func (s *values) likely(start, end int64) (bool, error) {
	lines := 0
	for at := start; at < end; {
		n := int(min(end-at, window.MaxPiece))
		b, err := s.w.Bytes(at, n)
		if err != nil {
			return false, err
		}
		if at == start && b[0] == 0x80 && b[1] <= 5 ||
			bytes.IndexByte(b, 0x93) >= 0 || bytes.IndexByte(b, 0x82) >= 0 || bytes.IndexByte(b, 0x83) >= 0 || bytes.IndexByte(b, 0x84) >= 0 {
			return true, nil
		}
		if lines += bytes.Count(b, []byte("\n")); lines >= 2 {
			return true, nil
		}
		at += int64(n)
	}
	return false, nil
}

// marks scans what begins with the mark of a protocol, wherever it is.
func (s *values) marks(ctx context.Context) error {
	buf := make([]byte, min(s.v.Size, 64<<10))
	for at := int64(0); at < s.v.Size; at += int64(len(buf)) - 1 {
		b := buf[:min(int64(len(buf)), s.v.Size-at)]
		if err := content.ReadFull(s.v.Bytes, b, at); err != nil {
			return err
		}
		for i := 0; i+1 < len(b); i++ {
			if b[i] == 0x80 && b[i+1] >= 2 && b[i+1] <= 5 {
				if err := s.value(ctx, at+int64(i), s.v.Size); err != nil {
					return err
				}
			}
		}
		if len(b) < len(buf) || len(buf) == 1 {
			return nil
		}
	}
	return nil
}
