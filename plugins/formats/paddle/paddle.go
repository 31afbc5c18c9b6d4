// Package paddle reads PaddlePaddle's inference models: programs as messages of
// protobuf (.pdmodel) and as JSON (from version 3 on), and combined parameters
// (.pdiparams). Operators are held against Paddle's own; those that call Python,
// open files or the network, or run what another compiler made, are reported.
package paddle

import (
	"context"
	_ "embed"
	"strings"
	"sync"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/document"
	"github.com/cavra/cavra/plugins/formats/protowire"
	"github.com/cavra/cavra/plugins/formats/strictjson"
	"github.com/cavra/cavra/plugins/formats/window"
)

// ID and IDParameters are the formats' ids.
const (
	ID           = "paddle"
	IDParameters = "paddle-params"
)

const (
	rulePython    = "paddle.op.python"
	ruleFile      = "paddle.op.file"
	ruleNetwork   = "paddle.op.network"
	ruleCustom    = "paddle.op.custom"
	ruleMalformed = "paddle.malformed"
)

// Rules lists the rules that Scan and Check may name.
func Rules() []string {
	return []string{rulePython, ruleFile, ruleNetwork, ruleCustom, ruleMalformed, "archive.entry.hidden", "model.limit"}
}

// schemaText are the messages of framework.proto, and opsText the operators that
// are registered, in Paddle 3.
var (
	//go:embed schema.txt
	schemaText string
	//go:embed ops.txt
	opsText string
)

var program = sync.OnceValues(func() (protowire.Schema, error) { return protowire.ParseSchema(schemaText) })

var ops = sync.OnceValue(func() map[string]bool {
	set := make(map[string]bool)
	for line := range strings.Lines(opsText) {
		set[strings.TrimSpace(line)] = true
	}
	return set
})

// odd are operators that do more than compute, with the rule of each.
var odd = map[string]string{
	"py_func": rulePython, "py_layer": rulePython, "pylayer": rulePython, "create_py_reader": rulePython, "run_program": ruleCustom,
	"load": ruleFile, "load_combine": ruleFile, "save": ruleFile, "save_combine": ruleFile, "read_file": ruleFile, "sparse_tensor_load": ruleFile,
	"listen_and_serv": ruleNetwork, "heter_listen_and_serv": ruleNetwork, "send": ruleNetwork, "recv": ruleNetwork, "send_barrier": ruleNetwork,
	"fetch_barrier": ruleNetwork, "send_and_recv": ruleNetwork, "distributed_lookup_table": ruleNetwork, "pull_sparse": ruleNetwork, "push_sparse": ruleNetwork,
	"tensorrt_engine": ruleCustom, "openvino_engine": ruleCustom, "lite_engine": ruleCustom, "dlnne_engine": ruleCustom, "fusion_group": ruleCustom,
	"custom_device": ruleCustom, "cinn_launch": ruleCustom, "cinn_jit_info": ruleCustom,
}

// Format is programs in protobuf as a format of the program.
type Format struct{}

// Identify implements content.Format: blocks and nothing else that a program has
// not, the first of which has operators or variables.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	if len(v.Head) < 8 || v.Head[0] != 0x0a {
		return false, nil
	}
	s, err := program()
	if err != nil {
		return false, err
	}
	w := window.New(v.Bytes, v.Size)
	o, err := protowire.ReadOutline(w, s["ProgramDesc"], 0, v.Size)
	if err != nil || !o.Known || o.Cut != "" && len(o.First) == 0 {
		return false, err
	}
	first, ok := o.First["blocks"]
	if !ok {
		return false, nil
	}
	b, err := protowire.ReadOutline(w, s["BlockDesc"], first[0], first[1])
	if err != nil || !b.Known {
		return false, err
	}
	_, index := b.First["idx"]
	_, parent := b.First["parent_idx"]
	return index && parent, nil
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	s, err := program()
	if err != nil {
		return err
	}
	g := &graph{v: v, w: window.New(v.Bytes, v.Size), told: make(map[string]bool)}
	k := protowire.NewWalk(v, g.w, g)
	return protowire.Settle(v, k.Run(ctx, s["ProgramDesc"], 0, v.Size), ID, ruleMalformed, k.At())
}

const (
	// maxText is how much of a name is read, in bytes.
	maxText = 4096
	// maxTold bounds the operators that are told of.
	maxTold = 1000
)

// graph is one scan of one program.
type graph struct {
	v    *content.Visit
	w    *window.Reader
	told map[string]bool
}

// Begin implements protowire.Visitor.
func (*graph) Begin(*protowire.Message, *protowire.Field, int64) error { return nil }

// End implements protowire.Visitor.
func (*graph) End(*protowire.Message) error { return nil }

// Number implements protowire.Visitor.
func (*graph) Number(*protowire.Message, *protowire.Field, uint64) error { return nil }

// Bytes implements protowire.Visitor.
func (g *graph) Bytes(m *protowire.Message, f *protowire.Field, start, end int64) error {
	if m.Name != "OpDesc" || f.Name != "type" {
		return nil
	}
	name, err := protowire.ReadText(g.w, start, end, maxText)
	if err == nil && !g.told[name] && len(g.told) < maxTold {
		g.told[name] = true
		judge(g.v, cursor.Clean(name), start, ruleCustom)
	}
	return err
}

// judge judges an operator by its name; unknown ones by a rule, if there is one.
func judge(v *content.Visit, name string, at int64, unknown string) {
	switch rule := odd[name]; {
	case rule != "":
		v.Found(rule, ID, at, name)
	case unknown != "" && !ops()[name] && !ops()[strings.TrimSuffix(name, "_grad")]:
		v.Found(unknown, ID, at, name)
	}
}

// dialects are those whose operators Paddle has itself, by name and by the number
// that newer files have for it; what is in another one is somebody's own.
var dialects = map[string]bool{"builtin": true, "0": true, "pd_op": true, "1": true, "cf": true, "2": true}

// Check judges a program in JSON (PIR), in which an operator is named by its
// dialect and, behind a dot, its own name.
func Check(v *content.Visit, root *document.Node, place func(int) int64) {
	if len(root.All("base_code")) == 0 || !root.Has("program") {
		return
	}
	told := make(map[string]bool)
	for _, p := range root.All("program") {
		p.Walk(func(n *document.Node) {
			for _, id := range n.All("#") {
				if id.Kind != strictjson.String || told[id.Text] || len(told) >= maxTold {
					continue
				}
				told[id.Text] = true
				dialect, name, ok := strings.Cut(id.Text, ".")
				if !ok {
					continue
				}
				judge(v, cursor.Clean(strings.TrimSuffix(name, "_")), place(id.At), "")
				if !dialects[dialect] {
					v.Found(ruleCustom, ID, place(id.At), cursor.Clean(id.Text))
				}
			}
		})
	}
}
