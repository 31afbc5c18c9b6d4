package tensorflow

import (
	"bytes"
	"context"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// Text is a graph or a SavedModel in protobuf's text format, which TensorFlow
// loads as well (saved_model.pbtxt). It is identified and not read.
type Text struct{}

// IDText is the format's id.
const IDText = "tf-text"

// textFields are the fields that such a text can begin with; those of a kind
// that other texts begin with are followed by one of these.
var textFields = map[string]bool{
	"saved_model_schema_version": true, "meta_graphs": true, "node": true, "library": true, "meta_info_def": true, "graph_def": true,
	"saver_def": true, "collection_def": true, "signature_def": true, "asset_file_def": true, "object_graph_def": true,
	"versions": true, "version": true, "debug_info": true,
}

// Identify implements content.Format: after comments come only fields of the
// messages, of which the first or the second is a message.
func (Text) Identify(_ context.Context, v *content.Visit) (bool, error) {
	rest := v.Head
	for range 2 {
		name, after := firstField(rest)
		if !textFields[name] {
			return false, nil
		}
		after = bytes.TrimLeft(after, " \t\r\n")
		if len(after) > 0 && after[0] == ':' {
			after = bytes.TrimLeft(after[1:], " \t\r\n")
		}
		if len(after) > 0 && (after[0] == '{' || after[0] == '<') {
			return true, nil
		}
		rest = bytes.TrimLeft(after, "0123456789xabcdefABCDEF;,")
	}
	return false, nil
}

// firstField passes over white space and comments, and cuts the name that comes
// then.
func firstField(b []byte) (string, []byte) {
	for {
		b = bytes.TrimLeft(b, " \t\r\n")
		if !bytes.HasPrefix(b, []byte("#")) {
			break
		}
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	n := 0
	for n < len(b) && (b[n] == '_' || b[n] >= 'a' && b[n] <= 'z') {
		n++
	}
	return string(b[:n]), b[n:]
}

// Scan implements content.Format.
func (Text) Scan(_ context.Context, v *content.Visit) error {
	v.Format = IDText
	v.Unread(0, v.Size, predicate.UnsupportedFormat)
	return nil
}
