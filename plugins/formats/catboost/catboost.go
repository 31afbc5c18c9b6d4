// Package catboost reads CatBoost's binary models: the mark, the flatbuffer of
// the trees, and the flatbuffers of categorical statistics behind it, each walked
// by its schema with every offset checked. They hold numbers and names only. The
// parts for texts and embeddings are unread.
package catboost

import (
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/flatbuffer"
	"github.com/cavra/cavra/plugins/formats/window"
)

// ID is the format's id.
const ID = "catboost"

const (
	mark          = "CBM1"
	ruleMalformed = "tree.malformed"
	// ctrPart is the only part behind the trees that is read.
	ctrPart = "static_provider_v1"
	// maxParts bounds the parts, and the tables within one.
	maxParts = 10_000
)

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{"archive.entry.hidden", "model.limit", ruleMalformed, "tree.index"}
}

//go:embed schema.txt
var schemaText string

var schema = sync.OnceValues(func() (flatbuffer.Schema, error) { return flatbuffer.ParseSchema(schemaText) })

// Format is CatBoost's binary format as a format of the program.
type Format struct{}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return len(v.Head) >= 16 && string(v.Head[:4]) == mark, nil
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	tables, err := schema()
	if err != nil {
		return err
	}
	r := cursor.New(v.Bytes, v.Size)
	r.Skip(4)
	size := int64(r.U32())
	start := r.At()
	r.Skip(size)
	if !r.Ok() {
		return cursor.Settle(v, r.Err(), ID, ruleMalformed, 0)
	}
	v.Parsed(0, start)
	s := &scan{v: v, fields: make(map[string]int64)}
	ok, err := s.buffer(ctx, tables["TModelCore"], start, start+size)
	if err != nil || !ok {
		v.Unread(start+size, v.Size, predicate.Malformed)
		return err
	}
	s.check(start)
	return s.behind(ctx, tables["TCtrValueTable"], r)
}

// scan is one scan of one model.
type scan struct {
	v      *content.Visit
	w      *window.Reader
	base   int64
	parts  []string
	fields map[string]int64
}

// buffer walks one flatbuffer in [start, end), and claims all of it.
func (s *scan) buffer(ctx context.Context, root *flatbuffer.Table, start, end int64) (bool, error) {
	s.w, s.base = window.New(io.NewSectionReader(s.v.Bytes, start, end-start), end-start), start
	walk := flatbuffer.NewWalk(s.w, s)
	if err := walk.Run(ctx, root); err != nil {
		rule, why := ruleMalformed, predicate.Malformed
		switch {
		case errors.Is(err, flatbuffer.ErrMalformed):
		case errors.Is(err, flatbuffer.ErrDepth), errors.Is(err, flatbuffer.ErrObjects):
			rule, why = "model.limit", predicate.LimitMembers
		default:
			return false, err
		}
		s.v.Found(rule, ID, start, err.Error())
		s.v.Unread(start, end, why)
		return false, nil
	}
	for _, e := range walk.Unknown() {
		s.v.Unread(start+e.Start, start+e.End, predicate.UnknownFormat)
	}
	return true, s.account(ctx, walk, start, end)
}

// account claims what objects cover, and looks at what they do not.
func (s *scan) account(ctx context.Context, walk *flatbuffer.Walk, start, end int64) error {
	at := start
	for i, e := range append(walk.Extents(), flatbuffer.Extent{Start: end - start, End: end - start}) {
		zero, err := s.v.IsZero(ctx, at, start+e.Start)
		switch {
		case err != nil:
			return err
		case i > maxParts:
			s.v.Unread(at, end, predicate.LimitMembers)
			return nil
		case zero:
			s.v.Parsed(at, start+e.Start)
		case start+e.Start-at < 16 && e.Start%4 == 0: // a writer's alignment, not cleared
			s.v.Inert(at, start+e.Start)
		case len(walk.Unknown()) > 0:
			s.v.Unread(at, start+e.Start, predicate.UnknownFormat)
		default:
			s.v.Found("archive.entry.hidden", ID, at, "bytes between objects")
			if _, err := s.v.Enter(ctx, s.v.Part(at, start+e.Start)); err != nil {
				return err
			}
		}
		s.v.Parsed(start+e.Start, start+e.End)
		at = start + e.End
	}
	return nil
}

// check holds the sizes that the library indexes by against each other.
func (s *scan) check(at int64) {
	f := s.fields
	if f["TreeSizes"] != f["TreeStartOffsets"] && f["TreeStartOffsets"] != 0 || f["sum"] > f["TreeSplits"] {
		s.v.Found("tree.index", ID, at, "trees lead out of their splits")
	}
	if f["NonSymmetricStepNodes"] != f["NonSymmetricNodeIdToLeafId"] {
		s.v.Found("tree.index", ID, at, "nodes and leaves are not as many")
	}
}

// behind reads the parts that follow the trees.
func (s *scan) behind(ctx context.Context, table *flatbuffer.Table, r *cursor.Reader) error {
	at := r.At()
	if len(s.parts) == 0 {
		return s.v.Trailing(ctx, ID, at)
	}
	if len(s.parts) > 1 || s.parts[0] != ctrPart {
		s.v.Unread(at, s.v.Size, predicate.UnsupportedFormat)
		return nil
	}
	n := r.U32()
	if n > maxParts {
		r.Limit("too many tables", predicate.LimitMembers)
	}
	s.v.Parsed(at, r.At())
	for range n {
		size := int64(r.U32())
		start := r.At()
		r.Skip(size)
		if !r.Ok() {
			return cursor.Settle(s.v, r.Err(), ID, ruleMalformed, at)
		}
		s.v.Parsed(start-4, start)
		if _, err := s.buffer(ctx, table, start, start+size); err != nil {
			return err
		}
	}
	if !r.Ok() {
		return cursor.Settle(s.v, r.Err(), ID, ruleMalformed, at)
	}
	return s.v.Trailing(ctx, ID, r.At())
}

// Begin implements flatbuffer.Visitor.
func (*scan) Begin(*flatbuffer.Table, int64) error { return nil }

// End implements flatbuffer.Visitor.
func (*scan) End(*flatbuffer.Table) error { return nil }

// Number implements flatbuffer.Visitor.
func (*scan) Number(*flatbuffer.Table, *flatbuffer.Field, uint64) error { return nil }

// Bytes implements flatbuffer.Visitor.
func (s *scan) Bytes(t *flatbuffer.Table, f *flatbuffer.Field, start, end int64) error {
	switch t.Name {
	case "TModelCore":
		if f.Name == "ModelPartIds" && len(s.parts) < maxParts {
			b, err := s.w.Bytes(start, int(min(end-start, 256)))
			s.parts = append(s.parts, string(b))
			return err
		}
	case "TObliviousTrees":
		s.fields[f.Name] = (end - start) / int64(f.Size)
		if f.Name == "TreeSizes" {
			return s.sum(start, end)
		}
	}
	return nil
}

// sum adds up the sizes of the trees.
func (s *scan) sum(start, end int64) error {
	for at := start; at < end; at += 4 {
		b, err := s.w.Bytes(at, 4)
		if err != nil {
			return err
		}
		s.fields["sum"] += int64(binary.LittleEndian.Uint32(b))
	}
	return nil
}
