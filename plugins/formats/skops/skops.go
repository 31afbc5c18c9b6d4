// Package skops judges the schema of a skops file: a tree of nodes, each of which
// names a loader, and the module and class that it makes. skops imports these when
// the file is loaded with them trusted, and has shown some of them as other than
// they were (CVE-2025-54412, CVE-2025-54413). Names are judged by the table that
// pickles are judged by.
package skops

import (
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/document"
	"github.com/cavra/cavra/plugins/formats/strictjson"
)

// ID is the class of the findings.
const ID = "skops"

const (
	ruleConfused  = "skops.node.confused"
	ruleDangerous = "skops.reference.dangerous"
	ruleUnknown   = "skops.reference.unknown"
	ruleDuplicate = "skops.key.duplicate"
)

// Rules lists the rules that Check may name.
func Rules() []string { return []string{ruleConfused, ruleDangerous, ruleDuplicate, ruleUnknown} }

// Keys are keys by which a JSON text is recognised as a schema.
func Keys() []string { return []string{loaderKey} }

const loaderKey, classKey, moduleKey = "__loader__", "__class__", "__module__"

// Judge says what is held of a module and name: one of predicate's Judged.
type Judge func(module, name string) string

// Duplicate reports a key that an object has twice, where that decides what is
// loaded.
func Duplicate(v *content.Visit, key string, at int64) {
	switch key {
	case loaderKey, classKey, moduleKey:
		v.Found(ruleDuplicate, ID, at, key)
	}
}

// Check judges all nodes of a schema. The function maps offsets in the text to
// those in the content.
func Check(v *content.Visit, root *document.Node, judge Judge, place func(int) int64) {
	c := checker{v: v, judge: judge, reported: make(map[string]bool)}
	root.Walk(func(n *document.Node) {
		if n.Kind == strictjson.Object && n.Has(loaderKey) {
			c.node(n, place(n.At))
		}
	})
}

type checker struct {
	v        *content.Visit
	judge    Judge
	reported map[string]bool
}

// found reports a name once.
func (c checker) found(rule string, at int64, evidence ...string) {
	for i, e := range evidence {
		evidence[i] = cursor.Clean(e)
	}
	key := rule + " " + strings.Join(evidence, " ")
	if c.reported[key] {
		return
	}
	c.reported[key] = true
	c.v.Found(rule, ID, at, evidence...)
}

// made are the modules and names that a loader makes whatever the table of
// pickles says of them, since the loader fixes how.
var made = map[string][]string{
	"DictNode": {"builtins.dict", "collections.OrderedDict"}, "DefaultDictNode": {"collections.defaultdict"}, "ListNode": {"builtins.list"},
	"SetNode": {"builtins.set"}, "TupleNode": {"builtins.tuple"}, "SliceNode": {"builtins.slice"}, "BytesNode": {"builtins.bytes"}, "BytearrayNode": {"builtins.bytearray"},
	"PartialNode":     {"functools.partial"},
	"NdArrayNode":     {"numpy.ndarray", "numpy.memmap", "numpy.matrix", "numpy.generic"},
	"DTypeNode":       {"numpy.dtype"},
	"JsonNode":        {"builtins.str", "builtins.int", "builtins.float", "builtins.bool", "builtins.NoneType", "builtins.complex"},
	"TypeNode":        {"builtins.str", "builtins.int", "builtins.float", "builtins.bool", "builtins.NoneType", "builtins.complex", "builtins.dict", "builtins.list", "builtins.tuple", "builtins.set", "builtins.object", "builtins.bytes"},
	"MaskedArrayNode": {"numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"}, "RandomStateNode": {"numpy.random.mtrand.RandomState", "numpy.random.RandomState"},
	"RandomGeneratorNode": {"numpy.random._generator.Generator", "numpy.random.Generator"},
	"SparseMatrixNode":    nil, "FunctionNode": nil, "ObjectNode": nil, "MethodNode": nil, "OperatorFuncNode": nil, "ConstructorFromReduceNode": nil,
	"TreeNode": nil, "LossNode": nil, "QuantileForestNode": nil, "ReduceNode": nil, "_DictWithDeprecatedKeysNode": nil, "CachedNode": nil, "CFunctionNode": nil, "UfuncNode": nil,
}

// operators are the classes of the module operator that hold what they get, and
// call nothing before they are called.
var operators = []string{"attrgetter", "itemgetter", "methodcaller"}

func (c checker) node(n *document.Node, at int64) {
	loaders, modules, classes := n.Texts(loaderKey), n.Texts(moduleKey), n.Texts(classKey)
	for _, loader := range loaders {
		if _, known := made[loader]; !known {
			c.found(ruleUnknown, at, loader)
		}
		for _, module := range modules {
			for _, class := range classes {
				c.name(loader, module, class, at)
			}
		}
		switch loader {
		case "MethodNode":
			c.method(n, at)
		case "JsonNode":
			for _, content := range n.Texts("content") {
				if err := strictjson.New([]byte(content)).Skip(); err != nil {
					c.found(ruleConfused, at, loader, "content that is no JSON")
				}
			}
		}
	}
}

// name judges what a node makes.
func (c checker) name(loader, module, class string, at int64) {
	if loader == "OperatorFuncNode" {
		if module != "operator" || !slices.Contains(operators, class) {
			c.found(ruleConfused, at, loader, module, class)
		}
		if !slices.Contains(operators, class) {
			c.found(ruleDangerous, at, "operator", class)
		}
		return
	}
	judged := c.judge(module, class)
	switch {
	case slices.Contains(made[loader], module+"."+class):
	case judged == predicate.JudgedDangerous:
		c.found(ruleDangerous, at, module, class)
	case judged == predicate.JudgedHarmless || loader == "JsonNode":
	case module == "numpy" || strings.HasPrefix(module, "numpy.dtypes") || module == "scipy.special._ufuncs":
		if strings.Contains(class, ".") {
			c.found(ruleUnknown, at, module, class)
		}
	default:
		c.found(ruleUnknown, at, module, class)
	}
}

// method holds a bound method against the object that it is bound to: it must be
// of the class that is shown, and the name must be one, and no attribute that
// leads out of the object.
func (c checker) method(n *document.Node, at int64) {
	for _, inner := range n.All("content") {
		for _, f := range inner.Texts("func") {
			if strings.ContainsAny(f, ".") || strings.HasPrefix(f, "__") {
				c.found(ruleConfused, at, "MethodNode", f)
			}
		}
		for _, obj := range inner.All("obj") {
			if !slices.Equal(obj.Texts(classKey), n.Texts(classKey)) || !slices.Equal(obj.Texts(moduleKey), n.Texts(moduleKey)) {
				c.found(ruleConfused, at, "MethodNode", strings.Join(n.Texts(classKey), " "), strings.Join(obj.Texts(classKey), " "))
			}
		}
	}
}
