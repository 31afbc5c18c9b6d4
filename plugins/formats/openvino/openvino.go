// Package openvino reads OpenVINO's intermediate representation, versions 10 and
// 11: the whole graph, which is XML, with every operation held against the
// runtime's own and every constant's place held against the weights that lie
// beside it. What the runtime does not know needs native code.
package openvino

import (
	"context"
	_ "embed"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/markup"
	"github.com/cavra/cavra/plugins/formats/tensor"
)

// ID is the format's id.
const ID = "openvino"

const (
	ruleCustom    = "openvino.op.custom"
	ruleOutside   = "openvino.weights.outside"
	ruleMalformed = "openvino.malformed"
)

// Rules lists the rules that Scan may name.
func Rules() []string { return append(markup.Rules(), ruleCustom, ruleOutside, ruleMalformed) }

// opsText are the operations of opset1 to opset17, in lower case.
//
//go:embed ops.txt
var opsText string

var ops = sync.OnceValue(func() map[string]bool {
	set := make(map[string]bool)
	for line := range strings.Lines(opsText) {
		set[strings.TrimSpace(line)] = true
	}
	return set
})

// elements are those that a graph has; rt_info and what describes the conversion
// may hold any.
var elements = map[string]bool{
	"net": true, "layers": true, "layer": true, "data": true, "input": true, "output": true, "port": true, "dim": true, "edges": true, "edge": true,
	"body": true, "then_body": true, "else_body": true, "port_map": true, "then_port_map": true, "else_port_map": true, "back_edges": true,
}

var notes = map[string]bool{"rt_info": true, "meta_data": true, "cli_parameters": true, "statistics": true}

// bits are the sizes of element types; that of text is not fixed.
var bits = map[string]int64{
	"f64": 64, "f32": 32, "f16": 16, "bf16": 16, "i64": 64, "i32": 32, "i16": 16, "i8": 8, "u64": 64, "u32": 32, "u16": 16, "u8": 8,
	"boolean": 8, "i4": 4, "u4": 4, "nf4": 4, "u1": 1, "u2": 2, "f8e4m3": 8, "f8e5m2": 8, "f8e8m0": 8, "f4e2m1": 4,
}

// Format is OpenVINO's graphs as a format of the program.
type Format struct{}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	e, ok := markup.Root(v)
	return ok && e.Name.Local == "net" && markup.Attr(e, "version") != "", nil
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	s := &scan{v: v}
	if err := markup.Walk(ctx, v, s); err != nil {
		return err
	}
	return s.judgeWeights(ctx)
}

// scan is one scan of one graph.
type scan struct {
	v *content.Visit
	// layer is the type of the layer that is open.
	layer string
	// note counts the open elements that only describe.
	note int
	// end is where the last constant ends in the weights, at the place of reach.
	end, reach int64
}

// Start implements markup.Visitor.
func (s *scan) Start(e xml.StartElement, at int64) error {
	name := e.Name.Local
	if s.note > 0 || notes[name] {
		s.note++
		return nil
	}
	switch name {
	case "net":
		if v := markup.Attr(e, "version"); v != "10" && v != "11" {
			s.v.Unread(0, s.v.Size, predicate.UnsupportedFormat)
		}
	case "layer":
		s.layer = markup.Attr(e, "type")
		set := markup.Attr(e, "version")
		n, known := strings.CutPrefix(set, "opset")
		if _, err := strconv.ParseUint(n, 10, 8); err != nil || !known || !ops()[strings.ToLower(s.layer)] {
			s.v.Found(ruleCustom, ID, at, cursor.Clean(set), cursor.Clean(s.layer))
		}
	case "data":
		if s.layer == "Const" {
			s.constant(e, at)
		}
	}
	if !elements[name] || e.Name.Space != "" {
		s.v.Unread(at, at, predicate.UnknownFormat)
	}
	return nil
}

// constant takes the place of a constant in the weights.
func (s *scan) constant(e xml.StartElement, at int64) {
	offset, wrong := strconv.ParseInt(markup.Attr(e, "offset"), 10, 64)
	size, wrongSize := strconv.ParseInt(markup.Attr(e, "size"), 10, 64)
	if wrong != nil || wrongSize != nil || offset < 0 || size < 0 || offset+size < offset {
		s.v.Found(ruleOutside, ID, at, "an offset or size that is no such number")
		return
	}
	if offset+size > s.end {
		s.end, s.reach = offset+size, at
	}
	width, fixed := bits[markup.Attr(e, "element_type")]
	var dims []uint64
	for d := range strings.SplitSeq(markup.Attr(e, "shape"), ",") {
		if d = strings.TrimSpace(d); d == "" {
			continue
		}
		n, err := strconv.ParseUint(d, 10, 63)
		if err != nil || len(dims) >= tensor.MaxDims {
			s.v.Found(ruleMalformed, ID, at, "a shape that is none")
			return
		}
		dims = append(dims, n)
	}
	items, ok := tensor.Items(dims)
	if ok && fixed {
		items, ok = tensor.Times(items, width)
	}
	if !ok || fixed && (items+7)/8 != size {
		s.v.Found(ruleOutside, ID, at, "a constant is not as long as type and shape need")
	}
}

// End implements markup.Visitor.
func (s *scan) End(xml.Name) error {
	s.note = max(0, s.note-1)
	return nil
}

// Text implements markup.Visitor.
func (s *scan) Text([]byte, int64) error { return nil }

// judgeWeights holds the constants against the weights, which lie in the file of
// the same name that ends in .bin.
func (s *scan) judgeWeights(ctx context.Context) error {
	if s.v.Sibling == nil || s.v.Place == "" || s.end == 0 {
		return nil
	}
	name := strings.TrimSuffix(s.v.Place, path.Ext(s.v.Place)) + ".bin"
	weights, err := s.v.Sibling(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open weights: %w", err)
	}
	if size := weights.Size(); s.end > size {
		s.v.Found(ruleOutside, ID, s.reach, "a constant lies beyond the end of the weights", strconv.FormatInt(s.end, 10), strconv.FormatInt(size, 10))
	}
	if err := weights.Close(); err != nil {
		return fmt.Errorf("close weights: %w", err)
	}
	return nil
}
