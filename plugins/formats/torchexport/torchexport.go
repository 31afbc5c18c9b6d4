// Package torchexport judges what torch.export.save writes: a graph in JSON whose
// nodes name what is called by dotted paths that the loader walks attribute by
// attribute, expressions that it hands to sympy, which evaluates them as Python,
// and guards that are compiled as Python when the program is made a module. The
// weights lie beside it as raw bytes, with their shapes in JSON.
package torchexport

import (
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/document"
	"github.com/cavra/cavra/plugins/formats/strictjson"
	"github.com/cavra/cavra/plugins/formats/torchop"
)

// ID is the class of the findings.
const ID = "torch-export"

const (
	ruleTarget     = "torch.export.target"
	ruleExpression = "torch.export.expression"
	ruleGuard      = "torch.export.guard"
)

// Rules lists the rules that Check may name.
func Rules() []string { return append(torchop.Rules(), ruleTarget, ruleExpression, ruleGuard) }

// Key is that of the graph in the text of a program.
const Key = "graph_module"

// Check judges a program and all graphs below it. The function maps offsets in the
// text to those in the content.
func Check(v *content.Visit, root *document.Node, place func(int) int64) error {
	if !root.Has(Key) {
		return nil
	}
	var failed error
	seen := make(map[string]bool)
	found := func(rule string, at int, what string) {
		if rule != "" && !seen[rule+what] {
			seen[rule+what] = true
			v.Found(rule, ID, place(at), content.Clip(what, maxShown))
		}
	}
	root.Walk(func(n *document.Node) {
		for i, key := range n.Keys {
			value := n.Items[i]
			switch key {
			case "target":
				rule, err := target(value.Text)
				if err != nil {
					failed = err
				}
				found(rule, value.At, value.Text)
			case "expr_str", "as_expr":
				if value.Kind == strictjson.String && !plainExpression(value.Text) {
					found(ruleExpression, value.At, value.Text)
				}
			case "guards_code":
				for _, g := range value.Items {
					if !plainGuard(g.Text) {
						found(ruleGuard, g.At, g.Text)
					}
				}
			}
		}
	})
	return failed
}

// maxShown bounds what is shown of a text, in bytes.
const maxShown = 200

// modules are those other than torch.ops whose functions a node may call, with
// the names that compute and nothing else.
var modules = map[string]map[string]bool{
	"_operator": names(`add and_ eq floordiv ge getitem gt iadd imul index inv invert isub itruediv le lshift lt mod mul ne neg not_ or_ pos pow rshift
		sub truediv xor`),
	"math": names("ceil floor trunc sqrt pow log exp"),
	"torch": names(`sym_float sym_fresh_size sym_int sym_ite sym_max sym_min sym_not sym_sum _sym_acos _sym_asin _sym_atan _sym_cos _sym_cosh
		_sym_log2 _sym_sin _sym_sinh _sym_sqrt _sym_tan _sym_tanh`),
}

func names(list string) map[string]bool {
	m := make(map[string]bool)
	for _, n := range strings.Fields(list) {
		m[n] = true
	}
	return m
}

// target gives the rule that a node's target meets, or nothing when it is vetted.
func target(path string) (string, error) {
	if rest, ok := strings.CutPrefix(path, "torch.ops."); ok {
		space, name, _ := strings.Cut(rest, ".")
		name, overload, _ := strings.Cut(name, ".")
		if name == "" || strings.Contains(overload, ".") || strings.HasPrefix(name, "__") && strings.HasPrefix(overload, "__") {
			return ruleTarget, nil
		}
		return torchop.Judge(space, name)
	}
	module, name, _ := strings.Cut(path, ".")
	if modules[module][name] {
		return "", nil
	}
	for _, walked := range []string{"torch", "_operator", "math", "#"} {
		if strings.HasPrefix(path, walked) {
			return ruleTarget, nil
		}
	}
	return "", nil // the loader leaves it a text, which is not called
}

// token is a symbol with what is assumed of it, a number, a name, an operator or a
// bracket of an expression on sizes.
var token = regexp.MustCompile(`^(?:Symbol\('[A-Za-z_][A-Za-z0-9_]*'(?:, *[a-z_]+=(?:True|False))*\)|\s+|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|[A-Za-z_][A-Za-z0-9_]*|\*\*|//|<<|>>|<=|>=|==|!=|[-+*/%<>&|^~(),])`)

// symbol is a size that is known at run time only, or any name of a whole number.
var symbol = regexp.MustCompile(`^(?:[suzif]|zf|zuf|shape_env_|backed_|unbacked_)\d+$`)

// functions are those of sympy and of torch.utils._sympy that sizes are written with.
var functions = names(`Abs Add And BitwiseFn_bitwise_and BitwiseFn_bitwise_or BitwiseFn_bitwise_xor CeilDiv CeilToInt CleanDiv Eq Equality False
	FloatPow FloatTrueDiv FloorDiv FloorToInt GreaterThan Ge Gt Identity IntTrueDiv Integer IsNonOverlappingAndDenseIndicator LShift Le LessThan Lt
	Max Min Mod ModularIndexing Mul Ne Not Or OpaqueUnaryFn_log2 OpaqueUnaryFn_sqrt Piecewise Pow PowByNatural PythonMod RShift RoundDecimal RoundToInt
	StrictGreaterThan StrictLessThan ToFloat True TruncToFloat TruncToInt Unequality Where ceiling floor int_oo oo nan`)

// plainExpression reports whether a text is an expression on sizes and nothing
// else: sympy.sympify would evaluate any other Python in it.
func plainExpression(s string) bool {
	return plain(s, token, func(name string) bool { return symbol.MatchString(name) || functions[name] })
}

// plain reports whether a text is tokens with names that are allowed.
func plain(s string, token *regexp.Regexp, allowed func(string) bool) bool {
	if len(s) > maxExpression {
		return false
	}
	for s != "" {
		t := token.FindString(s)
		if t == "" {
			return false
		}
		s = s[len(t):]
		if c := t[0]; (c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z') && !strings.Contains(t, "'") && !allowed(t) {
			return false
		}
	}
	return true
}

// maxExpression bounds one expression, in bytes.
const maxExpression = 64 << 10

// guardToken is a part of a guard: those of expressions, the inputs by name or
// place, and attributes.
var guardToken = regexp.MustCompile(`^(?:L\['[^'\\\n]*'\]|\['[^'\\\n]*'\]|\s+|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|[A-Za-z_][A-Za-z0-9_]*|\*\*|//|<<|>>|<=|>=|==|!=|[-+*/%<>&|^~(),.\[\]])`)

// guarded are the names that guards compare inputs by.
var guarded = names(`and or not is in None True False L len size stride storage_offset shape ndim dim numel item float int bool min max abs
	math ceil floor sqrt log2 trunc pow torch sym_float sym_int sym_max sym_min sym_not sym_ite cast_symbool_to_symint_guardless`)

// plainGuard reports whether a guard compares inputs and nothing else: it is
// compiled as Python with the inputs in L.
func plainGuard(s string) bool {
	return plain(s, guardToken, func(name string) bool { return guarded[name] || functions[name] })
}

// Extents are the sizes in bytes of the raw weights that a configuration lists,
// by the name of their member. Those that are pickled are left out.
func Extents(text []byte) map[string]int64 {
	roots, err := document.Read(text, nil)
	if err != nil {
		return nil
	}
	out := make(map[string]int64)
	for _, root := range roots {
		for _, config := range root.All("config") {
			for _, w := range config.Items {
				name, size, ok := extent(text, w)
				if known, twice := out[name]; twice && known != size {
					ok = false
				}
				if ok {
					out[name] = size
				} else {
					out[name] = -1 // listed in two ways, or in none that is known
				}
			}
		}
	}
	return out
}

// extent is the size of one weight: its elements are there without gaps.
func extent(text []byte, w *document.Node) (string, int64, bool) {
	paths, pickled := w.Texts("path_name"), w.All("use_pickle")
	if len(paths) != 1 || len(pickled) != 1 || literal(text, pickled[0].At) != "false" {
		return strings.Join(paths, ""), 0, false
	}
	metas := w.All("tensor_meta")
	if len(metas) != 1 || len(metas[0].All("sizes")) != 1 || len(metas[0].All("dtype")) != 1 {
		return paths[0], 0, false
	}
	n, known := elementSizes[literal(text, metas[0].All("dtype")[0].At)]
	for _, s := range metas[0].All("sizes")[0].Items {
		dims := s.All("as_int")
		if len(dims) != 1 {
			return paths[0], 0, false
		}
		d, err := strconv.ParseInt(literal(text, dims[0].At), 10, 64)
		if err != nil || d < 0 || d > 0 && n > math.MaxInt64/d {
			return paths[0], 0, false
		}
		n *= d
	}
	return paths[0], n, known
}

// literal is the number or word at an offset of a JSON text.
func literal(text []byte, at int) string {
	end := at
	for end < len(text) && strings.IndexByte(",]} \t\r\n", text[end]) < 0 {
		end++
	}
	return string(text[at:end])
}

// elementSizes are the bytes of an element of each type, by its number in the
// schema of torch.export (torch/_export/serde/schema.py).
var elementSizes = map[string]int64{
	"1": 1, "2": 1, "3": 2, "4": 4, "5": 8, "6": 2, "7": 4, "8": 8, "9": 4, "10": 8, "11": 16, "12": 1, "13": 2, "28": 2,
	"29": 1, "30": 1, "31": 1, "32": 1, "33": 1, "34": 4, "35": 8,
}
