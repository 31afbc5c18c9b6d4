package python

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// effect follows the functions that lead to other ones, or that put texts
// together. It reports false when a call is an ordinary one.
func (r *runner) effect(s *scope, c *value, args []argument, at int, out *values) bool {
	first := arg(args, 0, "")
	switch c.text {
	case "builtins.exec", "builtins.eval", "builtins.execfile":
		r.runText(s, c.text, first, at)
		return true
	case "builtins.compile":
		*out = out.add(first...)
		r.judgeText(c.text, first, at)
		return true
	case "builtins.__import__", "importlib.import_module", "importlib.__import__", "pkgutil.resolve_name", "pydoc.locate":
		*out = out.add(r.importByName(c, first, at)...)
		return true
	case "builtins.getattr", "operator.attrgetter", "operator.methodcaller", "builtins.vars", "builtins.globals", "builtins.locals", "builtins.setattr", "operator.getitem":
		return r.reach(s, c, args, at, out)
	case "functools.partial", "functools.partialmethod":
		*out = out.add(r.partial(first, args)...)
		return true
	case "builtins.map", "builtins.filter", "functools.reduce", "builtins.reduce", "builtins.apply", "itertools.starmap", "operator.call", "atexit.register",
		"asyncio.run", "weakref.finalize", "itertools.accumulate", "itertools.takewhile", "itertools.dropwhile", "itertools.filterfalse":
		return r.callsFirst(s, c, first, args, at, out)
	case "threading.Thread", "threading.Timer", "multiprocessing.Process", "builtins.sorted", "builtins.min", "builtins.max", "signal.signal",
		"sys.settrace", "sys.setprofile", "sys.addaudithook", "threading.start_new_thread", "concurrent.futures.ThreadPoolExecutor", "builtins.iter":
		r.callsAny(s, args, at)
		*out = out.add(&value{kind: valueRef, text: c.text, made: true})
		return true
	}
	switch c.text {
	case "builtins.super":
		*out = out.add(r.super()...)
		return true
	case "builtins.type":
		if made := r.typed(s, args); made != nil {
			*out = out.add(made)
			return true
		}
	}
	v, ok := r.text(c.text, args)
	*out = out.add(v...)
	return ok
}

// super is the current method's object as one of its bases.
func (r *runner) super() values {
	if r.current == nil || r.current.self == nil || r.current.self.class == nil {
		return nil
	}
	c := &class{fields: make(map[string]values)}
	for _, b := range r.current.self.class.bases {
		if b.kind == valueClass { // what is imported is judged where the object is made
			c.bases = c.bases.add(b)
		}
	}
	return values{{kind: valueInstance, class: c}}
}

// typed is a class that type makes of a name, bases and a mapping.
func (r *runner) typed(s *scope, args []argument) *value {
	p := positional(args)
	if len(p) < 3 {
		return nil
	}
	c := &class{fields: make(map[string]values), scope: newScope(s), bases: elements(p[1])}
	for _, d := range p[2] {
		c.dropped = c.dropped || d.dropped
		for _, k := range sortedKeys(d.fields) {
			c.put(k, d.fields[k])
		}
	}
	return &value{kind: valueClass, class: c}
}

// maxCode is how deep programs in constants are followed.
const maxCode = 4

// runText follows a program that is in a constant, as part of this one; what is
// not known, or was decoded, is reported.
func (r *runner) runText(s *scope, how string, code values, at int) {
	r.judgeText(how, code, at)
	for _, v := range code {
		if v.kind != valueText || r.code >= maxCode {
			continue
		}
		l, err := lex(strings.TrimLeft(v.text, " \t\n"))
		if err != nil || len(v.text) > 64<<10 {
			r.report(how, at)
			continue
		}
		body, err := parse(l)
		if err != nil {
			r.report(how, at)
			continue
		}
		r.code++
		known := len(r.problems)
		r.block(s, body)
		for i := known; i < len(r.problems); i++ {
			r.problems[i].at = at // where it stands in the file
		}
		r.code--
	}
}

func (r *runner) report(how string, at int, what ...string) {
	r.found(ruleFor(categoryCode, r.when), at, append([]string{how, r.when.String()}, what...)...)
}

// judgeText reports code that is not a plain constant.
func (r *runner) judgeText(how string, code values, at int) {
	if len(code) == 0 {
		r.report(how, at)
	}
	for _, v := range code {
		switch {
		case v.decoded:
			r.found(ruleObscured, at, how, "of decoded text")
		case v.kind != valueText:
			r.report(how, at)
		}
	}
}

// importByName is an import by a text. One that was decoded hides what it is.
func (r *runner) importByName(c *value, name values, at int) values {
	var out values
	if r.when == atImport && (len(name) == 0 || !texts(name)) {
		r.found(ruleSuspect, at, c.text, r.when.String())
	}
	for _, n := range name {
		switch {
		case n.decoded:
			r.found(ruleObscured, at, c.text, strings.ToValidUTF8(n.text, "\uFFFD"))
			fallthrough
		case n.kind == valueText:
			path := strings.ReplaceAll(n.text, ":", ".")
			if strings.HasSuffix(c.text, "__import__") {
				path, _, _ = strings.Cut(path, ".") // gives the first
			}
			if n.kind == valueText && path != "" {
				out = out.add(ref(path))
			}
		}
	}
	return out
}

// sensitive are modules whose attributes are not fetched by a name that cannot
// be read, in honest programs.
var sensitive = map[string]bool{"os": true, "subprocess": true, "builtins": true, "sys": true, "ctypes": true, "socket": true, "importlib": true, "marshal": true, "pty": true}

// reach follows getattr and what is like it.
func (r *runner) reach(s *scope, c *value, args []argument, at int, out *values) bool {
	first, second := arg(args, 0, ""), arg(args, 1, "")
	switch c.text {
	case "builtins.globals", "builtins.locals":
		*out = out.add(&value{kind: valueRef, text: "<globals>", space: true})
	case "builtins.vars":
		for _, o := range first {
			*out = out.add(r.attribute(o, "__dict__", at)...)
		}
	case "operator.getitem":
		*out = out.add(r.itemsOf(s, first, second)...)
	case "operator.attrgetter", "operator.methodcaller":
		made := &value{kind: valueMethod, text: strings.TrimPrefix(c.text, "operator."), items: append([]values{first}, itemsFrom(args)...)}
		*out = out.add(made)
	case "builtins.setattr":
		for _, n := range second {
			if n.kind == valueText {
				r.setField(first, n.text, arg(args, 2, ""))
			}
		}
	default:
		*out = out.add(r.fetch(first, second, at)...)
		*out = out.add(arg(args, 2, "")...)
	}
	return true
}

// fetch is getattr.
func (r *runner) fetch(of, name values, at int) values {
	var out values
	for _, o := range of {
		if o.kind == valueRef && !o.made && sensitive[o.text] && r.when == atImport && (len(name) == 0 || !texts(name)) {
			r.found(ruleObscured, at, "builtins.getattr", o.text)
		}
		for _, n := range name {
			if n.decoded && o.kind == valueRef {
				r.found(ruleObscured, at, "builtins.getattr", strings.ToValidUTF8(n.text, "\uFFFD"))
			}
			if n.kind != valueText {
				continue
			}
			got := values{o}
			for part := range strings.SplitSeq(n.text, ".") {
				got = r.attributes(got, part, at)
			}
			out = out.add(got...)
		}
	}
	return out
}

// partial is a function with arguments given already.
func (r *runner) partial(f values, args []argument) values {
	var out values
	for _, one := range f {
		out = out.add(&value{kind: valueMethod, text: "partial", self: one, items: itemsFrom(args)})
	}
	return out
}

func itemsFrom(args []argument) []values {
	p := positional(args)
	if len(p) > 0 {
		return p[1:]
	}
	return nil
}

// callsFirst follows what calls its first argument with the others, or with what
// they hold.
func (r *runner) callsFirst(s *scope, c *value, f values, args []argument, at int, out *values) bool {
	for i, a := range args {
		if i == 0 || a.name == "func" || a.name == "function" {
			continue
		}
		if l := one(a.value, valueList); l != nil && c.text == "builtins.map" && len(l.items) <= maxItems {
			made := &value{kind: valueList}
			for _, x := range l.items {
				made.items = append(made.items, r.call(s, f, []argument{{value: x}}, at))
			}
			*out = out.add(made)
			return true
		}
	}
	r.carried(f, at)
	for _, one := range f {
		if one.kind == valueRef && one.text == "builtins.getattr" && r.when == atImport {
			r.found(ruleReference, at, one.text) // over a list of names
		}
	}
	rest := args[min(1, len(args)):]
	if strings.HasPrefix(c.text, "builtins.") || strings.HasPrefix(c.text, "itertools.") || strings.HasPrefix(c.text, "functools.") {
		given := make([]argument, 0, len(rest))
		for _, a := range rest {
			given = append(given, argument{value: elements(a.value)})
		}
		rest = given
	}
	if len(f) > 0 {
		r.call(s, f, rest, at)
	}
	return true
}

// callsAny follows what calls any of its arguments.
func (r *runner) callsAny(s *scope, args []argument, at int) {
	var given []argument
	for _, a := range args {
		if a.name == "args" {
			if l := one(a.value, valueList); l != nil {
				for _, i := range l.items {
					given = append(given, argument{value: i})
				}
			}
		}
	}
	for _, a := range args {
		for _, v := range a.value {
			if v.kind == valueFunction || v.kind == valueRef && !v.made || v.kind == valueMethod {
				r.call(s, values{v}, given, at)
			}
		}
	}
}

// decoders are functions whose result the source does not show.
var decoders = []string{"base64.", "binascii.", "zlib.decompress", "gzip.decompress", "bz2.decompress", "lzma.decompress", "codecs.decode", "cryptography.", "Crypto.", "nacl.", "quopri.", "uu."}

// text follows functions that make texts.
func (r *runner) text(path string, args []argument) (values, bool) {
	first := arg(args, 0, "")
	switch path {
	case "builtins.chr", "builtins.unichr":
		if n := one(first, valueNumber); n != nil && n.number >= 0 && n.number <= utf8.MaxRune {
			return values{text(string(rune(n.number)), true)}, true
		}
		return values{{kind: valueOpaque, decoded: true}}, true
	case "builtins.ord":
		if t := one(first, valueText); t != nil && len(t.text) > 0 {
			c, _ := utf8.DecodeRuneInString(t.text)
			return values{{kind: valueNumber, number: int64(c)}}, true
		}
		return nil, true
	case "builtins.bytes", "builtins.bytearray":
		return numbers(first), true
	case "builtins.str", "builtins.list", "builtins.tuple", "builtins.reversed", "builtins.memoryview", "builtins.repr", "builtins.iter", "builtins.next", "builtins.set":
		return r.converted(path, first), true
	case "builtins.bytes.fromhex", "builtins.bytearray.fromhex", "binascii.unhexlify", "binascii.a2b_hex", "base64.b16decode":
		return decodedBy(first, hex.DecodeString), true
	case "base64.b64decode", "base64.standard_b64decode", "base64.decodebytes", "base64.decodestring", "binascii.a2b_base64":
		return decodedBy(first, decode64), true
	case "base64.urlsafe_b64decode":
		return decodedBy(first, func(s string) ([]byte, error) { return decode64(strings.NewReplacer("-", "+", "_", "/").Replace(s)) }), true
	}
	for _, d := range decoders {
		if strings.HasPrefix(path, d) && !strings.Contains(path, "encode") {
			return values{{kind: valueOpaque, decoded: true}}, true
		}
	}
	return nil, false
}

// converted is a container or a text as another kind of one.
func (r *runner) converted(path string, v values) values {
	var out values
	for _, o := range v {
		switch {
		case o.kind == valueText && path == "builtins.reversed":
			out = out.add(take(o, len(o.text)-1, -1, -1))
		case o.kind == valueList && path == "builtins.reversed":
			out = out.add(take(o, len(o.items)-1, -1, -1))
		case path == "builtins.next":
			out = out.add(elements(values{o})...)
		case o.kind == valueText || o.kind == valueOpaque || o.kind == valueList:
			out = out.add(o)
		}
	}
	return out
}

// numbers are bytes by their numbers, or a text as it is.
func numbers(v values) values {
	l := one(v, valueList)
	if l == nil {
		if len(v) == 1 && (v[0].kind == valueText || v[0].kind == valueOpaque) {
			return v
		}
		return nil
	}
	b := make([]byte, 0, len(l.items))
	for _, i := range l.items {
		n := one(i, valueNumber)
		if n == nil {
			return values{{kind: valueOpaque, decoded: true}}
		}
		b = append(b, byte(n.number)) //nolint:gosec // what is no byte is an error in Python
	}
	return values{text(string(b), true)}
}

func decode64(s string) ([]byte, error) {
	s = strings.Map(func(c rune) rune {
		if c == '+' || c == '/' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' {
			return c
		}
		return -1
	}, s)
	return base64.RawStdEncoding.DecodeString(s)
}

func decodedBy(v values, decode func(string) ([]byte, error)) values {
	if t := one(v, valueText); t != nil {
		if b, err := decode(t.text); err == nil {
			return values{text(string(b), true)}
		}
	}
	return values{{kind: valueOpaque, decoded: true}}
}

// method follows methods of texts and containers, and functions that others made.
func (r *runner) method(s *scope, m *value, args []argument, at int) values {
	first := arg(args, 0, "")
	switch m.text {
	case "partial":
		given := make([]argument, 0, len(m.items)+len(args))
		for _, v := range m.items {
			given = append(given, argument{value: v})
		}
		return r.call(s, values{m.self}, append(given, args...), 0)
	case "attrgetter":
		return r.fetch(first, m.items[0], at)
	case "methodcaller":
		given := make([]argument, 0, len(m.items))
		for _, v := range m.items[1:] {
			given = append(given, argument{value: v})
		}
		return r.call(s, r.fetch(first, m.items[0], at), given, at)
	case "get", "__getitem__", "pop", "setdefault":
		if m.self.kind == valueDict || m.self.kind == valueList || m.self.kind == valueRef {
			return r.itemsOf(s, values{m.self}, first).add(arg(args, 1, "")...)
		}
	case "append", "extend", "insert", "add":
		if m.self.kind != valueList {
			return nil
		}
		if len(m.self.items) >= maxItems {
			m.self.dropped = true
			return nil
		}
		m.self.items = append(m.self.items, arg(args, len(positional(args))-1, ""))
		return nil
	case "values", "items", "copy":
		if m.self.kind == valueRef && r.when == atImport && (sensitive[m.self.text] || m.self.text == "sys.modules") {
			r.found(ruleSuspect, at, m.self.text+"."+m.text, r.when.String())
		}
		return values{m.self}
	}
	return r.textMethod(m, args)
}

func (r *runner) textMethod(m *value, args []argument) values {
	if m.self.kind == valueOpaque {
		return values{m.self}
	}
	if m.self.kind != valueText {
		return nil
	}
	t, first := m.self.text, arg(args, 0, "")
	r.charge(len(t) / 16)
	switch m.text {
	case "join":
		if l := one(first, valueList); l != nil {
			var parts []values
			for i, x := range l.items {
				if i > 0 && t != "" {
					parts = append(parts, values{m.self})
				}
				parts = append(parts, x)
			}
			return r.joined(parts)
		}
		if o := one(first, valueText); o != nil && t == "" {
			return first
		}
	case "encode", "decode":
		if c := one(first, valueText); c != nil && strings.HasPrefix(strings.ToLower(c.text), "rot") {
			return values{text(rot13(t), true)}
		}
		return values{m.self}
	case "strip", "lstrip", "rstrip", "format", "expandtabs":
		if len(args) == 0 || m.text == "expandtabs" {
			return values{text(strings.TrimSpace(t), m.self.decoded)}
		}
		if m.text == "format" {
			return r.format(m.self, args)
		}
	case "lower", "casefold":
		return values{text(strings.ToLower(t), m.self.decoded)}
	case "upper":
		return values{text(strings.ToUpper(t), m.self.decoded)}
	case "replace":
		a, b := one(first, valueText), one(arg(args, 1, ""), valueText)
		if a != nil && b != nil && len(t)*(len(b.text)+1) < maxConstant {
			return values{text(strings.ReplaceAll(t, a.text, b.text), true)}
		}
	case "split":
		return split(m.self, first)
	case "translate":
		return values{{kind: valueOpaque, decoded: true}}
	}
	return nil
}

func split(t *value, by values) values {
	out := &value{kind: valueList}
	words := strings.Fields(t.text)
	if b := one(by, valueText); b != nil && b.text != "" {
		words = strings.Split(t.text, b.text)
	}
	out.dropped = len(words) > maxItems
	for _, w := range words[:min(len(words), maxItems)] {
		out.items = append(out.items, values{text(w, t.decoded)})
	}
	return values{out}
}

// format is "a{}b".format(x).
func (r *runner) format(t *value, args []argument) values {
	pieces := strings.Split(t.text, "{}")
	given := positional(args)
	if len(pieces) != len(given)+1 || strings.ContainsAny(strings.Join(pieces, ""), "{}") {
		return nil
	}
	parts := []values{{text(pieces[0], t.decoded)}}
	for i, g := range given {
		parts = append(parts, g, values{text(pieces[i+1], t.decoded)})
	}
	return r.joined(parts)
}

func rot13(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return 'a' + (c-'a'+13)%26
		case c >= 'A' && c <= 'Z':
			return 'A' + (c-'A'+13)%26
		}
		return c
	}, s)
}
