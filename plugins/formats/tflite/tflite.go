// Package tflite reads TensorFlow Lite models: the whole flatbuffer by its
// schema, with every offset checked. It reports operators that need native code
// beyond the runtime's own, TensorFlow operators that a model carries along, and
// weights that lie in other files. Weights in the file are inert. The zip archive
// of associated files that may follow the model is scanned as one.
package tflite

import (
	"context"
	_ "embed"
	"errors"
	"math"
	"sync"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/flatbuffer"
	"github.com/cavra/cavra/plugins/formats/window"
	"github.com/cavra/cavra/plugins/formats/zip"
)

// ID is the format's id.
const ID = "tflite"

const mark = "TFL3"

// maxHoles bounds the parts between objects that are looked at. Honest files have
// none but padding.
const maxHoles = 1000

// Rules lists the rules that Scan may name, besides those of TensorFlow's
// operators and of archives.
func Rules() []string {
	return []string{"archive.entry.hidden", "model.limit", "tflite.external.path", "tflite.malformed", "tflite.op.custom", "tflite.op.flex"}
}

// schemaText are the tables of TensorFlow Lite's schema, as of 2.21.
//
//go:embed schema.txt
var schemaText string

var model = sync.OnceValues(func() (*flatbuffer.Table, error) {
	s, err := flatbuffer.ParseSchema(schemaText)
	return s["Model"], err
})

// Format is TensorFlow Lite as a format of the program.
type Format struct{}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return len(v.Head) >= 8 && string(v.Head[4:8]) == mark, nil
}

// Carries reports whether content of this format is of another one as well when
// it is honest: associated files are appended as a zip archive.
func (Format) Carries(format string) bool { return format == zip.IDZip }

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	root, err := model()
	if err != nil {
		return err
	}
	s := &scan{v: v, w: window.New(v.Bytes, v.Size)}
	walk := flatbuffer.NewWalk(s.w, s)
	if err := walk.Run(ctx, root); err != nil {
		rule, why := "tflite.malformed", predicate.Malformed
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
		return s.judge()
	}
	if err := s.judge(); err != nil {
		return err
	}
	for _, e := range walk.Unknown() {
		v.Unread(e.Start, e.End, predicate.UnknownFormat)
	}
	return s.account(ctx, walk.Extents(), len(walk.Unknown()) > 0)
}

// account claims what objects cover, and looks at what they do not.
func (s *scan) account(ctx context.Context, objects []flatbuffer.Extent, unknown bool) error {
	covered := merge(objects, s.inert, s.beyond)
	s.inert = sorted(s.inert)
	at := int64(0)
	for _, e := range covered {
		if s.holes > maxHoles {
			s.v.Found("model.limit", ID, at, "too many holes")
			s.v.Unread(at, s.v.Size, predicate.LimitMembers)
			return nil
		}
		if err := s.gap(ctx, at, e.Start, unknown); err != nil {
			return err
		}
		s.claim(e)
		at = e.End
	}
	archived, err := zip.Format{}.IdentifyBeside(ctx, s.v)
	if err != nil || archived {
		// The archive accounts for its own bytes, and for what lies before it.
		s.v.Carrier = at
		return err
	}
	return s.v.Trailing(ctx, ID, at)
}

// claim claims an extent of objects; the weights in it are inert.
func (s *scan) claim(e flatbuffer.Extent) {
	at := e.Start
	for len(s.inert) > 0 && s.inert[0].Start < e.End {
		s.v.Parsed(at, s.inert[0].Start)
		s.v.Inert(max(at, s.inert[0].Start), s.inert[0].End)
		at = max(at, s.inert[0].End)
		s.inert = s.inert[1:]
	}
	s.v.Parsed(at, e.End)
}

// gap looks at what lies between objects: zeros, or what a newer schema has.
func (s *scan) gap(ctx context.Context, start, end int64, unknown bool) error {
	zero, err := s.v.IsZero(ctx, start, end)
	switch {
	case err != nil || start >= end:
		return err
	case zero:
		s.v.Parsed(start, end)
		return nil
	case unknown:
		s.v.Unread(start, end, predicate.UnknownFormat)
		return nil
	}
	s.holes++
	s.v.Found("archive.entry.hidden", ID, start, "bytes between objects")
	_, err = s.v.Enter(ctx, s.v.Part(start, end))
	return err
}

// within reports whether [start, start+size) lies in the file.
func (s *scan) within(start, size uint64) bool {
	return start <= math.MaxInt64 && size <= math.MaxInt64 && int64(start) <= s.v.Size && int64(size) <= s.v.Size-int64(start)
}
