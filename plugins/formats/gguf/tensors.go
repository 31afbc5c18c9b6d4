package gguf

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/tensor"
)

// maxDims is the number of dimensions that readers have room for.
const maxDims = 4

// maxHoles bounds the parts between tensors that are looked at. Honest files have
// none but padding.
const maxHoles = 1000

// block is how many items a type stores together, and in how many bytes.
type block struct{ items, bytes int64 }

// blocks are the element types by number. Numbers 4 and 5 are gone; 31 to 33 and
// 36 to 38 were other orders of the blocks of 2 and 20.
var blocks = map[uint32]block{
	0: {1, 4}, 1: {1, 2}, 2: {32, 18}, 3: {32, 20}, 6: {32, 22}, 7: {32, 24}, 8: {32, 34}, 9: {32, 40},
	10: {256, 84}, 11: {256, 110}, 12: {256, 144}, 13: {256, 176}, 14: {256, 210}, 15: {256, 292},
	16: {256, 66}, 17: {256, 74}, 18: {256, 98}, 19: {256, 50}, 20: {32, 18}, 21: {256, 110}, 22: {256, 82}, 23: {256, 136},
	24: {1, 1}, 25: {1, 2}, 26: {1, 4}, 27: {1, 8}, 28: {1, 8}, 29: {256, 56}, 30: {1, 2},
	31: {32, 18}, 32: {32, 18}, 33: {32, 18}, 34: {256, 54}, 35: {256, 66}, 36: {32, 18}, 37: {32, 18}, 38: {32, 18},
	39: {32, 17}, 40: {64, 36}, 41: {128, 18},
}

// description is what the file says of a tensor: where its data lies from the
// beginning of the data, and where its description stands.
type description struct {
	start, size, at int64
	// known is whether the size could be told.
	known bool
}

func (s *scan) descriptions(ctx context.Context, tensors int) ([]description, error) {
	var list []description
	seen := make(map[string]struct{})
	for range tensors {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		at := s.at
		name, err := s.name()
		if err != nil {
			return nil, err
		}
		if _, twice := seen[name]; twice {
			s.Found("gguf.key.duplicate", ID, at, name)
		}
		seen[name] = struct{}{}
		if rule := tensor.CheckName(name); rule != "" {
			s.Found(rule, ID, at, name)
		}
		d, err := s.description(name)
		if err != nil {
			return nil, err
		}
		d.at = at
		list = append(list, d)
	}
	return list, nil
}

func (s *scan) description(name string) (d description, err error) {
	n, err := s.u32()
	if err != nil {
		return d, err
	}
	if n > maxDims {
		return d, overflow("a tensor has more dimensions than readers have room for")
	}
	dims := make([]uint64, n)
	for i := range dims {
		if dims[i], err = s.length(); err != nil {
			return d, err
		}
	}
	kind, err := s.u32()
	if err != nil {
		return d, err
	}
	start, err := s.u64()
	if err != nil {
		return d, err
	}
	if start > math.MaxInt64 {
		return d, overflow("a tensor's offset overflows")
	}
	d.start = int64(start)
	items, ok := tensor.Items(dims)
	if !ok {
		return d, overflow("a tensor's shape overflows")
	}
	b, known := blocks[kind]
	if !known {
		s.Found("gguf.malformed", ID, s.at, "a tensor's type is not known", name)
		return d, nil
	}
	if row := rowOf(dims); row%b.items != 0 {
		s.Found("gguf.malformed", ID, s.at, "a tensor's row is no multiple of its type's block", name)
	}
	d.known = true
	count := items / b.items
	if items%b.items != 0 {
		count++
	}
	if d.size, ok = tensor.Times(count, b.bytes); !ok {
		return d, overflow("a tensor's size overflows")
	}
	if _, ok = tensor.Add(d.start, d.size); !ok {
		return d, overflow("a tensor's end overflows")
	}
	if d.start%s.alignment != 0 {
		s.Found("gguf.malformed", ID, s.at, "a tensor is not aligned", name)
	}
	return d, nil
}

func rowOf(dims []uint64) int64 {
	if len(dims) == 0 {
		return 1
	}
	return int64(dims[0])
}

// data claims the tensors' extents and looks at what lies between and behind
// them.
func (s *scan) data(ctx context.Context, list []description) error {
	s.Parsed(0, s.at)
	base, ok := padded(s.at, s.alignment)
	if !ok {
		return overflow("the alignment overflows")
	}
	if len(list) == 0 {
		return s.Trailing(ctx, ID, s.at)
	}
	if base > s.Size {
		return truncated()
	}
	slices.SortFunc(list, func(a, b description) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.size, b.size)) })
	at := s.at
	for i, d := range list {
		start, ok := tensor.Add(base, d.start)
		end := start + d.size
		if !ok || end < start {
			return overflow("a tensor's end overflows")
		}
		if !d.known {
			end = s.unknownEnd(list[i+1:], base, start)
		}
		if end > s.Size || start > s.Size {
			s.Found("gguf.malformed", ID, d.at, "a tensor lies beyond the end")
			s.Unread(max(at, min(start, s.Size)), s.Size, predicate.Truncated)
			s.Unread(s.Size, s.Size, predicate.Truncated)
			return nil
		}
		if start < at && d.size > 0 {
			s.Found("gguf.malformed", ID, d.at, "two tensors overlap")
		} else if err := s.gap(ctx, at, start); err != nil {
			return err
		}
		if s.holes > maxHoles {
			s.Found("model.limit", ID, d.at, "too many holes")
			s.Unread(min(start, s.Size), s.Size, predicate.LimitMembers)
			return nil
		}
		if d.known {
			s.Inert(max(start, at), end)
		} else {
			s.Unread(start, end, predicate.UnsupportedFormat)
		}
		at = max(at, end)
	}
	return s.Trailing(ctx, ID, at)
}

// unknownEnd takes a tensor of unknown size to reach to the next one.
func (s *scan) unknownEnd(rest []description, base, start int64) int64 {
	for _, d := range rest {
		if next, ok := tensor.Add(base, d.start); ok && next > start {
			return min(next, s.Size)
		}
	}
	return max(start, s.Size)
}

// gap looks at what lies between two tensors: padding up to the alignment, which
// is zero, and then nothing.
func (s *scan) gap(ctx context.Context, start, end int64) error {
	next, ok := padded(start, s.alignment)
	if !ok || next > end {
		next = end
	}
	if next < end {
		s.Found("gguf.malformed", ID, next, "bytes that belong to no tensor")
	}
	for _, part := range [][2]int64{{start, next}, {next, end}} {
		zero, err := s.IsZero(ctx, part[0], part[1])
		if err != nil {
			return err
		}
		if zero {
			// As the tensors, so that an honest file has one range and not thousands.
			s.Inert(part[0], part[1])
			continue
		}
		s.holes++
		s.Found("archive.entry.hidden", ID, part[0], "bytes between tensors")
		if _, err := s.Enter(ctx, s.Part(part[0], part[1])); err != nil {
			return err
		}
	}
	return nil
}
