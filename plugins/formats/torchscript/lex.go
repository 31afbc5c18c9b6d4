package torchscript

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// kind says what a token is.
type kind uint8

const (
	tokenEnd kind = iota
	tokenName
	tokenNumber
	tokenText
	tokenOp
	tokenLine
	tokenIndent
	tokenDedent
)

// token is one token; the text of a string is without its quotes.
type token struct {
	kind kind
	text string
	at   int
}

// errSource says that a text is not TorchScript.
var errSource = errors.New("not TorchScript")

// lexer gives tokens one at a time.
type lexer struct {
	src     string
	at      int
	depth   int // of brackets
	indents []int
	pending int  // dedents to give
	fresh   bool // at the beginning of a line
}

// maxIndents bounds blocks within each other.
const maxIndents = 1000

func newLexer(src string) *lexer { return &lexer{src: src, indents: []int{0}, fresh: true} }

func (l *lexer) fail(what string) error { return fmt.Errorf("%w: %s at %d", errSource, what, l.at) }

// next gives the next token.
func (l *lexer) next() (token, error) {
	if l.pending > 0 {
		l.pending--
		return token{kind: tokenDedent, at: l.at}, nil
	}
	if l.fresh && l.depth == 0 {
		t, ok, err := l.indentation()
		if ok || err != nil {
			return t, err
		}
	}
	l.space()
	if l.at >= len(l.src) {
		return l.end()
	}
	start, c := l.at, l.src[l.at]
	switch {
	case c == '\n':
		l.at++
		l.fresh = true
		return token{kind: tokenLine, at: start}, nil
	case isName(c):
		for l.at < len(l.src) && (isName(l.src[l.at]) || isDigit(l.src[l.at])) {
			l.at++
		}
		return token{tokenName, l.src[start:l.at], start}, nil
	case isDigit(c) || c == '.' && l.at+1 < len(l.src) && isDigit(l.src[l.at+1]):
		l.number()
		return token{tokenNumber, l.src[start:l.at], start}, nil
	case c == '"' || c == '\'':
		return l.text(c)
	}
	return l.operator()
}

// end closes what is open at the end of the text.
func (l *lexer) end() (token, error) {
	if l.depth > 0 {
		return token{}, l.fail("an open bracket")
	}
	if !l.fresh {
		l.fresh = true
		return token{kind: tokenLine, at: l.at}, nil
	}
	if len(l.indents) > 1 {
		l.indents = l.indents[:len(l.indents)-1]
		return token{kind: tokenDedent, at: l.at}, nil
	}
	return token{kind: tokenEnd, at: l.at}, nil
}

// indentation reads the beginning of a line, past empty ones.
func (l *lexer) indentation() (token, bool, error) {
	for {
		start := l.at
		for l.at < len(l.src) && l.src[l.at] == ' ' {
			l.at++
		}
		width := l.at - start
		l.space()
		if l.at < len(l.src) && l.src[l.at] == '\n' {
			l.at++
			continue
		}
		if l.at >= len(l.src) {
			return token{}, false, nil
		}
		l.fresh = false
		switch top := l.indents[len(l.indents)-1]; {
		case width > top:
			if len(l.indents) > maxIndents {
				return token{}, false, errLimit
			}
			l.indents = append(l.indents, width)
			return token{kind: tokenIndent, at: l.at}, true, nil
		case width < top:
			for l.indents[len(l.indents)-1] > width {
				l.indents = l.indents[:len(l.indents)-1]
				l.pending++
			}
			if l.indents[len(l.indents)-1] != width {
				return token{}, false, l.fail("an indentation")
			}
			l.pending--
			return token{kind: tokenDedent, at: l.at}, true, nil
		}
		return token{}, false, nil
	}
}

// space passes over what separates tokens; within brackets, lines as well.
func (l *lexer) space() {
	for l.at < len(l.src) {
		switch c := l.src[l.at]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\n' && l.depth > 0:
			l.at++
		case c == '\\' && strings.HasPrefix(l.src[l.at:], "\\\n"):
			l.at += 2
		case c == '#':
			for l.at < len(l.src) && l.src[l.at] != '\n' {
				l.at++
			}
		default:
			return
		}
	}
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// isName reports whether a name may begin with the byte. Letters beyond ASCII are
// taken as such: torch passes them on from Python's names.
func isName(c byte) bool {
	return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= utf8.RuneSelf
}

func (l *lexer) number() {
	for l.at < len(l.src) {
		c := l.src[l.at]
		sign := (c == '+' || c == '-') && (l.src[l.at-1]|0x20) == 'e'
		if !sign && c != '.' && !isDigit(c) && !isName(c) {
			return
		}
		l.at++
	}
}

// text reads a string, of one line or in triple quotes.
func (l *lexer) text(quote byte) (token, error) {
	start := l.at
	mark := string(quote)
	if triple := strings.Repeat(mark, 3); strings.HasPrefix(l.src[l.at:], triple) {
		mark = triple
	}
	l.at += len(mark)
	for l.at < len(l.src) {
		switch c := l.src[l.at]; {
		case c == '\\':
			l.at++
		case c == '\n' && len(mark) == 1:
			return token{}, l.fail("an open string")
		case strings.HasPrefix(l.src[l.at:], mark):
			l.at += len(mark)
			return token{tokenText, l.src[start+len(mark) : l.at-len(mark)], start}, nil
		}
		l.at++
	}
	return token{}, l.fail("an open string")
}

// operators, the longer ones first.
var operators = []string{
	"**=", "//=", "<<=", ">>=", "...", "->", "**", "//", "<<", ">>", "<=", ">=", "==", "!=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=",
	"(", ")", "[", "]", "{", "}", ",", ":", ".", "=", "+", "-", "*", "/", "%", "<", ">", "@", "&", "|", "^", "~", ";",
}

func (l *lexer) operator() (token, error) {
	for _, op := range operators {
		if !strings.HasPrefix(l.src[l.at:], op) {
			continue
		}
		switch op {
		case "(", "[", "{":
			l.depth++
		case ")", "]", "}":
			if l.depth--; l.depth < 0 {
				return token{}, l.fail("a bracket")
			}
		}
		l.at += len(op)
		return token{tokenOp, op, l.at - len(op)}, nil
	}
	return token{}, l.fail("a character")
}
