package parquet

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/klauspost/compress/snappy"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/unpack"
	"github.com/cavra/cavra/plugins/formats/window"
)

// The physical types of columns that hold bytes, and the codecs.
const (
	kindBytes, kindFixed                         = 6, 7
	codecNone, codecSnappy, codecGzip, codecZstd = 0, 1, 2, 6
)

// maxPage bounds a page that is decompressed as a whole, in bytes.
const maxPage = 64 << 20

// The encodings that are read: plain values, and indices into a dictionary.
const encodingPlain, encodingPlainDictionary, encodingDictionary = 0, 2, 8

// page is the header of a page.
type page struct {
	kind, size, packed, encoding int64
	// levels is how many bytes of levels stand before what is compressed.
	levels int64
	plain  bool
}

// column reads the pages of a part of a column.
func (s *scan) column(ctx context.Context, e extent) error {
	if e.chunk.kind < kindBytes {
		s.v.Inert(e.start, e.end)
		return nil
	}
	for at := e.start; at < e.end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.v.Budget.Spent() {
			s.v.Limited(ID, at, e.end, predicate.LimitMembers)
			return nil
		}
		t := &thrift{Reader: cursor.New(io.NewSectionReader(s.v.Bytes, at, e.end-at), e.end-at)}
		p := readPage(t)
		if t.Ok() && (p.packed < 0 || p.packed > t.Left() || p.levels < 0 || p.levels > p.packed || p.size < 0) {
			t.Fail("a page is longer than its column")
		}
		if err := t.Err(); err != nil {
			var f *cursor.Fault
			if !errors.As(err, &f) {
				return err
			}
			s.v.Found(ruleMalformed, ID, at, f.What)
			s.v.Unread(at, e.end, f.Why)
			return nil
		}
		start := at + t.At()
		s.v.Parsed(at, start+p.levels)
		at = start + p.packed
		if err := s.page(ctx, p, e.chunk.kind, e.chunk.codec, start+p.levels, at); err != nil {
			return err
		}
	}
	return nil
}

// readPage reads the header of a page.
func readPage(t *thrift) page {
	var p page
	t.fields(0, func(id int, kind byte) {
		switch {
		case kind == typeI32 && id == 1:
			p.kind = t.int()
		case kind == typeI32 && id == 2:
			p.size = t.int()
		case kind == typeI32 && id == 3:
			p.packed = t.int()
		case kind == typeStruct && (id == 5 || id == 7 || id == 8):
			v2 := id == 8
			t.fields(1, func(id int, kind byte) {
				switch {
				case kind == typeI32 && (!v2 && id == 2 || v2 && id == 4):
					p.encoding = t.int()
				case kind == typeI32 && v2 && (id == 5 || id == 6):
					if n := t.int(); n >= 0 {
						p.levels += n
					} else {
						p.levels = -1 << 40
					}
				case v2 && id == 7:
					p.plain = kind == typeFalse
				default:
					t.skip(kind, 1)
				}
			})
		default:
			t.skip(kind, 0)
		}
	})
	return p
}

// page looks for pickles in a page, whose bytes are [start, end).
func (s *scan) page(ctx context.Context, p page, kind, codec, start, end int64) error {
	if p.encoding != encodingPlain && p.encoding != encodingPlainDictionary && p.encoding != encodingDictionary {
		s.v.Unread(start, end, predicate.UnsupportedFormat)
		s.v.Unread(start, start, predicate.UnsupportedFormat)
		return nil
	}
	if p.plain || start == end {
		codec = codecNone
	}
	look := func(ctx context.Context, v *content.Visit) error {
		v.Format = "parquet-page"
		return (&values{s.Pickle, v, window.New(v.Bytes, v.Size), &s.trials}).read(ctx, kind, p)
	}
	switch codec {
	case codecNone:
		_, err := s.v.EnterWith(ctx, s.v.Part(start, end), look)
		return err
	case codecSnappy:
		return s.snappy(ctx, start, end, look)
	case codecGzip, codecZstd:
		c := unpack.Gzip()
		if codec == codecZstd {
			c = unpack.Zstd()
		}
		r, err := unpack.Enter(ctx, s.v, unpack.Member{Name: "page", Codec: c, Start: start, End: end, Most: -1, Class: ID, Scan: look})
		if err != nil || r.Fault != nil || r.End >= end {
			return err
		}
		s.v.Found(ruleHidden, ID, r.End, "bytes follow a page")
		_, err = s.v.Enter(ctx, s.v.Part(r.End, end))
		return err
	}
	s.v.Unread(start, end, predicate.UnsupportedFormat)
	return nil
}

// snappy decompresses a page in one piece.
func (s *scan) snappy(ctx context.Context, start, end int64, look func(context.Context, *content.Visit) error) error {
	if end-start > maxPage || !s.v.Budget.Hold(end-start) {
		s.v.Limited(ID, start, end, predicate.LimitBytes)
		return nil
	}
	defer s.v.Budget.Release(end - start)
	packed := make([]byte, end-start)
	if err := content.ReadFull(s.v.Bytes, packed, start); err != nil {
		return err
	}
	n, err := snappy.DecodedLen(packed)
	if err == nil && (n > maxPage || !s.v.Budget.Hold(int64(n))) {
		s.v.Limited(ID, start, end, predicate.LimitBytes)
		return nil
	}
	var b []byte
	if err == nil {
		defer s.v.Budget.Release(int64(n))
		b, err = snappy.Decode(nil, packed)
	}
	if err != nil {
		s.v.Found(ruleMalformed, ID, start, "a page cannot be decompressed")
		s.v.Unread(start, end, predicate.Malformed)
		return nil //nolint:nilerr // it is a finding
	}
	_, err = s.v.EnterWith(ctx, content.Span{Name: "page", Bytes: bytes.NewReader(b), Size: int64(len(b)), Start: start, End: end}, look)
	return err
}
