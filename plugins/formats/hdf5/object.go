package hdf5

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"

	"github.com/cavra/cavra/schemas/predicate"
)

// The kinds of messages that lead on.
const (
	messageSpace         = 0x01
	messageLinkInfo      = 0x02
	messageType          = 0x03
	messageLink          = 0x06
	messageExternal      = 0x07
	messageLayout        = 0x08
	messageFilters       = 0x0b
	messageAttribute     = 0x0c
	messageContinued     = 0x10
	messageGroup         = 0x11
	messageAttributeInfo = 0x15
)

// header is one object header while it is read.
type header struct {
	messages, blocks int
	// prefix is the length of what stands before a message, and sum that of the
	// checksum behind a block that continues the header, in bytes.
	prefix, sum int
	// typ, layout and filters describe a data set; nil when there is none.
	typ, layout, filters []byte
	layoutAt             int64
	// elements are those that the data space declares.
	elements int64
	// shared is set when the type stands elsewhere.
	shared bool
}

// object reads an object header of version 1 or 2, and what it leads to.
func (s *scan) object(ctx context.Context, at int64) error {
	b, err := s.w.Bytes(at, 16)
	if err != nil {
		return err
	}
	h := &header{prefix: 8}
	if b[0] == 1 {
		long := int64(binary.LittleEndian.Uint32(b[8:]))
		s.Parsed(at, at+16)
		if err := s.block(ctx, h, at+16, long); err != nil {
			return err
		}
		return s.dataset(ctx, h)
	}
	if string(b[:4]) != "OHDR" || b[4] != 2 {
		return errMalformed
	}
	flags := b[5]
	start := at + 6
	if flags&0x20 != 0 {
		start += 16
	}
	if flags&0x10 != 0 {
		start += 4
	}
	n := 1 << (flags & 3)
	long, err := s.number(start, n)
	if err != nil {
		return err
	}
	h.prefix, h.sum = 4, 4
	if flags&4 != 0 {
		h.prefix = 6
	}
	if long < 0 || long > s.Size-start-int64(n)-4 {
		return errMalformed
	}
	s.Parsed(at, start+int64(n)+long+4)
	if err := s.block(ctx, h, start+int64(n), long); err != nil {
		return err
	}
	return s.dataset(ctx, h)
}

// block reads the messages of one block of an object header.
func (s *scan) block(ctx context.Context, h *header, at, long int64) error {
	if h.blocks++; h.blocks > maxBlocks || long < 0 || at < 0 || at > s.Size || long > s.Size-at {
		return errMalformed
	}
	s.Parsed(at, at+long)
	for end := at + long; end-at >= int64(h.prefix); {
		if h.messages++; h.messages > maxMessages {
			return errMalformed
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := s.w.Bytes(at, h.prefix)
		if err != nil {
			return err
		}
		kind, n, flags := int(b[0]), int(binary.LittleEndian.Uint16(b[1:])), b[3]
		if h.prefix == 8 {
			kind, n, flags = int(binary.LittleEndian.Uint16(b)), int(binary.LittleEndian.Uint16(b[2:])), b[4]
		}
		at += int64(h.prefix)
		if int64(n) > end-at {
			return errMalformed
		}
		body, err := s.w.Bytes(at, n)
		if err != nil {
			return err
		}
		if err := s.message(ctx, h, kind, flags, at, bytes.Clone(body)); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// sharedMessage is the flag of a message that stands elsewhere.
const sharedMessage = 2

func (s *scan) message(ctx context.Context, h *header, kind int, flags byte, at int64, b []byte) error {
	switch kind {
	case messageSpace:
		n, err := s.extent(b)
		h.elements = n
		return err
	case messageType:
		h.typ, h.shared = b, flags&sharedMessage != 0
	case messageLayout:
		h.layout, h.layoutAt = b, at
	case messageFilters:
		h.filters = b
	case messageAttribute:
		if flags&sharedMessage != 0 {
			s.Unread(at, at, predicate.UnsupportedFormat)
			return nil
		}
		return s.attribute(ctx, at, b)
	case messageExternal:
		s.Found(ruleExternal, ID, at, "the data are in another file")
	case messageGroup:
		return s.oldGroup(ctx, b)
	case messageLink:
		return s.link(at, b)
	case messageLinkInfo:
		s.dense(at, b, 2, 1, 8)
	case messageAttributeInfo:
		s.dense(at, b, 2, 1, 2)
	case messageContinued:
		return s.continued(ctx, h, b)
	}
	return nil
}

// extent counts the elements of a data space of version 1 or 2, as far as an
// integer goes.
func (s *scan) extent(b []byte) (int64, error) {
	if len(b) < 4 || b[0] < 1 || b[0] > 2 {
		return 0, errMalformed
	}
	rank, pos := int(b[1]), 4
	if b[0] == 1 {
		pos = 8
	} else if b[3] == 2 { // none
		return 0, nil
	}
	if len(b) < pos+rank*s.length {
		return 0, errMalformed
	}
	n := int64(1)
	for i := range rank {
		d := little(b[pos+i*s.length : pos+(i+1)*s.length])
		if d < 0 || d > 0 && n > math.MaxInt64/d {
			return math.MaxInt64, nil
		}
		n *= d
	}
	return n, nil
}

// dense marks members that a fractal heap holds. Behind flags at an offset stands,
// when the bit is set, the highest creation index of some bytes, and the heap's
// address.
func (s *scan) dense(at int64, b []byte, start int, bit byte, index int) {
	if len(b) > 1 && b[1]&bit != 0 {
		start += index
	}
	if len(b) < start+s.offsets || little(b[start:start+s.offsets]) >= 0 {
		s.Unread(at, at, predicate.UnsupportedFormat)
	}
}

func (s *scan) continued(ctx context.Context, h *header, b []byte) error {
	if len(b) < s.offsets+s.length {
		return errMalformed
	}
	to, long := s.place(b[:s.offsets]), little(b[s.offsets:s.offsets+s.length])
	if to < 0 || long < 0 || to > s.Size || long > s.Size-to || long < int64(2*h.sum) {
		return errMalformed
	}
	if h.sum > 0 { // "OCHK" before, a checksum behind
		s.Parsed(to, to+long)
		return s.block(ctx, h, to+4, long-8)
	}
	return s.block(ctx, h, to, long)
}

// link reads a link message of version 1: a name, and an object of this file, a
// path in it, or one in another.
func (s *scan) link(at int64, b []byte) error {
	if len(b) < 3 || b[0] != 1 {
		return errMalformed
	}
	flags, pos, kind := b[1], 2, byte(0)
	if flags&8 != 0 {
		kind = b[pos]
		pos++
	}
	if flags&4 != 0 {
		pos += 8
	}
	if flags&16 != 0 {
		pos++
	}
	n := 1 << (flags & 3)
	if pos+n > len(b) {
		return errMalformed
	}
	long := little(b[pos : pos+n])
	pos += n
	if long < 0 || long > int64(len(b)-pos) {
		return errMalformed
	}
	pos += int(long)
	switch kind {
	case 0:
		if pos+s.offsets > len(b) {
			return errMalformed
		}
		return s.member(s.place(b[pos : pos+s.offsets]))
	case 1:
	case 64:
		s.Found(ruleExternal, ID, at, "a link into another file")
	default:
		s.Found(ruleExternal, ID, at, "a link of a kind of its own")
	}
	return nil
}

// member notes an object to read.
func (s *scan) member(at int64) error {
	if at < 0 || len(s.objects) >= maxObjects {
		return errMalformed
	}
	s.objects = append(s.objects, at)
	return nil
}

// attribute reads an attribute message of version 1 to 3.
func (s *scan) attribute(ctx context.Context, at int64, b []byte) error {
	if len(b) < 9 || b[0] < 1 || b[0] > 3 {
		return errMalformed
	}
	pos := 8
	if b[0] == 3 {
		pos = 9
	}
	var parts [3][]byte // name, data type, data space
	for i := range parts {
		n := int(binary.LittleEndian.Uint16(b[2+2*i:]))
		if pos+n > len(b) {
			return errMalformed
		}
		parts[i] = b[pos : pos+n]
		pos += n
		if b[0] == 1 {
			pos = 8 + (pos-8+7)&^7
		}
	}
	if pos > len(b) {
		return nil // no value
	}
	if b[0] > 1 && b[1]&1 != 0 {
		s.Unread(at, at, predicate.UnsupportedFormat) // its type stands elsewhere
		return nil
	}
	name, _, _ := bytes.Cut(parts[0], []byte{0})
	t, _, err := readType(parts[1], 0)
	if err != nil {
		return err
	}
	if t.class == classSequence { // of its own length, in a heap
		return s.sequences(ctx, string(name), b[pos:])
	}
	return s.texts(ctx, string(name), t, at+int64(pos), at+int64(len(b)))
}

// sequences hands on what an attribute's elements in a heap are, by the
// attribute's name. All else in heaps is handed on without one.
func (s *scan) sequences(ctx context.Context, name string, b []byte) error {
	each := 4 + s.offsets + 4
	for ; len(b) >= each; b = b[each:] {
		long, heap := int64(binary.LittleEndian.Uint32(b)), s.place(b[4:4+s.offsets])
		if long == 0 || heap < 0 {
			continue
		}
		start, end, err := s.heapObject(heap, binary.LittleEndian.Uint32(b[4+s.offsets:]))
		if err != nil {
			return err
		}
		s.seen[structure{start, kindValue}] = true
		if err := s.handOn(ctx, name, start, min(end, start+long)); err != nil {
			return err
		}
	}
	return nil
}
