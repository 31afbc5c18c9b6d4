package jinja

import "slices"

func (p *parser) peek() token {
	if p.pos < len(p.tokens) {
		return p.tokens[p.pos]
	}
	return token{kind: endOfTag}
}

func (p *parser) is(k kind, value string) bool {
	t := p.peek()
	return t.kind == k && t.value == value
}

func (p *parser) accept(k kind, value string) bool {
	if !p.is(k, value) {
		return false
	}
	p.pos++
	return true
}

func (p *parser) sign(s string) bool  { return p.accept(sign, s) }
func (p *parser) name1(s string) bool { return p.accept(name, s) }
func (p *parser) atEnd() bool         { return p.peek().kind == endOfTag }

func (p *parser) end() error {
	if !p.atEnd() {
		return p.fail("more than a tag can hold")
	}
	return nil
}

func (p *parser) name() (string, error) {
	t := p.peek()
	if t.kind != name {
		return "", p.fail("no name")
	}
	p.pos++
	return t.value, nil
}

// list reads an expression, or several with commas between, which are a tuple.
func (p *parser) list() (*expr, error) {
	at := p.peek().at
	e, err := p.expression()
	if err != nil || !p.is(sign, ",") {
		return e, err
	}
	tuple := &expr{op: "tuple", args: []*expr{e}, at: at}
	for p.sign(",") {
		if p.atEnd() || p.is(sign, ")") {
			break
		}
		if e, err = p.expression(); err != nil {
			return nil, err
		}
		tuple.args = append(tuple.args, e)
	}
	return tuple, nil
}

func (p *parser) expression() (*expr, error) {
	if err := p.deeper(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	e, err := p.or()
	for err == nil && p.is(name, "if") {
		at := p.peek().at
		p.pos++
		choice := &expr{op: "if", at: at, args: []*expr{nil, e, nil}}
		if choice.args[0], err = p.or(); err != nil {
			break
		}
		if p.name1("else") {
			choice.args[2], err = p.expression()
		}
		e = choice
	}
	return e, err
}

// binary reads operands of one rank.
func (p *parser) binary(operand func() (*expr, error), k kind, operators ...string) (*expr, error) {
	e, err := operand()
	for err == nil && p.peek().kind == k && slices.Contains(operators, p.peek().value) {
		t := p.peek()
		p.pos++
		if p.nodes++; p.nodes > maxNodes {
			return nil, p.limit()
		}
		var right *expr
		right, err = operand()
		e = &expr{op: t.value, args: []*expr{e, right}, at: t.at}
	}
	return e, err
}

func (p *parser) or() (*expr, error)  { return p.binary(p.and, name, "or") }
func (p *parser) and() (*expr, error) { return p.binary(p.not, name, "and") }

func (p *parser) not() (*expr, error) {
	if t := p.peek(); p.name1("not") {
		if err := p.deeper(); err != nil {
			return nil, err
		}
		defer func() { p.depth-- }()
		e, err := p.not()
		return &expr{op: "not", args: []*expr{e}, at: t.at}, err
	}
	return p.compare()
}

func (p *parser) compare() (*expr, error) {
	e, err := p.sum()
	for err == nil {
		t := p.peek()
		switch {
		case t.kind == sign && slices.Contains([]string{"==", "!=", "<", ">", "<=", ">="}, t.value), p.is(name, "in"):
			p.pos++
		case p.is(name, "not") && p.pos+1 < len(p.tokens) && p.tokens[p.pos+1] == (token{name, "in", p.tokens[p.pos+1].at}):
			p.pos += 2
			t.value = "not in"
		default:
			return e, nil
		}
		if p.nodes++; p.nodes > maxNodes {
			return nil, p.limit()
		}
		var right *expr
		right, err = p.sum()
		e = &expr{op: t.value, args: []*expr{e, right}, at: t.at}
	}
	return e, err
}

func (p *parser) sum() (*expr, error)     { return p.binary(p.concat, sign, "+", "-") }
func (p *parser) concat() (*expr, error)  { return p.binary(p.product, sign, "~") }
func (p *parser) product() (*expr, error) { return p.binary(p.power, sign, "*", "/", "//", "%") }
func (p *parser) power() (*expr, error)   { return p.binary(p.unary, sign, "**") }

func (p *parser) unary() (*expr, error) {
	if err := p.deeper(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	if t := p.peek(); p.sign("-") || p.sign("+") {
		e, err := p.unary()
		return &expr{op: "sign", args: []*expr{e}, at: t.at}, err
	}
	e, err := p.primary()
	if err != nil {
		return nil, err
	}
	return p.postfix(e, false)
}

func (p *parser) primary() (*expr, error) {
	t := p.peek()
	p.pos++
	switch t.kind {
	case name:
		return &expr{op: "name", value: t.value, at: t.at}, nil
	case number:
		return &expr{op: "number", value: t.value, at: t.at}, nil
	case text:
		for p.peek().kind == text {
			t.value += p.peek().value
			p.pos++
		}
		return &expr{op: "text", value: t.value, at: t.at}, nil
	case sign:
		switch t.value {
		case "(":
			if p.sign(")") {
				return &expr{op: "tuple", at: t.at}, nil
			}
			e, err := p.list()
			if err == nil && !p.sign(")") {
				err = p.fail("a bracket has no end")
			}
			return e, err
		case "[":
			args, err := p.arguments("]")
			return &expr{op: "list", args: args, at: t.at}, err
		case "{":
			return p.dict(t.at)
		}
	}
	p.pos--
	return nil, p.fail("no value")
}

func (p *parser) dict(at int) (*expr, error) {
	d := &expr{op: "dict", at: at}
	for !p.sign("}") {
		for range 2 {
			e, err := p.expression()
			if err != nil {
				return nil, err
			}
			d.args = append(d.args, e)
			if len(d.args)%2 == 1 && !p.sign(":") {
				return nil, p.fail("a key without a value")
			}
		}
		if !p.sign(",") && !p.is(sign, "}") {
			return nil, p.fail("a bracket has no end")
		}
	}
	return d, nil
}

// arguments reads values up to the closing sign.
func (p *parser) arguments(closing string) ([]*expr, error) {
	var args []*expr
	for !p.sign(closing) {
		t := p.peek()
		if closing == ")" && (p.sign("**") || p.sign("*")) {
			t.value = "*"
		} else if closing == ")" && t.kind == name && p.pos+1 < len(p.tokens) && p.tokens[p.pos+1].kind == sign && p.tokens[p.pos+1].value == "=" {
			p.pos += 2
		} else {
			t.kind = endOfTag
		}
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		if t.kind != endOfTag {
			e = &expr{op: "named", value: t.value, args: []*expr{e}, at: t.at}
		}
		args = append(args, e)
		if !p.sign(",") && !p.is(sign, closing) {
			return nil, p.fail("a bracket has no end")
		}
	}
	return args, nil
}

// postfix reads what follows a value. A filter block begins as if a bar had been
// read.
func (p *parser) postfix(e *expr, filter bool) (*expr, error) {
	for {
		if p.nodes++; p.nodes > maxNodes {
			return nil, p.limit()
		}
		t := p.peek()
		var err error
		switch {
		case filter && t.kind == name, p.sign("|"):
			filter = false
			e, err = p.filter(e, t.at)
		case p.sign("."):
			a := p.peek()
			if a.kind != name && a.kind != number {
				return nil, p.fail("no attribute")
			}
			p.pos++
			e = &expr{op: "attr", value: a.value, args: []*expr{e}, at: a.at}
		case p.sign("["):
			e, err = p.item(e, t.at)
		case p.sign("("):
			var args []*expr
			args, err = p.arguments(")")
			e = &expr{op: "call", args: append([]*expr{e}, args...), at: t.at}
		case p.name1("is"):
			e, err = p.test(e, t.at)
		default:
			return e, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (p *parser) filter(e *expr, at int) (*expr, error) {
	id, err := p.name()
	if err != nil {
		return nil, err
	}
	for p.sign(".") {
		more, err := p.name()
		if err != nil {
			return nil, err
		}
		id += "." + more
	}
	f := &expr{op: "filter", value: id, args: []*expr{e}, at: at}
	if p.sign("(") {
		args, err := p.arguments(")")
		f.args = append(f.args, args...)
		return f, err
	}
	return f, nil
}

// test reads what follows "is".
func (p *parser) test(e *expr, at int) (*expr, error) {
	p.name1("not")
	id, err := p.name()
	if err != nil {
		return nil, err
	}
	f := &expr{op: "test", value: id, args: []*expr{e}, at: at}
	if p.sign("(") {
		args, err := p.arguments(")")
		f.args = append(f.args, args...)
		return f, err
	}
	t := p.peek()
	value := t.kind == text || t.kind == number || p.is(sign, "[") || p.is(sign, "{") ||
		t.kind == name && !slices.Contains([]string{"else", "or", "and", "is", "if", "in", "not", "recursive"}, t.value)
	if value {
		arg, err := p.primary()
		f.args = append(f.args, arg)
		return f, err
	}
	return f, nil
}

func (p *parser) item(e *expr, at int) (*expr, error) {
	it := &expr{op: "item", args: []*expr{e}, at: at}
	sliced := false
	for !p.sign("]") {
		if p.sign(":") {
			sliced = true
			continue
		}
		if p.sign(",") {
			continue
		}
		arg, err := p.expression()
		if err != nil {
			return nil, err
		}
		it.args = append(it.args, arg)
	}
	if sliced {
		it.op = "slice"
	}
	return it, nil
}
