package python

import "strings"

// maxDepth of expressions in each other, as a tree.
const maxDepth = 300

// parser reads tokens to a tree.
type parser struct {
	tokens  []token
	pos     int
	depth   int
	nesting int
	// pattern is set in a case, where "as" may stand in an expression.
	pattern bool
	err     error
}

func (p *parser) peek() *token { return &p.tokens[p.pos] }

func (p *parser) next() *token {
	t := &p.tokens[p.pos]
	if t.kind != tokenEnd {
		p.pos++
	}
	return t
}

// fail keeps the first error; from then on every token is the end.
func (p *parser) fail(err error) *expr {
	if p.err == nil {
		p.err = err
	}
	p.pos = len(p.tokens) - 1
	return &expr{}
}

func (p *parser) isOp(op string) bool { t := p.peek(); return t.kind == tokenOp && t.text == op }

func (p *parser) isWord(w string) bool { t := p.peek(); return t.kind == tokenName && t.text == w }

func (p *parser) acceptOp(op string) bool {
	if p.isOp(op) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) acceptWord(w string) bool {
	if p.isWord(w) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expectOp(op string) {
	if !p.acceptOp(op) {
		p.fail(errSyntax)
	}
}

func (p *parser) expectWord(w string) {
	if !p.acceptWord(w) {
		p.fail(errSyntax)
	}
}

// make puts an expression together and bounds its depth.
func (p *parser) make(kind exprKind, at int, text string, list ...*expr) *expr {
	e := &expr{kind: kind, at: int32(at), text: text, list: list} //nolint:gosec // within MaxBytes
	return p.grown(e)
}

func (p *parser) grown(e *expr) *expr {
	for _, x := range e.list {
		if x != nil {
			e.depth = max(e.depth, x.depth+1)
		}
	}
	if e.depth > maxDepth {
		return p.fail(errLimit)
	}
	return e
}

// deeper bounds the recursion; the function that it returns goes back.
func (p *parser) deeper() func() {
	if p.depth++; p.depth > maxDepth {
		p.fail(errLimit)
	}
	return func() { p.depth-- }
}

// reserved are names that begin no expression of their own.
var reserved = map[string]bool{
	"and": true, "as": true, "assert": true, "break": true, "class": true, "continue": true, "def": true, "del": true, "elif": true, "else": true,
	"except": true, "finally": true, "for": true, "from": true, "global": true, "if": true, "import": true, "in": true, "is": true, "nonlocal": true,
	"or": true, "pass": true, "raise": true, "return": true, "try": true, "while": true, "with": true,
}

// begins reports whether an expression may begin here.
func (p *parser) begins() bool {
	switch t := p.peek(); t.kind {
	case tokenName:
		return !reserved[t.text]
	case tokenNumber, tokenString:
		return true
	case tokenOp:
		switch t.text {
		case "(", "[", "{", "-", "+", "~", "*", "**", "...", "`":
			return true
		}
	}
	return false
}

// expressions reads one or several, with commas; several are a tuple.
func (p *parser) expressions() *expr {
	at := p.peek().at
	first := p.starred()
	if !p.isOp(",") {
		return first
	}
	list := []*expr{first}
	for p.acceptOp(",") {
		if !p.begins() {
			break
		}
		list = append(list, p.starred())
	}
	return p.make(exprTuple, at, "", list...)
}

func (p *parser) starred() *expr {
	if t := p.peek(); t.kind == tokenOp && (t.text == "*" || t.text == "**") {
		p.next()
		return p.make(exprStar, t.at, t.text, p.test())
	}
	return p.named()
}

// named reads "name := value", or an expression.
func (p *parser) named() *expr {
	e := p.test()
	if p.isOp(":=") {
		at := p.next().at
		return p.make(exprAssign, at, "", e, p.test())
	}
	if p.pattern && p.acceptWord("as") {
		return p.make(exprAssign, int(e.at), "", p.test(), e)
	}
	return e
}

func (p *parser) test() *expr {
	defer p.deeper()()
	t := p.peek()
	if t.kind == tokenName {
		switch t.text {
		case "lambda":
			return p.lambda()
		case "yield":
			return p.yield()
		}
	}
	e := p.binary(0)
	if p.isWord("if") && !p.pattern {
		at := p.next().at
		cond := p.binary(0)
		p.expectWord("else")
		return p.make(exprChoice, at, "", cond, e, p.test())
	}
	return e
}

func (p *parser) yield() *expr {
	at := p.next().at
	if p.acceptWord("from") {
		return p.make(exprYield, at, "", p.test())
	}
	if !p.begins() {
		return p.make(exprYield, at, "")
	}
	return p.make(exprYield, at, "", p.expressions())
}

func (p *parser) lambda() *expr {
	at := p.next().at
	fn := &function{name: "<lambda>", at: at}
	fn.parameters = p.parameters(":", false)
	p.expectOp(":")
	fn.value = p.test()
	e := p.make(exprLambda, at, "", fn.value)
	e.fn = fn
	return e
}

// levels of binary operators, the loosest first. Comparisons have a place among
// them, and "not" stands there too.
var levels = [...][]string{
	{"or"}, {"and"}, levelCompare: nil, levelArithmetic: {"|"}, 4: {"^"}, 5: {"&"}, 6: {"<<", ">>"}, 7: {"+", "-"}, 8: {"*", "/", "//", "%", "@"},
}

const (
	levelCompare    = 2
	levelArithmetic = 3
)

// binary reads operands of a level and looser; equal operators in a row make one
// flat expression.
func (p *parser) binary(level int) *expr {
	switch level {
	case levelCompare:
		return p.comparison()
	case len(levels):
		return p.unary()
	}
	e := p.binary(level + 1)
	var flat *expr
	for {
		op := p.operatorOf(level)
		if op == "" {
			return e
		}
		at := p.next().at
		right := p.binary(level + 1)
		if flat != nil && flat.text == op {
			flat.list = append(flat.list, right)
			if flat.depth = max(flat.depth, right.depth+1); flat.depth > maxDepth {
				return p.fail(errLimit)
			}
			continue
		}
		e = p.make(exprOperator, at, op, e, right)
		flat = e
	}
}

func (p *parser) operatorOf(level int) string {
	t := p.peek()
	if t.kind != tokenOp && t.kind != tokenName {
		return ""
	}
	for _, op := range levels[level] {
		if t.text == op {
			return op
		}
	}
	return ""
}

func (p *parser) comparison() *expr {
	if t := p.peek(); p.isWord("not") {
		defer p.deeper()()
		p.next()
		return p.make(exprOperator, t.at, "not", p.comparison())
	}
	e := p.binary(levelArithmetic)
	for {
		t := p.peek()
		switch {
		case t.kind == tokenOp && strings.Contains(" < > <= >= == != <> ", " "+t.text+" "):
			p.next()
		case p.isWord("in"):
			p.next()
		case p.isWord("is"):
			p.next()
			p.acceptWord("not")
		case p.isWord("not"):
			p.next()
			p.expectWord("in")
		default:
			return e
		}
		e = p.make(exprOperator, t.at, "compare", e, p.binary(levelArithmetic))
	}
}

func (p *parser) unary() *expr {
	t := p.peek()
	if t.kind == tokenOp && (t.text == "-" || t.text == "+" || t.text == "~") {
		defer p.deeper()()
		p.next()
		return p.make(exprOperator, t.at, t.text, p.unary())
	}
	e := p.awaited()
	if p.isOp("**") {
		defer p.deeper()()
		at := p.next().at
		return p.make(exprOperator, at, "**", e, p.unary())
	}
	return e
}

func (p *parser) awaited() *expr {
	if t := p.peek(); p.isWord("await") {
		p.next()
		if !p.begins() {
			p.pos-- // a name, before Python 3.7
			return p.primary()
		}
		defer p.deeper()()
		return p.make(exprAwait, t.at, "", p.awaited())
	}
	return p.primary()
}

// primary reads an atom with what trails it.
func (p *parser) primary() *expr {
	defer p.deeper()()
	e := p.atom()
	for p.err == nil {
		t := p.peek()
		if t.kind != tokenOp {
			return e
		}
		switch t.text {
		case ".":
			p.next()
			name := p.next()
			if name.kind != tokenName {
				return p.fail(errSyntax)
			}
			e = p.make(exprAttribute, name.at, name.text, e)
		case "(":
			p.next()
			e = p.make(exprCall, t.at, "", append([]*expr{e}, p.arguments()...)...)
			e.at = int32(t.at) //nolint:gosec // within MaxBytes
		case "[":
			p.next()
			e = p.make(exprIndex, t.at, "", e, p.subscripts())
		default:
			return e
		}
	}
	return e
}

// arguments reads those of a call, up to its closing bracket.
func (p *parser) arguments() []*expr {
	var list []*expr
	for p.err == nil && !p.acceptOp(")") {
		t := p.peek()
		if t.kind == tokenName && p.tokens[p.pos+1].kind == tokenOp && p.tokens[p.pos+1].text == "=" {
			p.pos += 2
			value := p.test
			if p.pattern {
				value = p.named
			}
			list = append(list, p.make(exprKeyword, t.at, t.text, value()))
		} else {
			e := p.starred()
			if p.comprehends() {
				e = p.comprehension(e.at, e)
			}
			list = append(list, e)
		}
		if !p.isOp(")") {
			p.expectOp(",")
		}
	}
	return list
}

func (p *parser) subscripts() *expr {
	at := p.peek().at
	var list []*expr
	comma := false
	for p.err == nil && !p.acceptOp("]") {
		list = append(list, p.slice())
		if !p.isOp("]") {
			p.expectOp(",")
			comma = true
		}
	}
	if len(list) == 1 && !comma {
		return list[0]
	}
	return p.make(exprTuple, at, "", list...)
}

func (p *parser) slice() *expr {
	at := p.peek().at
	var parts [3]*expr
	colons := 0
	if !p.isOp(":") {
		parts[0] = p.starred()
	}
	for colons < 2 && p.acceptOp(":") {
		colons++
		if !p.isOp(":") && !p.isOp("]") && !p.isOp(",") {
			parts[colons] = p.test()
		}
	}
	if colons == 0 {
		return parts[0]
	}
	return p.make(exprSlice, at, "", parts[:]...)
}

func (p *parser) atom() *expr {
	t := p.next()
	switch t.kind {
	case tokenName:
		switch {
		case reserved[t.text] || t.text == "not":
			return p.fail(errSyntax)
		case t.text == "None" || t.text == "True" || t.text == "False":
			return p.make(exprWord, t.at, t.text)
		}
		return p.make(exprName, t.at, t.text)
	case tokenNumber:
		return p.make(exprNumber, t.at, t.text)
	case tokenString:
		p.pos--
		return p.strings()
	case tokenOp:
		switch t.text {
		case "(":
			return p.parenthesised(t.at)
		case "[":
			return p.sequence(t.at, exprList, "]")
		case "{":
			return p.braces(t.at)
		case "...":
			return p.make(exprWord, t.at, t.text)
		case "`": // Python 2: the representation of a value
			e := p.expressions()
			p.expectOp("`")
			return p.make(exprOperator, t.at, "repr", e)
		}
	}
	return p.fail(errSyntax)
}

// strings reads strings side by side, which are one.
func (p *parser) strings() *expr {
	first := p.peek()
	var list []*expr
	var plain strings.Builder
	kind := exprText
	for p.err == nil && p.peek().kind == tokenString {
		t := p.next()
		if t.bytes {
			kind = exprBytes
		}
		if t.parts == nil {
			plain.WriteString(t.text)
			continue
		}
		for _, piece := range t.parts {
			if !piece.field {
				plain.WriteString(piece.literal)
				continue
			}
			if plain.Len() > 0 {
				list = append(list, p.make(exprText, t.at, plain.String()))
				plain.Reset()
			}
			list = append(list, p.field(piece))
		}
	}
	if list == nil {
		return p.make(kind, first.at, plain.String())
	}
	if plain.Len() > 0 {
		list = append(list, p.make(exprText, first.at, plain.String()))
	}
	return p.make(exprFormat, first.at, "", list...)
}

// field reads the expression in a field of an f-string.
func (p *parser) field(piece part) *expr {
	if p.nesting+1 > maxNesting {
		return p.fail(errLimit)
	}
	tokens, err := fieldTokens(piece, p.nesting+1)
	if err != nil {
		return p.fail(err)
	}
	sub := &parser{tokens: tokens, depth: p.depth, nesting: p.nesting + 1}
	e := sub.expressions()
	if sub.err == nil && sub.peek().kind != tokenEnd {
		sub.fail(errSyntax)
	}
	if sub.err != nil {
		return p.fail(sub.err)
	}
	return e
}

func (p *parser) parenthesised(at int) *expr {
	if p.acceptOp(")") {
		return p.make(exprTuple, at, "")
	}
	list, comma := []*expr{p.starred()}, false
	if p.comprehends() {
		e := p.comprehension(list[0].at, list[0])
		p.expectOp(")")
		return e
	}
	for p.err == nil && p.acceptOp(",") {
		comma = true
		if p.isOp(")") {
			break
		}
		list = append(list, p.starred())
	}
	p.expectOp(")")
	if !comma {
		return list[0]
	}
	return p.make(exprTuple, at, "", list...)
}

func (p *parser) sequence(at int, kind exprKind, closing string) *expr {
	var list []*expr
	for p.err == nil && !p.acceptOp(closing) {
		e := p.starred()
		if p.comprehends() {
			e = p.comprehension(e.at, e)
			p.expectOp(closing)
			return e
		}
		list = append(list, e)
		if !p.isOp(closing) {
			p.expectOp(",")
		}
	}
	return p.make(kind, at, "", list...)
}

// braces reads a set or a dict.
func (p *parser) braces(at int) *expr {
	var list []*expr
	dict := p.isOp("}")
	for p.err == nil && !p.acceptOp("}") {
		e := p.starred()
		switch {
		case e.kind == exprStar && e.text == "**":
			dict = true
			list = append(list, nil, e)
		case p.acceptOp(":"):
			dict = true
			list = append(list, e, p.named())
		default:
			list = append(list, e)
		}
		if p.comprehends() {
			e = p.comprehension(int32(at), list...) //nolint:gosec // within MaxBytes
			p.expectOp("}")
			return e
		}
		if !p.isOp("}") {
			p.expectOp(",")
		}
	}
	if dict {
		if len(list)%2 != 0 {
			return p.fail(errSyntax)
		}
		return p.make(exprDict, at, "", list...)
	}
	return p.make(exprSet, at, "", list...)
}

func (p *parser) comprehends() bool {
	return p.isWord("for") || p.isWord("async") && p.tokens[p.pos+1].text == "for"
}

func (p *parser) comprehension(at int32, element ...*expr) *expr {
	e := p.make(exprComprehension, int(at), "", element...)
	for p.err == nil && p.comprehends() {
		p.acceptWord("async")
		p.expectWord("for")
		c := clause{target: p.targets()}
		p.expectWord("in")
		c.source = p.binary(0)
		if p.isOp(",") { // Python 2: a tuple without brackets
			c.source = p.restOfTuple(c.source)
		}
		for p.acceptWord("if") {
			c.conditions = append(c.conditions, p.condition())
		}
		e.clauses = append(e.clauses, c)
	}
	return e
}

func (p *parser) restOfTuple(first *expr) *expr {
	list := []*expr{first}
	for p.isOp(",") && p.pos+1 < len(p.tokens) && !isClosing(&p.tokens[p.pos+1]) {
		p.next()
		list = append(list, p.binary(0))
	}
	return p.make(exprTuple, int(first.at), "", list...)
}

func isClosing(t *token) bool {
	return t.kind == tokenOp && (t.text == ")" || t.text == "]" || t.text == "}")
}

// condition is a comprehension's: without a choice, since "if" begins the next.
func (p *parser) condition() *expr {
	if p.isWord("lambda") {
		return p.lambda()
	}
	e := p.binary(0)
	if p.isOp(":=") {
		at := p.next().at
		return p.make(exprAssign, at, "", e, p.binary(0))
	}
	return e
}

// targets are what a for statement or a comprehension assigns to.
func (p *parser) targets() *expr {
	at := p.peek().at
	one := func() *expr {
		if t := p.peek(); p.acceptOp("*") {
			return p.make(exprStar, t.at, "*", p.binary(levelArithmetic))
		}
		return p.binary(levelArithmetic)
	}
	first := one()
	if !p.isOp(",") {
		return first
	}
	list := []*expr{first}
	for p.acceptOp(",") {
		if !p.begins() {
			break
		}
		list = append(list, one())
	}
	return p.make(exprTuple, at, "", list...)
}
