package flatbuffer

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cavra/cavra/plugins/formats/window"
)

// What ends a walk.
var (
	ErrMalformed = errors.New("not a flatbuffer of this schema")
	ErrDepth     = errors.New("tables are nested too deep")
	ErrObjects   = errors.New("too many objects")
)

const (
	// maxDepth of tables within each other; the verifier of the C++ library
	// allows as much.
	maxDepth = 64
	// maxObjects bounds tables, vectors and strings together, each as often as it
	// is referred to. The verifier of the C++ library allows a million tables.
	maxObjects = 1_500_000
)

// Visitor is told of what a table holds.
type Visitor interface {
	// Begin is called before the fields of a table, which lies at an offset, and
	// End after them.
	Begin(t *Table, at int64) error
	End(t *Table) error
	// Number gives a number in a table, as unsigned bits.
	Number(t *Table, f *Field, n uint64) error
	// Bytes gives the extent of a string, or of a vector of numbers.
	Bytes(t *Table, f *Field, start, end int64) error
}

// Extent is [Start, End) of the content.
type Extent struct{ Start, End int64 }

// Walk is a walk over one content.
type Walk struct {
	w       *window.Reader
	visitor Visitor
	walked  map[place]bool
	objects int
	extents []Extent
	unknown []Extent
}

// place is a table as a type.
type place struct {
	at   int64
	name string
}

// NewWalk prepares a walk over w.
func NewWalk(w *window.Reader, visitor Visitor) *Walk {
	return &Walk{w: w, visitor: visitor, walked: make(map[place]bool)}
}

// Run walks the buffer from its root, which is of type root.
func (k *Walk) Run(ctx context.Context, root *Table) error {
	// The offset of the root, and the mark behind it.
	if _, err := k.bytes(0, 8); err != nil {
		return err
	}
	at, err := k.follow(0)
	if err != nil {
		return err
	}
	if err := k.cover(0, 8); err != nil {
		return err
	}
	return k.table(ctx, root, at, 0)
}

// Extents are those of all objects so far, ascending and disjoint.
func (k *Walk) Extents() []Extent { return merge(k.extents) }

// Unknown are the extents of values that the schema does not know.
func (k *Walk) Unknown() []Extent { return k.unknown }

func merge(list []Extent) []Extent {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Extent) int { return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End)) })
	var out []Extent
	for _, e := range list {
		if n := len(out); n > 0 && e.Start <= out[n-1].End {
			out[n-1].End = max(out[n-1].End, e.End)
			continue
		}
		out = append(out, e)
	}
	return out
}

func (k *Walk) cover(start, end int64) error {
	if k.objects++; k.objects > maxObjects {
		return ErrObjects
	}
	if n := len(k.extents); n > 0 && k.extents[n-1].End == start {
		k.extents[n-1].End = end
		return nil
	}
	k.extents = append(k.extents, Extent{start, end})
	return nil
}

func (k *Walk) bytes(at int64, n int) ([]byte, error) {
	b, err := k.w.Bytes(at, n)
	if errors.Is(err, window.ErrBeyond) {
		return nil, fmt.Errorf("%w: an offset leads out of the file", ErrMalformed)
	}
	return b, err
}

func (k *Walk) u32(at int64) (int64, error) {
	b, err := k.bytes(at, 4)
	if err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint32(b)), nil
}

// follow gives where the unsigned offset at a place leads.
func (k *Walk) follow(at int64) (int64, error) {
	n, err := k.u32(at)
	if err != nil {
		return 0, err
	}
	if n == 0 || at+n > k.w.Size()-4 {
		return 0, fmt.Errorf("%w: an offset leads out of the file", ErrMalformed)
	}
	return at + n, nil
}

// layout is a table's inline part and where its fields lie in it.
type layout struct {
	at, size int64
	fields   []byte // two bytes each
}

// offset is that of a field in the table, or 0.
func (l layout) offset(slot int) int64 {
	if 2*slot+2 > len(l.fields) {
		return 0
	}
	return int64(binary.LittleEndian.Uint16(l.fields[2*slot:]))
}

func (k *Walk) layout(at int64) (layout, error) {
	b, err := k.bytes(at, 4)
	if err != nil {
		return layout{}, err
	}
	from := at - int64(int32(binary.LittleEndian.Uint32(b)))
	if b, err = k.bytes(from, 4); err != nil {
		return layout{}, err
	}
	n, size := int(binary.LittleEndian.Uint16(b)), int64(binary.LittleEndian.Uint16(b[2:]))
	if n < 4 || n%2 != 0 || size < 4 || size > k.w.Size()-at {
		return layout{}, fmt.Errorf("%w: a table's layout", ErrMalformed)
	}
	if b, err = k.bytes(from, n); err != nil {
		return layout{}, err
	}
	l := layout{at: at, size: size, fields: slices.Clone(b[4:])}
	if err := k.cover(from, from+int64(n)); err != nil {
		return l, err
	}
	return l, k.cover(at, at+size)
}

func (k *Walk) table(ctx context.Context, t *Table, at int64, depth int) error {
	if depth > maxDepth {
		return ErrDepth
	}
	if k.objects++; k.objects > maxObjects {
		return ErrObjects
	}
	if k.walked[place{at, t.Name}] {
		return nil
	}
	k.walked[place{at, t.Name}] = true
	if err := ctx.Err(); err != nil {
		return err
	}
	l, err := k.layout(at)
	if err != nil {
		return err
	}
	if err := k.visitor.Begin(t, at); err != nil {
		return err
	}
	for slot := range len(l.fields) / 2 {
		offset := l.offset(slot)
		if offset == 0 {
			continue
		}
		f := t.fields[slot]
		if f == nil {
			// What it is, and where it leads, cannot be told.
			k.unknown = append(k.unknown, Extent{at + offset, min(at+offset+4, at+l.size)})
			continue
		}
		if offset < 4 || offset+f.inline() > l.size {
			return fmt.Errorf("%w: a field lies outside of its table", ErrMalformed)
		}
		if err := k.field(ctx, t, f, l, at+offset, depth); err != nil {
			return err
		}
	}
	return k.visitor.End(t)
}

func (f *Field) inline() int64 {
	if f.Kind == Scalar {
		return int64(f.Size)
	}
	return 4
}

func (k *Walk) field(ctx context.Context, t *Table, f *Field, l layout, at int64, depth int) error {
	if f.Kind == Scalar {
		b, err := k.bytes(at, f.Size)
		if err != nil {
			return err
		}
		var whole [8]byte
		copy(whole[:], b)
		return k.visitor.Number(t, f, binary.LittleEndian.Uint64(whole[:]))
	}
	to, err := k.follow(at)
	if err != nil {
		return err
	}
	switch f.Kind {
	case Sub:
		return k.table(ctx, f.Of, to, depth+1)
	case Union:
		return k.union(ctx, f, l, at, to, depth)
	case Text:
		return k.vector(t, f, to, 1, 1)
	case Scalars:
		return k.vector(t, f, to, f.Size, 0)
	}
	n, err := k.u32(to)
	if err != nil {
		return err
	}
	if n > (k.w.Size()-to-4)/4 {
		return fmt.Errorf("%w: a vector is longer than the file", ErrMalformed)
	}
	if err := k.cover(to, to+4+4*n); err != nil {
		return err
	}
	for i := range n {
		item, err := k.follow(to + 4 + 4*i)
		if err == nil && f.Kind == Texts {
			err = k.vector(t, f, item, 1, 1)
		} else if err == nil {
			err = k.table(ctx, f.Of, item, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// union walks a table whose type the slot before names.
func (k *Walk) union(ctx context.Context, f *Field, l layout, at, to int64, depth int) error {
	kind := l.offset(f.Slot - 1)
	if kind == 0 {
		return fmt.Errorf("%w: a union without a type", ErrMalformed)
	}
	b, err := k.bytes(l.at+kind, 1)
	if err != nil {
		return err
	}
	of := f.Of.of[b[0]]
	if of == nil {
		k.unknown = append(k.unknown, Extent{at, at + 4})
		return nil
	}
	return k.table(ctx, of, to, depth+1)
}

// vector covers a vector of numbers, or a string with the zero behind it.
func (k *Walk) vector(t *Table, f *Field, at int64, size int, end int64) error {
	n, err := k.u32(at)
	if err != nil {
		return err
	}
	if n > (k.w.Size()-at-4-end)/int64(size) {
		return fmt.Errorf("%w: a vector is longer than the file", ErrMalformed)
	}
	length := n * int64(size)
	if err := k.cover(at, at+4+length+end); err != nil {
		return err
	}
	return k.visitor.Bytes(t, f, at+4, at+4+length)
}
