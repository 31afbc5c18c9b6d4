package tflite

import (
	"cmp"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/flatbuffer"
	"github.com/cavra/cavra/plugins/formats/protowire"
	"github.com/cavra/cavra/plugins/formats/tensorflow"
	"github.com/cavra/cavra/plugins/formats/window"
)

const (
	// custom is the operator code of what the schema does not name.
	custom = 32
	// maxText is how much of a name is read, in bytes.
	maxText = 4096
	// bulk is the size in bytes from which weights are claimed for themselves.
	bulk = 4096
	// maxOperators bounds the operators that are kept to be judged.
	maxOperators = 1_000_000
)

// builtin are custom operators that the runtime registers itself.
var builtin = map[string]bool{"TFLite_Detection_PostProcess": true, "AudioSpectrogram": true, "Mfcc": true, "NumericVerify": true}

// flex begins the names of TensorFlow's operators.
const flex = "Flex"

// code is an entry of the model's list of operators.
type code struct {
	at   int64
	name string
	kind uint64
}

// operator is a node: which code, and its options.
type operator struct {
	code    uint64
	options flatbuffer.Extent
}

// outer is a part of the file that lies outside of the flatbuffer, as a table
// is being read.
type outer struct {
	at, start, size uint64
}

// scan is one scan of one model.
type scan struct {
	v         *content.Visit
	w         *window.Reader
	codes     []code
	operators []operator
	outer     outer
	inert     []flatbuffer.Extent
	beyond    []flatbuffer.Extent
	// holes counts the parts between objects that are no padding.
	holes int
}

// Begin implements flatbuffer.Visitor.
func (s *scan) Begin(t *flatbuffer.Table, at int64) error {
	switch t.Name {
	case "OperatorCode":
		s.codes = append(s.codes, code{at: at})
	case "Operator":
		if len(s.operators) >= maxOperators {
			return flatbuffer.ErrObjects
		}
		s.operators = append(s.operators, operator{})
		s.outer = outer{at: uint64(at)}
	case "Buffer":
		s.outer = outer{at: uint64(at)}
	}
	return nil
}

// End implements flatbuffer.Visitor.
func (s *scan) End(t *flatbuffer.Table) error {
	if t.Name != "Operator" && t.Name != "Buffer" || s.outer.start <= 1 || s.outer.size == 0 {
		return nil
	}
	if !s.within(s.outer.start, s.outer.size) {
		s.v.Found("tflite.malformed", ID, int64(s.outer.at), "data lies beyond the end")
		s.v.Unread(s.v.Size, s.v.Size, predicate.Truncated)
		return nil
	}
	e := flatbuffer.Extent{Start: int64(s.outer.start), End: int64(s.outer.start + s.outer.size)}
	s.beyond = append(s.beyond, e)
	if t.Name == "Operator" {
		s.operators[len(s.operators)-1].options = e
		return nil
	}
	s.inert = append(s.inert, e)
	return nil
}

// Number implements flatbuffer.Visitor.
func (s *scan) Number(t *flatbuffer.Table, f *flatbuffer.Field, n uint64) error {
	switch t.Name + "." + f.Name {
	case "OperatorCode.DeprecatedBuiltinCode", "OperatorCode.BuiltinCode":
		c := &s.codes[len(s.codes)-1]
		c.kind = max(c.kind, n)
	case "Operator.OpcodeIndex":
		s.operators[len(s.operators)-1].code = n
	case "Operator.LargeCustomOptionsOffset", "Buffer.Offset":
		s.outer.start = n
	case "Operator.LargeCustomOptionsSize", "Buffer.Size":
		s.outer.size = n
	}
	return nil
}

// Bytes implements flatbuffer.Visitor.
func (s *scan) Bytes(t *flatbuffer.Table, f *flatbuffer.Field, start, end int64) error {
	switch t.Name + "." + f.Name {
	case "Buffer.Data":
		if end-start >= bulk {
			s.inert = append(s.inert, flatbuffer.Extent{Start: start, End: end})
		}
	case "OperatorCode.CustomCode":
		name, err := protowire.ReadText(s.w, start, end, maxText)
		s.codes[len(s.codes)-1].name = name
		return err
	case "Operator.CustomOptions":
		s.operators[len(s.operators)-1].options = flatbuffer.Extent{Start: start, End: end}
	case "ExternalBufferGroup.Name":
		name, err := protowire.ReadText(s.w, start, end, maxText)
		if content.Leaves(name) || strings.Contains(name, "://") {
			s.v.Found("tflite.external.path", ID, start, name)
		}
		return err
	case "StablehloCustomCallOptions.CallTargetName":
		name, err := protowire.ReadText(s.w, start, end, maxText)
		s.v.Found("tflite.op.custom", ID, start, name)
		return err
	}
	return nil
}

// judge says what the operators need.
func (s *scan) judge() error {
	for _, c := range s.codes {
		switch {
		case c.kind != custom || builtin[c.name]:
		case strings.HasPrefix(c.name, flex):
			s.v.Found("tflite.op.flex", ID, c.at, c.name)
			s.judgeFlex(c.at, strings.TrimPrefix(c.name, flex))
		default:
			s.v.Found("tflite.op.custom", ID, c.at, c.name)
		}
	}
	for _, o := range s.operators {
		if o.code >= uint64(len(s.codes)) || o.options.Start == o.options.End {
			continue
		}
		c := s.codes[o.code]
		if c.kind != custom || !strings.HasPrefix(c.name, flex) {
			continue
		}
		if err := s.judgeOptions(o, strings.TrimPrefix(c.name, flex)); err != nil {
			return err
		}
	}
	return nil
}

// judgeFlex judges an operator of TensorFlow.
func (s *scan) judgeFlex(at int64, op string) {
	if rule := tensorflow.JudgeOperator(op); rule != "" {
		s.v.Found(rule, ID, at, op)
	}
}

// judgeOptions reads which operator a node's options name: it is that one which
// the runtime's delegate runs, whatever the model's list calls it.
func (s *scan) judgeOptions(o operator, listed string) error {
	op, err := s.flexOperator(o.options)
	if err != nil {
		return err
	}
	switch op {
	case listed:
	case "":
		s.v.Found("tflite.malformed", ID, o.options.Start, "the options of an operator cannot be read")
		s.v.Unread(o.options.Start, o.options.End, predicate.Malformed)
	default:
		s.v.Found("tflite.malformed", ID, o.options.Start, "an operator is another than it is listed as", op)
		s.judgeFlex(o.options.Start, op)
	}
	return nil
}

func merge(lists ...[]flatbuffer.Extent) []flatbuffer.Extent {
	var out []flatbuffer.Extent
	for _, e := range sorted(slices.Concat(lists...)) {
		if n := len(out); n > 0 && e.Start <= out[n-1].End {
			out[n-1].End = max(out[n-1].End, e.End)
			continue
		}
		out = append(out, e)
	}
	return out
}

func sorted(list []flatbuffer.Extent) []flatbuffer.Extent {
	slices.SortFunc(list, func(a, b flatbuffer.Extent) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End))
	})
	return list
}
