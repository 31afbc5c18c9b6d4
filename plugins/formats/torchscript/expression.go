package torchscript

// words are those that stand in expressions and are no names.
var words = map[string]bool{"and": true, "or": true, "not": true, "in": true, "is": true, "if": true, "else": true, "for": true, "lambda": true, "as": true}

// list reads expressions with commas between them.
func (p *parser) list() error {
	for {
		if err := p.expression(); err != nil {
			return err
		}
		if ok, err := p.accept(","); err != nil || !ok {
			return err
		}
		if p.tok.kind == tokenLine || p.op(":") || p.op("=") {
			return nil
		}
	}
}

// expression reads operands with operators between them. What binds closer does
// not matter here: all of it is named or called.
func (p *parser) expression() error {
	if err := p.deeper(); err != nil {
		return err
	}
	defer func() { p.depth-- }()
	for {
		if err := p.operand(); err != nil {
			return err
		}
		more, err := p.operator()
		if err != nil || !more {
			return err
		}
	}
}

// operator goes past an operator between operands, if there is one.
func (p *parser) operator() (bool, error) {
	if p.tok.kind == tokenOp {
		switch p.tok.text {
		case "+", "-", "*", "/", "//", "%", "**", "@", "&", "|", "^", "<<", ">>", "<", ">", "<=", ">=", "==", "!=":
			return true, p.advance()
		}
		return false, nil
	}
	if p.tok.kind != tokenName {
		return false, nil
	}
	switch p.tok.text {
	case "and", "or", "in", "if", "else", "not":
		return true, p.advance()
	case "is":
		if err := p.advance(); err != nil {
			return true, err
		}
		if p.word("not") {
			return true, p.advance()
		}
		return true, nil
	}
	return false, nil
}

// operand reads signs, a value, and what follows it: attributes, calls, indexes.
func (p *parser) operand() error {
	for p.op("-") || p.op("+") || p.op("~") || p.op("*") || p.word("not") || p.word("in") {
		if err := p.advance(); err != nil {
			return err
		}
	}
	switch p.tok.kind {
	case tokenName:
		if err := p.named(); err != nil {
			return err
		}
	case tokenNumber:
		if err := p.advance(); err != nil {
			return err
		}
	case tokenText:
		for p.tok.kind == tokenText {
			if err := p.advance(); err != nil {
				return err
			}
		}
	case tokenOp:
		if err := p.bracketed(); err != nil {
			return err
		}
	default:
		return p.unexpected()
	}
	return p.trailers()
}

// named reads a name and the attributes of it.
func (p *parser) named() error {
	if words[p.tok.text] {
		return p.unexpected()
	}
	at := p.tok.at
	var parts []string
	for {
		name, err := p.name()
		if err != nil {
			return err
		}
		parts = append(parts, name)
		if ok, err := p.accept("."); err != nil {
			return err
		} else if !ok {
			break
		}
	}
	if p.tok.kind == tokenText && len(parts) == 1 {
		return p.unexpected() // a string with a prefix
	}
	p.to.path(at, parts, p.op("("))
	return nil
}

// bracketed reads a value that begins with an operator.
func (p *parser) bracketed() error {
	switch p.tok.text {
	case "(":
		return p.inside(")")
	case "[":
		return p.inside("]")
	case "{":
		return p.inside("}")
	case "...":
		return p.advance()
	case "^":
		at := p.tok.at
		if err := p.advance(); err != nil {
			return err
		}
		name, err := p.name()
		if err != nil {
			return err
		}
		p.to.python(at, name)
		return nil
	}
	return p.unexpected()
}

func (p *parser) inside(closing string) error {
	if err := p.advance(); err != nil {
		return err
	}
	return p.items(closing)
}

// items reads what stands in brackets, up to the one that closes them: arguments,
// values, pairs, slices, or a comprehension.
func (p *parser) items(closing string) error {
	for !p.op(closing) {
		switch {
		case p.op(",") || p.op(":") || p.op("=") || p.op("**"):
			if err := p.advance(); err != nil {
				return err
			}
		case p.word("for"):
			if err := p.advance(); err != nil {
				return err
			}
			if err := p.targets(); err != nil {
				return err
			}
			if err := p.advance(); err != nil {
				return err
			}
		default:
			if err := p.expression(); err != nil {
				return err
			}
			if !p.op(closing) && !p.op(",") && !p.op(":") && !p.op("=") && !p.word("for") {
				return p.unexpected()
			}
		}
	}
	return p.advance()
}

func (p *parser) trailers() error {
	for p.tok.kind == tokenOp {
		switch p.tok.text {
		case ".":
			if err := p.advance(); err != nil {
				return err
			}
			p.to.attribute(p.tok.at, p.tok.text)
			if err := p.expect(tokenName, ""); err != nil {
				return err
			}
		case "(":
			if err := p.inside(")"); err != nil {
				return err
			}
		case "[":
			if err := p.inside("]"); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}
