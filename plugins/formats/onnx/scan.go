package onnx

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/protowire"
	"github.com/cavra/cavra/plugins/formats/tensor"
	"github.com/cavra/cavra/plugins/formats/window"
)

const (
	// maxText is how much of a name or a path is read, in bytes. A path that is
	// longer cannot be opened.
	maxText = 8 << 10
	// maxOperators bounds the different operators that are kept.
	maxOperators = 10_000
)

// operator is a kind of node by where it is defined.
type operator struct{ domain, name string }

// node is a node that is being read.
type node struct {
	operator
	at int64
	// context is a path that an execution provider would open.
	context string
}

// weights is a tensor that is being read.
type weights struct {
	at       int64
	dims     []uint64
	kind     uint64
	external bool
	location string
	has      bool // has a location
	raw      int64
	bad      string
}

// pair is a key and a value that are being read.
type pair struct {
	key, value string
	external   bool
}

// attribute is one of a node that is being read.
type attribute struct {
	name string
	s    string
}

// scan is one scan of one model: what is being read at each depth, and the
// operators that were met.
type scan struct {
	v          *content.Visit
	w          *window.Reader
	nodes      []node
	tensors    []weights
	attributes []attribute
	pair       pair
	function   operator
	used       map[operator]int64
	defined    map[operator]bool
	external   int64
}

func newScan(v *content.Visit, w *window.Reader) *scan {
	return &scan{v: v, w: w, used: make(map[operator]int64), defined: make(map[operator]bool), external: -1}
}

// Begin implements protowire.Visitor.
func (s *scan) Begin(m *protowire.Message, f *protowire.Field, at int64) error {
	switch m.Name {
	case "NodeProto":
		s.nodes = append(s.nodes, node{at: at})
	case "TensorProto":
		s.tensors = append(s.tensors, weights{at: at, raw: -1})
	case "AttributeProto":
		s.attributes = append(s.attributes, attribute{})
	case "StringStringEntryProto":
		s.pair = pair{external: f.Name == "external_data"}
	case "FunctionProto":
		s.function = operator{}
	}
	return nil
}

// End implements protowire.Visitor.
func (s *scan) End(m *protowire.Message) error {
	switch m.Name {
	case "NodeProto":
		n := pop(&s.nodes)
		if n.name == "EPContext" && n.context != "" && leaves(n.context) {
			s.v.Found("onnx.external.path", ID, n.at, n.context)
		}
		if _, met := s.used[n.operator]; !met && len(s.used) < maxOperators {
			s.used[n.operator] = n.at
		} else if !met {
			return protowire.ErrFields
		}
	case "TensorProto":
		s.judgeWeights(pop(&s.tensors))
	case "AttributeProto":
		// An execution provider's context is a path, unless it is embedded.
		a := pop(&s.attributes)
		if n := last(s.nodes); n != nil && a.name == "ep_cache_context" && len(a.s) < maxText {
			n.context = a.s
		}
	case "StringStringEntryProto":
		if t := last(s.tensors); t != nil && s.pair.external {
			t.take(s.pair)
		}
	case "FunctionProto":
		if len(s.defined) < maxOperators {
			s.defined[s.function] = true
		}
	}
	return nil
}

func last[T any](list []T) *T {
	if len(list) == 0 {
		return nil
	}
	return &list[len(list)-1]
}

func pop[T any](list *[]T) T {
	x := (*list)[len(*list)-1]
	*list = (*list)[:len(*list)-1]
	return x
}

// Number implements protowire.Visitor.
func (s *scan) Number(m *protowire.Message, f *protowire.Field, n uint64) error {
	t := last(s.tensors)
	if m.Name != "TensorProto" || t == nil {
		return nil
	}
	switch f.Name {
	case "dims":
		t.addDim(n)
	case "data_type":
		t.kind = n
	case "data_location":
		t.external = t.external || n == 1
	}
	return nil
}

func (t *weights) addDim(n uint64) {
	if len(t.dims) >= tensor.MaxDims {
		t.bad = "too many dimensions"
		return
	}
	t.dims = append(t.dims, n)
}

// Bytes implements protowire.Visitor.
func (s *scan) Bytes(m *protowire.Message, f *protowire.Field, start, end int64) error {
	switch m.Name + "." + f.Name {
	case "TensorProto.raw_data":
		last(s.tensors).raw = end - start
		return nil
	case "TensorProto.dims":
		return protowire.Packed(s.w, start, end, 1<<16, last(s.tensors).addDim)
	case "NodeProto.op_type", "NodeProto.domain", "StringStringEntryProto.key", "StringStringEntryProto.value",
		"AttributeProto.name", "AttributeProto.s", "FunctionProto.name", "FunctionProto.domain":
	default:
		return nil
	}
	text, err := protowire.ReadText(s.w, start, end, maxText)
	if err != nil {
		return err
	}
	switch m.Name + "." + f.Name {
	case "NodeProto.op_type":
		last(s.nodes).name = text
	case "NodeProto.domain":
		last(s.nodes).domain = text
	case "StringStringEntryProto.key":
		s.pair.key = text
	case "StringStringEntryProto.value":
		s.pair.value = text
	case "AttributeProto.name":
		last(s.attributes).name = text
	case "AttributeProto.s":
		last(s.attributes).s = text
	case "FunctionProto.name":
		s.function.name = text
	case "FunctionProto.domain":
		s.function.domain = text
	}
	return nil
}

// judgeOperators says which operators are neither standard nor defined by a
// function of the model.
func (s *scan) judgeOperators() {
	ops := slices.SortedFunc(maps.Keys(s.used), func(a, b operator) int {
		return cmp.Or(cmp.Compare(s.used[a], s.used[b]), cmp.Compare(a.domain, b.domain), cmp.Compare(a.name, b.name))
	})
	for _, op := range ops {
		name := op.domain + ":" + op.name
		switch {
		case python[op.name] && !standard()["ai.onnx "+op.name]:
			s.v.Found("onnx.op.python", ID, s.used[op], name)
		case !s.defined[op] && !op.known():
			s.v.Found("onnx.op.custom", ID, s.used[op], name)
		}
	}
}

// python are operators that call Python: onnxruntime's training package and
// onnxruntime-extensions.
var python = map[string]bool{"PythonOp": true, "PythonOpGrad": true, "PyOp": true, "PyCustomOp": true, "PyFunc": true}

// native are operators of onnxruntime's own domain that lead out of it: code that
// was compiled for a device, and any operator of torch.
var native = map[string]bool{"EPContext": true, "ATen": true, "ATenGrad": true, "ExternalGradient": true}

func (o operator) known() bool {
	switch o.domain {
	case "", "ai.onnx":
		return standard()["ai.onnx "+o.name]
	case "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc":
		return !native[o.name]
	}
	return standard()[o.domain+" "+o.name]
}

// leaves reports whether a location is no file beside or below the model.
func leaves(location string) bool {
	return content.Leaves(location) || strings.ContainsAny(location, "\x00*") || strings.Contains(location, "://")
}
