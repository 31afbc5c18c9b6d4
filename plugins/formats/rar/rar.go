// Package rar lists the members of RAR archives, of version 4 and 5. Those that
// are stored are scanned; the compression is proprietary, and what is compressed
// is a gap.
package rar

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// ID is the format's id.
const ID = "rar"

const (
	where  = "rar"
	magic4 = "Rar!\x1a\x07\x00"
	magic5 = "Rar!\x1a\x07\x01\x00"
	// maxHeader is how much of a header is looked at, in bytes. A longer one
	// counts as broken; names are shorter.
	maxHeader = 128 << 10
)

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{
		"archive.entry.duplicate", "archive.entry.encrypted", "archive.entry.hidden", "archive.entry.path",
		"archive.limit", "archive.malformed",
	}
}

// Format is RAR as a format of the program.
type Format struct{}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return strings.HasPrefix(string(v.Head), magic4) || strings.HasPrefix(string(v.Head), magic5), nil
}

// block is one header of either version.
type block struct {
	file, end bool
	// locked is set when all that follows is encrypted.
	locked            bool
	name              string
	encrypted, stored bool
	size, data        int64 // of the header, of what follows it
}

// archive is one scan of one archive.
type archive struct {
	*content.Visit
	seen map[string]bool
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	a := &archive{Visit: v, seen: make(map[string]bool)}
	at, parse, length, blocks := int64(len(magic4)), parse4, length4, int64(0)
	if strings.HasPrefix(string(v.Head), magic5) {
		at, parse, length = int64(len(magic5)), parse5, length5
	}
	v.Parsed(0, at)
	for at < v.Size {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read rar: %w", err)
		}
		if blocks++; blocks > v.Budget.Members {
			v.Limited(where, at, v.Size, predicate.LimitMembers)
			return nil
		}
		b := make([]byte, min(16, v.Size-at))
		if err := content.ReadFull(v.Bytes, b, at); err != nil {
			return err
		}
		if n := length(b); n > int64(len(b)) {
			b = make([]byte, min(n, maxHeader, v.Size-at))
			if err := content.ReadFull(v.Bytes, b, at); err != nil {
				return err
			}
		}
		h, ok := parse(b)
		if !ok {
			v.Found("archive.malformed", where, at, "broken header")
			v.Unread(at, at, predicate.Malformed)
			_, err := v.Enter(ctx, v.Part(at, v.Size))
			return err
		}
		if h.locked {
			v.Found("archive.entry.encrypted", where, at, "headers")
			v.Unread(at, v.Size, predicate.Encrypted)
			return nil
		}
		v.Parsed(at, at+h.size)
		at += h.size
		end := v.Size
		if h.data <= v.Size-at {
			end = at + h.data
		} else {
			v.Found("archive.malformed", where, at, h.name, "data is cut short")
			v.Unread(end, end, predicate.Truncated)
		}
		if err := a.member(ctx, h, at, end); err != nil {
			return err
		}
		at = end
		if h.end {
			break
		}
	}
	return v.Trailing(ctx, where, at)
}

// member scans or names what follows a header.
func (a *archive) member(ctx context.Context, h block, start, end int64) error {
	if !h.file {
		if start < end {
			a.Unread(start, end, predicate.UnsupportedFormat)
		}
		return nil
	}
	if content.Leaves(h.name) {
		a.Found("archive.entry.path", where, start, h.name)
	}
	if key := content.CanonicalName(h.name); a.seen[key] {
		a.Found("archive.entry.duplicate", where, start, h.name)
	} else {
		a.seen[key] = true
	}
	part := a.Part(start, end)
	part.Name = h.name
	why := predicate.UnsupportedCompression
	switch {
	case h.encrypted:
		a.Found("archive.entry.encrypted", where, start, h.name)
		why = predicate.Encrypted
	case h.stored:
		_, err := a.Enter(ctx, part)
		return err
	}
	_, err := a.EnterWith(ctx, part, func(_ context.Context, c *content.Visit) error {
		c.Format = "unread"
		c.Unread(0, c.Size, why)
		return nil
	})
	return err
}

// length4 and length5 are how long the header is that begins so, or 0.
func length4(b []byte) int64 {
	if len(b) < 7 {
		return 0
	}
	return int64(binary.LittleEndian.Uint16(b[5:]))
}

func length5(b []byte) int64 {
	if len(b) < 7 {
		return 0
	}
	n, used := binary.Uvarint(b[4:])
	return int64(4+max(0, used)) + int64(min(n, maxHeader))
}

// parse4 reads a header of version 4 (RAR's technote.txt).
func parse4(b []byte) (block, bool) {
	const main, file, service, end = 0x73, 0x74, 0x7a, 0x7b
	const hasData, locked, encrypted, large = 0x8000, 0x80, 0x04, 0x100
	if len(b) < 7 {
		return block{}, false
	}
	le := binary.LittleEndian
	kind, flags, size := b[2], le.Uint16(b[3:]), int(le.Uint16(b[5:]))
	if size < 7 || size > len(b) || kind < 0x72 || kind > 0x7b {
		return block{}, false
	}
	h := block{size: int64(size), file: kind == file, end: kind == end, locked: kind == main && flags&locked != 0}
	b = b[:size]
	if kind != file && kind != service {
		if flags&hasData != 0 {
			if size < 11 {
				return block{}, false
			}
			h.data = int64(le.Uint32(b[7:]))
		}
		return h, true
	}
	if size < 32 {
		return block{}, false
	}
	h.data = int64(le.Uint32(b[7:]))
	h.encrypted, h.stored = flags&encrypted != 0, b[25] == 0x30
	name, at := int(le.Uint16(b[26:])), 32
	if flags&large != 0 {
		if size < 40 {
			return block{}, false
		}
		h.data |= int64(le.Uint32(b[32:])&0x7fffffff) << 32
		at = 40
	}
	if name > size-at {
		return block{}, false
	}
	h.name, _, _ = strings.Cut(string(b[at:at+name]), "\x00")
	return h, true
}

// fields takes numbers from a header of version 5.
type fields struct {
	b  []byte
	ok bool
}

func (f *fields) number() uint64 {
	n, used := binary.Uvarint(f.b)
	if used <= 0 || n > 1<<62 {
		f.ok, f.b = false, nil
		return 0
	}
	f.b = f.b[used:]
	return n
}

func (f *fields) skip(n int) {
	if n > len(f.b) {
		f.ok, f.b = false, nil
		return
	}
	f.b = f.b[n:]
}

// parse5 reads a header of version 5 (RAR 5.0 archive format).
func parse5(b []byte) (block, bool) {
	const file, service, encryption, end = 2, 3, 4, 5
	if len(b) < 7 {
		return block{}, false
	}
	n, used := binary.Uvarint(b[4:])
	if used <= 0 || n == 0 || n > uint64(len(b)-4-used) {
		return block{}, false
	}
	f := &fields{b: b[4+used : 4+used+int(n)], ok: true}
	h := block{size: int64(4 + used + int(n))}
	kind, flags := f.number(), f.number()
	extra := uint64(0)
	if flags&1 != 0 {
		extra = f.number()
	}
	if flags&2 != 0 {
		h.data = int64(f.number())
	}
	h.file, h.end, h.locked = kind == file, kind == end, kind == encryption
	if !f.ok || kind == 0 || extra > uint64(len(f.b)) {
		return block{}, false
	}
	if kind != file && kind != service {
		return h, true
	}
	h.encrypted = hasRecord(f.b[uint64(len(f.b))-extra:], 1)
	about := f.number()
	f.number() // size
	f.number() // attributes
	if about&2 != 0 {
		f.skip(4)
	}
	if about&4 != 0 {
		f.skip(4)
	}
	h.stored = f.number()>>7&7 == 0
	f.number() // system
	length := f.number()
	if !f.ok || length > uint64(len(f.b)) {
		return block{}, false
	}
	h.name = string(f.b[:length])
	return h, true
}

// hasRecord looks for a kind of record in a header's extra area.
func hasRecord(b []byte, kind uint64) bool {
	f := &fields{b: b, ok: true}
	for len(f.b) > 0 {
		n := f.number()
		if !f.ok || n > uint64(len(f.b)) {
			// What cannot be read may be that record.
			return true
		}
		record := &fields{b: f.b[:n], ok: true}
		if record.number() == kind {
			return true
		}
		f.skip(int(n))
	}
	return false
}
