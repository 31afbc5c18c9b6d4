package pickle

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// constant is a Python value that could be computed without running anything.
type constant struct {
	kind constantKind
	s    []byte
	i    int64
	list []constant
}

type constantKind uint8

const (
	isText constantKind = iota + 1
	isBytes
	isInt
	isNoneAtAll
	isList
	isSlice
)

const (
	// maxConstant bounds the bytes of one constant, maxNesting how deep values
	// are looked into.
	maxConstant = 16 << 20
	maxNesting  = 8
)

// constant computes a value: a literal, a container of such, or what a known
// function of such returns.
func (m *machine) constant(v value, depth int) (constant, bool) {
	if depth > maxNesting {
		return constant{}, false
	}
	switch v.kind() {
	case kindLiteral:
		return m.literalConstant(v)
	case kindNode:
		return m.listConstant(v, depth)
	case kindResult:
		return m.computed(v, depth)
	}
	return constant{}, false
}

func (m *machine) literalConstant(v value) (constant, bool) {
	switch {
	case v.isText():
		s, ok := m.text(v, maxConstant)
		return constant{kind: isText, s: s}, ok
	case v.isBytes():
		s, ok := m.bytes(v, maxConstant)
		return constant{kind: isBytes, s: s}, ok
	case isNone(v):
		return constant{kind: isNoneAtAll}, true
	}
	i, ok := m.integer(v)
	return constant{kind: isInt, i: i}, ok
}

func (m *machine) listConstant(v value, depth int) (constant, bool) {
	n := m.nodes.get(v)
	if n == nil || !n.whole() || v.shape() == nodeDict || v.shape() == nodeSet {
		return constant{}, false
	}
	list, ok := m.constants(n.known(), depth)
	return constant{kind: isList, list: list}, ok
}

func (m *machine) constants(vs []value, depth int) ([]constant, bool) {
	list := make([]constant, 0, len(vs))
	for _, v := range vs {
		c, ok := m.constant(v, depth+1)
		if !ok {
			return nil, false
		}
		list = append(list, c)
	}
	return list, true
}

// computed computes what a call returned.
func (m *machine) computed(v value, depth int) (constant, bool) {
	name, args, ok := m.calledAs(v)
	if !ok {
		return constant{}, false
	}
	if f, ok := functions[name]; ok {
		list, ok := m.constants(args, depth)
		if !ok {
			return constant{}, false
		}
		c, ok := f(list)
		return c, ok && len(c.s) <= maxConstant && m.spend(int64(len(c.s)))
	}
	return constant{}, false
}

// calledAs is the name and the arguments of a call: those of a method that was
// got by getattr or methodcaller are the class's own.
func (m *machine) calledAs(v value) (string, []value, bool) {
	n := m.nodes.get(v)
	if n == nil {
		return "", nil, false
	}
	args, ok := m.arguments(n)
	if !ok {
		return "", nil, false
	}
	if n.callee.kind() == kindGlobal {
		return m.globals[n.callee.index()].canonical, args, true
	}
	maker := m.nodes.get(n.callee)
	if maker == nil || n.callee.kind() != kindResult || maker.callee.kind() != kindGlobal {
		return "", nil, false
	}
	made, ok := m.arguments(maker)
	if !ok {
		return "", nil, false
	}
	switch m.globals[maker.callee.index()].canonical {
	case "builtins.getattr":
		if len(made) == 2 {
			return m.method(made[0], made[1], args)
		}
	case "operator.methodcaller":
		if len(made) > 0 && len(args) == 1 {
			return m.method(args[0], made[0], made[1:])
		}
	case "functools.partial":
		if len(made) > 0 && made[0].kind() == kindGlobal {
			return m.globals[made[0].index()].canonical, slices.Concat(made[1:], args), true
		}
	}
	return "", nil, false
}

func (m *machine) method(self, name value, args []value) (string, []value, bool) {
	attribute, ok := m.text(name, maxLine)
	if !ok {
		return "", nil, false
	}
	class := "builtins.str."
	if c, ok := m.constant(self, maxNesting/2); ok && c.kind == isBytes {
		class = "builtins.bytes."
	}
	return class + string(attribute), slices.Concat([]value{self}, args), true
}

// arguments are those of a call, when all of them are remembered.
func (m *machine) arguments(n *node) ([]value, bool) {
	if n.n == 0 {
		return nil, false
	}
	args := m.nodes.get(n.items[0])
	if args == nil || !args.whole() || n.items[0].kind() != kindNode {
		return nil, false
	}
	return args.known(), true
}

func text(s string) (constant, bool)    { return constant{kind: isText, s: []byte(s)}, true }
func binary8(s []byte) (constant, bool) { return constant{kind: isBytes, s: s}, true }

// functions are those that obfuscated pickles compute names and payloads with,
// by their canonical names.
var functions = map[string]func([]constant) (constant, bool){
	"builtins.str": toText, "builtins.str.__str__": toText, "builtins.bytes": toBytes, "builtins.bytearray": toBytes, "io.BytesIO": toBytes,
	"builtins.str.join": join, "builtins.bytes.join": join,
	"builtins.str.lower": mapped(bytes.ToLower), "builtins.str.casefold": mapped(bytes.ToLower), "builtins.bytes.lower": mapped(bytes.ToLower),
	"builtins.str.upper": mapped(bytes.ToUpper), "builtins.bytes.upper": mapped(bytes.ToUpper),
	"builtins.str.swapcase": mapped(swapCase), "builtins.bytes.swapcase": mapped(swapCase),
	"builtins.str.strip": strip, "builtins.str.lstrip": strip, "builtins.str.rstrip": strip, "builtins.bytes.strip": strip,
	"builtins.str.replace": replace, "builtins.bytes.replace": replace,
	"builtins.str.format": format, "builtins.str.__mod__": percent, "operator.mod": percent,
	"builtins.str.__add__": add, "operator.add": add, "operator.concat": add, "builtins.bytes.__add__": add, "operator.__add__": add, "operator.iadd": add,
	"builtins.chr": chr, "builtins.reversed": reversed, "builtins.list": same, "builtins.tuple": same, "builtins.slice": slice,
	"operator.getitem": getItem, "builtins.str.__getitem__": getItem, "builtins.list.__getitem__": getItem, "builtins.bytes.__getitem__": getItem, "operator.__getitem__": getItem,
	"builtins.bytes.decode": toText, "builtins.str.encode": encode, "builtins.bytes.fromhex": unhex, "builtins.bytearray.fromhex": unhex, "builtins.bytearray.decode": toText,
	"codecs.decode": decode, "codecs.encode": encode, "codecs.latin_1_decode": toText, "codecs.utf_8_decode": toText, "codecs.ascii_decode": toText,
	"base64.b64decode": unbase64, "base64.standard_b64decode": unbase64, "base64.urlsafe_b64decode": unbase64, "base64.decodebytes": unbase64, "base64.decodestring": unbase64,
	"base64.b16decode": unhex, "binascii.a2b_base64": unbase64, "binascii.unhexlify": unhex, "binascii.a2b_hex": unhex,
}

func toText(args []constant) (constant, bool) {
	switch {
	case len(args) == 0:
		return text("")
	case args[0].kind == isInt:
		return text(strconv.FormatInt(args[0].i, 10))
	case args[0].kind == isText:
		return args[0], true
	case args[0].kind == isBytes:
		if utf8.Valid(args[0].s) {
			return text(string(args[0].s))
		}
		return text(string(latin1(args[0].s)))
	}
	return constant{}, false
}

func toBytes(args []constant) (constant, bool) {
	switch {
	case len(args) == 0:
		return binary8(nil)
	case args[0].kind == isBytes, args[0].kind == isText && len(args) > 1:
		return binary8(args[0].s)
	case args[0].kind == isList:
		out := make([]byte, 0, len(args[0].list))
		for _, c := range args[0].list {
			if c.kind != isInt || c.i < 0 || c.i > 255 {
				return constant{}, false
			}
			out = append(out, byte(c.i))
		}
		return binary8(out)
	}
	return constant{}, false
}

func join(args []constant) (constant, bool) {
	if len(args) != 2 || args[0].kind != isText && args[0].kind != isBytes {
		return constant{}, false
	}
	var parts [][]byte
	switch args[1].kind {
	case isText:
		for _, r := range string(args[1].s) {
			parts = append(parts, []byte(string(r)))
		}
	case isList:
		for _, c := range args[1].list {
			if c.kind != args[0].kind {
				return constant{}, false
			}
			parts = append(parts, c.s)
		}
	default:
		return constant{}, false
	}
	if (len(parts)+1)*len(args[0].s) > maxConstant {
		return constant{}, false
	}
	return constant{kind: args[0].kind, s: bytes.Join(parts, args[0].s)}, true
}

// stringly reports whether the first n arguments are all str or all bytes.
func stringly(args []constant, n int) bool {
	if len(args) < n {
		return false
	}
	for _, a := range args[:n] {
		if a.kind != args[0].kind || a.kind != isText && a.kind != isBytes {
			return false
		}
	}
	return true
}

func mapped(f func([]byte) []byte) func([]constant) (constant, bool) {
	return func(args []constant) (constant, bool) {
		if !stringly(args, 1) {
			return constant{}, false
		}
		return constant{kind: args[0].kind, s: f(args[0].s)}, true
	}
}

func swapCase(b []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if up := []rune(strings.ToUpper(string(r)))[0]; up != r {
			return up
		}
		return []rune(strings.ToLower(string(r)))[0]
	}, b)
}

func strip(args []constant) (constant, bool) {
	if !stringly(args, 1) {
		return constant{}, false
	}
	cut := " \t\n\r\v\f"
	if stringly(args, 2) {
		cut = string(args[1].s)
	}
	return constant{kind: args[0].kind, s: bytes.Trim(args[0].s, cut)}, true
}

func replace(args []constant) (constant, bool) {
	if !stringly(args, 3) || len(args[2].s) > 64 || len(args[0].s) > maxLine {
		return constant{}, false
	}
	return constant{kind: args[0].kind, s: bytes.ReplaceAll(args[0].s, args[1].s, args[2].s)}, true
}

// format puts arguments in the place of each {} or {0}.
func format(args []constant) (constant, bool) {
	if !stringly(args, 1) || len(args[0].s) > maxLine {
		return constant{}, false
	}
	out := string(args[0].s)
	for i, a := range args[1:] {
		t, ok := toText([]constant{a})
		if !ok || len(t.s) > maxLine {
			return constant{}, false
		}
		out = strings.Replace(out, "{}", string(t.s), 1)
		out = strings.Replace(out, "{"+strconv.Itoa(i)+"}", string(t.s), 1)
	}
	return text(out)
}

func percent(args []constant) (constant, bool) {
	if len(args) != 2 || args[0].kind != isText || len(args[0].s) > maxLine {
		return constant{}, false
	}
	with := []constant{args[1]}
	if args[1].kind == isList {
		with = args[1].list
	}
	out := string(args[0].s)
	for _, a := range with {
		t, ok := toText([]constant{a})
		if !ok || len(t.s) > maxLine {
			return constant{}, false
		}
		out = strings.Replace(out, "%s", string(t.s), 1)
	}
	return text(out)
}

func add(args []constant) (constant, bool) {
	if len(args) == 2 && args[0].kind == isList && args[1].kind == isList && len(args[0].list)+len(args[1].list) <= maxLine {
		return constant{kind: isList, list: slices.Concat(args[0].list, args[1].list)}, true
	}
	if len(args) != 2 || !stringly(args, 2) {
		return constant{}, false
	}
	return constant{kind: args[0].kind, s: slices.Concat(args[0].s, args[1].s)}, true
}

func chr(args []constant) (constant, bool) {
	if len(args) != 1 || args[0].kind != isInt || args[0].i < 0 || args[0].i > utf8.MaxRune {
		return constant{}, false
	}
	return text(string(rune(args[0].i)))
}

func same(args []constant) (constant, bool) {
	if len(args) != 1 || args[0].kind != isList && args[0].kind != isText {
		return constant{}, false
	}
	return args[0], true
}

func reversed(args []constant) (constant, bool) {
	if len(args) != 1 {
		return constant{}, false
	}
	switch args[0].kind {
	case isText:
		r := []rune(string(args[0].s))
		slices.Reverse(r)
		return text(string(r))
	case isList:
		list := slices.Clone(args[0].list)
		slices.Reverse(list)
		return constant{kind: isList, list: list}, true
	}
	return constant{}, false
}

func slice(args []constant) (constant, bool) {
	if len(args) == 1 {
		args = []constant{{kind: isNoneAtAll}, args[0]}
	}
	for len(args) < 3 {
		args = append(args, constant{kind: isNoneAtAll})
	}
	return constant{kind: isSlice, list: args[:3]}, true
}

// getItem takes an item or a slice of a str or a list.
func getItem(args []constant) (constant, bool) {
	if len(args) != 2 {
		return constant{}, false
	}
	var items []constant
	switch args[0].kind {
	case isList:
		items = args[0].list
	case isText:
		if len(args[0].s) > maxLine {
			return constant{}, false
		}
		for _, r := range string(args[0].s) {
			items = append(items, constant{kind: isText, s: []byte(string(r))})
		}
	default:
		return constant{}, false
	}
	if i := args[1].i; args[1].kind == isInt {
		if i < 0 {
			i += int64(len(items))
		}
		if i < 0 || i >= int64(len(items)) {
			return constant{}, false
		}
		return items[i], true
	}
	if args[1].kind != isSlice {
		return constant{}, false
	}
	picked := pick(items, args[1].list)
	if args[0].kind == isList {
		return constant{kind: isList, list: picked}, true
	}
	return join([]constant{{kind: isText}, {kind: isList, list: picked}})
}

// pick takes [from:to:step] of items, as Python does.
func pick(items []constant, s []constant) []constant {
	n, step := int64(len(items)), int64(1)
	if s[2].kind == isInt && s[2].i != 0 {
		step = max(min(s[2].i, n+1), -n-1)
	}
	from, to := int64(0), n
	if step < 0 {
		from, to = n-1, -1
	}
	bound := func(c constant, otherwise int64) int64 {
		if c.kind != isInt {
			return otherwise
		}
		i := max(min(c.i, n), -n-1)
		if i < 0 {
			i += n
		}
		return max(min(i, n), -1)
	}
	from, to = bound(s[0], from), bound(s[1], to)
	var out []constant
	for i := from; step > 0 && i < to || step < 0 && i > to; i += step {
		if i >= 0 && i < n {
			out = append(out, items[i])
		}
	}
	return out
}

func unhex(args []constant) (constant, bool) {
	if !stringly(args, 1) {
		return constant{}, false
	}
	out, err := hex.DecodeString(string(bytes.Join(bytes.Fields(args[0].s), nil)))
	if err != nil {
		return constant{}, false
	}
	return binary8(out)
}

// unbase64 decodes the standard and the URL alphabet, with or without padding,
// and passes over what is in neither, as binascii does.
func unbase64(args []constant) (constant, bool) {
	if !stringly(args, 1) {
		return constant{}, false
	}
	s := bytes.Map(func(r rune) rune {
		switch {
		case r == '-':
			return '+'
		case r == '_':
			return '/'
		case r == '+' || r == '/' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z':
			return r
		}
		return -1
	}, args[0].s)
	out, err := base64.RawStdEncoding.DecodeString(string(s))
	if err != nil {
		return constant{}, false
	}
	return binary8(out)
}

func encode(args []constant) (constant, bool) {
	if !stringly(args, 1) || args[0].kind == isBytes {
		return constant{}, false
	}
	if len(args) > 1 {
		switch codec(args[1]) {
		case "rot13":
			return text(rot13(args[0].s))
		case "latin1", "iso88591", "ascii", "l1":
			out := make([]byte, 0, len(args[0].s))
			for _, r := range string(args[0].s) {
				if r > 255 {
					return constant{}, false
				}
				out = append(out, byte(r))
			}
			return binary8(out)
		}
	}
	return binary8(args[0].s)
}

func decode(args []constant) (constant, bool) {
	if !stringly(args, 1) {
		return constant{}, false
	}
	if len(args) > 1 {
		switch codec(args[1]) {
		case "rot13":
			return text(rot13(args[0].s))
		case "hex", "hexcodec":
			return unhex(args[:1])
		case "base64", "base64codec":
			return unbase64(args[:1])
		}
	}
	return toText(args)
}

// codec is a codec's name as the registry looks it up.
func codec(c constant) string {
	return strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(string(c.s)))
}

func rot13(b []byte) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return 'a' + (r-'a'+13)%26
		case r >= 'A' && r <= 'Z':
			return 'A' + (r-'A'+13)%26
		}
		return r
	}, string(b))
}
