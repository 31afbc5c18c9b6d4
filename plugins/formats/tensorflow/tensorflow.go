// Package tensorflow reads what TensorFlow writes as protobuf: SavedModel,
// MetaGraphDef (.meta), frozen GraphDef, keras_metadata.pb, fingerprint.pb, and
// the index of a checkpoint, which is a table of messages. It walks every node of
// every graph and of every function in the library, and reports operators that
// call Python, touch files or the network, or come from a native library, and
// paths that lead out of the model's folder. Configurations of Keras objects are
// handed on. Constants in the file are inert.
//
// Of these only the table has a mark. A file is told by its structure: all its
// top fields are those of the message, and what lies in them fits as well.
package tensorflow

import (
	"context"
	_ "embed"
	"errors"
	"regexp"
	"strings"
	"sync"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/protowire"
	"github.com/cavra/cavra/plugins/formats/tensor"
	"github.com/cavra/cavra/plugins/formats/window"
)

// The ids of the formats that are read.
const (
	IDSavedModel  = "tf-saved-model"
	IDMetaGraph   = "tf-meta-graph"
	IDGraph       = "tf-graph"
	IDKeras       = "keras-metadata"
	IDFingerprint = "tf-fingerprint"
)

// class is the location class of findings.
const class = "tensorflow"

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{
		"archive.entry.hidden", "archive.limit", "model.limit", tensor.RuleOdd, tensor.RulePath, "tf.malformed", "tf.op.custom", "tf.op.file.read", "tf.op.file.write",
		"tf.op.network", "tf.op.python", "tf.path.outside",
	}
}

// schemaText are the messages of TensorFlow 2.21, opsText its operators.
var (
	//go:embed schema.txt
	schemaText string
	//go:embed ops.txt
	opsText string
)

var schema = sync.OnceValues(func() (protowire.Schema, error) { return protowire.ParseSchema(schemaText) })

var known = sync.OnceValue(func() map[string]bool {
	ops := make(map[string]bool)
	for line := range strings.Lines(opsText) {
		ops[strings.TrimSpace(line)] = true
	}
	return ops
})

// kind is one of the files that TensorFlow writes.
type kind struct {
	id, message string
	// is judges an outline whose fields are all known. It may look deeper.
	is func(s protowire.Schema, w *window.Reader, o protowire.Outline) (bool, error)
}

var kinds = []kind{
	{IDSavedModel, "SavedModel", isSavedModel},
	{IDMetaGraph, "MetaGraphDef", isMetaGraph},
	{IDGraph, "GraphDef", isGraph},
	{IDKeras, "KerasSavedMetadata", isKeras},
	{IDFingerprint, "FingerprintDef", isFingerprint},
}

func isSavedModel(s protowire.Schema, w *window.Reader, o protowire.Outline) (bool, error) {
	if _, versioned := o.First["saved_model_schema_version"]; versioned && o.Cut == "meta_graphs" {
		return true, nil
	}
	at, ok := o.First["meta_graphs"]
	if !ok {
		return false, nil
	}
	inner, err := protowire.ReadOutline(w, s["MetaGraphDef"], at[0], at[1])
	_, info := inner.First["meta_info_def"]
	_, graph := inner.First["graph_def"]
	return info || graph, err
}

func isMetaGraph(s protowire.Schema, w *window.Reader, o protowire.Outline) (bool, error) {
	info, hasInfo := o.First["meta_info_def"]
	_, graph := o.First["graph_def"]
	if !hasInfo || !graph && o.Cut != "graph_def" {
		return false, nil
	}
	inner, err := protowire.ReadOutline(w, s["MetaGraphDef.MetaInfoDef"], info[0], info[1])
	if err != nil || !inner.Known {
		return false, err
	}
	// A graph's first node would pass for the information, but for its operator.
	ops := inner.First["stripped_op_list"]
	list, err := protowire.ReadOutline(w, s["OpList"], ops[0], ops[1])
	return list.Known, err
}

// opName is what TensorFlow allows as the name of an operator.
var opName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_>./]*$`)

func isGraph(s protowire.Schema, w *window.Reader, o protowire.Outline) (bool, error) {
	message, at := "NodeDef", o.First["node"]
	if at[1] == 0 {
		message, at = "FunctionDefLibrary", o.First["library"]
	}
	if at[1] == 0 {
		return false, nil
	}
	inner, err := protowire.ReadOutline(w, s[message], at[0], at[1])
	if err != nil || len(inner.First) == 0 {
		return false, err
	}
	if message != "NodeDef" {
		_, ok := inner.First["function"]
		return ok, nil
	}
	op, ok := inner.First["op"]
	if !ok {
		return false, nil
	}
	name, err := protowire.ReadText(w, op[0], op[1], maxText)
	return opName.MatchString(name), err
}

func isKeras(s protowire.Schema, w *window.Reader, o protowire.Outline) (bool, error) {
	at, ok := o.First["nodes"]
	if !ok {
		return false, nil
	}
	inner, err := protowire.ReadOutline(w, s["KerasSavedObject"], at[0], at[1])
	if err != nil {
		return false, err
	}
	_, path := inner.First["node_path"]
	id, ok := inner.First["identifier"]
	if !ok || !path {
		return false, nil
	}
	text, err := protowire.ReadText(w, id[0], id[1], maxText)
	return strings.HasPrefix(text, "_tf_keras_"), err
}

func isFingerprint(_ protowire.Schema, _ *window.Reader, o protowire.Outline) (bool, error) {
	_, version := o.First["version"]
	return version && o.Whole && o.Values["saved_model_checksum"] != 0 && o.Values["graph_def_program_hash"] != 0, nil
}

// Format is one that identifies all of the files.
type Format struct {
	// Settings scans the configuration of a Keras object, which is JSON. Without
	// it configurations are unread.
	Settings func(ctx context.Context, v *content.Visit) error
}

// Identify implements content.Format. A file that is cut short is one too.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	k, err := identify(v, true)
	return k != nil, err
}

// IdentifyBeside implements content.Beside: a loader goes by no mark.
func (Format) IdentifyBeside(_ context.Context, v *content.Visit) (bool, error) {
	k, err := identify(v, false)
	return k != nil, err
}

func identify(v *content.Visit, cut bool) (*kind, error) {
	s, err := schema()
	if err != nil || len(v.Head) < 4 {
		return nil, err
	}
	w := window.New(v.Bytes, v.Size)
	for i, k := range kinds {
		o, err := protowire.ReadOutline(w, s[k.message], 0, v.Size)
		if err != nil {
			return nil, err
		}
		if !o.Known || !o.Whole && !cut {
			continue
		}
		if ok, err := k.is(s, w, o); ok || err != nil {
			return &kinds[i], err
		}
	}
	return nil, nil
}

// Scan implements content.Format.
func (f Format) Scan(ctx context.Context, v *content.Visit) error {
	k, err := identify(v, true)
	if err != nil {
		return err
	}
	if k == nil {
		return errors.New("scan protobuf: the content has changed")
	}
	types, err := schema()
	if err != nil {
		return err
	}
	v.Format = k.id
	s := newScan(v, window.New(v.Bytes, v.Size))
	walk := protowire.NewWalk(v, s.w, s)
	if err := walk.Run(ctx, types[k.message], 0, v.Size); err != nil {
		if !ended(v, walk.At(), err) {
			return err
		}
		s.flush()
	}
	s.judgeOperators()
	return s.scanConfigurations(ctx, f.Settings)
}

// ended says that the walk ended early because of the content.
func ended(v *content.Visit, at int64, err error) bool {
	rule, why := "tf.malformed", predicate.Malformed
	switch {
	case errors.Is(err, protowire.ErrMalformed):
	case errors.Is(err, protowire.ErrTruncated):
		why = predicate.Truncated
	case errors.Is(err, protowire.ErrDepth):
		rule, why = "model.limit", predicate.LimitDepth
	case errors.Is(err, protowire.ErrFields):
		rule, why = "model.limit", predicate.LimitMembers
	default:
		return false
	}
	v.Found(rule, class, at, err.Error())
	v.Unread(at, v.Size, why)
	v.Unread(v.Size, v.Size, why)
	return true
}
