package jinja

import (
	"slices"
	"strings"
)

const (
	// maxText bounds a text that is computed here, and maxTexts how many a value
	// may be.
	maxText  = 4096
	maxTexts = 16
	// maxProblems of one template.
	maxProblems = 64
)

// checker walks a tree once. It is used for one template.
type checker struct {
	problems []Problem
	// values are the texts that a name may stand for; content are names that hold
	// what somebody wrote in the conversation.
	values  map[string][]string
	content map[string]bool
	// pieces is set when there is a text that a dunder name is put together of,
	// dynamic when there is an access by a name that is computed.
	pieces, dynamic int
	known           map[*expr]value
}

// value is what is known of an expression.
type value struct {
	texts []string
	// constant is set when the value depends on nothing that is handed in.
	constant bool
	content  bool
}

func (c *checker) found(rule string, at int, what string) {
	p := Problem{rule, at, what}
	if len(c.problems) < maxProblems && !slices.Contains(c.problems, p) {
		c.problems = append(c.problems, p)
	}
}

// internals are attributes without underscores that lead out of a value, and the
// functions that a template has no use for.
var internals = map[string]bool{
	"mro": true, "func_globals": true, "func_code": true, "func_closure": true, "im_func": true, "im_class": true, "im_self": true,
	"gi_frame": true, "gi_code": true, "gi_yieldfrom": true, "cr_frame": true, "cr_code": true, "ag_frame": true, "ag_code": true,
	"f_globals": true, "f_builtins": true, "f_locals": true, "f_back": true, "f_code": true, "tb_frame": true, "tb_next": true, "co_code": true,
	"popen": true, "system": false, "check_output": true, "import_module": true, "load_module": true,
}

// functions are names whose call is an attempt to run something.
var functions = map[string]bool{
	"eval": true, "exec": true, "compile": true, "open": true, "__import__": true, "getattr": true, "setattr": true, "globals": true,
	"locals": true, "vars": true, "dir": true, "os": true, "sys": true, "subprocess": true, "importlib": true, "builtins": true,
	"popen": true, "input": true, "breakpoint": true, "type": true, "file": true, "execfile": true,
}

// objects are names that Jinja2 or a web framework hands to every template, known
// as the first step of an injection.
var objects = map[string]bool{
	"lipsum": true, "cycler": true, "joiner": true, "self": true, "request": true, "get_flashed_messages": true, "url_for": true, "caller": false,
}

func dunder(s string) bool {
	return len(s) > 4 && strings.HasPrefix(s, "__") && strings.HasSuffix(s, "__")
}

// access judges an attribute or item by its name.
func (c *checker) access(names []string, at int) {
	for _, n := range names {
		switch {
		case n == others:
			c.dynamic = at + 1
		case dunder(n) || internals[n]:
			c.found(ruleInjection, at, n)
		}
	}
}

// walk visits an expression once and returns what it may be.
func (c *checker) walk(e *expr) value {
	if e == nil {
		return value{constant: true}
	}
	v, done := c.known[e]
	if !done {
		v = c.visit(e)
		c.known[e] = v
	}
	return v
}

func (c *checker) visit(e *expr) value {
	switch e.op {
	case "text":
		return c.text(e)
	case "number", "body":
		return value{constant: e.op == "number"}
	case "name":
		return c.name(e)
	case "call":
		return c.call(e)
	case "attr":
		v := c.walk(e.args[0])
		c.access([]string{e.value}, e.at)
		return value{content: v.content || isContent(e.value)}
	case "item":
		return c.item(e)
	case "filter":
		return c.filter(e)
	case "if":
		c.walk(e.args[0])
		c.choice(e.args[0], outputs([]*node{{tag: "output", exprs: []*expr{e.args[1]}}, {tag: "output", exprs: []*expr{e.args[2]}}}), e.at)
		a, b := c.walk(e.args[1]), c.walk(e.args[2])
		return value{texts: bounded(append(slices.Clone(a.texts), b.texts...)), content: a.content || b.content}
	}
	return c.operator(e)
}

func (c *checker) text(e *expr) value {
	c.hidden(e.value, e.at)
	if strings.Contains(e.value, "__") && !strings.ContainsAny(e.value, " <|[\n") {
		c.pieces = e.at + 1
	}
	// In capitals it is a sentinel, as long as nothing makes another text of it.
	if dunder(e.value) && e.value != strings.ToUpper(e.value) {
		c.found(ruleInjection, e.at, e.value)
	}
	for _, s := range []string{".__", "[__", "!__"} { // a format string that walks
		if strings.Contains(e.value, s) && strings.Contains(e.value, "{") {
			c.found(ruleInjection, e.at, e.value)
		}
	}
	return value{texts: []string{e.value}, constant: true}
}

func (c *checker) name(e *expr) value {
	switch {
	case dunder(e.value):
		c.found(ruleInjection, e.at, e.value)
	case objects[e.value]:
		c.found(ruleInternals, e.at, e.value)
	}
	texts, set := c.values[e.value]
	return value{texts: texts, constant: set && len(texts) > 0, content: c.content[e.value] || isContent(e.value)}
}

func (c *checker) call(e *expr) value {
	f := e.args[0]
	if f.op == "name" && functions[f.value] {
		c.found(ruleInjection, e.at, f.value)
	}
	if f.op == "attr" && f.value == "system" {
		c.found(ruleInjection, e.at, f.value)
	}
	v := c.walk(f)
	var args []value
	for _, a := range e.args[1:] {
		args = append(args, c.walk(a))
	}
	out := value{content: v.content}
	if f.op == "attr" {
		on := c.quiet(f.args[0])
		out.content = out.content || on.content
		if texts, ok := method(f.value, on.texts, args); ok {
			out.texts, out.constant = c.made(texts, e.at), on.constant
		} else {
			out.constant = on.constant && len(on.texts) > 0
		}
	}
	return out
}

// quiet is walk without a second report; problems are there once anyhow.
func (c *checker) quiet(e *expr) value {
	if e.op == "text" {
		return value{texts: []string{e.value}, constant: true}
	}
	if e.op == "name" {
		return c.name(e)
	}
	return value{content: c.mentions(e, 0)}
}

func (c *checker) item(e *expr) value {
	v := c.walk(e.args[0])
	out := value{content: v.content}
	for _, a := range e.args[1:] {
		by := c.walk(a)
		c.access(by.texts, a.at)
		for _, t := range by.texts {
			out.content = out.content || isContent(t)
		}
		if len(by.texts) == 0 && a.op != "number" && a.op != "sign" {
			c.dynamic = a.at + 1
			if by.constant {
				c.found(ruleComputed, a.at, "an item by a name that is computed from constants")
			}
		}
	}
	return out
}

func (c *checker) filter(e *expr) value {
	v := c.walk(e.args[0])
	var args []value
	for _, a := range e.args[1:] {
		args = append(args, c.walk(a))
	}
	if e.value == "attr" {
		if len(args) != 1 || len(args[0].texts) == 0 || slices.Contains(args[0].texts, others) {
			c.found(ruleComputed, e.at, "attr of a name that is computed")
		} else {
			c.access(args[0].texts, e.at)
		}
		return value{content: v.content}
	}
	for i, a := range e.args[1:] { // map(attribute=…), selectattr(…), groupby(…)
		switch e.value {
		case "map", "selectattr", "rejectattr", "groupby", "sort", "unique", "sum", "min", "max":
			for _, t := range args[i].texts {
				for part := range strings.SplitSeq(t, ".") {
					c.access([]string{part}, a.at)
				}
				if e.value == "map" && t == "attr" {
					c.found(ruleComputed, a.at, "attr over a list")
				}
			}
		}
	}
	out := value{content: v.content}
	if texts, ok := method(e.value, v.texts, args); ok {
		out.texts, out.constant = c.made(texts, e.at), v.constant
		return out
	}
	if e.value == "join" && (e.args[0].op == "list" || e.args[0].op == "tuple") {
		out = c.join(e.args[0], args)
		out.texts = c.made(out.texts, e.at)
		return out
	}
	out.constant = v.constant
	return out
}

// join puts the constants of a list together.
func (c *checker) join(list *expr, args []value) value {
	between := ""
	if len(args) == 1 && len(args[0].texts) == 1 {
		between = args[0].texts[0]
	}
	out := value{texts: []string{""}, constant: true}
	for i, a := range list.args {
		if i > 0 {
			out.texts = cross(out.texts, []string{between})
		}
		v := c.walk(a)
		out.texts, out.constant = cross(out.texts, v.texts), out.constant && v.constant
	}
	return out
}

func (c *checker) operator(e *expr) value {
	var args []value
	out := value{constant: true}
	for _, a := range e.args {
		v := c.walk(a)
		args = append(args, v)
		out.constant = out.constant && v.constant
		out.content = out.content || v.content
	}
	switch e.op {
	case "+", "~":
		out.texts = c.made(cross(args[0].texts, args[1].texts), e.at)
	case "named":
		out.texts = args[0].texts
	case "slice":
		if len(args) == 2 && e.args[1].op == "sign" {
			out.texts = c.made(each(args[0].texts, reverse), e.at)
		}
	case "list", "tuple":
		for _, v := range args {
			out.texts = append(out.texts, v.texts...)
		}
		out.texts = bounded(out.texts)
	case "%":
		out.constant = false
		if len(args[0].texts) > 0 && args[0].constant && args[1].constant {
			out.constant = true
		}
	}
	return out
}

// made judges texts that an expression computes.
func (c *checker) made(texts []string, at int) []string {
	for _, t := range texts {
		if dunder(t) {
			c.found(ruleInjection, at, t)
		}
	}
	return texts
}

// splitNames is for what cannot be computed here: a template that has parts of a
// dunder name, and an access whose name is computed.
func (c *checker) splitNames() {
	if c.pieces > 0 && c.dynamic > 0 {
		c.found(ruleComputed, c.pieces-1, "parts of an internal name, and an access by a name that is computed")
	}
}

// others stands for the texts that a value may be besides those that are kept.
const others = "\x00\x00others"

func cross(a, b []string) []string {
	var out []string
	for _, x := range a {
		for _, y := range b {
			if x == others || y == others || len(x)+len(y) > maxText {
				out = append(out, others)
				continue
			}
			if out = append(out, x+y); len(out) > maxTexts {
				return bounded(out)
			}
		}
	}
	return bounded(out)
}

func each(texts []string, f func(string) string) []string {
	out := make([]string, 0, len(texts))
	for _, t := range texts {
		if t != others {
			t = f(t)
		}
		if len(t) > maxText {
			t = others
		}
		out = append(out, t)
	}
	return out
}

// bounded keeps the first texts of a value, each once, and others for the rest.
func bounded(texts []string) []string {
	var out []string
	for _, t := range texts {
		if slices.Contains(out, t) {
			continue
		}
		if len(out) == maxTexts {
			out[maxTexts-1] = others
			break
		}
		out = append(out, t)
	}
	return out
}

func reverse(s string) string {
	r := []rune(s)
	slices.Reverse(r)
	return string(r)
}

// method computes a filter or method of constants.
func method(id string, on []string, args []value) ([]string, bool) {
	if len(on) == 0 {
		return nil, false
	}
	one := func(i int) (string, bool) {
		if i < len(args) && len(args[i].texts) == 1 {
			return args[i].texts[0], true
		}
		return "", false
	}
	switch id {
	case "lower":
		return each(on, strings.ToLower), true
	case "upper":
		return each(on, strings.ToUpper), true
	case "reverse":
		return each(on, reverse), true
	case "string", "safe", "escape", "e", "list", "first":
		return on, true
	case "trim", "strip":
		cut, ok := one(0)
		if !ok {
			cut = " \t\r\n"
		}
		return each(on, func(s string) string { return strings.Trim(s, cut) }), true
	case "replace":
		from, ok1 := one(0)
		to, ok2 := one(1)
		if ok1 && ok2 && from != "" && len(to) <= maxText/8 {
			return each(on, func(s string) string {
				if strings.Count(s, from)*len(to)+len(s) > 4*maxText {
					return s
				}
				return strings.ReplaceAll(s, from, to)
			}), true
		}
	}
	return nil, false
}
