// Package matlab reads MATLAB's Level 5 MAT-files (MAT-File Format, version 5 to
// 7.2): every element, also in compressed variables. Function handles and objects
// are reported, since using or loading them runs code; data are held against their
// dimensions. Version 7.3 is HDF5, and read as that.
package matlab

import (
	"context"
	"encoding/binary"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/unpack"
)

// ID is the format's id.
const ID = "matlab"

const (
	ruleFunction  = "matlab.function"
	ruleDangerous = "matlab.function.dangerous"
	ruleObject    = "matlab.object"
	ruleJava      = "matlab.object.java"
	ruleMalformed = "matlab.malformed"
	ruleHidden    = "archive.entry.hidden"
)

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{ruleFunction, ruleDangerous, ruleObject, ruleJava, ruleMalformed, ruleHidden, "archive.limit", "archive.malformed", "model.limit"}
}

const headerBytes = 128

// Format is MATLAB's files as a format of the program.
type Format struct{}

func order(head []byte) binary.ByteOrder {
	if len(head) < headerBytes {
		return nil
	}
	switch string(head[124:128]) {
	case "\x00\x01IM":
		return binary.LittleEndian
	case "\x01\x00MI":
		return binary.BigEndian
	}
	return nil
}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return order(v.Head) != nil, nil
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	o := order(v.Head)
	// The place of what objects and functions refer to; blanks and zeros are none.
	if sub := o.Uint64(v.Head[116:]); sub != 0 && sub != 0x2020202020202020 {
		v.Unread(116, 116, predicate.UnsupportedFormat)
	}
	s := newScan(ctx, v, o)
	s.r.Skip(headerBytes)
	if err := s.variables(); err != nil {
		return err
	}
	return s.settle()
}

// The types of elements.
const (
	miInt8, miUint8, miInt32, miUint32 = 1, 2, 5, 6
	miMatrix, miCompressed             = 14, 15
	miUTF8, miUTF16, miUTF32           = 16, 17, 18
)

// widths are the sizes of types in bytes.
var widths = map[uint32]int64{1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}

const (
	// maxElements and maxDepth bound the work.
	maxElements = 4_000_000
	maxDepth    = 200
	// maxName and maxText bound names and the text of functions, in bytes.
	maxName = 4096
	maxText = 32 << 10
	// bulk is the size in bytes from which numbers are claimed as inert.
	bulk = 4096
)

// scan is one scan of one stream of elements.
type scan struct {
	ctx      context.Context //nolint:containedctx // the scan is one call
	v        *content.Visit
	r        *cursor.Reader
	elements int
	claimed  int64
	// function counts the function handles that are open.
	function int
}

func newScan(ctx context.Context, v *content.Visit, o binary.ByteOrder) *scan {
	s := &scan{ctx: ctx, v: v, r: cursor.New(v.Bytes, v.Size)}
	s.r.Order = o
	return s
}

// settle claims what was read, or says what went wrong.
func (s *scan) settle() error {
	if err := s.r.Err(); err != nil {
		return cursor.Settle(s.v, err, ID, ruleMalformed, s.claimed)
	}
	s.v.Parsed(s.claimed, s.r.At())
	return nil
}

// variables reads the elements at the top.
func (s *scan) variables() error {
	for s.r.Ok() && s.r.Left() > 0 {
		e := s.element(s.v.Size)
		switch {
		case !s.r.Ok():
		case e.kind == miMatrix:
			s.matrix(e, 0)
		case e.kind == miCompressed:
			if err := s.compressed(e); err != nil {
				return err
			}
		default:
			s.r.Fail("an element at the top that is no variable")
		}
		s.leave(e)
	}
	return nil
}

// compressed scans a variable that is compressed.
func (s *scan) compressed(e element) error {
	s.v.Parsed(s.claimed, e.start)
	s.claimed = e.end
	o := s.r.Order
	r, err := unpack.Enter(s.ctx, s.v, unpack.Member{
		Name: "variable", Codec: unpack.Zlib(), Start: e.start, End: e.end, Most: -1, Class: ID,
		Scan: func(ctx context.Context, v *content.Visit) error {
			v.Format = ID
			inner := newScan(ctx, v, o)
			if err := inner.variables(); err != nil {
				return err
			}
			return inner.settle()
		},
	})
	if err != nil || r.Fault != nil || r.End >= e.end {
		return err
	}
	zero, err := s.v.IsZero(s.ctx, r.End, e.end)
	if err != nil || zero {
		return err
	}
	s.v.Found(ruleHidden, ID, r.End, "bytes follow a compressed variable")
	_, err = s.v.Enter(s.ctx, s.v.Part(r.End, e.end))
	return err
}

// element is the extent of an element's data, and where the next one begins.
type element struct {
	kind             uint32
	start, end, next int64
}

func (e element) size() int64 { return e.end - e.start }

// element reads a tag, whose data must end before end.
func (s *scan) element(end int64) element {
	if s.elements++; s.elements > maxElements {
		s.r.Limit("too many elements", predicate.LimitMembers)
	}
	if s.elements%4096 == 0 && s.ctx.Err() != nil {
		s.r.Stop(s.ctx.Err())
	}
	at := s.r.At()
	kind := s.r.U32()
	if small := kind >> 16; small != 0 {
		e := element{kind & 0xffff, at + 4, at + 4 + int64(small), at + 8}
		if small > 4 || e.next > end {
			s.r.Fail("a small element is too long")
		}
		return e
	}
	n := int64(s.r.U32())
	e := element{kind, at + 8, at + 8 + n, at + 8 + n}
	if kind != miCompressed {
		e.next += (8 - n%8) % 8
	}
	if s.r.Ok() && e.end > end {
		s.r.Fail("an element is longer than what holds it")
	}
	e.next = min(e.next, end)
	return e
}

// leave goes on behind an element, which must have been read to its end.
func (s *scan) leave(e element) {
	if s.r.Ok() {
		s.r.Goto(e.next)
	}
}

// part reads an element of one of the kinds, and steps over its data.
func (s *scan) part(end int64, kinds ...uint32) element {
	e := s.element(end)
	for _, k := range kinds {
		if e.kind == k {
			s.leave(e)
			return e
		}
	}
	s.r.Fail("an element of another type than it must be")
	return e
}

// text reads an element that is a name.
func (s *scan) text(end int64) string {
	e := s.part(end, miInt8, miUint8, miUTF8)
	return s.characters(e, maxName)
}

// characters are those of an element, without the zeros of wide ones.
func (s *scan) characters(e element, most int64) string {
	if !s.r.Ok() {
		return ""
	}
	at := s.r.At()
	s.r.Goto(e.start)
	b := s.r.Bytes(int(min(e.size(), most)))
	text := make([]byte, 0, len(b))
	for _, c := range b {
		if c != 0 {
			text = append(text, c)
		}
	}
	s.r.Goto(at)
	return cursor.Clean(string(text))
}
