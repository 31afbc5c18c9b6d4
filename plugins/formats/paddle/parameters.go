package paddle

import (
	"context"
	"errors"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/protowire"
	"github.com/cavra/cavra/plugins/formats/tensor"
	"github.com/cavra/cavra/plugins/formats/window"
)

const (
	// maxLevels and maxDescription bound the parts of a tensor's head; the latter
	// in bytes.
	maxLevels      = 64
	maxDescription = 1024
	// maxTensors bounds the tensors of one file.
	maxTensors = 1_000_000
)

// widths are the sizes of element types in bytes, by number.
var widths = map[uint64]int64{0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 19: 8, 20: 1, 21: 1, 22: 2, 23: 8, 24: 16, 32: 1, 33: 1}

// Parameters is combined parameters: dense tensors one behind the other, as
// Paddle's SerializeToStream writes them.
type Parameters struct{}

// Identify implements content.Format: there is no mark, but the head of a tensor
// has a form that its data must fit.
func (Parameters) Identify(ctx context.Context, v *content.Visit) (bool, error) {
	r := cursor.New(v.Bytes, v.Size)
	p := parameters{v: v, r: r, w: window.New(v.Bytes, v.Size)}
	_, err := p.head(ctx)
	var f *cursor.Fault
	if err != nil && !errors.As(err, &f) {
		return false, err
	}
	return err == nil, nil
}

// Scan implements content.Format.
func (Parameters) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = IDParameters
	p := parameters{v: v, r: cursor.New(v.Bytes, v.Size), w: window.New(v.Bytes, v.Size)}
	for n := 0; p.r.Left() > 0; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		at := p.r.At()
		size, err := p.head(ctx)
		if n == maxTensors && err == nil {
			err = &cursor.Fault{Rule: "model.limit", What: "too many tensors", Why: predicate.LimitMembers, At: at}
		}
		if err != nil {
			var f *cursor.Fault
			if n > 0 && errors.As(err, &f) && f.Why == predicate.Malformed {
				// What is no tensor is not read by who loads the parameters.
				return v.Trailing(ctx, ID, at)
			}
			return cursor.Settle(v, err, ID, ruleMalformed, at)
		}
		v.Parsed(at, p.r.At())
		start := p.r.At()
		p.r.Skip(size)
		v.Inert(start, p.r.At())
	}
	return nil
}

type parameters struct {
	v *content.Visit
	r *cursor.Reader
	w *window.Reader
}

// head reads what is before a tensor's data, and gives their size in bytes.
func (p *parameters) head(ctx context.Context) (int64, error) {
	if version := p.r.U32(); p.r.Ok() && version != 0 {
		p.r.Fail("a tensor of another version")
	}
	levels := p.r.U64()
	if levels > maxLevels {
		p.r.Fail("too many levels")
	}
	for i := uint64(0); i < levels && p.r.Ok(); i++ {
		n := p.r.U64()
		p.r.Items(int64(min(n, 1<<62)), 1)
	}
	if version := p.r.U32(); p.r.Ok() && version != 0 {
		p.r.Fail("a tensor of another version")
	}
	n := int64(int32(p.r.U32()))
	if p.r.Ok() && (n < 2 || n > maxDescription) {
		p.r.Fail("a description that is too long")
	}
	start := p.r.At()
	p.r.Skip(n)
	if err := p.r.Err(); err != nil {
		return 0, err
	}
	size, err := p.size(ctx, start, start+n)
	if err != nil {
		return 0, err
	}
	if size > p.r.Left() {
		return 0, &cursor.Fault{What: "a tensor is longer than the file", Why: predicate.Truncated, At: start}
	}
	return size, nil
}

// size is that of a tensor's data by its description.
func (p *parameters) size(ctx context.Context, start, end int64) (int64, error) {
	s, err := program()
	if err != nil {
		return 0, err
	}
	d := &description{w: p.w}
	bad := &cursor.Fault{What: "a description that is none", Why: predicate.Malformed, At: start}
	o, err := protowire.ReadOutline(p.w, s["VarType.TensorDesc"], start, end)
	if err != nil {
		return 0, err
	}
	if !o.Known || !o.Whole {
		return 0, bad
	}
	// Only the numbers are of interest, and nothing is claimed by this walk.
	if err := protowire.NewWalk(&content.Visit{}, p.w, d).Run(ctx, s["VarType.TensorDesc"], start, end); err != nil {
		if protowire.Broken(err) {
			return 0, bad
		}
		return 0, err
	}
	items, ok := tensor.Items(d.dims)
	width := widths[d.kind]
	if ok {
		items, ok = tensor.Times(items, width)
	}
	if !ok || width == 0 || len(d.dims) > tensor.MaxDims {
		return 0, bad
	}
	return items, nil
}

// description is a tensor's type and shape.
type description struct {
	w    *window.Reader
	kind uint64
	dims []uint64
}

// Begin implements protowire.Visitor.
func (*description) Begin(*protowire.Message, *protowire.Field, int64) error { return nil }

// End implements protowire.Visitor.
func (*description) End(*protowire.Message) error { return nil }

// Number implements protowire.Visitor.
func (d *description) Number(_ *protowire.Message, f *protowire.Field, n uint64) error {
	if f.Name == "data_type" {
		d.kind = n
	} else {
		d.dims = append(d.dims, n)
	}
	return nil
}

// Bytes implements protowire.Visitor.
func (d *description) Bytes(_ *protowire.Message, _ *protowire.Field, start, end int64) error {
	return protowire.Packed(d.w, start, end, tensor.MaxDims, func(n uint64) { d.dims = append(d.dims, n) })
}
