// Package hdf5 reads of an HDF5 file (HDF5 File Format Specification 3.0) what a
// model is rebuilt from: the attributes of the root group, where Keras keeps the
// model's configuration. They are handed on as content of their own. The rest of
// the file, groups and data sets, is not read yet, so that no file is complete.
package hdf5

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/window"
)

// ID is the format's id.
const ID = "hdf5"

const signature = "\x89HDF\r\n\x1a\n"

const (
	// maxMessages and maxBlocks bound one object header.
	maxMessages = 10_000
	maxBlocks   = 100
	// maxObjects of one global heap collection.
	maxObjects = 100_000
)

// Format is HDF5 as a format of the program.
type Format struct {
	// Settings scans a configuration.
	Settings func(ctx context.Context, v *content.Visit) error
}

// Identify implements content.Format. The signature may stand behind a block of
// the user's, of 512 bytes or a power of two more.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return base(v.Head) >= 0, nil
}

func base(head []byte) int64 {
	for at := 0; at+len(signature) <= len(head); at = max(512, 2*at) {
		if bytes.HasPrefix(head[at:], []byte(signature)) {
			return int64(at)
		}
	}
	return -1
}

var errMalformed = errors.New("broken structure")

// Scan implements content.Format.
func (f Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	v.Unread(0, v.Size, predicate.UnsupportedFormat)
	s := &scan{Visit: v, Format: f, w: window.New(v.Bytes, v.Size), base: base(v.Head)}
	err := s.run(ctx)
	if errors.Is(err, errMalformed) || errors.Is(err, window.ErrBeyond) {
		v.Unread(0, v.Size, predicate.Malformed)
		return nil
	}
	return err
}

type scan struct {
	*content.Visit
	Format
	w               *window.Reader
	base            int64
	offsets, length int // sizes in bytes
	messages        int
	blocks          int
}

// number reads a little-endian integer of n bytes, which fits in an offset.
func (s *scan) number(at int64, n int) (int64, error) {
	b, err := s.w.Bytes(at, n)
	if err != nil {
		return 0, err
	}
	return little(b), nil
}

// little is an integer; what does not fit is -1, which lies in no file.
func little(b []byte) int64 {
	var full [8]byte
	copy(full[:], b)
	if n := binary.LittleEndian.Uint64(full[:]); n < 1<<62 {
		return int64(n)
	}
	return -1
}

func (s *scan) run(ctx context.Context) error {
	b, err := s.w.Bytes(s.base+8, 8)
	if err != nil {
		return err
	}
	var root int64
	switch version := b[0]; version {
	case 0, 1:
		s.offsets, s.length = int(b[5]), int(b[6])
		root = s.base + 24 + int64(5*s.offsets)
		if version == 1 {
			root += 4
		}
	case 2, 3:
		s.offsets, s.length = int(b[1]), int(b[2])
		root = s.base + 12 + int64(3*s.offsets)
	default:
		return errMalformed
	}
	if !size(s.offsets) || !size(s.length) {
		return errMalformed
	}
	at, err := s.number(root, s.offsets)
	if err != nil {
		return err
	}
	if at < 0 {
		return errMalformed
	}
	return s.object(ctx, s.base+at)
}

func size(n int) bool { return n == 2 || n == 4 || n == 8 }

// object reads an object header of version 1 or 2.
func (s *scan) object(ctx context.Context, at int64) error {
	b, err := s.w.Bytes(at, 16)
	if err != nil {
		return err
	}
	if b[0] == 1 {
		return s.block(ctx, at+16, int64(binary.LittleEndian.Uint32(b[8:])), 8, 0)
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
	head := 4
	if flags&4 != 0 {
		head = 6
	}
	return s.block(ctx, start+int64(n), long, head, 4)
}

// block reads the messages of one block of an object header; head is the length
// of what stands before each, in bytes, and sum that of the checksum of the blocks
// that continue it.
func (s *scan) block(ctx context.Context, at, long int64, head, sum int) error {
	if s.blocks++; s.blocks > maxBlocks || long < 0 || at > s.Size || long > s.Size-at {
		return errMalformed
	}
	for end := at + long; end-at >= int64(head); {
		if s.messages++; s.messages > maxMessages {
			return errMalformed
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := s.w.Bytes(at, head)
		if err != nil {
			return err
		}
		kind, n := int(b[0]), int(binary.LittleEndian.Uint16(b[1:]))
		if head == 8 {
			kind, n = int(binary.LittleEndian.Uint16(b)), int(binary.LittleEndian.Uint16(b[2:]))
		}
		at += int64(head)
		if int64(n) > end-at {
			return errMalformed
		}
		switch kind {
		case 0x0c:
			err = s.attribute(ctx, at, n)
		case 0x10:
			err = s.continued(ctx, at, head, sum)
		}
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

func (s *scan) continued(ctx context.Context, at int64, head, sum int) error {
	to, err := s.number(at, s.offsets)
	if err != nil {
		return err
	}
	long, err := s.number(at+int64(s.offsets), s.length)
	if err != nil {
		return err
	}
	if to < 0 {
		return errMalformed
	}
	if sum > 0 { // "OCHK" before, a checksum behind
		return s.block(ctx, s.base+to+4, long-8, head, sum)
	}
	return s.block(ctx, s.base+to, long, head, sum)
}

// attribute reads an attribute message of version 1 to 3. Those that hold text
// in braces are handed on.
func (s *scan) attribute(ctx context.Context, at int64, n int) error {
	b, err := s.w.Bytes(at, n)
	if err != nil {
		return err
	}
	if n < 8 || b[0] < 1 || b[0] > 3 {
		return errMalformed
	}
	b = bytes.Clone(b)
	sizes := [3]int{}
	pos := 8
	if b[0] == 3 {
		pos = 9
	}
	var parts [3][]byte // name, data type, data space
	for i := range sizes {
		sizes[i] = int(binary.LittleEndian.Uint16(b[2+2*i:]))
		if pos+sizes[i] > n {
			return errMalformed
		}
		parts[i] = b[pos : pos+sizes[i]]
		pos += sizes[i]
		if b[0] == 1 {
			pos = 8 + (pos-8+7)&^7
		}
	}
	if pos > n {
		return errMalformed
	}
	name, _, _ := bytes.Cut(parts[0], []byte{0})
	if len(parts[1]) < 8 {
		return errMalformed
	}
	start, end := at+int64(pos), at+int64(n)
	switch parts[1][0] & 15 {
	case 3: // text of fixed length
		end = min(end, start+int64(binary.LittleEndian.Uint32(parts[1][4:])))
	case 9: // of its own length, in a heap
		if n-pos < 4+s.offsets+4 {
			return nil
		}
		long := int64(binary.LittleEndian.Uint32(b[pos:]))
		index := binary.LittleEndian.Uint32(b[pos+4+s.offsets:])
		if start, end, err = s.heap(little(b[pos+4:pos+4+s.offsets]), index); err != nil {
			return err
		}
		end = min(end, start+long)
	default:
		return nil
	}
	return s.handOn(ctx, string(name), start, end)
}

// heap finds an object of a global heap collection.
func (s *scan) heap(address int64, index uint32) (start, end int64, err error) {
	if address < 0 {
		return 0, 0, errMalformed
	}
	at := s.base + address
	b, err := s.w.Bytes(at, 8+s.length)
	if err != nil {
		return 0, 0, err
	}
	if string(b[:4]) != "GCOL" {
		return 0, 0, errMalformed
	}
	last := at + little(b[8:])
	at += int64(8 + s.length)
	for range maxObjects {
		if b, err = s.w.Bytes(at, 8+s.length); err != nil {
			return 0, 0, err
		}
		long := little(b[8:])
		id := binary.LittleEndian.Uint16(b)
		at += int64(8 + s.length)
		if long < 0 || long > s.Size-at || at > last || id == 0 {
			return 0, 0, errMalformed
		}
		if uint32(id) == index {
			return at, at + long, nil
		}
		at += (long + 7) &^ 7
	}
	return 0, 0, errMalformed
}

// handOn scans text that is settings as content of its own.
func (s *scan) handOn(ctx context.Context, name string, start, end int64) error {
	if start >= end || end > s.Size || s.Settings == nil {
		return nil
	}
	for end > start {
		b, err := s.w.Bytes(end-1, 1)
		if err != nil {
			return err
		}
		if b[0] != 0 {
			break
		}
		end--
	}
	if b, err := s.w.Bytes(start, int(min(1, end-start))); err != nil || len(b) == 0 || b[0] != '{' {
		return err
	}
	span := s.Part(start, end)
	span.Name = name
	_, err := s.EnterWith(ctx, span, s.Settings)
	return err
}
