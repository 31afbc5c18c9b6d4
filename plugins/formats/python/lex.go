package python

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// tokenKind says what a token is.
type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenName
	tokenNumber
	tokenString
	tokenOp
	tokenNewline
	tokenIndent
	tokenDedent
)

// token is one of Python's. Text is a name in its normal form, an operator, a
// number as written, or a string's value as far as it is constant.
type token struct {
	kind tokenKind
	// bytes is set for a bytes literal, parts for an f-string with fields.
	bytes bool
	at    int
	text  string
	parts []part
}

// part is a piece of an f-string: a literal, or the source of a field.
type part struct {
	literal string
	source  string
	at      int
	field   bool
}

// The bounds of what is read. CPython has bounds of its own near these.
const (
	maxIndent  = 100
	maxBracket = 200
	maxTokens  = 600_000
	maxNesting = 12 // of f-strings in each other
)

var (
	// errSyntax says that the text is no Python that is understood here.
	errSyntax = errors.New("not understood as Python")
	// errLimit says that it is beyond the bounds.
	errLimit = errors.New("beyond the limits of what is read")
)

// lexer makes tokens of a program, or of an expression in an f-string.
type lexer struct {
	src     string
	base    int // offset of src in the file
	pos     int
	bracket []byte
	indents []int
	tokens  []token
	nesting int
	// disguised are names that are written in other characters than they mean.
	disguised []token
}

// lex reads a whole program.
func lex(src string) (*lexer, error) {
	l := &lexer{src: src, indents: []int{0}}
	if strings.HasPrefix(src, "\ufeff") {
		l.pos = len("\ufeff")
	}
	return l, l.program()
}

func (l *lexer) add(kind tokenKind, at int, text string) error {
	if len(l.tokens) >= maxTokens {
		return errLimit
	}
	l.tokens = append(l.tokens, token{kind: kind, at: l.base + at, text: text})
	return nil
}

func (l *lexer) program() error {
	for l.pos < len(l.src) {
		empty, err := l.indentation()
		if err != nil {
			return err
		}
		if empty {
			continue
		}
		if err := l.logicalLine(); err != nil {
			return err
		}
	}
	if len(l.bracket) > 0 {
		return errSyntax
	}
	for range l.indents[1:] {
		if err := l.add(tokenDedent, len(l.src), ""); err != nil {
			return err
		}
	}
	return l.add(tokenEnd, len(l.src), "")
}

// indentation measures the beginning of a line, and reports whether there is
// nothing on it. Tabs go to the next multiple of eight, as CPython has it.
func (l *lexer) indentation() (empty bool, err error) {
	column := 0
	for ; l.pos < len(l.src); l.pos++ {
		switch l.src[l.pos] {
		case ' ':
			column++
			continue
		case '\t':
			column = (column/8 + 1) * 8
			continue
		case '\f':
			column = 0
			continue
		}
		break
	}
	if l.pos == len(l.src) {
		return true, nil
	}
	switch l.src[l.pos] {
	case '\n', '\r':
		l.pos++
		return true, nil
	case '#':
		l.comment()
		return true, nil
	}
	top := l.indents[len(l.indents)-1]
	if column > top {
		if len(l.indents) > maxIndent {
			return false, errLimit
		}
		l.indents = append(l.indents, column)
		return false, l.add(tokenIndent, l.pos, "")
	}
	for column < l.indents[len(l.indents)-1] {
		l.indents = l.indents[:len(l.indents)-1]
		if err := l.add(tokenDedent, l.pos, ""); err != nil {
			return false, err
		}
	}
	if column != l.indents[len(l.indents)-1] {
		return false, errSyntax
	}
	return false, nil
}

func (l *lexer) comment() {
	for l.pos < len(l.src) && l.src[l.pos] != '\n' && l.src[l.pos] != '\r' {
		l.pos++
	}
}

// logicalLine reads tokens up to a newline outside of brackets.
func (l *lexer) logicalLine() error {
	for l.pos < len(l.src) {
		switch l.src[l.pos] {
		case '\n', '\r':
			l.pos++
			if len(l.bracket) == 0 {
				return l.add(tokenNewline, l.pos-1, "")
			}
		case ' ', '\t', '\f':
			l.pos++
		case '#':
			l.comment()
		case '\\':
			if err := l.continuation(); err != nil {
				return err
			}
		default:
			if err := l.one(); err != nil {
				return err
			}
		}
	}
	return l.add(tokenNewline, l.pos, "")
}

func (l *lexer) continuation() error {
	rest := l.src[l.pos+1:]
	switch {
	case strings.HasPrefix(rest, "\r\n"):
		l.pos += 3
	case strings.HasPrefix(rest, "\n"), strings.HasPrefix(rest, "\r"):
		l.pos += 2
	default:
		return errSyntax
	}
	return nil
}

// one reads a single token.
func (l *lexer) one() error {
	c := l.src[l.pos]
	switch {
	case c == '"' || c == '\'':
		return l.str(l.pos, "")
	case c >= '0' && c <= '9' || c == '.' && l.pos+1 < len(l.src) && isDigit(l.src[l.pos+1]):
		at := l.pos
		l.number()
		return l.add(tokenNumber, at, l.src[at:l.pos])
	case c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= utf8.RuneSelf:
		return l.name()
	}
	return l.operator()
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func (l *lexer) number() {
	rest := l.src[l.pos:]
	if len(rest) > 1 && rest[0] == '0' && strings.IndexByte("xXoObB", rest[1]) >= 0 {
		l.pos += 2
		for l.pos < len(l.src) && (isDigit(l.src[l.pos]) || l.src[l.pos] == '_' || l.src[l.pos]|0x20 >= 'a' && l.src[l.pos]|0x20 <= 'f') {
			l.pos++
		}
	} else {
		l.digits()
		if l.pos < len(l.src) && l.src[l.pos] == '.' {
			l.pos++
			l.digits()
		}
		if l.pos+1 < len(l.src) && l.src[l.pos]|0x20 == 'e' {
			next := l.src[l.pos+1]
			if isDigit(next) || (next == '+' || next == '-') && l.pos+2 < len(l.src) && isDigit(l.src[l.pos+2]) {
				l.pos += 2
				l.digits()
			}
		}
	}
	if l.pos < len(l.src) && strings.IndexByte("jJlL", l.src[l.pos]) >= 0 {
		l.pos++
	}
}

func (l *lexer) digits() {
	for l.pos < len(l.src) && (isDigit(l.src[l.pos]) || l.src[l.pos] == '_') {
		l.pos++
	}
}

// inName reports whether a name can have the character (XID_Continue, or nearly).
func inName(c rune) bool {
	if c < utf8.RuneSelf {
		return c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
	}
	return unicode.In(c, unicode.L, unicode.M, unicode.N, unicode.Pc, unicode.Other_ID_Start, unicode.Other_ID_Continue)
}

// name reads a name, or a string with a prefix. Python takes names for the same
// whose normal forms (NFKC) are; one that is written so that its normal form is
// plain ASCII is in disguise.
func (l *lexer) name() error {
	at, ascii := l.pos, true
	for l.pos < len(l.src) {
		c, n := utf8.DecodeRuneInString(l.src[l.pos:])
		if !inName(c) {
			break
		}
		ascii = ascii && c < utf8.RuneSelf
		l.pos += n
	}
	text := l.src[at:l.pos]
	if text == "" {
		return errSyntax
	}
	if l.pos < len(l.src) && (l.src[l.pos] == '"' || l.src[l.pos] == '\'') && isPrefix(text) {
		return l.str(at, strings.ToLower(text))
	}
	if !ascii {
		plain := norm.NFKC.String(text)
		if strings.IndexFunc(plain, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 && len(l.disguised) < 16 {
			l.disguised = append(l.disguised, token{at: l.base + at, text: plain})
		}
		text = plain
	}
	return l.add(tokenName, at, text)
}

func isPrefix(s string) bool {
	if len(s) > 2 {
		return false
	}
	for _, c := range []byte(strings.ToLower(s)) {
		if strings.IndexByte("rbuft", c) < 0 {
			return false
		}
	}
	return true
}

// operators, the longest first.
var operators = []string{
	"**=", "//=", ">>=", "<<=", "...", "!=", "<>", "->", "**", "//", ">>", "<<", "<=", ">=", "==", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "@=", ":=",
	"+", "-", "*", "/", "%", "@", "&", "|", "^", "~", "<", ">", "(", ")", "[", "]", "{", "}", ",", ":", ".", ";", "=", "`",
}

func (l *lexer) operator() error {
	at := l.pos
	for _, op := range operators {
		if !strings.HasPrefix(l.src[l.pos:], op) {
			continue
		}
		l.pos += len(op)
		switch op {
		case "(", "[", "{":
			if len(l.bracket) >= maxBracket {
				return errLimit
			}
			l.bracket = append(l.bracket, map[string]byte{"(": ')', "[": ']', "{": '}'}[op])
		case ")", "]", "}":
			if n := len(l.bracket); n == 0 || l.bracket[n-1] != op[0] {
				return errSyntax
			}
			l.bracket = l.bracket[:len(l.bracket)-1]
		}
		return l.add(tokenOp, at, op)
	}
	return errSyntax
}
