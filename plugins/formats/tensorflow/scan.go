package tensorflow

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/protowire"
	"github.com/cavra/cavra/plugins/formats/window"
)

const (
	// maxText is how much of a name or a path is read, in bytes.
	maxText = 8 << 10
	// maxOperators bounds the different operators and functions that are kept,
	// maxKept the nodes of one graph that paths are followed through.
	maxOperators = 200_000
	maxKept      = 1_000_000
	// maxInputs of a node are kept; maxHops is how far paths are followed.
	maxInputs = 4
	maxHops   = 6
)

// node is a node that is being read.
type node struct {
	at       int64
	name, op string
	inputs   []string
	// text is a constant's that is a path to outside.
	text string
	// module is the extent of a compiled program.
	module [2]int64
	// output is where Print writes, or where values are sent for debugging.
	output string
}

// scope is a graph, or a function, whose nodes can name each other.
type scope struct {
	paths  map[string]string   // constant paths that lead outside, by node
	passed map[string][]string // inputs, by node that gives them on
	uses   []use
}

// use is a node that opens the path in its first input.
type use struct {
	op, input string
	at        int64
}

// attribute is one of a node that is being read.
type attribute struct {
	key, text string
	// start and end of the text.
	start, end int64
}

// scan is one scan: what is being read at each depth, and what was met.
type scan struct {
	v       *content.Visit
	w       *window.Reader
	nodes   []node
	scopes  []scope
	attrs   []attribute
	used    map[string]int64
	defined map[string]bool
	// configurations are the extents of Keras's.
	configurations [][2]int64
}

func newScan(v *content.Visit, w *window.Reader) *scan {
	return &scan{v: v, w: w, used: make(map[string]int64), defined: make(map[string]bool)}
}

// Begin implements protowire.Visitor.
func (s *scan) Begin(m *protowire.Message, _ *protowire.Field, at int64) error {
	switch m.Name {
	case "GraphDef", "FunctionDef":
		s.scopes = append(s.scopes, scope{paths: make(map[string]string), passed: make(map[string][]string)})
	case "NodeDef":
		s.nodes = append(s.nodes, node{at: at})
	case "NodeDef.AttrEntry":
		s.attrs = append(s.attrs, attribute{})
	}
	return nil
}

// End implements protowire.Visitor.
func (s *scan) End(m *protowire.Message) error {
	switch m.Name {
	case "GraphDef", "FunctionDef":
		s.judgePaths(pop(&s.scopes))
	case "NodeDef":
		return s.endNode(pop(&s.nodes))
	case "NodeDef.AttrEntry":
		last(s.nodes).take(pop(&s.attrs))
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

// take takes an attribute that decides what a node does.
func (n *node) take(a attribute) {
	switch a.key {
	case "module":
		n.module = [2]int64{a.start, a.end}
	case "output_stream", "debug_urls":
		n.output = a.text
	}
}

// flush judges the scopes that a broken file has left open.
func (s *scan) flush() {
	for len(s.scopes) > 0 {
		s.judgePaths(pop(&s.scopes))
	}
}

func (s *scan) endNode(n node) error {
	if _, met := s.used[n.op]; !met {
		if len(s.used) >= maxOperators {
			return protowire.ErrFields
		}
		s.used[n.op] = n.at
	}
	switch {
	case n.op == "XlaCallModule" && n.module[1] > n.module[0]:
		// A compiled program, in a format of its own.
		s.v.Unread(n.module[0], n.module[1], predicate.UnsupportedFormat)
	case n.op == "PrintV2" && strings.HasPrefix(n.output, "file:"), strings.HasPrefix(n.op, "Debug") && n.output != "":
		s.v.Found("tf.op.file.write", class, n.at, n.op, n.output)
	}
	g := last(s.scopes)
	if g == nil || len(g.paths)+len(g.passed)+len(g.uses) >= maxKept {
		if g == nil {
			return nil
		}
		return protowire.ErrFields
	}
	switch {
	case n.op == "Const" && n.text != "":
		g.paths[n.name] = n.text
	case passing[n.op]:
		g.passed[n.name] = n.inputs
	}
	if pathInputs[n.op] && len(n.inputs) > 0 {
		g.uses = append(g.uses, use{op: n.op, input: n.inputs[0], at: n.at})
	}
	return nil
}

// judgePaths says which nodes open a constant path outside of the model.
func (s *scan) judgePaths(g scope) {
	for _, u := range g.uses {
		if path := g.path(u.input, maxHops); path != "" {
			s.v.Found("tf.path.outside", class, u.at, u.op, path)
		}
	}
}

// path follows an input back to a constant path.
func (g scope) path(input string, hops int) string {
	input = base(input)
	if path := g.paths[input]; path != "" || hops == 0 {
		return path
	}
	for _, next := range g.passed[input] {
		if path := g.path(next, hops-1); path != "" {
			return path
		}
	}
	return ""
}

// base is the node's name in an input such as "^a", "a:0" or "a:output:0".
func base(input string) string {
	input, _, _ = strings.Cut(strings.TrimPrefix(input, "^"), ":")
	return input
}

// judgeOperators says what operators do, and which nobody knows.
func (s *scan) judgeOperators() {
	ops := slices.SortedFunc(maps.Keys(s.used), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.used[a], s.used[b]), cmp.Compare(a, b))
	})
	for _, op := range ops {
		rule := rules[op]
		switch {
		case rule != "":
			s.v.Found(rule, class, s.used[op], op)
		case native[op] || !known()[op] && !internal[op] && !s.defined[op]:
			s.v.Found("tf.op.custom", class, s.used[op], op)
		}
	}
}
