package safetensors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/strictjson"
	"github.com/cavra/cavra/plugins/formats/tensor"
)

// maxTensors bounds the tensors of one file. A mixture of experts has some
// hundred thousand at most.
const maxTensors = 1_000_000

// maxHoles bounds the parts between tensors that are looked at. The format allows
// none.
const maxHoles = 1000

var errTooMany = errors.New("too many tensors")

// bits are the sizes of the element types that the format knows.
var bits = map[string]int64{
	"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
	"U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
	"U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}

// extent is where a tensor's data lies, from the end of the header.
type extent struct{ start, end int64 }

type header struct {
	tensors []extent
	// end is where the JSON ends, in the header's text.
	end int
}

// readHeader reads the header's JSON. Faults of single tensors are findings; a
// header that is not the object that the format describes is an error, and end
// then says where.
func readHeader(v *content.Visit, text []byte) (h header, err error) {
	r := strictjson.New(text)
	r.Duplicate = func(key string, at int) { v.Found("safetensors.key.duplicate", ID, prefix+int64(at), key) }
	defer func() { h.end = r.At() }()
	err = r.Object(func(key string, at int) error {
		if key == "__metadata__" {
			return readMetadata(r)
		}
		if len(h.tensors) >= maxTensors {
			return errTooMany
		}
		if rule := tensor.CheckName(key); rule != "" {
			v.Found(rule, ID, prefix+int64(at), key)
		}
		e, fault, err := readTensor(r)
		if err != nil {
			return err
		}
		if fault != "" {
			v.Found("safetensors.malformed", ID, prefix+int64(at), fault, key)
		}
		h.tensors = append(h.tensors, e)
		return nil
	})
	return h, err
}

// readMetadata reads the free part: strings by name, and nothing else.
func readMetadata(r *strictjson.Reader) error {
	return r.Object(func(string, int) error {
		_, err := r.String()
		return err
	})
}

// info is what the header says of a tensor.
type info struct {
	dtype string
	shape []uint64
	span  []uint64
	has   [3]bool
}

// readTensor reads {"dtype":…,"shape":…,"data_offsets":…}. A fault is one of
// this tensor only; the extent is then what the offsets say.
func readTensor(r *strictjson.Reader) (e extent, fault string, err error) {
	var i info
	err = r.Object(func(key string, _ int) error {
		switch key {
		case "dtype":
			i.has[0] = true
			i.dtype, err = r.String()
		case "shape":
			i.has[1] = true
			i.shape, err = readNumbers(r)
		case "data_offsets":
			i.has[2] = true
			i.span, err = readNumbers(r)
		default:
			fault = "a key that the format does not have"
			err = r.Skip()
		}
		return err
	})
	if err != nil {
		return e, "", err
	}
	if i.has != [3]bool{true, true, true} || len(i.span) != 2 || i.span[0] > i.span[1] {
		return e, "", fmt.Errorf("%w: a tensor's entry lacks a part, or its offsets are no extent", strictjson.ErrSyntax)
	}
	e = extent{int64(i.span[0]), int64(i.span[1])}
	if f := i.check(); f != "" {
		fault = f
	}
	return e, fault, nil
}

func readNumbers(r *strictjson.Reader) ([]uint64, error) {
	var list []uint64
	err := r.Array(func(n int) error {
		if n >= tensor.MaxDims {
			return fmt.Errorf("%w: too many numbers", strictjson.ErrSyntax)
		}
		x, err := r.Uint()
		list = append(list, x)
		return err
	})
	return list, err
}

// check holds the extent against what type and shape need.
func (i info) check() string {
	size, known := bits[i.dtype]
	if !known {
		return "a type that is not known"
	}
	items, ok := tensor.Items(i.shape)
	if ok {
		items, ok = tensor.Times(items, size)
	}
	if !ok {
		return "the shape overflows"
	}
	if items%8 != 0 || uint64(items/8) != i.span[1]-i.span[0] {
		return "the extent is not what type and shape need"
	}
	return ""
}

// scanTensors claims the tensors' extents from base on, and looks at what lies
// between and behind them.
func scanTensors(ctx context.Context, v *content.Visit, base int64, tensors []extent) error {
	slices.SortFunc(tensors, func(a, b extent) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end)) })
	size, at, holes := v.Size-base, int64(0), 0
	for _, t := range tensors {
		switch {
		case t.start > at:
			if holes++; holes > maxHoles {
				v.Found("model.limit", ID, base+at, "too many holes")
				v.Unread(base+min(at, size), v.Size, predicate.LimitMembers)
				return nil
			}
			if err := hole(ctx, v, base+at, base+min(t.start, size)); err != nil {
				return err
			}
		case t.start < at && t.end > t.start:
			v.Found("safetensors.malformed", ID, base+min(t.start, size), "two tensors overlap")
		}
		if t.end > size {
			v.Found("safetensors.malformed", ID, v.Size, "a tensor lies beyond the end")
			v.Unread(base+min(at, size), v.Size, predicate.Truncated)
			v.Unread(v.Size, v.Size, predicate.Truncated)
			return nil
		}
		v.Inert(base+max(at, t.start), base+t.end)
		at = max(at, t.end)
	}
	return hole(ctx, v, base+at, v.Size)
}

// hole scans bytes that belong to no tensor.
func hole(ctx context.Context, v *content.Visit, start, end int64) error {
	if start >= end {
		return nil
	}
	v.Found("safetensors.malformed", ID, start, "bytes that belong to no tensor")
	zero, err := v.IsZero(ctx, start, end)
	if err != nil {
		return err
	}
	if zero {
		v.Parsed(start, end)
		return nil
	}
	_, err = v.Enter(ctx, v.Part(start, end))
	return err
}
