package executorch

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/flatbuffer"
	"github.com/cavra/cavra/plugins/formats/protowire"
	"github.com/cavra/cavra/plugins/formats/window"
)

const (
	// maxText is how much of a name is read, in bytes.
	maxText = 4096
	// maxParts bounds segments and delegates.
	maxParts = 100_000
	// bulk is the size in bytes from which inline data are claimed for themselves.
	bulk = 4096
)

type kind int

const (
	kindParsed kind = iota
	kindInert
	kindDelegate
)

// part is an extent of the file, and what it is.
type part struct {
	flatbuffer.Extent
	kind kind
}

// plan is what the tables of one method hold, and the largest index into each.
type plan struct {
	at                           int64
	values, operators, delegates int64
	value, operator, delegate    int64
}

// delegate is where the data of a delegate lie.
type delegate struct {
	segment bool
	index   uint64
}

// scan is one scan of one program.
type scan struct {
	v    *content.Visit
	w    *window.Reader
	base int64
	// covered are parts that are no objects.
	covered   []part
	segments  []flatbuffer.Extent
	delegates []delegate
	inline    []flatbuffer.Extent
	plan      plan
	// at is the table that was begun last, and name the operator that is read.
	at       int64
	name     string
	external bool
}

// Begin implements flatbuffer.Visitor.
func (s *scan) Begin(t *flatbuffer.Table, at int64) error {
	s.at = at
	switch t.Name {
	case "ExecutionPlan":
		s.plan = plan{at: at, value: -1, operator: -1, delegate: -1}
	case "EValue":
		s.plan.values++
	case "Operator":
		s.plan.operators++
		s.name = ""
	case "BackendDelegate":
		s.plan.delegates++
	case "KernelCall":
		s.plan.operator = max(s.plan.operator, 0)
	case "DelegateCall":
		s.plan.delegate = max(s.plan.delegate, 0)
	case "BackendDelegateDataReference":
		if len(s.delegates) >= maxParts {
			return flatbuffer.ErrObjects
		}
		s.delegates = append(s.delegates, delegate{})
	case "DataSegment":
		if len(s.segments) >= maxParts {
			return flatbuffer.ErrObjects
		}
		s.segments = append(s.segments, flatbuffer.Extent{})
	}
	return nil
}

// namespaces are those of the runtime's own kernels.
var namespaces = map[string]bool{
	"aten": true, "executorch_prim": true, "prim": true, "prims": true, "quantized_decomposed": true, "dim_order_ops": true, "et_copy": true, "higher_order": true,
}

// End implements flatbuffer.Visitor.
func (s *scan) End(t *flatbuffer.Table) error {
	switch t.Name {
	case "Operator":
		if space, _, ok := strings.Cut(s.name, "::"); !ok || !namespaces[space] {
			s.v.Found(ruleCustom, ID, s.at, cursor.Clean(s.name))
		}
	case "ExecutionPlan":
		p := s.plan
		if p.operator >= p.operators || p.delegate >= p.delegates || p.value >= p.values {
			s.v.Found(ruleIndex, ID, p.at, "an index leads out of a table of the method")
		}
	}
	return nil
}

// Number implements flatbuffer.Visitor.
func (s *scan) Number(t *flatbuffer.Table, f *flatbuffer.Field, n uint64) error {
	switch t.Name + "." + f.Name {
	case "KernelCall.op_index":
		s.plan.operator = max(s.plan.operator, int64(n))
	case "DelegateCall.delegate_index":
		s.plan.delegate = max(s.plan.delegate, int64(n))
	case "MoveCall.move_from", "MoveCall.move_to", "JumpFalseCall.cond_value_index", "FreeCall.value_index":
		s.plan.value = max(s.plan.value, int64(n))
	case "BackendDelegateDataReference.location":
		s.delegates[len(s.delegates)-1].segment = n == 1
	case "BackendDelegateDataReference.index":
		s.delegates[len(s.delegates)-1].index = n
	case "DataSegment.offset":
		s.segments[len(s.segments)-1].Start = int64(min(n, 1<<62))
	case "DataSegment.size":
		s.segments[len(s.segments)-1].End = int64(min(n, 1<<62)) // until all are known
	case "ExtraTensorInfo.location":
		if n == 1 && !s.external {
			s.external = true
			s.v.Found(ruleExternal, ID, s.at)
		}
	}
	return nil
}

// backends are the delegates that come with the runtime.
var backends = map[string]bool{
	"XnnpackBackend": true, "CoreMLBackend": true, "MPSBackend": true, "VulkanBackend": true, "QnnBackend": true, "EthosUBackend": true, "VgfBackend": true,
	"ArmBackend": true, "NeuropilotBackend": true, "EnnBackend": true, "OpenvinoBackend": true, "CudaBackend": true, "MetalBackend": true, "NeutronBackend": true, "CadenceBackend": true,
}

// Bytes implements flatbuffer.Visitor.
func (s *scan) Bytes(t *flatbuffer.Table, f *flatbuffer.Field, start, end int64) error {
	switch t.Name + "." + f.Name {
	case "Operator.name":
		name, err := protowire.ReadText(s.w, start, end, maxText)
		s.name = name
		return err
	case "BackendDelegate.id":
		name, err := protowire.ReadText(s.w, start, end, maxText)
		rule := ruleUnknown
		if backends[name] {
			rule = ruleDelegate
		}
		s.v.Found(rule, ID, start, cursor.Clean(name))
		return err
	case "KernelCall.args", "DelegateCall.args", "ExecutionPlan.inputs", "ExecutionPlan.outputs", "TensorList.items":
		return s.indices(start, end)
	case "Buffer.storage":
		if end-start >= bulk {
			s.covered = append(s.covered, part{flatbuffer.Extent{Start: start, End: end}, kindInert})
		}
	case "BackendDelegateInlineData.data":
		s.inline = append(s.inline, flatbuffer.Extent{Start: start, End: end})
	}
	return nil
}

// indices takes the largest of a vector of indices into the table of values.
func (s *scan) indices(start, end int64) error {
	for start < end {
		n := int(min(end-start, window.MaxPiece))
		b, err := s.w.Bytes(start, n)
		if err != nil {
			return err
		}
		for i := 0; i+4 <= len(b); i += 4 {
			s.plan.value = max(s.plan.value, int64(int32(binary.LittleEndian.Uint32(b[i:]))))
		}
		start += int64(n)
	}
	return nil
}

// parts are the segments and the data of delegates.
func (s *scan) parts() []part {
	var parts []part
	handed := make(map[uint64]bool)
	for _, d := range s.delegates {
		switch {
		case d.segment:
			handed[d.index] = true
		case d.index < uint64(len(s.inline)):
			parts = append(parts, part{s.inline[d.index], kindDelegate})
			continue
		}
		if !d.segment || d.index >= uint64(len(s.segments)) {
			s.v.Found(ruleIndex, ID, 0, "the data of a delegate are not there")
		}
	}
	for i, g := range s.segments {
		size := g.End
		if g.Start > s.v.Size-s.base || size > s.v.Size-s.base-g.Start || s.base == 0 && size > 0 {
			s.v.Found(ruleIndex, ID, 0, "a segment leads out of the file")
			s.v.Unread(s.v.Size, s.v.Size, predicate.Truncated)
			continue
		}
		p := part{flatbuffer.Extent{Start: s.base + g.Start, End: s.base + g.Start + size}, kindInert}
		if handed[uint64(i)] {
			p.kind = kindDelegate
		}
		parts = append(parts, p)
	}
	return parts
}

// ordered sorts parts by where they begin. What is inline lies within objects:
// those are cut around it.
func ordered(parts []part) []part {
	var special, objects, out []part
	for _, p := range parts {
		if p.kind == kindParsed {
			objects = append(objects, p)
		} else if p.Start < p.End {
			special = append(special, p)
		}
	}
	by := func(a, b part) int { return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(b.End, a.End)) }
	slices.SortFunc(special, by)
	slices.SortFunc(objects, by)
	out = append(out, special...)
	next := 0
	for _, o := range objects {
		for next < len(special) && special[next].End <= o.Start {
			next++
		}
		for i := next; i < len(special) && special[i].Start < o.End; i++ {
			if special[i].Start > o.Start {
				out = append(out, part{flatbuffer.Extent{Start: o.Start, End: special[i].Start}, kindParsed})
			}
			o.Start = max(o.Start, special[i].End)
		}
		if o.Start < o.End {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, by)
	return out
}
