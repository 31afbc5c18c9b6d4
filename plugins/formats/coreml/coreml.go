// Package coreml reads Core ML models: the whole specification, which is a
// message of protobuf, the weights that lie beside a program, and the manifest of a
// package. Layers and models of classes that an app has to bring, operations that
// are not Core ML's own, and files outside of the package are reported. What only
// Apple's own readers know is unread.
package coreml

import (
	"context"
	_ "embed"
	"strings"
	"sync"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/document"
	"github.com/cavra/cavra/plugins/formats/protowire"
	"github.com/cavra/cavra/plugins/formats/strictjson"
	"github.com/cavra/cavra/plugins/formats/window"
)

// ID and IDWeights are the formats' ids.
const (
	ID        = "coreml"
	IDWeights = "coreml-weights"
)

const (
	ruleCustom    = "coreml.op.custom"
	rulePath      = "coreml.path.outside"
	ruleLinked    = "coreml.model.linked"
	ruleMalformed = "coreml.malformed"
)

// Rules lists the rules that Scan and Check may name.
func Rules() []string {
	return []string{ruleCustom, rulePath, ruleLinked, ruleMalformed, "archive.entry.hidden", "model.limit"}
}

// schemaText are the messages of Core ML's specification, version 10, and opsText
// the operations of its programs; both as of coremltools 9.0.
var (
	//go:embed schema.txt
	schemaText string
	//go:embed ops.txt
	opsText string
)

var model = sync.OnceValues(func() (*protowire.Message, error) {
	s, err := protowire.ParseSchema(schemaText)
	return s["Model"], err
})

var ops = sync.OnceValue(func() map[string]bool {
	set := make(map[string]bool)
	for line := range strings.Lines(opsText) {
		set[strings.TrimSpace(line)] = true
	}
	return set
})

// Format is Core ML's specifications as a format of the program.
type Format struct{}

// Identify implements content.Format: a message that has a version, a description
// and a model, as far as it goes.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	if len(v.Head) < 4 || v.Head[0] != 0x08 {
		return false, nil
	}
	m, err := model()
	if err != nil {
		return false, err
	}
	o, err := protowire.ReadOutline(window.New(v.Bytes, v.Size), m, 0, v.Size)
	if err != nil || !o.Known || o.Values["specificationVersion"] > 100 {
		return false, err
	}
	_, version := o.First["specificationVersion"]
	_, described := o.First["description"]
	kinds := 0
	for name := range o.First {
		if name != "specificationVersion" && name != "description" && name != "isUpdatable" {
			kinds++
		}
	}
	return version && described && (kinds > 0 || o.Cut != "" && o.Cut != "description"), nil
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	m, err := model()
	if err != nil {
		return err
	}
	s := &scan{v: v, w: window.New(v.Bytes, v.Size)}
	k := protowire.NewWalk(v, s.w, s)
	return protowire.Settle(v, k.Run(ctx, m, 0, v.Size), ID, ruleMalformed, k.At())
}

// maxText is how much of a name is read, in bytes.
const maxText = 4096

// scan is one scan of one specification.
type scan struct {
	v *content.Visit
	w *window.Reader
}

// Begin implements protowire.Visitor.
func (s *scan) Begin(m *protowire.Message, _ *protowire.Field, at int64) error {
	switch m.Name {
	case "CustomLayerParams", "CustomModel":
		s.v.Found(ruleCustom, ID, at, m.Name)
	case "LinkedModel":
		s.v.Found(ruleLinked, ID, at)
	case "SerializedModel":
		s.v.Unread(at, at, predicate.UnsupportedFormat)
	}
	return nil
}

// End implements protowire.Visitor.
func (*scan) End(*protowire.Message) error { return nil }

// Number implements protowire.Visitor.
func (*scan) Number(*protowire.Message, *protowire.Field, uint64) error { return nil }

// Bytes implements protowire.Visitor.
func (s *scan) Bytes(m *protowire.Message, f *protowire.Field, start, end int64) error {
	switch m.Name + "." + f.Name {
	case "CustomLayerParams.className", "CustomModel.className":
		return s.text(start, end, func(name string) { s.v.Found(ruleCustom, ID, start, name) })
	case "MILSpec.Operation.type":
		return s.text(start, end, func(name string) {
			if !ops()[name] {
				s.v.Found(ruleCustom, ID, start, name)
			}
		})
	case "MILSpec.Value.BlobFileValue.fileName":
		return s.text(start, end, func(name string) {
			inside, ok := strings.CutPrefix(name, "@model_path/")
			if !ok || content.Leaves(inside) || strings.ContainsRune(inside, 0) {
				s.v.Found(rulePath, ID, start, name)
			}
		})
	case "StringParameter.defaultValue":
		return s.text(start, end, func(name string) {
			if content.Leaves(name) {
				s.v.Found(rulePath, ID, start, name)
			}
		})
	}
	if f.Name == "modelParameterData" {
		// Only Apple's own readers know it.
		s.v.Unread(start, start, predicate.UnsupportedFormat)
	}
	return nil
}

func (s *scan) text(start, end int64, judge func(string)) error {
	text, err := protowire.ReadText(s.w, start, end, maxText)
	if err == nil {
		judge(cursor.Clean(text))
	}
	return err
}

// Check judges a package's manifest: the files that it names must lie within.
func Check(v *content.Visit, root *document.Node, place func(int) int64) {
	if !root.Has("rootModelIdentifier") {
		return
	}
	for _, entries := range root.All("itemInfoEntries") {
		for _, e := range entries.Items {
			for _, p := range e.All("path") {
				if p.Kind != strictjson.String || content.Leaves(p.Text) {
					v.Found(rulePath, ID, place(p.At), cursor.Clean(p.Text))
				}
			}
		}
	}
}
