// Package executorch reads ExecuTorch programs (.pte): the whole flatbuffer by its
// schema, the extended header and the segments behind. Operators that are not the
// runtime's own, delegates by the backend that gets their data, indices that lead
// out of their tables, and weights in other files are reported. What a delegate is
// handed is scanned as content of its own, and unread where nothing knows it.
package executorch

import (
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/flatbuffer"
	"github.com/cavra/cavra/plugins/formats/window"
)

// ID is the format's id.
const ID = "executorch"

const (
	ruleCustom    = "executorch.op.custom"
	ruleDelegate  = "executorch.delegate"
	ruleUnknown   = "executorch.delegate.unknown"
	ruleIndex     = "executorch.index"
	ruleExternal  = "executorch.data.external"
	ruleMalformed = "executorch.malformed"
)

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{ruleCustom, ruleDelegate, ruleUnknown, ruleIndex, ruleExternal, ruleMalformed, "archive.entry.hidden", "model.limit"}
}

// schemaText are the tables of ExecuTorch's schema, as of 1.5.
//
//go:embed schema.txt
var schemaText string

var program = sync.OnceValues(func() (*flatbuffer.Table, error) {
	s, err := flatbuffer.ParseSchema(schemaText)
	return s["Program"], err
})

const (
	mark = "ET12"
	// headerMark begins the extended header, at headerAt; its shortest form takes
	// headerBytes.
	headerMark  = "eh00"
	headerAt    = 8
	headerBytes = 24
	// maxHoles bounds the parts between objects that are looked at.
	maxHoles = 1000
)

// Format is ExecuTorch's programs as a format of the program.
type Format struct{}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return len(v.Head) >= 8 && string(v.Head[4:8]) == mark, nil
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	root, err := program()
	if err != nil {
		return err
	}
	s := &scan{v: v, w: window.New(v.Bytes, v.Size)}
	s.header()
	walk := flatbuffer.NewWalk(s.w, s)
	if err := walk.Run(ctx, root); err != nil {
		rule, why := ruleMalformed, predicate.Malformed
		switch {
		case errors.Is(err, flatbuffer.ErrMalformed):
		case errors.Is(err, flatbuffer.ErrDepth):
			rule, why = "model.limit", predicate.LimitDepth
		case errors.Is(err, flatbuffer.ErrObjects):
			rule, why = "model.limit", predicate.LimitMembers
		default:
			return err
		}
		v.Found(rule, ID, 0, err.Error())
		v.Unread(0, v.Size, why)
		return nil
	}
	for _, e := range walk.Unknown() {
		v.Unread(e.Start, e.End, predicate.UnknownFormat)
	}
	return s.account(ctx, walk.Extents(), s.parts(), len(walk.Unknown()) > 0)
}

// header reads the extended header, behind the mark.
func (s *scan) header() {
	h := s.v.Head
	if len(h) < headerAt+headerBytes || string(h[headerAt:headerAt+4]) != headerMark {
		return
	}
	length := int64(binary.LittleEndian.Uint32(h[headerAt+4:]))
	size, base := binary.LittleEndian.Uint64(h[headerAt+8:]), binary.LittleEndian.Uint64(h[headerAt+16:])
	if length < headerBytes || length > 64 || size > uint64(s.v.Size) || base > uint64(s.v.Size) {
		s.v.Found(ruleMalformed, ID, headerAt, "the extended header leads out of the file")
		s.v.Unread(0, s.v.Size, predicate.Malformed)
		return
	}
	s.base = int64(base)
	s.covered = append(s.covered, part{flatbuffer.Extent{Start: headerAt, End: headerAt + length}, kindParsed})
}

// account claims what objects and segments cover, and looks at what they do not.
func (s *scan) account(ctx context.Context, objects []flatbuffer.Extent, parts []part, unknown bool) error {
	for _, e := range objects {
		parts = append(parts, part{e, kindParsed})
	}
	at, holes := int64(0), 0
	for _, p := range ordered(append(parts, s.covered...)) {
		if p.End <= at {
			continue
		}
		if holes > maxHoles {
			s.v.Found("model.limit", ID, at, "too many holes")
			s.v.Unread(at, s.v.Size, predicate.LimitMembers)
			return nil
		}
		hole, err := s.gap(ctx, at, p.Start, unknown)
		if err != nil {
			return err
		}
		if hole {
			holes++
		}
		if err := s.claim(ctx, p, max(at, p.Start)); err != nil {
			return err
		}
		at = p.End
	}
	return s.v.Trailing(ctx, ID, at)
}

// claim claims a part from where the one before has ended.
func (s *scan) claim(ctx context.Context, p part, from int64) error {
	switch p.kind {
	case kindInert:
		s.v.Inert(from, p.End)
	case kindDelegate:
		_, err := s.v.Enter(ctx, s.v.Part(from, p.End))
		return err
	default:
		s.v.Parsed(from, p.End)
	}
	return nil
}

// gap looks at what lies between objects, and reports whether it is no padding.
func (s *scan) gap(ctx context.Context, start, end int64, unknown bool) (bool, error) {
	if start >= end {
		return false, nil
	}
	zero, err := s.v.IsZero(ctx, start, end)
	switch {
	case err != nil:
		return false, err
	case zero:
		s.v.Parsed(start, end)
		return false, nil
	case unknown:
		s.v.Unread(start, end, predicate.UnknownFormat)
		return true, nil
	}
	s.v.Found("archive.entry.hidden", ID, start, "bytes between objects")
	_, err = s.v.Enter(ctx, s.v.Part(start, end))
	return true, err
}
