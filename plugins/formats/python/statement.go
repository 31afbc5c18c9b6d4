package python

import "strings"

// parse reads a program to its statements.
func parse(l *lexer) ([]*stmt, error) {
	p := &parser{tokens: l.tokens}
	list := p.block(func() bool { return p.peek().kind == tokenEnd })
	return list, p.err
}

// block reads statements up to where done says that they end.
func (p *parser) block(done func() bool) []*stmt {
	var list []*stmt
	for p.err == nil && !done() {
		list = append(list, p.statement()...)
	}
	return list
}

// suite reads what follows a colon: statements on the line, or a block.
func (p *parser) suite() []*stmt {
	defer p.deeper()()
	p.expectOp(":")
	if p.peek().kind != tokenNewline {
		return p.simpleLine()
	}
	p.next()
	if p.peek().kind != tokenIndent {
		p.fail(errSyntax)
		return nil
	}
	p.next()
	list := p.block(func() bool { return p.peek().kind == tokenDedent || p.peek().kind == tokenEnd })
	if p.peek().kind == tokenDedent {
		p.next()
	}
	return list
}

// compound reads a statement with a suite, or nothing.
func (p *parser) compound(t *token) *stmt {
	var read func(int) *stmt
	switch t.text {
	case "if":
		read = p.ifStatement
	case "while":
		read = p.whileStatement
	case "for":
		read = p.forStatement
	case "with":
		read = p.withStatement
	case "try":
		read = p.tryStatement
	case "def":
		read = p.def
	case "class":
		read = p.class
	default:
		return nil
	}
	p.next()
	return read(t.at)
}

func (p *parser) statement() []*stmt {
	t := p.peek()
	if t.kind == tokenNewline {
		p.next()
		return nil
	}
	if p.isOp("@") {
		return []*stmt{p.decorated()}
	}
	if t.kind == tokenName {
		if t.text == "async" && p.tokens[p.pos+1].kind == tokenName {
			switch p.tokens[p.pos+1].text {
			case "def", "for", "with":
				p.next()
				t = p.peek()
			}
		}
		if s := p.compound(t); s != nil {
			return []*stmt{s}
		}
		if t.text == "match" {
			if s := p.match(); s != nil {
				return []*stmt{s}
			}
		}
	}
	return p.simpleLine()
}

// simpleLine reads statements with semicolons between them, and the newline.
func (p *parser) simpleLine() []*stmt {
	var list []*stmt
	for p.err == nil {
		list = append(list, p.simple())
		if p.acceptOp(";") && p.peek().kind != tokenNewline {
			continue
		}
		switch p.peek().kind {
		case tokenNewline:
			p.next()
		case tokenEnd:
		default:
			p.fail(errSyntax)
		}
		break
	}
	return list
}

func (p *parser) simple() *stmt {
	t := p.peek()
	s := &stmt{at: t.at}
	if t.kind != tokenName {
		return p.assignment(s)
	}
	switch t.text {
	case "import":
		p.next()
		s.kind = stmtImport
		s.names = p.importNames(true)
	case "from":
		p.next()
		p.from(s)
	case "return", "raise", "del", "assert":
		p.next()
		s.kind = map[string]stmtKind{"return": stmtReturn, "raise": stmtRaise, "del": stmtDelete, "assert": stmtAssert}[t.text]
		p.operands(s)
	case "global", "nonlocal":
		p.next()
		s.kind = stmtScope
		for p.err == nil {
			s.names = append(s.names, imported{name: p.identifier()})
			if !p.acceptOp(",") {
				break
			}
		}
	case "pass", "break", "continue":
		p.next()
		s.kind = stmtNone
	case "print", "exec":
		if p.oldStatement() {
			p.next()
			s.kind = map[string]stmtKind{"print": stmtPrint, "exec": stmtExec}[t.text]
			if p.acceptOp(">>") {
				s.kind = stmtPrint
			}
			p.operands(s)
			return s
		}
		return p.assignment(s)
	case "type":
		return p.alias(s)
	default:
		return p.assignment(s)
	}
	return s
}

// alias reads "type Name[T] = value", or whatever else begins with that name.
func (p *parser) alias(s *stmt) *stmt {
	if p.tokens[p.pos+1].kind != tokenName || reserved[p.tokens[p.pos+1].text] {
		return p.assignment(s)
	}
	p.next()
	s.kind = stmtAnnotated
	name := p.make(exprName, p.peek().at, p.identifier())
	p.typeParameters()
	p.expectOp("=")
	s.list = []*expr{name, p.test()}
	return s
}

// oldStatement reports whether print or exec is Python 2's statement here.
func (p *parser) oldStatement() bool {
	switch t := p.tokens[p.pos+1]; t.kind {
	case tokenString, tokenNumber:
		return true
	case tokenName:
		return !reserved[t.text]
	case tokenOp:
		return t.text == ">>" || t.text == "`"
	}
	return false
}

// operands reads what stands behind return and its like, in old spellings too.
func (p *parser) operands(s *stmt) {
	for p.err == nil && p.begins() {
		s.list = append(s.list, p.expressions())
		if p.acceptOp(",") || p.acceptWord("from") || p.acceptWord("in") {
			continue
		}
		break
	}
}

func (p *parser) identifier() string {
	t := p.next()
	if t.kind != tokenName {
		p.fail(errSyntax)
		return ""
	}
	return t.text
}

func (p *parser) dotted() string {
	var name strings.Builder // a name may have any number of parts
	name.WriteString(p.identifier())
	for p.err == nil && p.acceptOp(".") {
		name.WriteString("." + p.identifier())
	}
	return name.String()
}

func (p *parser) importNames(dotted bool) []imported {
	var list []imported
	for p.err == nil {
		var i imported
		if dotted {
			i.name = p.dotted()
		} else {
			i.name = p.identifier()
		}
		if p.acceptWord("as") {
			i.as = p.identifier()
		}
		list = append(list, i)
		if !p.acceptOp(",") || p.isOp(")") {
			break
		}
	}
	return list
}

func (p *parser) from(s *stmt) {
	s.kind = stmtFrom
	var path strings.Builder
	for p.isOp(".") || p.isOp("...") {
		path.WriteString(p.next().text)
	}
	if !p.isWord("import") {
		path.WriteString(p.dotted())
	}
	s.text = path.String()
	p.expectWord("import")
	switch {
	case p.acceptOp("*"):
		s.names = []imported{{name: "*"}}
	case p.acceptOp("("):
		s.names = p.importNames(false)
		p.expectOp(")")
	default:
		s.names = p.importNames(false)
	}
}

// assignment reads an expression, or an assignment of any kind.
func (p *parser) assignment(s *stmt) *stmt {
	first := p.expressions()
	s.list = []*expr{first}
	t := p.peek()
	if t.kind != tokenOp {
		return s
	}
	switch {
	case t.text == ":":
		p.next()
		s.kind = stmtAnnotated
		s.list = append(s.list, p.test())
		if p.acceptOp("=") {
			s.list = append(s.list, p.expressions())
		}
	case t.text == "=":
		s.kind = stmtAssign
		for p.err == nil && p.acceptOp("=") {
			s.list = append(s.list, p.expressions())
		}
	case len(t.text) > 1 && t.text[len(t.text)-1] == '=' && t.text != "==" && t.text != "!=" && t.text != "<=" && t.text != ">=" && t.text != ":=":
		p.next()
		s.kind, s.text = stmtAssign, t.text[:len(t.text)-1]
		s.list = append(s.list, p.expressions())
	}
	return s
}

func (p *parser) ifStatement(at int) *stmt {
	s := &stmt{kind: stmtIf, at: at}
	before := p.depth
	defer func() { p.depth = before }()
	for last := s; ; {
		last.list = []*expr{p.named()}
		last.body = p.suite()
		if t := p.peek(); p.acceptWord("elif") {
			s := &stmt{kind: stmtIf, at: t.at}
			last.rest = []*stmt{s}
			last = s
			p.deeper() // as a tree, it is one
			continue
		}
		last.rest = p.otherwise()
		return s
	}
}

func (p *parser) otherwise() []*stmt {
	if p.acceptWord("else") {
		return p.suite()
	}
	return nil
}

func (p *parser) whileStatement(at int) *stmt {
	s := &stmt{kind: stmtWhile, at: at, list: []*expr{p.named()}}
	s.body = p.suite()
	s.rest = p.otherwise()
	return s
}

func (p *parser) forStatement(at int) *stmt {
	s := &stmt{kind: stmtFor, at: at, list: []*expr{p.targets()}}
	p.expectWord("in")
	s.list = append(s.list, p.expressions())
	s.body = p.suite()
	s.rest = p.otherwise()
	return s
}

func (p *parser) withStatement(at int) *stmt {
	s := &stmt{kind: stmtWith, at: at}
	if p.isOp("(") { // with brackets around all, or a context that begins with one
		start := *p
		p.next()
		p.contexts(s, ")")
		if p.err == nil && p.acceptOp(")") && p.isOp(":") {
			s.body = p.suite()
			return s
		}
		*p = start
		s.list = nil
	}
	p.contexts(s, ":")
	s.body = p.suite()
	return s
}

func (p *parser) contexts(s *stmt, end string) {
	for p.err == nil && !p.isOp(end) {
		s.list = append(s.list, p.named())
		if p.acceptWord("as") {
			s.list = append(s.list, p.withTarget())
		} else {
			s.list = append(s.list, nil)
		}
		if !p.acceptOp(",") {
			break
		}
	}
}

func (p *parser) withTarget() *expr { return p.binary(levelArithmetic) }

func (p *parser) tryStatement(at int) *stmt {
	s := &stmt{kind: stmtTry, at: at, body: p.suite()}
	for p.err == nil && p.isWord("except") {
		h := &stmt{kind: stmtExcept, at: p.next().at}
		p.acceptOp("*")
		if !p.isOp(":") {
			h.list = []*expr{p.expressions()}
			if p.acceptWord("as") {
				h.text = p.identifier()
			}
		}
		h.body = p.suite()
		s.handlers = append(s.handlers, h)
	}
	s.rest = p.otherwise()
	if p.acceptWord("finally") {
		s.rest = append(s.rest, p.suite()...)
	}
	return s
}

func (p *parser) decorated() *stmt {
	var list []*expr
	for p.err == nil && p.acceptOp("@") {
		list = append(list, p.named())
		if p.peek().kind == tokenNewline {
			p.next()
		}
	}
	p.acceptWord("async")
	t := p.peek()
	var s *stmt
	switch {
	case p.acceptWord("def"):
		s = p.def(t.at)
	case p.acceptWord("class"):
		s = p.class(t.at)
	default:
		p.fail(errSyntax)
		return &stmt{}
	}
	s.decorators = list
	return s
}

func (p *parser) def(at int) *stmt {
	s := &stmt{kind: stmtFunction, at: at, text: p.identifier()}
	s.fn = &function{name: s.text, at: at}
	p.typeParameters()
	p.expectOp("(")
	s.fn.parameters = p.parameters(")", true)
	p.expectOp(")")
	if p.acceptOp("->") {
		s.fn.returns = p.expressions()
	}
	s.fn.body = p.suite()
	return s
}

// typeParameters goes past those of Python 3.12.
func (p *parser) typeParameters() {
	if !p.acceptOp("[") {
		return
	}
	for p.err == nil && !p.acceptOp("]") {
		p.starred()
		if p.acceptOp(":") {
			p.test()
		}
		if p.acceptOp("=") {
			p.starred()
		}
		if !p.isOp("]") {
			p.expectOp(",")
		}
	}
}

// parameters reads those of a function, up to the token that ends them.
func (p *parser) parameters(end string, annotated bool) []parameter {
	var list []parameter
	for p.err == nil && !p.isOp(end) {
		var one parameter
		switch {
		case p.acceptOp("/"):
			one.star = true
		case p.acceptOp("*"), p.acceptOp("**"):
			one.star = true
			if p.peek().kind == tokenName {
				one.name = p.identifier()
			}
		case p.isOp("("): // Python 2 unpacks here
			p.atom()
		default:
			one.name = p.identifier()
		}
		if annotated && p.acceptOp(":") {
			one.annotation = p.starred()
		}
		if p.acceptOp("=") {
			one.initial = p.test()
		}
		list = append(list, one)
		if !p.isOp(end) {
			p.expectOp(",")
		}
	}
	return list
}

func (p *parser) class(at int) *stmt {
	s := &stmt{kind: stmtClass, at: at, text: p.identifier()}
	p.typeParameters()
	if p.acceptOp("(") {
		s.list = p.arguments()
	}
	s.body = p.suite()
	return s
}

// match reads a match statement, or nothing when the word is a name here.
func (p *parser) match() *stmt {
	start := *p
	s := &stmt{kind: stmtMatch, at: p.next().at}
	if p.begins() {
		s.list = []*expr{p.expressions()}
		if p.err == nil && p.acceptOp(":") && p.peek().kind == tokenNewline && p.tokens[p.pos+1].kind == tokenIndent && p.tokens[min(p.pos+2, len(p.tokens)-1)].text == "case" {
			p.pos += 2
			s.handlers = p.cases()
			return s
		}
	}
	*p = start
	return nil
}

func (p *parser) cases() []*stmt {
	var list []*stmt
	for p.err == nil && p.isWord("case") {
		c := &stmt{kind: stmtCase, at: p.next().at}
		p.pattern = true
		c.list = []*expr{p.expressions()}
		p.pattern = false
		if p.acceptWord("if") {
			c.list = append(c.list, p.named())
		}
		c.body = p.suite()
		list = append(list, c)
	}
	if p.peek().kind != tokenDedent {
		p.fail(errSyntax)
		return list
	}
	p.next()
	return list
}
