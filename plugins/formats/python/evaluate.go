package python

import (
	"slices"
	"strings"
)

// The bounds of following a program. They count work, not time.
const (
	maxSteps    = 2_000_000
	maxCalls    = 1000 // calls within calls: Python's own bound of recursion
	maxWithin   = 3    // of one function within itself
	maxLater    = 24   // of one function's body at each moment but import
	maxConstant = 1 << 20
	maxFindings = 400 // of one rule
)

// problem is something that a program does.
type problem struct {
	rule string
	at   int
	what []string
}

// pending is a function whose body has not run.
type pending struct {
	f     *value
	class *class
	when  moment
}

// runner follows a program: statements in their order, all branches of them, and
// what is called as far as it is in the same file.
type runner struct {
	table *table
	when  moment
	steps int
	// spent and lost say that a bound was met: of work, or of what is kept.
	spent, lost bool
	calls       int
	loops       int
	branches    int
	code        int // programs in constants within each other
	runs        map[*function]*runs
	waiting     []pending
	returned    *values
	current     *value // the function whose body is followed
	problems    []problem
	seen        map[problemKey]bool
	defined     map[string]bool // names of functions
	perRule     map[string]int
	stars       []string
	imported    []string
	lazy        bool // annotations are not evaluated
}

// runs are how often a function's body was followed at each moment, how often at
// this point of the program, and at which moments with unknown arguments.
type runs struct {
	at      [3]int
	within  int
	unknown [3]bool
}

type problemKey struct {
	rule string
	at   int
}

func newRunner(t *table) *runner {
	return &runner{table: t, runs: make(map[*function]*runs), seen: make(map[problemKey]bool), defined: make(map[string]bool), perRule: make(map[string]int)}
}

func (r *runner) found(rule string, at int, what ...string) {
	k := problemKey{rule, at}
	if rule == "" || r.seen[k] || r.perRule[rule] >= maxFindings {
		return
	}
	r.seen[k] = true
	r.perRule[rule]++
	r.problems = append(r.problems, problem{rule, at, what})
}

// step draws on the bound of work, and reports whether there is any left.
func (r *runner) step() bool {
	r.steps++
	r.spent = r.spent || r.steps > maxSteps
	return !r.spent
}

// charge draws the work of handling much at once.
func (r *runner) charge(n int) bool {
	r.steps += n
	return !r.spent
}

// program follows a file: what runs at import, then what runs when it is used,
// then the rest.
func (r *runner) program(body []*stmt) {
	s := newScope(nil)
	r.block(s, body)
	for _, when := range []moment{atUse, deferred} {
		r.when = when
		// Bodies may define further functions, which wait as well.
		for i := 0; i < len(r.waiting) && !r.spent; i++ {
			w := r.waiting[i]
			if when == atUse && !r.entry(w) || r.ran(w.f.fn) {
				continue
			}
			f := *w.f
			if w.class != nil && f.self == nil {
				f.self = &value{kind: valueInstance, class: w.class}
			}
			r.invoke(&f, nil, f.fn.at)
		}
	}
}

func (r *runner) ran(f *function) bool {
	n := r.runs[f]
	return n != nil && n.at[0]+n.at[1]+n.at[2] > 0
}

// entries are functions that what loads or serves a model calls by their names:
// TorchServe, SageMaker, MLflow, and a module's own attribute hooks.
var entries = map[string]bool{
	"initialize": true, "handle": true, "preprocess": true, "inference": true, "postprocess": true, "_load_pyfunc": true,
	"model_fn": true, "input_fn": true, "predict_fn": true, "output_fn": true, "transform_fn": true, "__getattr__": true, "__dir__": true,
}

// methods are those that are called by their names of a class that the settings,
// or a server, name. Special methods are as well.
var methods = map[string]bool{
	"forward": true, "call": true, "build": true, "from_pretrained": true, "from_config": true, "_from_config": true, "load_context": true, "predict": true,
	"execute": true, "finalize": true, "auto_complete_config": true, "setup": true, "load": true, "load_model": true, "_load_model": true,
}

// entry reports whether what loads the file calls a function.
func (*runner) entry(w pending) bool {
	name := w.f.fn.name
	if entries[name] {
		return true
	}
	if w.class != nil {
		special := len(name) > 4 && strings.HasPrefix(name, "__") && strings.HasSuffix(name, "__")
		return special || methods[name]
	}
	// A scoring script has both.
	return (name == "init" || name == "run") && w.f.scope.parent == nil && w.f.scope.names["init"] != nil && w.f.scope.names["run"] != nil
}

func (r *runner) block(s *scope, list []*stmt) {
	for _, one := range list {
		if !r.step() {
			return
		}
		r.statement(s, one)
	}
}

// branch follows statements that may or may not run.
func (r *runner) branch(s *scope, list []*stmt) {
	r.branches++
	r.block(s, list)
	r.branches--
}

// later follows statements that do not run at import.
func (r *runner) later(s *scope, list []*stmt) {
	before := r.when
	r.when = deferred
	r.branch(s, list)
	r.when = before
}

func (r *runner) statement(s *scope, st *stmt) {
	switch st.kind {
	case stmtExpr, stmtRaise, stmtAssert, stmtPrint:
		r.all(s, st.list)
	case stmtReturn:
		for _, e := range st.list {
			v := r.eval(s, e)
			r.carried(v, st.at)
			if r.returned != nil {
				*r.returned = r.returned.add(v...)
			}
		}
	case stmtDelete:
		r.deletes(s, st)
	case stmtExec:
		r.exec(s, st)
	case stmtAssign:
		r.assignment(s, st)
	case stmtAnnotated:
		if !r.lazy {
			r.eval(s, st.list[1])
		}
		if len(st.list) > 2 {
			r.assign(s, st.list[0], r.eval(s, st.list[2]))
		} else if st.list[0].kind != exprName {
			r.eval(s, st.list[0])
		}
	case stmtImport, stmtFrom:
		r.imports(s, st)
	case stmtFunction:
		r.set(s, st.text, r.decorate(s, st, values{r.define(s, st.fn)}))
	case stmtClass:
		r.set(s, st.text, r.decorate(s, st, values{r.classOf(s, st)}))
	case stmtScope:
		for _, n := range st.names {
			if s.globals == nil {
				s.globals = make(map[string]bool)
			}
			s.globals[n.name] = true
		}
	default:
		r.compound(s, st)
	}
}

func (r *runner) compound(s *scope, st *stmt) {
	switch st.kind {
	case stmtIf:
		r.eval(s, st.list[0])
		if notAtImport(st.list[0]) {
			r.later(s, st.body)
		} else {
			r.branch(s, st.body)
		}
		r.branch(s, st.rest)
	case stmtWhile:
		r.eval(s, st.list[0])
		r.loop(s, st)
	case stmtFor:
		r.assign(s, st.list[0], elements(r.eval(s, st.list[1])))
		r.loop(s, st)
	case stmtWith:
		for i := 0; i+1 < len(st.list); i += 2 {
			v := r.entered(r.eval(s, st.list[i]), st.at)
			if st.list[i+1] != nil {
				r.assign(s, st.list[i+1], v)
			}
		}
		r.block(s, st.body)
	case stmtTry:
		r.branch(s, st.body)
		for _, h := range st.handlers {
			r.all(s, h.list)
			if h.text != "" {
				r.set(s, h.text, nil)
			}
			r.branch(s, h.body)
		}
		r.branch(s, st.rest)
	case stmtMatch:
		v := r.eval(s, st.list[0])
		for _, c := range st.handlers {
			r.captured(s, c.list[0], v)
			if len(c.list) > 1 {
				r.eval(s, c.list[1])
			}
			r.branch(s, c.body)
		}
	}
}

// entered is what a with statement makes of its context: an object of the file
// says so itself, and a generator by what it yields.
func (r *runner) entered(context values, at int) values {
	out := context
	for _, c := range context {
		switch c.kind {
		case valueInstance:
			out = out.add(r.invokeAll(r.bound(c, c.class.find("__enter__", 0), at), nil, at)...)
		case valueList:
			out = out.add(elements(values{c})...)
		}
	}
	return out
}

// captured gives the names in a pattern what is matched, or a part of it.
func (r *runner) captured(s *scope, pattern *expr, v values) {
	if pattern == nil || !r.step() {
		return
	}
	switch pattern.kind {
	case exprName:
		r.set(s, pattern.text, v)
	case exprTuple, exprList:
		for i, p := range pattern.list {
			r.captured(s, p, item(v, i))
		}
	default:
		for _, p := range pattern.list {
			r.captured(s, p, v.add(elements(v)...))
		}
	}
}

// loop follows a body twice, so that what its end assigns is seen at its begin.
// Loops within loops are followed once each time.
func (r *runner) loop(s *scope, st *stmt) {
	r.loops++
	r.branch(s, st.body)
	if r.loops == 1 && r.when == atImport {
		r.branch(s, st.body)
	}
	r.loops--
	r.branch(s, st.rest)
}

// notAtImport reports whether a condition is false while the file is imported.
func notAtImport(e *expr) bool {
	switch e.kind {
	case exprName:
		return e.text == "TYPE_CHECKING"
	case exprAttribute:
		return e.text == "TYPE_CHECKING"
	case exprOperator:
		if e.text == "and" {
			for _, x := range e.list {
				if notAtImport(x) {
					return true
				}
			}
		}
		return e.text == "compare" && len(e.list) == 2 && (isName(e.list[0], e.list[1]) || isName(e.list[1], e.list[0]))
	}
	return false
}

func isName(a, b *expr) bool {
	return a.kind == exprName && a.text == "__name__" && b.kind == exprText && b.text == "__main__"
}

// exec is Python 2's statement, and names may be given to it.
func (r *runner) exec(s *scope, st *stmt) {
	for i, e := range st.list {
		v := r.eval(s, e)
		if i == 0 {
			r.runText(s, "builtins.exec", v, st.at)
		}
	}
}

func (r *runner) deletes(s *scope, st *stmt) {
	for _, e := range st.list {
		list := []*expr{e}
		if e.kind == exprTuple {
			list = e.list
		}
		for _, one := range list {
			if one.kind != exprName {
				r.eval(s, one)
				continue
			}
			// A builtin name of the kind is seen again.
			if v := r.global(one.text, int(one.at)); v != nil {
				s.names[one.text] = s.names[one.text].add(v...)
			}
		}
	}
}

func (r *runner) imports(s *scope, st *stmt) {
	if st.kind == stmtImport {
		for _, n := range st.names {
			r.note(n.name)
			if n.as != "" {
				r.set(s, n.as, values{ref(n.name)})
				continue
			}
			head, _, _ := strings.Cut(n.name, ".")
			r.set(s, head, values{ref(head)})
		}
		return
	}
	if strings.Trim(st.text, ".") != "" {
		r.note(st.text)
	}
	for _, n := range st.names {
		r.note(below(st.text) + n.name) // it may be a module
		if st.text == "__future__" {
			r.lazy = r.lazy || n.name == "annotations"
			continue
		}
		if n.name == "*" {
			if len(r.stars) < 8 && !strings.HasPrefix(st.text, ".") {
				r.stars = append(r.stars, st.text)
			}
			continue
		}
		as := n.as
		if as == "" {
			as = n.name
		}
		path := st.text + "." + n.name
		if strings.HasSuffix(st.text, ".") {
			path = st.text + n.name
		}
		r.set(s, as, values{ref(path)})
	}
}

// maxImported bounds the imports that are listed.
const maxImported = 1000

// below is the prefix of what is imported from a module or, by dots, a package.
func below(from string) string {
	if strings.HasSuffix(from, ".") {
		return from
	}
	return from + "."
}

func (r *runner) note(module string) {
	if len(r.imported) < maxImported && !slices.Contains(r.imported, module) {
		r.imported = append(r.imported, module)
	}
}

// set gives a name a value besides those that it has had: which of them it has
// when it is used depends on what has run by then.
func (r *runner) set(s *scope, name string, v values) {
	if s.globals[name] {
		s = s.module()
	}
	old, ok := s.names[name]
	if !ok && r.branches > 0 {
		old = r.global(name, 0)
	}
	if ok && (len(v) == 0) != (len(old) == 0) && texts(append(slices.Clone(v), old...)) {
		v = v.add(&value{kind: valueOpaque}) // a text, or something that is not known
	}
	s.names[name] = old.add(v...)
}

func (r *runner) assignment(s *scope, st *stmt) {
	last := len(st.list) - 1
	if st.text != "" { // an augmented one
		v := r.operate(st.text, []values{r.eval(s, st.list[0]), r.eval(s, st.list[1])})
		r.assign(s, st.list[0], v)
		return
	}
	v := r.eval(s, st.list[last])
	r.carried(v, st.at)
	for _, target := range st.list[:last] {
		r.assign(s, target, v)
	}
}

// assign gives a target a value.
func (r *runner) assign(s *scope, target *expr, v values) {
	switch target.kind {
	case exprName:
		r.set(s, target.text, v)
	case exprTuple, exprList:
		for i, t := range target.list {
			r.assign(s, t, item(v, i))
		}
	case exprStar:
		r.assign(s, target.list[0], nil)
	case exprAttribute:
		r.setField(r.eval(s, target.list[0]), target.text, v)
	case exprIndex:
		key := r.eval(s, target.list[1])
		of := r.eval(s, target.list[0])
		for _, k := range key {
			if k.kind == valueText {
				r.setField(of, k.text, v)
				for _, o := range of {
					if o.kind == valueRef && o.text == "<globals>" {
						r.set(s.module(), k.text, v)
					}
				}
			}
		}
	}
}

// setField sets an attribute or item. A function that is put into what was
// imported is called by whoever uses that.
func (r *runner) setField(of values, name string, v values) {
	for _, o := range of {
		switch o.kind {
		case valueInstance, valueClass:
			o.class.put(name, v)
		case valueDict:
			o.put(name, v)
		case valueRef:
			r.callLater(v)
		}
	}
}

func (c *class) put(name string, v values) {
	if _, ok := c.fields[name]; !ok && len(c.fields) >= maxItems {
		c.dropped = true
		return
	}
	c.fields[name] = c.fields[name].add(v...)
}

// callLater notes functions that others may call soon.
func (r *runner) callLater(v values) {
	if r.when == deferred {
		return
	}
	before := r.when
	r.when = max(r.when, atUse)
	for _, f := range v {
		if f.kind == valueFunction && !r.ran(f.fn) {
			r.invoke(f, nil, f.fn.at)
		}
	}
	r.when = before
}

// define makes a function; its defaults and annotations are evaluated now.
func (r *runner) define(s *scope, fn *function) *value {
	defaults := make([]values, len(fn.parameters))
	for i, p := range fn.parameters {
		if p.initial != nil {
			defaults[i] = r.eval(s, p.initial)
			r.carried(defaults[i], int(p.initial.at))
		}
		if p.annotation != nil && !r.lazy {
			r.eval(s, p.annotation)
		}
	}
	if fn.returns != nil && !r.lazy {
		r.eval(s, fn.returns)
	}
	r.defined[fn.name] = true
	f := &value{kind: valueFunction, fn: fn, scope: s, defaults: defaults}
	r.wait(f, nil)
	return f
}

// maxWaiting bounds the functions that wait; each is met once per definition.
const maxWaiting = 50_000

func (r *runner) wait(f *value, c *class) {
	if len(r.waiting) >= maxWaiting {
		r.lost = true
		return
	}
	r.waiting = append(r.waiting, pending{f: f, class: c, when: r.when})
}

// decorate applies decorators, the last one first. One that is not known gives
// the function as it is.
func (r *runner) decorate(s *scope, st *stmt, v values) values {
	for i := len(st.decorators) - 1; i >= 0; i-- {
		d := r.eval(s, st.decorators[i])
		for _, one := range d {
			if one.kind == valueRef && (one.text == "builtins.property" || strings.HasSuffix(one.text, ".cached_property")) {
				for _, f := range v {
					f.property = true
				}
			}
			for _, f := range v {
				f.ofClass = f.ofClass || one.kind == valueRef && one.text == "builtins.classmethod"
				f.static = f.static || one.kind == valueRef && one.text == "builtins.staticmethod"
			}
		}
		if got := r.call(s, d, []argument{{value: v}}, int(st.decorators[i].at)); got != nil {
			v = got.add(v...)
		}
	}
	return v
}

// classOf makes a class. Its body runs now, and so do the hooks of its bases.
func (r *runner) classOf(s *scope, st *stmt) *value {
	c := &class{name: st.text, fields: make(map[string]values)}
	made := &value{kind: valueClass, class: c}
	var meta values
	for _, e := range st.list {
		if e.kind == exprKeyword {
			v := r.eval(s, e.list[0])
			if e.text == "metaclass" {
				meta = v
			}
			continue
		}
		c.bases = c.bases.add(r.eval(s, e)...)
	}
	c.scope = newScope(s)
	c.scope.class = true
	from := len(r.waiting)
	r.block(c.scope, st.body)
	for i := range r.waiting[from:] {
		if w := &r.waiting[from+i]; w.class == nil && w.f.scope == c.scope {
			w.class = c
		}
	}
	for _, name := range sortedKeys(c.scope.names) {
		c.put(name, c.scope.names[name])
	}
	for _, b := range c.bases {
		if b.kind == valueClass {
			r.invokeAll(b.class.find("__init_subclass__", 0), []argument{{value: values{made}}}, st.at)
		}
	}
	for _, m := range meta {
		if m.kind == valueClass {
			r.special(m.class, st.at)
		} else {
			r.callRefs(s, values{m}, []argument{{value: values{text(st.text, false)}}}, st.at)
		}
	}
	return made
}

// find looks an attribute of a class up, in its bases too.
func (c *class) find(name string, depth int) values {
	if v, ok := c.fields[name]; ok || depth > 10 {
		return v
	}
	for _, b := range c.bases {
		switch b.kind {
		case valueClass:
			if v := b.class.find(name, depth+1); v != nil {
				return v
			}
		case valueRef:
			if !b.made {
				return values{ref(b.text + "." + name)}
			}
		}
	}
	if c.dropped {
		return values{rest}
	}
	return nil
}
