// Package sevenzip reads 7z archives. Its header is read whether compressed or
// not, every member is named, and content that is stored or compressed by LZMA,
// LZMA2, deflate, bzip2, Zstandard or LZ4 is scanned. Content behind a chain of
// filters is a gap, and what is encrypted is a finding.
package sevenzip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/unpack"
)

// ID is the format's id.
const ID = "7z"

const (
	where     = "7z"
	magic     = "7z\xbc\xaf\x27\x1c"
	headBytes = 32
	aes       = "\x06\xf1\x07\x01"
	// maxEncodings is how often a header may be encoded again.
	maxEncodings = 4
)

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{
		"archive.entry.checksum", "archive.entry.duplicate", "archive.entry.encrypted", "archive.entry.hidden",
		"archive.entry.path", "archive.limit", "archive.malformed",
	}
}

// Format is 7z as a format of the program.
type Format struct{}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return len(v.Head) >= len(magic) && string(v.Head[:len(magic)]) == magic, nil
}

// archive is one scan of one archive.
type archive struct {
	*content.Visit
	// encodings counts the headers that were encoded.
	encodings int
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	a := &archive{Visit: v}
	if len(v.Head) < headBytes {
		a.broken(0, "cut short")
		return nil
	}
	le := binary.LittleEndian
	offset, size := le.Uint64(v.Head[12:]), le.Uint64(v.Head[20:])
	if crc32.ChecksumIEEE(v.Head[12:headBytes]) != le.Uint32(v.Head[8:]) {
		v.Found("archive.entry.checksum", where, 0, "start header")
	}
	v.Parsed(0, headBytes)
	room := uint64(v.Size - headBytes)
	switch {
	case size > room || offset > room-size:
		a.broken(headBytes, "the header is outside of the archive")
		return nil
	case int64(size) > v.Budget.DirectoryBytes:
		v.Limited(where, headBytes, v.Size, predicate.LimitBytes)
		return nil
	case size == 0:
		return v.Trailing(ctx, where, headBytes)
	}
	start := headBytes + int64(offset)
	b := make([]byte, size)
	if err := content.ReadFull(v.Bytes, b, start); err != nil {
		return err
	}
	if crc32.ChecksumIEEE(b) != le.Uint32(v.Head[28:]) {
		v.Found("archive.entry.checksum", where, start, "header")
	}
	v.Parsed(start, start+int64(size))
	if err := a.header(ctx, b, start); err != nil {
		return err
	}
	return v.Trailing(ctx, where, start+int64(size))
}

// broken reports a header that cannot be followed: all from at on is unread.
func (a *archive) broken(at int64, what string) {
	a.Found("archive.malformed", where, at, what)
	a.Unread(at, a.Size, predicate.Malformed)
	a.Unread(at, at, predicate.Malformed)
}

// header takes a header, which may be one that says how to decompress another.
func (a *archive) header(ctx context.Context, b []byte, at int64) error {
	if len(b) > 0 && b[0] == idEncodedHeader {
		r := &reader{b: b[1:]}
		s := r.streams()
		if a.encodings++; r.err == nil && len(s.folders) == 1 && a.encodings <= maxEncodings {
			return a.encoded(ctx, s)
		}
		a.broken(at, "encoded header is broken")
		return nil
	}
	h := parseHeader(b)
	if h == nil {
		a.broken(at, "header is broken")
		return nil
	}
	return a.members(ctx, h)
}

// extents are where the packed streams lie, as far as they lie in the archive.
func (a *archive) extents(s *streams) []unpack.Extent {
	var out []unpack.Extent
	at := s.at + headBytes
	for _, n := range s.packed {
		if at > uint64(a.Size) || n > uint64(a.Size)-at {
			break
		}
		out = append(out, unpack.Extent{Start: int64(at), End: int64(at + n)})
		at += n
	}
	return out
}

// extent is where a folder's packed bytes lie. It reports false when they lie
// nowhere, or are several streams.
func (f *folder) extent(packed []unpack.Extent, first int) (start, end int64, ok bool) {
	if f.packed != 1 || first >= len(packed) {
		return 0, 0, false
	}
	return packed[first].Start, packed[first].End, true
}

// codec is the decompression of a folder of one coder.
func (f *folder) codec() (unpack.Codec, bool) {
	if len(f.coders) != 1 {
		return unpack.Codec{}, false
	}
	c := f.coders[0]
	switch c.id {
	case "\x00":
		return unpack.Plain(), true
	case "\x03\x01\x01":
		return unpack.LZMARaw(c.props, int64(f.size())), true
	case "\x21":
		if len(c.props) == 1 {
			return unpack.LZMA2Raw(c.props[0]), true
		}
	case "\x04\x01\x08":
		return unpack.Deflate(), true
	case "\x04\x02\x02":
		return unpack.Bzip2(), true
	case "\x04\xf7\x11\x01":
		return unpack.Zstd(), true
	case "\x04\xf7\x11\x04":
		return unpack.LZ4(), true
	}
	return unpack.Codec{}, false
}

func (f *folder) encrypted() bool {
	for _, c := range f.coders {
		if c.id == aes {
			return true
		}
	}
	return false
}

// encoded decompresses a header and takes it.
func (a *archive) encoded(ctx context.Context, s *streams) error {
	f := s.folders[0]
	start, end, ok := f.extent(a.extents(s), 0)
	codec, can := f.codec()
	switch {
	case f.encrypted():
		a.Found("archive.entry.encrypted", where, start, "header")
		a.Unread(headBytes, a.Size, predicate.Encrypted)
		return nil
	case !ok:
		a.broken(headBytes, "encoded header is outside of the archive")
		return nil
	case !can:
		a.Unread(headBytes, a.Size, predicate.UnsupportedCompression)
		return nil
	case int64(f.size()) > a.Budget.DirectoryBytes || !a.Budget.Hold(int64(f.size())):
		a.Limited(where, headBytes, a.Size, predicate.LimitBytes)
		return nil
	}
	defer a.Budget.Release(int64(f.size()))
	c, err := unpack.Read(ctx, a.Budget, codec, a.Part(start, end).Bytes, end-start, int64(f.size()))
	if err != nil {
		return err
	}
	b := make([]byte, min(c.Size, int64(f.size())))
	if len(b) > 0 {
		err = content.ReadFull(c, b, 0)
	}
	if err := errors.Join(err, c.Close()); err != nil {
		return fmt.Errorf("read encoded header: %w", err)
	}
	if c.Fault != nil {
		a.broken(headBytes, "encoded header is broken")
		return nil
	}
	a.Parsed(start, end)
	return a.header(ctx, b, start)
}

// members scans the folders, and names what they hold.
func (a *archive) members(ctx context.Context, h *header) error {
	names := a.names(h)
	first, packed := 0, a.extents(h.streams)
	for _, f := range h.streams.folders {
		if f.parts == nil {
			f.parts = []uint64{f.size()}
		}
		m := unpack.Member{Name: "folder", Most: int64(f.size()), Class: where}
		for _, size := range f.parts {
			name := "unnamed"
			if len(names) > 0 {
				name, names = names[0], names[1:]
			}
			m.Parts = append(m.Parts, unpack.Part{Name: name, Size: int64(size)})
		}
		if err := a.folder(ctx, packed, first, f, m); err != nil {
			return err
		}
		first += f.packed
	}
	if len(names) > 0 {
		a.Found("archive.malformed", where, 0, names[0], "a member without content")
		a.Unread(0, 0, predicate.Malformed)
	}
	return nil
}

func (a *archive) folder(ctx context.Context, packed []unpack.Extent, first int, f *folder, m unpack.Member) error {
	start, end, ok := f.extent(packed, first)
	codec, can := f.codec()
	switch {
	case f.encrypted():
		a.Found("archive.entry.encrypted", where, start, m.Parts[0].Name)
		return a.unread(ctx, m, start, end, predicate.Encrypted)
	case len(f.coders) > 1 || ok && !can:
		return a.unread(ctx, m, start, end, predicate.UnsupportedCompression)
	case !ok:
		a.broken(headBytes, "packed bytes are outside of the archive")
		return nil
	}
	m.Codec, m.Start, m.End = codec, start, end
	r, err := unpack.Enter(ctx, a.Visit, m)
	if err != nil || r.Fault != nil {
		return err
	}
	if f.sum != nil && *f.sum != r.Sum {
		a.Found("archive.entry.checksum", where, start, m.Parts[0].Name)
	}
	if r.End < end {
		a.Found("archive.entry.hidden", where, r.End, "bytes follow the compressed data")
		_, err = a.Enter(ctx, a.Part(r.End, end))
	}
	return err
}

// unread names the members of a folder that is not read.
func (a *archive) unread(ctx context.Context, m unpack.Member, start, end int64, why predicate.Reason) error {
	a.Unread(start, end, why)
	a.Unread(start, start, why)
	for _, p := range m.Parts {
		part := a.Part(start, end)
		part.Name = p.Name
		_, err := a.EnterWith(ctx, part, func(_ context.Context, c *content.Visit) error {
			c.Format = "unread"
			c.Unread(0, c.Size, why)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// names are those of the members with content, and checked all.
func (a *archive) names(h *header) []string {
	var out []string
	seen := make(map[string]bool)
	for i, name := range h.names {
		if content.Leaves(name) {
			a.Found("archive.entry.path", where, 0, name)
		}
		if i < len(h.empty) && h.empty[i] {
			continue
		}
		if key := content.CanonicalName(name); seen[key] {
			a.Found("archive.entry.duplicate", where, 0, name)
		} else {
			seen[key] = true
		}
		out = append(out, name)
	}
	return out
}
