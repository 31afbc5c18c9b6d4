package hdf5

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/coverage"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/pickle"
	"github.com/cavra/cavra/plugins/formats/window"
)

// maxTexts bounds the elements of one attribute or data set that are looked at
// one by one.
const maxTexts = 1 << 20

// texts hands on the texts and opaque bytes of elements side by side.
func (s *scan) texts(ctx context.Context, name string, t datatype, start, end int64) error {
	if len(t.texts) == 0 || t.size <= 0 {
		return nil
	}
	count := 0
	for at := start; at+t.size <= end; at += t.size {
		if err := ctx.Err(); err != nil {
			return err
		}
		if count++; count > maxTexts {
			s.Unread(at, end, predicate.LimitMembers)
			return nil
		}
		for _, x := range t.texts {
			if err := s.handOn(ctx, name, at+x[0], min(at+x[1], at+t.size)); err != nil {
				return err
			}
		}
	}
	return nil
}

// smallest is the length of the shortest text that is worth a look, in bytes.
const smallest = 8

// handOn scans what is settings or a pickle as content of its own. Text on one
// line in ASCII that is no object is neither: nothing in it can name a thing to
// import.
func (s *scan) handOn(ctx context.Context, name string, start, end int64) error {
	if start < 0 || end > s.Size {
		return errMalformed
	}
	worth, err := s.worth(start, end)
	if err != nil || !worth {
		return err
	}
	span := s.Part(start, end)
	span.Name = name
	_, err = s.EnterWith(ctx, span, s.embedded)
	return err
}

func (s *scan) worth(start, end int64) (bool, error) {
	if end-start < smallest {
		return false, nil
	}
	for at := start; at < end; {
		b, err := s.w.Bytes(at, int(min(end-at, window.MaxPiece)))
		if err != nil {
			return false, err
		}
		if at == start && (b[0] == '{' || b[0] == '[') {
			return true, nil
		}
		if bytes.ContainsFunc(b, func(r rune) bool { return r == '\n' || r >= 0x80 }) {
			return true, nil
		}
		at += int64(len(b))
	}
	return false, nil
}

// embedded scans one text.
func (s *scan) embedded(ctx context.Context, c *content.Visit) error {
	c.Format = "hdf5-value"
	hidden, err := pickle.Imports(ctx, c)
	if err != nil {
		return err
	}
	if hidden {
		return pickle.Format{}.Scan(ctx, c)
	}
	text := int64(len(bytes.TrimRight(c.Head, "\x00")))
	if text == int64(len(c.Head)) {
		text = c.Size
	}
	if s.Settings == nil || text == 0 || c.Head[0] != '{' && c.Head[0] != '[' {
		c.Inert(0, c.Size)
		return nil
	}
	end := text
	for end > 1 { // a text of fixed length is padded with zeros
		b := make([]byte, min(end, 512))
		if err := content.ReadFull(c.Bytes, b, end-int64(len(b))); err != nil {
			return err
		}
		trimmed := bytes.TrimRight(b, "\x00")
		end -= int64(len(b) - len(trimmed))
		if len(trimmed) > 0 {
			break
		}
	}
	_, err = c.EnterWith(ctx, c.Part(0, end), s.Settings)
	c.Inert(end, c.Size)
	return err
}

const heapSignature = "GCOL"

// heapObject finds an object of a global heap collection.
func (s *scan) heapObject(at int64, index uint32) (start, end int64, err error) {
	found := false
	_, err = s.heapObjects(at, s.Size, func(id uint32, from, to int64) error {
		if id == index && !found {
			start, end, found = from, to, true
		}
		return nil
	})
	if err == nil && !found {
		err = errMalformed
	}
	return start, end, err
}

// heapObjects calls f for each object of a collection, and returns its end.
func (s *scan) heapObjects(at, most int64, f func(id uint32, start, end int64) error) (int64, error) {
	head := 8 + s.length
	b, err := s.w.Bytes(at, head)
	if err != nil {
		return 0, err
	}
	long := little(b[8:])
	if string(b[:4]) != heapSignature || long < int64(head) || long > most-at {
		return 0, errMalformed
	}
	last := at + long
	for at += int64(head); last-at >= int64(head); {
		if b, err = s.w.Bytes(at, head); err != nil {
			return 0, err
		}
		id, n := uint32(binary.LittleEndian.Uint16(b)), little(b[8:])
		if id == 0 { // what is free
			break
		}
		at += int64(head)
		if n < 0 || n > last-at {
			return 0, errMalformed
		}
		if err := f(id, at, at+n); err != nil {
			return 0, err
		}
		at = min(last, at+(n+7)&^7)
	}
	return last, nil
}

// collection scans a global heap collection at an offset, and returns its end, or
// the offset where there is none.
func (s *scan) collection(ctx context.Context, at, end int64) (int64, error) {
	if b, err := s.w.Bytes(at, int(min(4, end-at))); err != nil || string(b) != heapSignature {
		return at, err
	}
	s.at = at
	last, err := s.heapObjects(at, s.Size, func(_ uint32, start, end int64) error {
		if err := ctx.Err(); err != nil || s.seen[structure{start, kindValue}] {
			return err
		}
		return s.handOn(ctx, "", start, end)
	})
	if err != nil {
		return at, err
	}
	s.Inert(at, last)
	return last, nil
}

// gaps are the extents within the file that nothing has claimed so far.
func (s *scan) gaps() ([][2]int64, error) {
	end := s.Size
	if s.end >= 0 {
		end = min(end, s.end)
	}
	claims := slices.Clone(s.Claims())
	slices.SortFunc(claims, func(a, b coverage.Range) int { return cmp.Compare(a.Start, b.Start) })
	var out [][2]int64
	at := s.base
	for _, c := range claims {
		if c.Start >= end {
			break
		}
		if c.Start > at {
			out = append(out, [2]int64{at, c.Start})
		}
		at = max(at, c.End)
	}
	if at < end {
		out = append(out, [2]int64{at, end})
	}
	return out, nil
}
