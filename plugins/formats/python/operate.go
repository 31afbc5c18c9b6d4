package python

import (
	"strconv"
	"strings"
)

// maxItems of a container are remembered, or as many as stand in the source.
const maxItems = 4096

// all evaluates expressions for what they do.
func (r *runner) all(s *scope, list []*expr) {
	for _, e := range list {
		if e != nil {
			r.eval(s, e)
		}
	}
}

// eval gives what an expression may be.
func (r *runner) eval(s *scope, e *expr) values {
	if e == nil || !r.step() {
		return nil
	}
	switch e.kind {
	case exprText, exprBytes:
		return values{text(e.text, false)}
	case exprNumber:
		if n, err := strconv.ParseInt(strings.ReplaceAll(e.text, "_", ""), 0, 64); err == nil {
			return values{{kind: valueNumber, number: n}}
		}
	case exprName:
		return r.name(s, e.text, int(e.at))
	case exprFormat:
		parts := make([]values, len(e.list))
		for i, x := range e.list {
			parts[i] = r.eval(s, x)
		}
		return r.joined(parts)
	case exprAttribute:
		return r.attributes(r.eval(s, e.list[0]), e.text, int(e.at))
	case exprIndex:
		return r.index(s, e)
	case exprCall:
		return r.callExpr(s, e)
	case exprOperator:
		return r.operator(s, e)
	case exprChoice:
		r.eval(s, e.list[0])
		return r.eval(s, e.list[1]).add(r.eval(s, e.list[2])...)
	case exprLambda:
		return values{r.define(s, e.fn)}
	case exprTuple, exprList, exprSet:
		return r.sequenceOf(s, e)
	case exprDict:
		return r.dictOf(s, e)
	case exprComprehension:
		return r.comprehended(s, e)
	case exprAssign:
		v := r.eval(s, e.list[1])
		r.assign(s, e.list[0], v)
		return v
	case exprAwait:
		return r.eval(s, e.list[0])
	case exprYield:
		for _, x := range e.list {
			v := r.eval(s, x)
			r.carried(v, int(e.at))
			if r.returned != nil { // what goes through the generator gets it
				*r.returned = r.returned.add(&value{kind: valueList, items: []values{v}})
			}
		}
	default:
		r.all(s, e.list)
	}
	return nil
}

// name looks a name up.
func (r *runner) name(s *scope, name string, at int) values {
	if v, ok := s.find(name); ok {
		return v
	}
	return r.global(name, at)
}

// global is a name that the file does not set: a builtin one, or one that came
// with "from module import *".
func (r *runner) global(name string, at int) values {
	var v values
	for _, m := range r.stars {
		// A builtin name is another thing there only when it is known to be.
		if one := ref(m + "." + name); !builtin[name] || r.table.exact[one.text] != "" {
			v = v.add(one)
		}
	}
	switch {
	case name == "__spec__":
		return v.add(&value{kind: valueRef, text: spec, made: true})
	case name == "__loader__":
		if r.when == atImport {
			r.found(ruleInternals, at, name)
		}
	case name == "__builtins__":
		return v.add(&value{kind: valueRef, text: "builtins", space: true})
	case builtin[name]:
		return v.add(ref("builtins." + name))
	}
	return v
}

// builtin are the builtin names that matter here.
var builtin = map[string]bool{
	"exec": true, "eval": true, "compile": true, "execfile": true, "__import__": true, "open": true, "file": true, "getattr": true, "setattr": true,
	"globals": true, "locals": true, "vars": true, "map": true, "filter": true, "sorted": true, "reduce": true, "apply": true, "min": true, "max": true, "chr": true, "unichr": true, "ord": true,
	"str": true, "bytes": true, "bytearray": true, "reversed": true, "list": true, "tuple": true, "dict": true, "set": true, "property": true, "type": true,
	"object": true, "print": true, "len": true, "int": true, "isinstance": true, "issubclass": true, "hasattr": true, "next": true, "iter": true,
	"any": true, "all": true, "sum": true, "super": true, "staticmethod": true, "classmethod": true, "range": true, "zip": true, "input": true, "callable": true, "repr": true, "id": true, "delattr": true, "reload": true, "breakpoint": true, "memoryview": true, "enumerate": true,
}

// ofMappings are the methods of a mapping that give what it holds.
var ofMappings = map[string]bool{"get": true, "__getitem__": true, "pop": true, "setdefault": true, "values": true, "items": true, "copy": true}

// ofContainers are methods of texts and containers, which no module has a function
// of that matters here.
var ofContainers = map[string]bool{
	"append": true, "extend": true, "insert": true, "items": true, "keys": true, "values": true, "setdefault": true, "update": true, "add": true, "union": true,
	"sort": true, "index": true, "count": true, "lower": true, "upper": true, "title": true, "startswith": true, "endswith": true, "split": true, "rsplit": true,
	"splitlines": true, "partition": true, "join": true, "strip": true, "lstrip": true, "rstrip": true, "format": true, "encode": true, "decode": true,
	"isupper": true, "islower": true, "isdigit": true, "ljust": true, "rjust": true, "zfill": true,
}

// spec gives how a module is loaded, besides where it is.
const spec = "importlib.util.find_spec"

// internals are attributes by which anything leads to the interpreter's insides.
var internals = map[string]bool{"__subclasses__": true, "__globals__": true, "__builtins__": true, "func_globals": true, "f_globals": true, "f_builtins": true, "__loader__": true}

// attributes are those of any alternative.
func (r *runner) attributes(of values, name string, at int) values {
	if internals[name] && r.when == atImport {
		r.found(ruleInternals, at, name)
	}
	var out values
	for _, o := range of {
		out = out.add(r.attribute(o, name, at)...)
	}
	return out
}

func (r *runner) attribute(o *value, name string, at int) values {
	switch o.kind {
	case valueRef:
		if (o.space || o.text == "sys.modules") && ofMappings[name] {
			return values{{kind: valueMethod, text: name, self: o}}
		}
		if o.made && o.text == spec && name == "loader" && r.when == atImport {
			r.found(ruleInternals, at, o.text, name)
		}
		return refAttribute(o, name)
	case valueFunction:
		if name == "__globals__" || name == "func_globals" {
			return values{{kind: valueRef, text: "<globals>", space: true}}
		}
		if name == "__call__" || name == "__wrapped__" || name == "__func__" {
			return values{o}
		}
	case valueClass:
		v := o.class.find(name, 0)
		if name == "__new__" && v == nil {
			return values{o}
		}
		return ofClass(o, v)
	case valueInstance:
		return r.bound(o, o.class.find(name, 0), at)
	case valueText, valueOpaque, valueList, valueDict:
		return values{{kind: valueMethod, text: name, self: o}}
	case valueRest:
		if ofContainers[name] && !r.defined[name] {
			return nil
		}
		return values{o}
	}
	return nil
}

// ofClass are attributes of a class: its class methods have it before their
// arguments.
func ofClass(o *value, found values) values {
	var out values
	for _, f := range found {
		if f.kind == valueFunction && f.self == nil && f.ofClass {
			b := *f
			b.self = o
			f = &b
		}
		out = out.add(f)
	}
	return out
}

// bound are attributes of an instance: functions are its methods, and properties
// are called.
func (r *runner) bound(o *value, found values, at int) values {
	var out values
	for _, f := range found {
		if f.kind != valueFunction || f.self != nil {
			out = out.add(f)
			continue
		}
		if f.ofClass || f.static {
			out = out.add(ofClass(&value{kind: valueClass, class: o.class}, values{f})...)
			continue
		}
		b := *f
		b.self = o
		if f.property {
			out = out.add(r.invoke(&b, nil, at)...)
			continue
		}
		out = out.add(&b)
	}
	return out
}

func refAttribute(o *value, name string) values {
	switch name {
	case "__dict__", "__builtins__":
		n := *o
		n.space = true
		if name == "__builtins__" {
			n.text = "builtins"
		}
		return values{&n}
	case "__self__":
		if strings.HasPrefix(o.text, "builtins.") {
			return values{ref("builtins")}
		}
		return nil
	case "__call__", "__func__", "__wrapped__":
		return values{o}
	}
	if o.made {
		last := o.text[strings.LastIndexByte(o.text, '.')+1:]
		if last == "" || last[0] < 'A' || last[0] > 'Z' {
			return nil
		}
	}
	if o.text == "<globals>" {
		return nil
	}
	if len(o.text) > 400 { // attributes that lead in circles
		return values{rest}
	}
	n := ref(o.text + "." + name)
	n.method = o.made || o.method
	return values{n}
}

// index is an item of a container, of a namespace, or of a text.
func (r *runner) index(s *scope, e *expr) values {
	of := r.eval(s, e.list[0])
	if sl := e.list[1]; sl.kind == exprSlice {
		bounds := make([]values, 3)
		for i, x := range sl.list {
			bounds[i] = r.eval(s, x)
		}
		return r.sliced(of, sl, bounds)
	}
	return r.itemsOf(s, of, r.eval(s, e.list[1]))
}

func (r *runner) itemsOf(s *scope, of, key values) values {
	var out values
	for _, o := range of {
		if len(key) == 0 && (o.kind == valueList || o.kind == valueDict) {
			out = out.add(elements(values{o})...)
		}
		for _, k := range key {
			out = out.add(r.itemOf(s, o, k)...)
		}
	}
	return out
}

func (r *runner) itemOf(s *scope, o, k *value) values {
	switch {
	case o.kind == valueRest:
		return values{o}
	case o.kind == valueList && k.kind == valueNumber:
		return item(values{o}, int(k.number))
	case o.kind == valueDict && k.kind == valueText:
		if o.dropped {
			return o.fields[k.text].add(rest)
		}
		return o.fields[k.text]
	case o.kind == valueDict:
		return elements(values{o})
	case o.kind == valueText && k.kind == valueNumber:
		if n := at(int(k.number), len(o.text)); n >= 0 {
			return values{text(o.text[n:n+1], true)}
		}
	case o.kind == valueRef && k.kind == valueText:
		switch {
		case o.text == "sys.modules":
			return values{ref(k.text)}
		case o.text == "<globals>":
			return r.name(s.module(), k.text, 0)
		case o.space:
			return refAttribute(&value{kind: valueRef, text: o.text}, k.text)
		}
	}
	return nil
}

func at(i, n int) int {
	if i < 0 {
		i += n
	}
	if i < 0 || i >= n {
		return -1
	}
	return i
}

// item is the i-th of what a value holds.
func item(v values, i int) values {
	var out values
	for _, o := range v {
		if o.kind == valueList {
			if n := at(i, len(o.items)); n >= 0 {
				out = out.add(o.items[n]...)
			}
			if o.dropped {
				out = out.add(rest)
			}
		}
		if o.kind == valueRest {
			out = out.add(o)
		}
	}
	return out
}

// elements are what going through a value gives.
func elements(v values) values {
	var out values
	for _, o := range v {
		if o.dropped || o.kind == valueRest {
			out = out.add(rest)
		}
		switch o.kind {
		case valueList:
			for _, i := range o.items {
				out = out.add(i...)
			}
		case valueDict:
			for _, k := range sortedKeys(o.fields) {
				out = out.add(o.fields[k]...)
			}
		}
	}
	return out
}

func (r *runner) sequenceOf(s *scope, e *expr) values {
	o := &value{kind: valueList}
	for _, x := range e.list {
		if x.kind == exprStar {
			for _, v := range r.eval(s, x.list[0]) {
				r.charge(len(v.items))
				o.extend(v)
			}
			continue
		}
		v := r.eval(s, x)
		r.carried(v, int(x.at))
		o.items = append(o.items, v)
	}
	return values{o}
}

func (r *runner) dictOf(s *scope, e *expr) values {
	o := &value{kind: valueDict, fields: make(map[string]values)}
	for i := 0; i+1 < len(e.list); i += 2 {
		if e.list[i] == nil {
			for _, v := range r.eval(s, e.list[i+1].list[0]) {
				r.charge(len(v.fields))
				o.dropped = o.dropped || v.dropped
				for _, k := range sortedKeys(v.fields) {
					o.put(k, v.fields[k])
				}
			}
			continue
		}
		key, v := r.eval(s, e.list[i]), r.eval(s, e.list[i+1])
		name := "" // what is under no constant key
		if len(key) == 1 && key[0].kind == valueText {
			name = key[0].text
		}
		r.carried(v, int(e.at))
		o.fields[name] = o.fields[name].add(v...)
	}
	return values{o}
}

// put is an assignment to a key of a mapping.
func (v *value) put(name string, of values) {
	if _, ok := v.fields[name]; !ok && len(v.fields) >= maxItems {
		v.dropped = true
		return
	}
	v.fields[name] = v.fields[name].add(of...)
}

// extend appends the items of another sequence.
func (v *value) extend(other *value) {
	n := min(len(other.items), max(0, maxItems-len(v.items)))
	v.items = append(v.items, other.items[:n]...)
	v.dropped = v.dropped || other.dropped || n < len(other.items)
}

// comprehended follows a comprehension. Over a list that is known, one clause is
// followed item by item, since texts are put together so.
func (r *runner) comprehended(s *scope, e *expr) values {
	in := newScope(s)
	o := &value{kind: valueList}
	if len(e.clauses) == 1 && len(e.clauses[0].conditions) == 0 && len(e.list) == 1 {
		c := e.clauses[0]
		source := r.eval(s, c.source)
		if len(source) == 1 && source[0].kind == valueList && len(source[0].items) > 0 {
			for _, v := range source[0].items {
				in.names = make(map[string]values)
				r.assign(in, c.target, v)
				o.items = append(o.items, r.eval(in, e.list[0]))
			}
			return values{o}
		}
		if len(source) == 1 && source[0].kind == valueText && len(source[0].text) <= maxItems {
			for _, b := range []byte(source[0].text) {
				in.names = make(map[string]values)
				r.assign(in, c.target, values{text(string([]byte{b}), true)})
				o.items = append(o.items, r.eval(in, e.list[0]))
			}
			return values{o}
		}
		r.assign(in, c.target, elements(source))
		return r.oneOf(in, e, o)
	}
	for _, c := range e.clauses {
		r.assign(in, c.target, elements(r.eval(in, c.source)))
		r.all(in, c.conditions)
	}
	return r.oneOf(in, e, o)
}

func (r *runner) oneOf(in *scope, e *expr, o *value) values {
	for _, x := range e.list {
		if x != nil {
			o.items = append(o.items, r.eval(in, x))
		}
	}
	return values{o}
}

func (r *runner) operator(s *scope, e *expr) values {
	operands := make([]values, len(e.list))
	for i, x := range e.list {
		operands[i] = r.eval(s, x)
	}
	return r.operate(e.text, operands)
}

// operate computes what matters: texts that are put together, and numbers.
func (r *runner) operate(op string, operands []values) values {
	switch op {
	case "or", "and":
		var out values
		for _, o := range operands {
			out = out.add(o...)
		}
		return out
	case "+":
		if len(operands) > 1 {
			return r.sum(operands)
		}
	case "%":
		if len(operands) == 2 {
			return r.formatted(operands[0], operands[1])
		}
	case "*", "-", "^", "//", "<<", ">>":
		return computed(op, operands)
	}
	return nil
}

// one is the only alternative, when it is of a kind.
func one(v values, kind valueKind) *value {
	if len(v) == 1 && v[0].kind == kind {
		return v[0]
	}
	return nil
}

func (r *runner) sum(operands []values) values {
	if n := one(operands[0], valueNumber); n != nil {
		total := n.number
		for _, o := range operands[1:] {
			n := one(o, valueNumber)
			if n == nil {
				return nil
			}
			total += n.number
		}
		return values{{kind: valueNumber, number: total}}
	}
	if one(operands[0], valueList) != nil {
		all := &value{kind: valueList}
		for _, o := range operands {
			for _, l := range o {
				r.charge(len(l.items))
				all.extend(l)
			}
		}
		return values{all}
	}
	return r.joined(operands)
}

// joined puts texts together; what is not known in them makes the whole unknown,
// except that it stays decoded.
func (r *runner) joined(parts []values) values {
	var b strings.Builder
	decoded, known := false, true
	for _, p := range parts {
		if len(p) != 1 {
			known = false
			continue
		}
		switch p[0].kind {
		case valueText:
			b.WriteString(p[0].text)
			decoded = decoded || p[0].decoded
		case valueOpaque:
			decoded, known = true, false
		case valueNumber:
			b.WriteString(strconv.FormatInt(p[0].number, 10))
		default:
			known = false
		}
	}
	switch {
	case b.Len() > maxConstant || !r.charge(b.Len()/16):
		r.spent = true
	case known:
		return values{text(b.String(), decoded)}
	case decoded:
		return values{{kind: valueOpaque, decoded: true}}
	}
	return nil
}

func computed(op string, operands []values) values {
	if len(operands) != 2 {
		if n := one(operands[0], valueNumber); n != nil && op == "-" && len(operands) == 1 {
			return values{{kind: valueNumber, number: -n.number}}
		}
		return nil
	}
	a, b := one(operands[0], valueNumber), one(operands[1], valueNumber)
	if s := one(operands[0], valueText); op == "*" && s != nil && b != nil {
		if n := b.number; n >= 0 && n < 4096 && int64(len(s.text))*n < 1<<16 {
			return values{text(strings.Repeat(s.text, int(n)), s.decoded)}
		}
	}
	if a == nil || b == nil {
		return nil
	}
	var n int64
	switch op {
	case "*":
		n = a.number * b.number
	case "-":
		n = a.number - b.number
	case "^":
		n = a.number ^ b.number
	case "//":
		if b.number == 0 {
			return nil
		}
		n = a.number / b.number
	case "<<", ">>":
		if b.number < 0 || b.number > 62 {
			return nil
		}
		n = a.number << b.number
		if op == ">>" {
			n = a.number >> b.number
		}
	}
	return values{{kind: valueNumber, number: n}}
}

// formatted is "text % values".
func (r *runner) formatted(pattern, with values) values {
	p := one(pattern, valueText)
	if p == nil {
		return nil
	}
	args := []values{with}
	if l := one(with, valueList); l != nil {
		args = l.items
	}
	pieces := strings.Split(p.text, "%s")
	if strings.Contains(strings.Join(pieces, ""), "%") || len(pieces) != len(args)+1 {
		return nil
	}
	parts := []values{{text(pieces[0], p.decoded)}}
	for i, a := range args {
		parts = append(parts, a, values{text(pieces[i+1], p.decoded)})
	}
	return r.joined(parts)
}

// sliced is a part of a text or list: whole, backwards, or between numbers.
func (r *runner) sliced(of values, sl *expr, bounds []values) values {
	var out values
	for _, o := range of {
		if o.kind == valueOpaque {
			out = out.add(o)
		}
		if o.kind != valueText && o.kind != valueList {
			continue
		}
		n := len(o.text) + len(o.items)
		r.charge(n / 16)
		step := int64(1)
		if v := one(bounds[2], valueNumber); v != nil {
			step = v.number
		}
		if step == 0 || step < -1<<20 || step > 1<<20 {
			continue
		}
		from, to, known := sliceBounds(sl, bounds, n, step)
		if !known {
			continue
		}
		out = out.add(take(o, from, to, int(step)))
	}
	return out
}

func sliceBounds(sl *expr, bounds []values, n int, step int64) (from, to int, known bool) {
	from, to = 0, n
	if step < 0 {
		from, to = n-1, -1
	}
	for i, where := range []*int{&from, &to} {
		if sl.list[i] == nil {
			continue
		}
		v := one(bounds[i], valueNumber)
		if v == nil {
			return 0, 0, false
		}
		k := v.number
		if k < 0 {
			k += int64(n)
		}
		low, high := int64(0), int64(n)
		if step < 0 {
			low, high = -1, int64(n-1)
		}
		*where = int(max(low, min(high, k)))
	}
	return from, to, sl.list[2] == nil || one(bounds[2], valueNumber) != nil
}

func take(o *value, from, to, step int) *value {
	out := &value{kind: o.kind, decoded: o.decoded || step != 1, dropped: o.dropped}
	var b strings.Builder
	for i := from; step > 0 && i < to || step < 0 && i > to; i += step {
		if o.kind == valueText {
			b.WriteByte(o.text[i])
		} else {
			out.items = append(out.items, o.items[i])
		}
	}
	out.text = b.String()
	return out
}
