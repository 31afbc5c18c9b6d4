// Package mxnet reads what Apache MXNet saves: symbols, which are graphs in JSON,
// and lists of arrays (.params). Operators that call Python or that hold addresses
// in memory are reported; arrays are inert by their extent.
package mxnet

import (
	"context"
	_ "embed"
	"encoding/binary"
	"strings"
	"sync"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/document"
	"github.com/cavra/cavra/plugins/formats/strictjson"
	"github.com/cavra/cavra/plugins/formats/tensor"
)

// ID is the format's id.
const ID = "mxnet"

const (
	rulePython    = "mxnet.op.python"
	ruleNative    = "mxnet.op.native"
	ruleMalformed = "mxnet.malformed"
)

// Rules lists the rules that Scan and Check may name.
func Rules() []string {
	return []string{rulePython, ruleNative, ruleMalformed, "archive.entry.hidden", "model.limit"}
}

const (
	// listMagic begins a list of arrays; arrayV2 and arrayV3 one of them.
	listMagic = 0x112
	arrayV2   = 0xf993fac9
	arrayV3   = 0xf993faca
	// maxArrays and maxName bound a list, the latter in bytes.
	maxArrays = 1_000_000
	maxName   = 4096
)

// widths are the sizes of element types in bytes, by number.
var widths = map[uint32]int64{0: 4, 1: 8, 2: 2, 3: 1, 4: 4, 5: 1, 6: 8, 7: 1, 8: 2, 9: 2, 10: 4, 11: 8, 12: 2}

// Format is lists of arrays as a format of the program.
type Format struct{}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	h := v.Head
	return len(h) >= 24 && binary.LittleEndian.Uint64(h) == listMagic && binary.LittleEndian.Uint64(h[8:]) == 0, nil
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	s := &scan{v: v, r: cursor.New(v.Bytes, v.Size)}
	s.r.Skip(16)
	n := s.count()
	for i := uint64(0); i < n && s.r.Ok(); i++ {
		if i%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		s.array()
	}
	names := s.count()
	if s.r.Ok() && names != n && names != 0 {
		s.r.Fail("another number of names than of arrays")
	}
	for i := uint64(0); i < names && s.r.Ok(); i++ {
		size := s.r.U64()
		if size > maxName {
			s.r.Fail("a name is too long")
		}
		s.r.Skip(int64(min(size, maxName)))
	}
	if err := s.r.Err(); err != nil {
		return cursor.Settle(v, err, ID, ruleMalformed, s.claimed)
	}
	v.Parsed(s.claimed, s.r.At())
	return v.Trailing(ctx, ID, s.r.At())
}

type scan struct {
	v       *content.Visit
	r       *cursor.Reader
	claimed int64
}

func (s *scan) count() uint64 {
	n := s.r.U64()
	if n > maxArrays {
		s.r.Limit("too many arrays", predicate.LimitMembers)
	}
	return n
}

// array reads a dense array: kind of storage, shape, device, type and data.
func (s *scan) array() {
	switch magic := s.r.U32(); {
	case !s.r.Ok():
		return
	case magic != arrayV2 && magic != arrayV3:
		s.r.Unknown("an array of a version that is not known")
		return
	}
	if kind := int32(s.r.U32()); s.r.Ok() && kind != 0 {
		s.r.Unknown("an array that is not dense")
		return
	}
	n := int32(s.r.U32())
	if n < 0 || n > tensor.MaxDims {
		s.r.Fail("an array of too many dimensions")
		return
	}
	if n == 0 {
		s.r.Unknown("an array without a shape")
		return
	}
	var dims []uint64
	for range n {
		dims = append(dims, s.r.U64())
	}
	s.r.Skip(8) // the device
	width := widths[s.r.U32()]
	items, ok := tensor.Items(dims)
	if ok {
		items, ok = tensor.Times(items, width)
	}
	if s.r.Ok() && (!ok || width == 0) {
		s.r.Fail("a shape or type that is none")
	}
	start := s.r.At()
	s.r.Skip(items)
	if s.r.Ok() {
		s.v.Parsed(s.claimed, start)
		s.v.Inert(start, s.r.At())
		s.claimed = s.r.At()
	}
}

// odd are operators that lead out of the graph, with the rule of each: functions
// of Python, by name or by the address of a callback, and graphs or libraries of
// other compilers.
var odd = map[string]string{
	"Custom": rulePython, "_Native": rulePython, "_NDArray": rulePython,
	"_TensorRT": ruleNative, "_FusedOp": ruleNative, "_FusedOpHelper": ruleNative, "_FusedOpOutHelper": ruleNative,
	"_TVM": ruleNative, "TVMOp": ruleNative, "CaffeOp": ruleNative, "CaffeLoss": ruleNative, "CaffeDataIter": ruleNative,
	"TorchModule": ruleNative, "TorchCriterion": ruleNative,
}

// opsText are the operators that MXNet 1.9 registers.
//
//go:embed ops.txt
var opsText string

var ops = sync.OnceValue(func() map[string]bool {
	set := map[string]bool{"null": true} // a variable
	for line := range strings.Lines(opsText) {
		set[strings.TrimSpace(line)] = true
	}
	return set
})

// Check judges a symbol: the operators of its nodes, at any depth.
func Check(v *content.Visit, root *document.Node, place func(int) int64) {
	if !root.Has("arg_nodes") || !root.Has("nodes") {
		return
	}
	root.Walk(func(n *document.Node) {
		if !n.Has("inputs") {
			return
		}
		for _, op := range n.All("op") {
			switch {
			case op.Kind != strictjson.String:
				v.Found(ruleMalformed, ID, place(op.At), "an operator without a name")
			case odd[op.Text] != "":
				v.Found(odd[op.Text], ID, place(op.At), cursor.Clean(op.Text))
			case !ops()[op.Text]:
				v.Found(ruleNative, ID, place(op.At), cursor.Clean(op.Text))
			}
		}
	})
}
