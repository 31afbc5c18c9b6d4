package jinja

import (
	"fmt"
	"slices"
	"strings"
)

const (
	// maxDepth of expressions and blocks within each other.
	maxDepth = 200
	// maxNodes of one template's tree.
	maxNodes = 60_000
)

// expr is a node of an expression. Op is one of:
//
//	text, number, name   value is what stands there
//	attr                 args[0] . value
//	item                 args[0] [ args[1:] ]
//	call                 args[0] ( args[1:] ), a named argument being "named"
//	filter, test         args[0] | value ( args[1:] )
//	named                value = args[0]
//	list, tuple, dict, slice
//	if                   args[1] if args[0] else args[2]
//	otherwise an operator over args
type expr struct {
	op    string
	value string
	args  []*expr
	at    int
}

// node is a part of a template: plain text, an output, or a statement with the
// branches of its block.
type node struct {
	tag      string // "" for plain text, "output", or the statement's name
	text     string
	names    []string // that are bound
	exprs    []*expr
	branches []branch
	at       int
}

type branch struct {
	condition *expr
	body      []*node
}

type parser struct {
	pieces []piece
	next   int
	tokens []token
	pos    int
	depth  int
	nodes  int
}

// parse makes a tree of a template.
func parse(src string) ([]*node, error) {
	pieces, err := lex(src)
	if err != nil {
		return nil, err
	}
	p := &parser{pieces: pieces}
	body, end, err := p.body()
	if err == nil && end != "" {
		err = p.fail("a block ends that has not begun")
	}
	return body, err
}

func (p *parser) fail(what string) error {
	return fmt.Errorf("%w: %s, at %d", errSyntax, what, p.place())
}

// place is where the parser stands in the template.
func (p *parser) place() int {
	if p.pos < len(p.tokens) {
		return p.tokens[p.pos].at
	}
	return 0
}

func (p *parser) limit() error {
	return fmt.Errorf("%w: too deep or too long, at %d", ErrLimit, p.place())
}

// deeper bounds the tree. The caller lowers depth again.
func (p *parser) deeper() error {
	p.depth++
	p.nodes++
	if p.depth > maxDepth || p.nodes > maxNodes {
		return p.limit()
	}
	return nil
}

// blocks are the statements that have a body, with the tags that divide it.
var blocks = map[string][]string{
	"if": {"elif", "else"}, "for": {"else"}, "macro": nil, "call": nil, "filter": nil, "block": nil, "with": nil,
	"generation": nil, "autoescape": nil, "set": nil,
}

// ends reports whether a tag ends or divides a block.
func ends(tag string) bool {
	return tag == "elif" || tag == "else" || strings.HasPrefix(tag, "end")
}

// body reads up to a tag that ends or divides the block, which it returns with
// its tokens current.
func (p *parser) body() ([]*node, string, error) {
	if err := p.deeper(); err != nil {
		return nil, "", err
	}
	defer func() { p.depth-- }()
	var body []*node
	for p.next < len(p.pieces) {
		piece := p.pieces[p.next]
		p.next++
		p.tokens, p.pos = piece.tokens, 0
		if p.nodes++; p.nodes > maxNodes {
			return nil, "", p.limit()
		}
		switch piece.open {
		case 0:
			body = append(body, &node{text: piece.text, at: piece.at})
		case '{':
			e, err := p.list()
			if err == nil {
				err = p.end()
			}
			if err != nil {
				return nil, "", err
			}
			body = append(body, &node{tag: "output", exprs: []*expr{e}, at: piece.at})
		default:
			tag, err := p.name()
			if err != nil {
				return nil, "", err
			}
			if ends(tag) {
				return body, tag, nil
			}
			n, err := p.statement(tag)
			if err != nil {
				return nil, "", err
			}
			n.at = piece.at
			body = append(body, n)
		}
	}
	return body, "", nil
}

// statement reads one, with its block.
func (p *parser) statement(tag string) (*node, error) {
	n := &node{tag: tag}
	condition, hasBody, err := p.head(n)
	if err == nil {
		err = p.end()
	}
	if err != nil || !hasBody {
		return n, err
	}
	dividers := blocks[tag]
	for {
		body, end, err := p.body()
		if err != nil {
			return nil, err
		}
		n.branches = append(n.branches, branch{condition, body})
		switch {
		case end == "end"+tag:
			p.tokens = nil // an endblock may name its block
			return n, nil
		case !slices.Contains(dividers, end):
			return nil, p.fail("a block has no end")
		}
		condition = nil
		if end == "elif" {
			if condition, err = p.expression(); err != nil {
				return nil, err
			}
		}
		if err := p.end(); err != nil {
			return nil, err
		}
	}
}

// head reads what follows a statement's name, and reports whether a body follows.
func (p *parser) head(n *node) (condition *expr, hasBody bool, err error) {
	_, hasBody = blocks[n.tag]
	switch n.tag {
	case "if":
		condition, err = p.expression()
	case "for":
		err = p.forHead(n)
	case "set":
		hasBody, err = p.setHead(n)
	case "with":
		for err == nil && !p.atEnd() {
			_, err = p.setHead(n)
		}
	case "macro", "call":
		err = p.macroHead(n)
	case "filter":
		var e *expr
		e, err = p.postfix(&expr{op: "filter", args: []*expr{{op: "body"}}}, true)
		n.exprs = append(n.exprs, e)
	case "do", "autoescape":
		err = p.one(n)
	case "include", "import", "extends", "from":
		if err = p.one(n); err == nil {
			p.pos = len(p.tokens) - 1 // what is imported does not matter
		}
	case "block":
		var id string
		id, err = p.name()
		n.names = append(n.names, id)
		for p.name1("scoped") || p.name1("required") {
			continue
		}
	case "break", "continue", "generation":
	default:
		err = p.fail("a statement that is not known")
	}
	return condition, hasBody, err
}

func (p *parser) one(n *node) error {
	e, err := p.list()
	n.exprs = append(n.exprs, e)
	return err
}

// target reads what is bound: names, or an attribute of a namespace.
func (p *parser) target(n *node) error {
	for {
		open := p.sign("(")
		id, err := p.name()
		if err != nil {
			return err
		}
		if p.sign(".") {
			attribute, err := p.name()
			if err != nil {
				return err
			}
			id += "." + attribute
		}
		n.names = append(n.names, id)
		for open && p.sign(",") {
			if id, err = p.name(); err != nil {
				return err
			}
			n.names = append(n.names, id)
		}
		if open && !p.sign(")") {
			return p.fail("a bracket has no end")
		}
		if !p.sign(",") {
			return nil
		}
	}
}

func (p *parser) forHead(n *node) error {
	if err := p.target(n); err != nil {
		return err
	}
	if !p.name1("in") {
		return p.fail("a loop over nothing")
	}
	e, err := p.or()
	if err != nil {
		return err
	}
	n.exprs = append(n.exprs, e)
	if p.name1("if") {
		if e, err = p.expression(); err != nil {
			return err
		}
		n.exprs = append(n.exprs, e)
	}
	p.name1("recursive")
	return nil
}

func (p *parser) setHead(n *node) (hasBody bool, err error) {
	if err := p.target(n); err != nil {
		return false, err
	}
	if p.sign("=") {
		if n.tag == "with" {
			e, err := p.expression()
			n.exprs = append(n.exprs, e)
			p.sign(",")
			return false, err
		}
		return false, p.one(n)
	}
	if n.tag == "with" {
		return false, p.fail("a name without a value")
	}
	if !p.atEnd() {
		e, err := p.postfix(&expr{op: "body"}, true)
		n.exprs = append(n.exprs, e)
		return true, err
	}
	return true, nil
}

// macroHead reads a signature; a call block has one in brackets before the call.
func (p *parser) macroHead(n *node) error {
	if n.tag == "macro" {
		id, err := p.name()
		if err != nil {
			return err
		}
		n.names = append(n.names, id)
	}
	if p.sign("(") {
		for !p.sign(")") {
			id, err := p.name()
			if err != nil {
				return err
			}
			n.names = append(n.names, id)
			if p.sign("=") {
				e, err := p.expression()
				if err != nil {
					return err
				}
				n.exprs = append(n.exprs, e)
			}
			if !p.sign(",") && !p.is(sign, ")") {
				return p.fail("a signature that is broken")
			}
		}
	}
	if n.tag == "call" {
		return p.one(n)
	}
	return nil
}
