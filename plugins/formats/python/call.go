package python

import (
	"maps"
	"slices"
	"strings"
)

func sortedKeys(m map[string]values) []string { return slices.Sorted(maps.Keys(m)) }

// argument of a call; name is that of one by keyword.
type argument struct {
	name  string
	star  bool
	value values
}

// callExpr follows a call.
func (r *runner) callExpr(s *scope, e *expr) values {
	callee := r.eval(s, e.list[0])
	var args []argument
	for _, x := range e.list[1:] {
		switch x.kind {
		case exprKeyword:
			args = append(args, argument{name: x.text, value: r.eval(s, x.list[0])})
		case exprStar:
			v := r.eval(s, x.list[0])
			if l := one(v, valueList); l != nil && x.text == "*" && !l.dropped {
				r.charge(len(l.items))
				for _, i := range l.items {
					args = append(args, argument{value: i})
				}
				continue
			}
			if d := one(v, valueDict); d != nil && x.text == "**" && !d.dropped {
				r.charge(len(d.fields))
				for _, k := range sortedKeys(d.fields) {
					args = append(args, argument{name: k, value: d.fields[k]})
				}
				continue
			}
			args = append(args, argument{star: true, value: elements(v)})
		default:
			args = append(args, argument{value: r.eval(s, x)})
		}
	}
	return r.call(s, callee, args, int(e.list[0].at))
}

// call follows a call of each alternative; of what is not known, the arguments
// that are functions may be called.
func (r *runner) call(s *scope, callee values, args []argument, at int) values {
	var out values
	if len(callee) == 0 {
		r.handOver(args, at, true)
		return nil
	}
	for _, c := range callee {
		if !r.step() {
			break
		}
		switch c.kind {
		case valueRest:
			r.lost = r.lost || r.when != deferred
		case valueRef:
			out = out.add(r.callRefs(s, values{c}, args, at)...)
		case valueFunction:
			out = out.add(r.invoke(c, args, at)...)
		case valueClass:
			out = out.add(r.instantiate(c.class, args, at)...)
		case valueInstance:
			out = out.add(r.invokeAll(r.bound(c, c.class.find("__call__", 0), at), args, at)...)
		case valueMethod:
			out = out.add(r.method(s, c, args, at)...)
		}
	}
	return out
}

// positional are the values of the arguments by position.
func positional(args []argument) []values {
	var out []values
	for _, a := range args {
		if a.name == "" && !a.star {
			out = append(out, a.value)
		}
	}
	return out
}

func arg(args []argument, i int, name string) values {
	if p := positional(args); i < len(p) {
		return p[i]
	}
	for _, a := range args {
		if a.name == name && name != "" {
			return a.value
		}
	}
	return nil
}

// handOver looks at what a call is given. Functions of the file are followed as
// what may be called soon; what is dangerous to call is reported when it is given
// away at import, since whoever gets it may call it.
func (r *runner) handOver(args []argument, at int, unknown bool) {
	for _, a := range args {
		r.carried(a.value, at)
		for _, v := range a.value {
			if v.kind == valueFunction && !unknown {
				r.callLater(values{v})
			}
		}
	}
}

// invokeAll calls functions.
func (r *runner) invokeAll(list values, args []argument, at int) values {
	var out values
	for _, f := range list {
		if f.kind == valueFunction {
			out = out.add(r.invoke(f, args, at)...)
		}
	}
	return out
}

// invoke follows a function's body with its arguments: at import whenever it is
// called, later and within itself a few times. Then it does so once with arguments
// that are not known, and what it returns may be any of what it was given.
func (r *runner) invoke(f *value, args []argument, at int) values {
	n := r.runs[f.fn]
	if n == nil {
		n = new(runs)
		r.runs[f.fn] = n
	}
	if !r.step() {
		return nil
	}
	if r.calls >= maxCalls {
		r.spent = true // what lies deeper is not known, and the file not understood
		return nil
	}
	n.at[r.when]++
	for _, a := range args {
		r.carried(a.value, at)
	}
	if n.within < maxWithin && (r.when == atImport || n.at[r.when] <= maxLater) {
		return r.body(f, n, args)
	}
	var out values
	for _, a := range args {
		out = out.add(a.value...)
	}
	if n.unknown[r.when] {
		return out
	}
	n.unknown[r.when] = true
	return out.add(r.body(f, n, nil)...)
}

// body follows a function's body.
func (r *runner) body(f *value, n *runs, args []argument) values {
	r.calls++
	n.within++
	s := newScope(f.scope)
	if f.scope != nil && f.scope.class {
		s.parent = f.scope.outer()
	}
	r.bind(s, f, args)
	before, current, loops, branches := r.returned, r.current, r.loops, r.branches
	var out values
	r.returned, r.current, r.loops, r.branches = &out, f, 0, 0
	if f.fn.value != nil {
		out = r.eval(s, f.fn.value)
	} else {
		r.block(s, f.fn.body)
	}
	r.returned, r.current, r.loops, r.branches = before, current, loops, branches
	n.within--
	r.calls--
	return out
}

// bind gives the parameters their values. What may be several things, or comes
// from an unpacking, is not known.
func (r *runner) bind(s *scope, f *value, args []argument) {
	given := positional(args)
	if f.self != nil {
		given = append([]values{{f.self}}, given...)
	}
	for i, p := range f.fn.parameters {
		if p.name == "" {
			continue
		}
		if p.star {
			rest := &value{kind: valueList}
			if i < len(given) {
				rest.items = given[i:]
			}
			s.names[p.name] = values{rest}
			continue
		}
		v := values(nil)
		if i < len(given) {
			v = given[i]
		}
		for _, a := range args {
			if a.name == p.name {
				v = v.add(a.value...)
			}
		}
		if v == nil {
			v = f.defaults[i]
		}
		s.names[p.name] = v
	}
}

// instantiate follows the making of an object of a class: its constructors with
// their arguments, and whatever else of its special methods may run unseen.
func (r *runner) instantiate(c *class, args []argument, at int) values {
	o := &value{kind: valueInstance, class: c}
	for _, name := range []string{"__new__", "__init__", "__post_init__"} {
		for _, f := range c.find(name, 0) {
			if f.kind == valueFunction {
				b := *f
				b.self = o
				r.invoke(&b, args, at)
			}
		}
	}
	r.special(c, at)
	for _, b := range c.bases {
		if b.kind == valueRef {
			r.callRefs(c.scope, values{b}, args, at)
		}
	}
	return values{o}
}

// special follows the special methods of a class that have not run.
func (r *runner) special(c *class, at int) {
	for _, name := range sortedKeys(c.fields) {
		if !strings.HasPrefix(name, "__") || !strings.HasSuffix(name, "__") {
			continue
		}
		for _, f := range c.fields[name] {
			if f.kind == valueFunction && !r.ran(f.fn) {
				b := *f
				b.self = &value{kind: valueInstance, class: c}
				r.invoke(&b, nil, at)
			}
		}
	}
}

// callRefs follows calls of what was imported or is builtin.
func (r *runner) callRefs(s *scope, callee values, args []argument, at int) values {
	var out values
	for _, c := range callee {
		if c.kind != valueRef || strings.HasPrefix(c.text, "<") {
			continue
		}
		if !r.effect(s, c, args, at, &out) {
			r.judge(c, args, at)
			if !inspects[c.text] {
				r.handOver(args, at, false)
			}
			if len(c.text) < 400 {
				out = out.add(&value{kind: valueRef, text: c.text, made: true})
			}
		}
	}
	return out
}

// carried reports what is dangerous to call where it is carried away at import:
// put into a container, given to a function, returned, or called by another name.
func (r *runner) carried(v values, at int) {
	for _, one := range v {
		if one.kind != valueRef || one.made || r.when != atImport || !callable(one.text) {
			continue
		}
		switch r.table.of(one.text) {
		case categoryCommand, categoryCode, categoryNative:
			r.found(ruleReference, at, one.text)
		}
	}
}

// called reports whether a call of a path was found, which says more than that it
// was carried away.
func (r *runner) called(path string) bool {
	return slices.ContainsFunc(r.problems, func(p problem) bool {
		return p.rule == ruleDangerous && len(p.what) > 0 && p.what[0] == path
	})
}

// callable reports whether a path may be that of a function: it is neither a
// module's own name nor, by its letters, a constant or an exception, nor a class
// that is mostly compared with.
func callable(path string) bool {
	i := strings.LastIndexByte(path, '.')
	last := path[i+1:]
	return i > 0 && path[:i] != "types" && last != strings.ToUpper(last) && !strings.HasSuffix(last, "Error") && !strings.HasSuffix(last, "Expired")
}

// inspects are functions that look at what they are given and call nothing.
var inspects = map[string]bool{
	"builtins.isinstance": true, "builtins.issubclass": true, "builtins.hasattr": true, "builtins.callable": true, "builtins.type": true, "builtins.repr": true,
	"builtins.id": true, "builtins.print": true, "builtins.staticmethod": true, "builtins.classmethod": true, "builtins.property": true, "builtins.super": true,
	"functools.wraps": true, "functools.lru_cache": true, "functools.cache": true, "contextlib.contextmanager": true, "builtins.delattr": true, "builtins.len": true,
}

// judge reports a call by what it does.
func (r *runner) judge(callee *value, args []argument, at int) {
	path := callee.text
	c := r.table.of(path)
	if callee.method { // the making of the object was judged; its methods by their names only
		c = r.table.exact[path]
	}
	switch path {
	case "builtins.open", "builtins.file", "io.open", "codecs.open", "os.fdopen", "pathlib.Path.open", "gzip.open", "bz2.open", "lzma.open", "zipfile.ZipFile":
		i := 1
		if path == "pathlib.Path.open" {
			i = 0
		}
		if mode := arg(args, i, "mode"); len(mode) > 0 && mode[0].kind == valueText && strings.ContainsAny(mode[0].text, "wax+") {
			c = categoryFile
		}
	}
	rule := ruleFor(c, r.when)
	if rule == "" {
		return
	}
	what := []string{path, r.when.String()}
	if v := arg(args, 0, ""); len(v) > 0 && v[0].kind == valueText && v[0].text != "" {
		what = append(what, strings.ToValidUTF8(v[0].text, "\uFFFD"))
	}
	r.found(rule, at, what...)
}
