// Package hdf5 reads HDF5 files (HDF5 File Format Specification 3.0), in which
// Keras, pandas and others keep models: superblock, object headers, groups, data
// sets and heaps, each byte by the structure that it belongs to. Numbers are inert
// by their extent. Texts and opaque bytes are handed on where they are settings or
// a pickle, wherever they stand: in attributes, data sets and heaps.
//
// What is not followed is a gap: fractal heaps and version 2 B-trees (groups and
// attributes of more than eight members in files of the latest format), the
// newer indexes of chunks, types that are shared, and texts behind filters. Space
// that belongs to nothing is a gap unless it is zero.
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

// ID is the format's id, and the class of its findings.
const ID = "hdf5"

const (
	ruleExternal  = "hdf5.external"
	ruleFilter    = "hdf5.filter.unknown"
	ruleMalformed = "hdf5.malformed"
	ruleBomb      = "hdf5.bomb"
)

// Rules lists the rules that Scan may name.
func Rules() []string { return []string{ruleExternal, ruleFilter, ruleMalformed, ruleBomb} }

const signature = "\x89HDF\r\n\x1a\n"

const (
	// maxMessages and maxBlocks bound one object header.
	maxMessages = 10_000
	maxBlocks   = 1000
	// maxObjects bounds the objects of a file, maxNodes the nodes of its trees,
	// and maxChunks its chunks.
	maxObjects = 1 << 20
	maxNodes   = 1 << 20
	maxChunks  = 1 << 22
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

var (
	errMalformed = errors.New("broken structure")
	errLimit     = errors.New("more than is followed")
)

// Scan implements content.Format.
func (f Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	s := &scan{
		Visit: v, Format: f, w: window.New(v.Bytes, v.Size), base: base(v.Head),
		seen: make(map[structure]bool), internal: 16, leaf: 4, indexed: 32,
	}
	err := s.run(ctx)
	if err = s.broken(err); err == nil {
		err = s.broken(s.between(ctx))
	}
	return err
}

// broken says what stopped a walk, and keeps errors of reading.
func (s *scan) broken(err error) error {
	switch {
	case errors.Is(err, errMalformed) || errors.Is(err, window.ErrBeyond):
		s.Found(ruleMalformed, ID, max(s.at, 0))
		s.Unread(s.Size, s.Size, predicate.Malformed)
	case errors.Is(err, errLimit):
		s.Found("model.limit", ID, max(s.at, 0))
		s.Unread(s.Size, s.Size, predicate.LimitMembers)
	default:
		return err
	}
	return nil
}

type scan struct {
	*content.Visit
	Format
	w               *window.Reader
	base            int64
	offsets, length int // sizes in bytes
	// internal, leaf and indexed are the ranks of trees: half the entries of a node.
	internal, leaf, indexed int
	end                     int64 // of the file, as it says
	at                      int64 // where a structure began
	seen                    map[structure]bool
	objects                 []int64 // whose headers are to be read
	nodes, chunks           int
	data                    int64 // bytes that are stored of data sets so far
}

// number reads a little-endian integer of n bytes, which fits in an offset.
func (s *scan) number(at int64, n int) (int64, error) {
	b, err := s.w.Bytes(at, n)
	if err != nil {
		return 0, err
	}
	return little(b), nil
}

// little is an integer; what does not fit, as the address of nothing, is -1, which
// lies in no file.
func little(b []byte) int64 {
	var full [8]byte
	copy(full[:], b)
	if len(b) < 8 && len(b) > 0 && bytes.Count(b, []byte{0xff}) == len(b) {
		return -1
	}
	if n := binary.LittleEndian.Uint64(full[:]); n < 1<<62 {
		return int64(n)
	}
	return -1
}

// place is an address in the file as an offset in the content, or -1.
func (s *scan) place(b []byte) int64 {
	if at := little(b); at >= 0 {
		return s.base + at
	}
	return -1
}

// structure is one of a kind at an offset.
type structure struct {
	at   int64
	kind byte
}

// The kinds of structures that can be led to from several places.
const (
	kindObject byte = iota
	kindNames
	kindTree
	kindSymbols
	kindValue
)

// once reports whether a structure is met for the first time, and bounds how many
// there are.
func (s *scan) once(at int64, kind byte) (bool, error) {
	s.at = at
	this := structure{at, kind}
	if s.seen[this] {
		return false, nil
	}
	if len(s.seen) >= maxObjects+maxNodes {
		return false, errLimit
	}
	s.seen[this] = true
	return true, nil
}

// inert claims an extent that must lie within the content.
func (s *scan) inert(start, size int64) error {
	if start < 0 || size < 0 || start > s.Size || size > s.Size-start {
		return errMalformed
	}
	s.Inert(start, start+size)
	return nil
}

func (s *scan) run(ctx context.Context) error {
	if err := s.user(ctx); err != nil {
		return err
	}
	if err := s.superblock(); err != nil {
		return err
	}
	for len(s.objects) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := s.objects[len(s.objects)-1]
		s.objects = s.objects[:len(s.objects)-1]
		if first, err := s.once(at, kindObject); err != nil || !first {
			if err != nil {
				return err
			}
			continue
		}
		if err := s.object(ctx, at); err != nil {
			return err
		}
	}
	return nil
}

// user scans the block of the user's before the file.
func (s *scan) user(ctx context.Context) error {
	zero, err := s.IsZero(ctx, 0, s.base)
	if err != nil || s.base == 0 {
		return err
	}
	if zero {
		s.Parsed(0, s.base)
		return nil
	}
	_, err = s.Enter(ctx, s.Part(0, s.base))
	return err
}

// superblock reads what a file begins with.
func (s *scan) superblock() error {
	b, err := s.w.Bytes(s.base+8, 16)
	if err != nil {
		return err
	}
	b = bytes.Clone(b)
	switch version := b[0]; version {
	case 0, 1:
		return s.oldSuperblock(b)
	case 2, 3:
		s.offsets, s.length = int(b[1]), int(b[2])
	default:
		return errMalformed
	}
	if !size(s.offsets) || !size(s.length) {
		return errMalformed
	}
	n := 12 + 4*s.offsets + 4
	a, err := s.w.Bytes(s.base, n)
	if err != nil {
		return err
	}
	address := func(i int) []byte { return a[12+i*s.offsets : 12+(i+1)*s.offsets] }
	s.end = s.place(address(2))
	s.Parsed(s.base, s.base+int64(n))
	for _, i := range []int{1, 3} { // the superblock's extension, and the root
		if at := s.place(address(i)); at >= 0 {
			s.objects = append(s.objects, at)
		} else if i == 3 {
			return errMalformed
		}
	}
	return nil
}

func (s *scan) oldSuperblock(b []byte) error {
	s.offsets, s.length = int(b[5]), int(b[6])
	if !size(s.offsets) || !size(s.length) {
		return errMalformed
	}
	s.leaf, s.internal = int(binary.LittleEndian.Uint16(b[8:])), int(binary.LittleEndian.Uint16(b[10:]))
	start := s.base + 24
	if b[0] == 1 {
		k, err := s.number(start, 2)
		if err != nil {
			return err
		}
		s.indexed = int(k)
		start += 4
	}
	a, err := s.w.Bytes(start, 6*s.offsets+24)
	if err != nil {
		return err
	}
	s.end = s.place(a[2*s.offsets : 3*s.offsets])
	if s.place(a[3*s.offsets:4*s.offsets]) >= 0 {
		s.Unread(s.Size, s.Size, predicate.UnsupportedFormat) // a driver's information: one of several files
	}
	root := s.place(a[5*s.offsets : 6*s.offsets])
	s.Parsed(s.base, start+int64(len(a)))
	if root < 0 {
		return errMalformed
	}
	s.objects = append(s.objects, root)
	return nil
}

func size(n int) bool { return n == 2 || n == 4 || n == 8 }
