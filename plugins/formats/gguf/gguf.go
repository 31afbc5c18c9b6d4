// Package gguf reads GGUF files of versions 1 to 3 in both byte orders: every
// metadata entry, every tensor's description, and the tensors' extents with all
// the arithmetic that readers in C have got wrong. The tensors are inert: they
// are mapped into memory and never interpreted as anything but numbers. Chat
// templates are handed on as content of their own, since they are programs.
package gguf

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/tensor"
	"github.com/cavra/cavra/plugins/formats/window"
)

// ID is the format's id.
const ID = "gguf"

const magic = "GGUF"

const (
	// maxEntries and maxTensors bound what one file describes. Real ones have
	// some dozen entries and some thousand tensors.
	maxEntries = 100_000
	maxTensors = 1_000_000
	// maxMetadata bounds all before the tensors, in bytes. Vocabularies take
	// some ten MiB.
	maxMetadata = 256 << 20
	// maxNesting of arrays within arrays.
	maxNesting = 8
	// maxKey is how long a name may be (GGUF specification: 65,535 bytes).
	maxKey = 65_535
	// absurd is a count or length that no file has; with it the arithmetic of
	// readers overflows.
	absurd = 1 << 48
)

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{
		"archive.entry.hidden", "gguf.key.duplicate", "gguf.malformed", "gguf.overflow", "model.limit",
		tensor.RuleOdd, tensor.RulePath,
	}
}

// Format is GGUF as a format of the program.
type Format struct {
	// Template scans a chat template. Without it templates are unread.
	Template func(ctx context.Context, v *content.Visit) error
}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return len(v.Head) >= 8 && strings.HasPrefix(string(v.Head), magic), nil
}

// Scan implements content.Format.
func (f Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	s := &scan{Visit: v, Format: f, w: window.New(v.Bytes, v.Size), at: 8, alignment: 32, order: binary.LittleEndian}
	s.version = binary.LittleEndian.Uint32(v.Head[4:])
	if s.version != 0 && s.version&0xffff == 0 {
		s.order = binary.BigEndian
		s.version = binary.BigEndian.Uint32(v.Head[4:])
	}
	if s.version < 1 || s.version > 3 {
		v.Found("gguf.malformed", ID, 4, "a version that is not known")
		v.Unread(0, v.Size, predicate.UnsupportedFormat)
		return nil
	}
	err := s.run(ctx)
	var broken *fault
	if !errors.As(err, &broken) {
		return err
	}
	v.Found(broken.rule, ID, min(s.at, v.Size), broken.what)
	v.Parsed(0, min(s.at, v.Size))
	v.Unread(min(s.at, v.Size), v.Size, broken.why)
	v.Unread(v.Size, v.Size, broken.why)
	return nil
}

// fault is what ends the reading of a file.
type fault struct {
	rule, what string
	why        predicate.Reason
}

func (f *fault) Error() string { return f.what }

func malformed(what string) error { return &fault{"gguf.malformed", what, predicate.Malformed} }
func overflow(what string) error  { return &fault{"gguf.overflow", what, predicate.Malformed} }
func truncated() error {
	return &fault{"gguf.malformed", "the file is cut short", predicate.Truncated}
}
func limit(what string, why predicate.Reason) error { return &fault{"model.limit", what, why} }

// scan is one scan of one file.
type scan struct {
	*content.Visit
	Format
	w         *window.Reader
	at        int64
	order     binary.ByteOrder
	version   uint32
	alignment int64
	// holes counts the parts between tensors that are no padding.
	holes int
}

func (s *scan) run(ctx context.Context) error {
	tensors, err := s.length()
	if err != nil {
		return err
	}
	entries, err := s.length()
	if err != nil {
		return err
	}
	// The least that a description takes: name, number of dimensions, type, offset.
	if err := s.fits(tensors, 8+4+4+8, "tensors"); err != nil {
		return err
	}
	if err := s.fits(entries, 8+4+1, "metadata entries"); err != nil {
		return err
	}
	if tensors > maxTensors || entries > maxEntries {
		return limit("too many tensors or metadata entries", predicate.LimitMembers)
	}
	if err := s.metadata(ctx, int(entries)); err != nil {
		return err
	}
	list, err := s.descriptions(ctx, int(tensors))
	if err != nil {
		return err
	}
	return s.data(ctx, list)
}

// fits holds a count against the bytes that are left; readers multiply it with
// the size of their own structures and allocate that.
func (s *scan) fits(n uint64, least int64, what string) error {
	switch {
	case n > absurd:
		return overflow("the number of " + what + " overflows")
	case n > uint64(s.Size-s.at)/uint64(least):
		return malformed("more " + what + " than the file can hold")
	}
	return nil
}

// bytes takes the next n bytes, at most window.MaxPiece.
func (s *scan) bytes(n int) ([]byte, error) {
	if int64(n) > s.Size-s.at {
		return nil, truncated()
	}
	if s.at+int64(n) > maxMetadata {
		return nil, limit("too much before the tensors", predicate.LimitBytes)
	}
	b, err := s.w.Bytes(s.at, n)
	if err != nil {
		return nil, err
	}
	s.at += int64(n)
	return b, nil
}

func (s *scan) u32() (uint32, error) {
	b, err := s.bytes(4)
	if err != nil {
		return 0, err
	}
	return s.order.Uint32(b), nil
}

func (s *scan) u64() (uint64, error) {
	b, err := s.bytes(8)
	if err != nil {
		return 0, err
	}
	return s.order.Uint64(b), nil
}

// length reads a count or a length: four bytes in version 1, eight later.
func (s *scan) length() (uint64, error) {
	if s.version == 1 {
		n, err := s.u32()
		return uint64(n), err
	}
	return s.u64()
}

// skip steps over n bytes.
func (s *scan) skip(n int64) error {
	if n > s.Size-s.at {
		return truncated()
	}
	if s.at+n > maxMetadata {
		return limit("too much before the tensors", predicate.LimitBytes)
	}
	s.at += n
	return nil
}

// text steps over a string and gives its extent.
func (s *scan) text() (start, end int64, err error) {
	n, err := s.length()
	if err != nil {
		return 0, 0, err
	}
	if n > absurd {
		// A reader that allocates one byte more for the end allocates none.
		return 0, 0, overflow("a string's length overflows")
	}
	start = s.at
	err = s.skip(int64(n))
	return start, s.at, err
}

// name reads a string that is short by the format.
func (s *scan) name() (string, error) {
	start, end, err := s.text()
	if err != nil {
		return "", err
	}
	if end-start > maxKey {
		return "", malformed("a name is too long")
	}
	b, err := s.w.Bytes(start, int(end-start))
	return string(b), err
}

func padded(n, alignment int64) (int64, bool) {
	up, ok := tensor.Add(n, alignment-1)
	return up / alignment * alignment, ok && up <= math.MaxInt64-alignment
}
