package hdf5

import (
	"context"
	"encoding/binary"
	"strconv"

	"github.com/cavra/cavra/schemas/predicate"
)

// The filters that the library brings, and those registered ones that are usual
// with models: LZF, Blosc, LZ4, bitshuffle, Zstandard, Blosc 2, bzip2.
var filters = map[int]bool{
	1: true, 2: true, 3: true, 4: true, 5: true, 6: true, 307: true,
	32000: true, 32001: true, 32004: true, 32008: true, 32015: true, 32026: true,
}

// A data set that would take more than vast bytes in memory, and more than
// vastRatio times what is stored of it, is a bomb (CVE-2026-0897).
const (
	vast      = 4 << 30
	vastRatio = 1000
)

// dataset claims the data of a data set by its layout.
func (s *scan) dataset(ctx context.Context, h *header) error {
	if h.layout == nil {
		return nil
	}
	before := s.data
	if err := s.stored(ctx, h); err != nil || h.typ == nil || h.shared {
		return err
	}
	t, _, err := readType(h.typ, 0)
	if err != nil {
		return err
	}
	if n := h.elements; t.size > 0 && n > vast/t.size && n/vastRatio > (s.data-before)/t.size {
		s.Found(ruleBomb, ID, h.layoutAt, strconv.FormatInt(n, 10)+" elements")
	}
	return nil
}

// stored claims the data of a data set where they lie.
func (s *scan) stored(ctx context.Context, h *header) error {
	if h.typ == nil || h.shared {
		s.Unread(h.layoutAt, h.layoutAt, predicate.UnsupportedFormat)
		return nil
	}
	t, _, err := readType(h.typ, 0)
	if err != nil {
		return err
	}
	if err := s.pipeline(h); err != nil {
		return err
	}
	b := h.layout
	if len(b) < 2 {
		return errMalformed
	}
	switch b[0] {
	case 1, 2:
		return s.oldLayout(ctx, h, t)
	case 3, 4, 5:
	default:
		return errMalformed
	}
	switch b[1] {
	case 0:
		if len(b) < 4 {
			return errMalformed
		}
		n := int64(binary.LittleEndian.Uint16(b[2:]))
		if n > int64(len(b)-4) {
			return errMalformed
		}
		return s.texts(ctx, "", t, h.layoutAt+4, h.layoutAt+4+n)
	case 1:
		if len(b) < 2+s.offsets+s.length {
			return errMalformed
		}
		return s.contiguous(ctx, t, s.place(b[2:2+s.offsets]), little(b[2+s.offsets:2+s.offsets+s.length]))
	case 2:
		return s.chunked(ctx, h, t)
	}
	// A virtual data set is put together of other files.
	s.Found(ruleExternal, ID, h.layoutAt, "the data are in other files")
	s.Unread(h.layoutAt, h.layoutAt, predicate.UnsupportedFormat)
	return nil
}

// oldLayout reads a layout of version 1 or 2.
func (s *scan) oldLayout(ctx context.Context, h *header, t datatype) error {
	b := h.layout
	if len(b) < 8 {
		return errMalformed
	}
	rank, class, pos := int(b[1]), b[2], 8
	at := int64(-1)
	if class != 0 {
		if len(b) < pos+s.offsets {
			return errMalformed
		}
		at = s.place(b[pos : pos+s.offsets])
		pos += s.offsets
	}
	if len(b) < pos+4*rank {
		return errMalformed
	}
	n := int64(1)
	for i := range rank {
		d := int64(binary.LittleEndian.Uint32(b[pos+4*i:]))
		if d > 0 && n > s.Size/d {
			return errMalformed
		}
		n *= d
	}
	switch class {
	case 1:
		return s.contiguous(ctx, t, at, n)
	case 2:
		return s.chunkTree(ctx, h, t, at, rank)
	}
	s.Unread(h.layoutAt, h.layoutAt, predicate.UnsupportedFormat)
	return nil
}

// contiguous claims data that lie in one piece, or nowhere yet.
func (s *scan) contiguous(ctx context.Context, t datatype, at, n int64) error {
	if at < 0 || n == 0 {
		return nil
	}
	if err := s.inert(at, n); err != nil {
		return err
	}
	s.data += n
	return s.texts(ctx, "", t, at, at+n)
}

func (s *scan) chunked(ctx context.Context, h *header, t datatype) error {
	b := h.layout
	if b[0] == 3 {
		if len(b) < 3+s.offsets {
			return errMalformed
		}
		return s.chunkTree(ctx, h, t, s.place(b[3:3+s.offsets]), int(b[2]))
	}
	s.Unread(h.layoutAt, h.layoutAt, predicate.UnsupportedFormat)
	return nil
}

// chunkTree claims the chunks of a tree. rank counts the dimensions, with that of
// the element.
func (s *scan) chunkTree(ctx context.Context, h *header, t datatype, at int64, rank int) error {
	if at < 0 {
		return nil
	}
	key := 8 + 8*rank
	return s.tree(ctx, at, func(node []byte) error {
		for i := range int(binary.LittleEndian.Uint16(node[6:])) {
			if s.chunks++; s.chunks > maxChunks {
				return errLimit
			}
			k := node[8+2*s.offsets+i*(key+s.offsets):]
			start, n := s.place(k[key:key+s.offsets]), int64(binary.LittleEndian.Uint32(k))
			if h.filters != nil && len(t.texts) > 0 {
				if err := s.inert(start, n); err != nil {
					return err
				}
				s.data += n
				s.Unread(start, start+n, predicate.UnsupportedCompression)
				continue
			}
			if err := s.contiguous(ctx, t, start, n); err != nil {
				return err
			}
		}
		return nil
	}, 1, key, s.indexed)
}

// pipeline judges the filters of a data set.
func (s *scan) pipeline(h *header) error {
	b := h.filters
	if b == nil {
		return nil
	}
	if len(b) < 2 || b[0] < 1 || b[0] > 2 {
		return errMalformed
	}
	pos := 2
	if b[0] == 1 {
		pos = 8
	}
	for range int(b[1]) {
		if pos+8 > len(b) {
			return errMalformed
		}
		id := int(binary.LittleEndian.Uint16(b[pos:]))
		name, values := 0, pos+4
		if b[0] == 1 || id >= 256 {
			name, values = int(binary.LittleEndian.Uint16(b[pos+2:])), pos+6
		}
		if values+2 > len(b) {
			return errMalformed
		}
		n := int(binary.LittleEndian.Uint16(b[values:]))
		pos = values + 2 + name
		if b[0] == 1 {
			pos = values + 2 + (name+7)&^7
		}
		pos += 4 * n
		if b[0] == 1 && n%2 == 1 {
			pos += 4
		}
		if !filters[id] {
			s.Found(ruleFilter, ID, h.layoutAt, "filter "+strconv.Itoa(id))
		}
	}
	return nil
}
