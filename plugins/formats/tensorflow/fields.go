package tensorflow

import (
	"encoding/binary"
	"strings"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/protowire"
)

// Number implements protowire.Visitor. No number decides what a node does.
func (*scan) Number(*protowire.Message, *protowire.Field, uint64) error { return nil }

// Bytes implements protowire.Visitor.
func (s *scan) Bytes(m *protowire.Message, f *protowire.Field, start, end int64) error {
	switch m.Name {
	case "NodeDef":
		return s.nodeText(f.Name, start, end)
	case "AttrValue", "AttrValue.ListValue":
		return s.attribute(f.Name, start, end)
	case "TensorProto":
		return s.constant(f.Name, start, end)
	case "SavedUserObject", "KerasSavedObject":
		if f.Name == "metadata" {
			return s.metadata(start, end)
		}
	}
	switch m.Name + "." + f.Name {
	case "NodeDef.AttrEntry.key":
		text, err := protowire.ReadText(s.w, start, end, maxText)
		last(s.attrs).key = text
		return err
	case "NameAttrList.name":
		// A function by name; an operator can be called so as well.
		text, err := protowire.ReadText(s.w, start, end, maxText)
		if _, met := s.used[text]; !met && rules[text] != "" {
			s.used[text] = start
		}
		return err
	case "OpDef.name":
		return s.define(start, end)
	case "AssetFileDef.filename":
		text, err := protowire.ReadText(s.w, start, end, maxText)
		if outside(text) {
			s.v.Found("tf.path.outside", class, start, "asset", text)
		}
		return err
	}
	return nil
}

// define notes a function of the library: its signature stands in a function.
// The list of operators beside the graph only repeats what the graph uses.
func (s *scan) define(start, end int64) error {
	if len(s.scopes) < 2 {
		return nil
	}
	if len(s.defined) >= maxOperators {
		return protowire.ErrFields
	}
	text, err := protowire.ReadText(s.w, start, end, maxText)
	s.defined[text] = true
	return err
}

func (s *scan) nodeText(field string, start, end int64) error {
	n := last(s.nodes)
	if field != "name" && field != "op" && (field != "input" || len(n.inputs) >= maxInputs) {
		return nil
	}
	text, err := protowire.ReadText(s.w, start, end, maxText)
	switch field {
	case "name":
		n.name = text
	case "op":
		n.op = text
	case "input":
		n.inputs = append(n.inputs, text)
	}
	return err
}

// attribute reads the text of an attribute. A node's own attributes have one at
// most, except for lists.
func (s *scan) attribute(field string, start, end int64) error {
	a := last(s.attrs)
	if a == nil || field != "s" {
		return nil
	}
	a.start, a.end = start, end
	text, err := protowire.ReadText(s.w, start, end, maxText)
	if text != "" {
		a.text = text
	}
	return err
}

// constant reads the text of a string constant that leads outside of the model's
// folder.
func (s *scan) constant(field string, start, end int64) error {
	n := last(s.nodes)
	if n == nil || field != "string_val" && field != "tensor_content" || end-start > maxText {
		return nil
	}
	text, err := protowire.ReadText(s.w, start, end, maxText)
	if field == "tensor_content" {
		// Lengths, then texts; a path stands alone.
		if length, size := binary.Uvarint([]byte(text)); size > 0 && length == uint64(len(text)-size) {
			text = text[size:]
		}
	}
	if n.text == "" && outside(text) {
		n.text = text
	}
	return err
}

// outside reports whether a path is no file beside or below the model.
func outside(path string) bool {
	return content.Leaves(path) || strings.Contains(path, "://")
}
