package torchscript

import (
	"errors"
	"fmt"
)

// errLimit says that a source is nested deeper than any that torch writes.
var errLimit = errors.New("nested too deep")

// maxDepth bounds expressions and statements within each other.
const maxDepth = 2000

// listener is told of what a source names and calls.
type listener interface {
	// path is a name with the attributes that follow it directly.
	path(at int, parts []string, called bool)
	// attribute is one of another value.
	attribute(at int, name string)
	// python is a call of Python that torch could not write down.
	python(at int, name string)
	// defined is a name that is bound: a class, a function, a variable.
	defined(name string, class bool)
}

// parser reads a source by recursive descent, and keeps no tree.
type parser struct {
	lex   *lexer
	tok   token
	to    listener
	depth int
}

// parse reads a whole source.
func parse(src string, to listener) error {
	p := &parser{lex: newLexer(src), to: to}
	if err := p.advance(); err != nil {
		return err
	}
	for p.tok.kind != tokenEnd {
		if err := p.statement(); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) advance() (err error) {
	p.tok, err = p.lex.next()
	return err
}

func (p *parser) unexpected() error {
	return fmt.Errorf("%w: %q at %d", errSource, p.tok.text, p.tok.at)
}

func (p *parser) is(k kind, text string) bool { return p.tok.kind == k && p.tok.text == text }

func (p *parser) op(text string) bool   { return p.is(tokenOp, text) }
func (p *parser) word(text string) bool { return p.is(tokenName, text) }

// accept goes past an operator when it is there.
func (p *parser) accept(op string) (bool, error) {
	if !p.op(op) {
		return false, nil
	}
	return true, p.advance()
}

func (p *parser) expect(k kind, text string) error {
	if p.tok.kind != k || text != "" && p.tok.text != text {
		return p.unexpected()
	}
	return p.advance()
}

// name reads a name and returns it.
func (p *parser) name() (string, error) {
	n := p.tok.text
	return n, p.expect(tokenName, "")
}

// deeper counts one level more; the caller takes it back.
func (p *parser) deeper() error {
	if p.depth++; p.depth > maxDepth {
		return errLimit
	}
	return nil
}

func (p *parser) statement() error {
	if err := p.deeper(); err != nil {
		return err
	}
	defer func() { p.depth-- }()
	if p.tok.kind == tokenName {
		if ok, err := p.compound(p.tok.text); ok || err != nil {
			return err
		}
	}
	if err := p.simple(); err != nil {
		return err
	}
	return p.expect(tokenLine, "")
}

// compound reads a statement that has blocks, if the word begins one.
func (p *parser) compound(word string) (bool, error) {
	var err error
	switch word {
	case "def":
		err = p.def()
	case "class":
		err = p.class()
	case "if", "elif", "while":
		if err = p.advance(); err == nil {
			if err = p.expression(); err == nil {
				err = p.block()
			}
		}
	case "else":
		if err = p.advance(); err == nil {
			err = p.block()
		}
	case "for":
		err = p.forLoop()
	case "with":
		err = p.with()
	default:
		return false, nil
	}
	return true, err
}

// block reads a colon and what it introduces.
func (p *parser) block() error {
	if err := p.expect(tokenOp, ":"); err != nil {
		return err
	}
	if p.tok.kind != tokenLine {
		if err := p.simple(); err != nil {
			return err
		}
		return p.expect(tokenLine, "")
	}
	if err := p.advance(); err != nil {
		return err
	}
	if err := p.expect(tokenIndent, ""); err != nil {
		return err
	}
	for p.tok.kind != tokenDedent && p.tok.kind != tokenEnd {
		if err := p.statement(); err != nil {
			return err
		}
	}
	return p.expect(tokenDedent, "")
}

func (p *parser) def() error {
	if err := p.advance(); err != nil {
		return err
	}
	name, err := p.name()
	if err != nil {
		return err
	}
	p.to.defined(name, false)
	if err := p.expect(tokenOp, "("); err != nil {
		return err
	}
	for !p.op(")") {
		if err := p.parameter(); err != nil {
			return err
		}
		if ok, err := p.accept(","); err != nil {
			return err
		} else if !ok {
			break
		}
	}
	if err := p.expect(tokenOp, ")"); err != nil {
		return err
	}
	if ok, err := p.accept("->"); err != nil {
		return err
	} else if ok {
		if err := p.expression(); err != nil {
			return err
		}
	}
	return p.block()
}

func (p *parser) parameter() error {
	if ok, err := p.accept("*"); err != nil || ok && p.op(",") {
		return err
	}
	name, err := p.name()
	if err != nil {
		return err
	}
	p.to.defined(name, false)
	for _, mark := range []string{":", "="} {
		if ok, err := p.accept(mark); err != nil {
			return err
		} else if ok {
			if err := p.expression(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *parser) class() error {
	if err := p.advance(); err != nil {
		return err
	}
	name, err := p.name()
	if err != nil {
		return err
	}
	p.to.defined(name, true)
	if ok, err := p.accept("("); err != nil {
		return err
	} else if ok {
		if err := p.items(")"); err != nil {
			return err
		}
	}
	return p.block()
}

func (p *parser) forLoop() error {
	if err := p.advance(); err != nil {
		return err
	}
	if err := p.targets(); err != nil {
		return err
	}
	if err := p.expect(tokenName, "in"); err != nil {
		return err
	}
	if err := p.list(); err != nil {
		return err
	}
	return p.block()
}

// targets reads names with commas and brackets, up to the word in.
func (p *parser) targets() error {
	for !p.word("in") {
		switch {
		case p.tok.kind == tokenName:
			p.to.defined(p.tok.text, false)
		case p.op(",") || p.op("(") || p.op(")"):
		default:
			return p.unexpected()
		}
		if err := p.advance(); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) with() error {
	for first := true; first || p.op(","); first = false {
		if err := p.advance(); err != nil {
			return err
		}
		if err := p.expression(); err != nil {
			return err
		}
		if p.word("as") {
			if err := p.advance(); err != nil {
				return err
			}
			name, err := p.name()
			if err != nil {
				return err
			}
			p.to.defined(name, false)
		}
	}
	return p.block()
}

// simple reads a statement of one line.
func (p *parser) simple() error {
	if p.tok.kind == tokenName {
		switch p.tok.text {
		case "pass", "break", "continue":
			return p.advance()
		case "return", "raise", "assert", "del":
			if err := p.advance(); err != nil || p.tok.kind == tokenLine {
				return err
			}
			return p.list()
		case "import", "from", "try", "lambda", "global", "nonlocal", "async", "yield", "exec":
			return p.unexpected()
		}
	}
	return p.assignment()
}

// assignment reads an expression, or targets and what is assigned to them.
func (p *parser) assignment() error {
	if err := p.bound(); err != nil {
		return err
	}
	if ok, err := p.accept(":"); err != nil {
		return err
	} else if ok {
		if err := p.expression(); err != nil {
			return err
		}
	}
	for p.tok.kind == tokenOp {
		switch p.tok.text {
		case "=", "+=", "-=", "*=", "/=", "//=", "%=", "**=", "<<=", ">>=", "&=", "|=", "^=":
		default:
			return p.unexpected()
		}
		if err := p.advance(); err != nil {
			return err
		}
		if err := p.bound(); err != nil {
			return err
		}
	}
	return nil
}

// bound reads a list of expressions whose plain names may be targets.
func (p *parser) bound() error {
	for {
		if p.tok.kind == tokenName && !words[p.tok.text] {
			p.maybeTarget()
		}
		if err := p.expression(); err != nil {
			return err
		}
		if ok, err := p.accept(","); err != nil || !ok {
			return err
		}
		if p.tok.kind == tokenLine || p.op("=") {
			return nil
		}
	}
}

// maybeTarget notes a name that an assignment may follow.
func (p *parser) maybeTarget() {
	l := p.lex
	at := l.at
	for at < len(l.src) && l.src[at] == ' ' {
		at++
	}
	if at < len(l.src) && (l.src[at] == ',' || l.src[at] == ':' || l.src[at] == '=') {
		p.to.defined(p.tok.text, false)
	}
}
