package gguf

import (
	"context"
	"math/bits"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// The types of metadata values.
const (
	typeUint32 = 4
	typeBool   = 7
	typeString = 8
	typeArray  = 9
)

// sizes are those of the types in bytes; 0 for strings and arrays.
var sizes = []int64{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8}

// chatTemplate begins the keys whose values are templates.
const chatTemplate = "tokenizer.chat_template"

const keyAlignment = "general.alignment"

// metadata reads the key and value entries.
func (s *scan) metadata(ctx context.Context, entries int) error {
	seen := make(map[string]struct{})
	for range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := s.at
		key, err := s.name()
		if err != nil {
			return err
		}
		if _, twice := seen[key]; twice {
			s.Found("gguf.key.duplicate", ID, at, key)
		}
		seen[key] = struct{}{}
		kind, err := s.u32()
		if err != nil {
			return err
		}
		if key == keyAlignment {
			if err := s.readAlignment(kind); err != nil {
				return err
			}
			continue
		}
		if err := s.value(ctx, key, kind, 0); err != nil {
			return err
		}
	}
	return nil
}

// readAlignment reads the number that extents are multiples of: a power of two
// that is at least 8 by the specification. Readers divide by it.
func (s *scan) readAlignment(kind uint32) error {
	if kind != typeUint32 {
		return malformed("the alignment is no 32-bit integer")
	}
	n, err := s.u32()
	if err != nil {
		return err
	}
	if bits.OnesCount32(n) != 1 {
		return malformed("the alignment is no power of two")
	}
	s.alignment = int64(n)
	return nil
}

func (s *scan) value(ctx context.Context, key string, kind uint32, depth int) error {
	switch {
	case kind == typeString:
		start, end, err := s.text()
		if err == nil && strings.HasPrefix(key, chatTemplate) {
			err = s.template(ctx, key, start, end)
		}
		return err
	case kind == typeArray:
		if depth >= maxNesting {
			return limit("arrays are nested too deep", predicate.LimitDepth)
		}
		return s.array(ctx, key, depth+1)
	case kind >= uint32(len(sizes)):
		return malformed("a value's type is not known")
	case kind == typeBool:
		b, err := s.bytes(1)
		if err == nil && b[0] > 1 {
			err = malformed("a truth value is neither 0 nor 1")
		}
		return err
	}
	return s.skip(sizes[kind])
}

func (s *scan) array(ctx context.Context, key string, depth int) error {
	kind, err := s.u32()
	if err != nil {
		return err
	}
	n, err := s.length()
	if err != nil {
		return err
	}
	if kind >= uint32(len(sizes)) {
		return malformed("an array's type is not known")
	}
	least := sizes[kind]
	if least == 0 {
		least = 4
	}
	if err := s.fits(n, least, "values of an array"); err != nil {
		return err
	}
	if sizes[kind] > 0 {
		return s.skip(int64(n) * sizes[kind])
	}
	for i := range n {
		if i%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.value(ctx, key, kind, depth); err != nil {
			return err
		}
	}
	return nil
}

// template hands a chat template on.
func (s *scan) template(ctx context.Context, key string, start, end int64) error {
	span := s.Part(start, end)
	span.Name = key
	scanTemplate := s.Template
	if scanTemplate == nil {
		scanTemplate = unreadTemplate
	}
	_, err := s.EnterWith(ctx, span, scanTemplate)
	return err
}

func unreadTemplate(_ context.Context, v *content.Visit) error {
	v.Format = "jinja"
	v.Unread(0, v.Size, predicate.UnsupportedFormat)
	return nil
}
