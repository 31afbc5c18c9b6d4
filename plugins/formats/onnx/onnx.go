// Package onnx reads ONNX models: the whole message by its schema, so that
// graphs, their subgraphs, functions and training graphs are all walked. It
// reports weights that lie in other files and where their paths lead, operators
// that come from native libraries, and those that run Python. Weights in the
// file are inert.
//
// The format has no mark. A file is told by its structure: all its top fields
// are those of a model, and one of them is a graph.
package onnx

import (
	"context"
	_ "embed"
	"errors"
	"strings"
	"sync"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/protowire"
	"github.com/cavra/cavra/plugins/formats/window"
)

// ID is the format's id.
const ID = "onnx"

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{
		"model.limit", "onnx.external.data", "onnx.external.path", "onnx.malformed", "onnx.op.custom", "onnx.op.python",
	}
}

// schemaText are the messages of onnx.proto 1.23, opsText the operators that
// any version of the standard has had, by domain.
var (
	//go:embed schema.txt
	schemaText string
	//go:embed ops.txt
	opsText string
)

var model = sync.OnceValues(func() (*protowire.Message, error) {
	s, err := protowire.ParseSchema(schemaText)
	return s["ModelProto"], err
})

var standard = sync.OnceValue(func() map[string]bool {
	ops := make(map[string]bool)
	for line := range strings.Lines(opsText) {
		ops[strings.TrimSpace(line)] = true
	}
	return ops
})

// Format is ONNX as a format of the program.
type Format struct{}

// Identify implements content.Format. A file that is cut within its graph is
// one too.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return identify(v, true)
}

// IdentifyBeside implements content.Beside: a model loader goes by no mark.
func (Format) IdentifyBeside(_ context.Context, v *content.Visit) (bool, error) {
	return identify(v, false)
}

func identify(v *content.Visit, cut bool) (bool, error) {
	m, err := model()
	if err != nil || len(v.Head) < 4 {
		return false, err
	}
	w := window.New(v.Bytes, v.Size)
	o, err := protowire.ReadOutline(w, m, 0, v.Size)
	if err != nil || !o.Known {
		return false, err
	}
	if !o.Whole {
		_, version := o.First["ir_version"]
		return cut && version && (o.Cut == "graph" || o.First["graph"][1] > 0), nil
	}
	graph, ok := o.First["graph"]
	if !ok {
		// A file of nothing but functions.
		_, ok = o.First["functions"]
		_, version := o.First["ir_version"]
		return ok && version, nil
	}
	g, err := protowire.ReadOutline(w, graphOf(m), graph[0], graph[1])
	if err != nil || !g.Known && len(g.First) == 0 {
		return false, err
	}
	_, node := g.First["node"]
	_, output := g.First["output"]
	_, version := o.First["ir_version"]
	return version || node && output, nil
}

func graphOf(m *protowire.Message) *protowire.Message { return m.Field("graph").Of }

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	m, err := model()
	if err != nil {
		return err
	}
	s := newScan(v, window.New(v.Bytes, v.Size))
	k := protowire.NewWalk(v, s.w, s)
	if err := k.Run(ctx, m, 0, v.Size); err != nil {
		if !ended(v, k.At(), err) {
			return err
		}
	}
	s.judgeOperators()
	return nil
}

// ended says that the walk ended early because of the content.
func ended(v *content.Visit, at int64, err error) bool {
	rule, why := "onnx.malformed", predicate.Malformed
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
	v.Found(rule, ID, at, err.Error())
	v.Unread(at, v.Size, why)
	v.Unread(v.Size, v.Size, why)
	return true
}
