package inert

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// pythonProof decides whether text could be a Python program that does
// something. Python compiles a whole file before it runs a line of it, so one
// certain syntax error proves the text inert as Python, wherever it stands:
// two names side by side ("This model"), a character that no token has ("?"),
// a string that is left open at a line's end ("don't"), a bracket without its
// other half, or a line of a name and a colon ("Usage:"). What is inside of
// strings and comments proves nothing. Text without such a proof is held for
// Python when it calls or imports anything.
type pythonProof struct {
	quote     byte // of the string that is open, or 0
	triple    bool
	run       int // quotes seen in a row, in a string of three
	escaped   bool
	comment   bool
	word      []byte
	lastWord  bool // the last token on this line is a name that is no keyword
	lastClose bool // the last token can be called
	lastActor bool // the last token is class, def or import
	emptied   byte // the quote of an empty string that has just ended
	depth     int  // of brackets
	line      lineForm
	continued bool // the line ends in a backslash
	broken    bool
	// unsure is set by an f-string: from Python 3.12 on, strings nest in it.
	unsure bool
	last   rune // the last character of code
	acts   bool
}

// lineForm is what a line outside of brackets has held so far.
type lineForm uint8

const (
	lineEmpty lineForm = iota
	lineName           // one name that is no keyword
	lineLabel          // that, and a colon
	lineOther
)

// keywords may stand beside a name. The soft ones of newer versions and the
// statements of Python 2 are among them, so that none proves anything.
var keywords = map[string]bool{
	"False": true, "None": true, "True": true, "and": true, "as": true, "assert": true, "async": true,
	"await": true, "break": true, "case": true, "class": true, "continue": true, "def": true, "del": true,
	"elif": true, "else": true, "except": true, "exec": true, "finally": true, "for": true, "from": true,
	"global": true, "if": true, "import": true, "in": true, "is": true, "lambda": true, "match": true,
	"nonlocal": true, "not": true, "or": true, "pass": true, "print": true, "raise": true, "return": true,
	"try": true, "type": true, "while": true, "with": true, "yield": true,
}

// actors are keywords that do something by themselves.
var actors = map[string]bool{"import": true, "exec": true, "class": true, "def": true, "lambda": true, "del": true}

func (p *pythonProof) possible() bool {
	p.endWord()
	if p.unsure {
		return p.acts && !p.broken
	}
	return p.acts && !p.broken && p.quote == 0 && p.depth == 0
}

// feed takes the next part of the text, which ends between characters.
func (p *pythonProof) feed(b []byte) {
	for i := 0; i < len(b) && !p.broken; {
		c, n := rune(b[i]), 1
		if c >= utf8.RuneSelf {
			c, n = utf8.DecodeRune(b[i:])
		}
		i += n
		switch {
		case p.comment:
			p.comment = c != '\n' && c != '\r'
			if !p.comment {
				p.newline()
			}
		case p.quote != 0:
			p.inString(c)
		default:
			p.inCode(c)
		}
	}
}

func (p *pythonProof) newline() {
	p.endWord()
	// What can be called may be called on the next line, within brackets.
	p.lastWord, p.emptied = false, 0
	switch {
	case p.depth > 0 || p.continued:
		p.line = lineOther
	case p.line == lineLabel:
		p.proof() // an annotation without a type
	default:
		p.line = lineEmpty
	}
	p.continued = false
}

// proof notes a certain syntax error.
func (p *pythonProof) proof() { p.broken = !p.unsure }

// inString follows a string to its end. An open string at a line's end is an
// error, except in triple quotes or after a backslash. A carriage return is
// passed over, since the newline after it is what counts.
func (p *pythonProof) inString(c rune) {
	if c == '\r' {
		return
	}
	if p.escaped {
		p.escaped, p.run, p.emptied = false, 0, 0
		return
	}
	switch {
	case c == '\\':
		p.escaped, p.run = true, 0
	case c == rune(p.quote) && p.triple:
		if p.run++; p.run == 3 {
			p.quote, p.triple, p.run, p.emptied = 0, false, 0, 0
			p.lastClose = true
		}
	case c == rune(p.quote):
		p.quote, p.lastClose = 0, true
	case c == '\n' && !p.triple:
		p.quote = 0
		p.proof()
	default:
		p.run, p.emptied = 0, 0
	}
}

// inName reports whether a name or number can have the character (XID_Continue,
// approximately and never too narrow).
func inName(c rune) bool {
	if c < utf8.RuneSelf {
		return c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
	}
	return unicode.In(c, unicode.L, unicode.M, unicode.N, unicode.Pc, unicode.Other_ID_Start, unicode.Other_ID_Continue)
}

func (p *pythonProof) inCode(c rune) {
	if c == '%' && p.last == '{' {
		p.proof() // an operator without its left side; a template's tag
	}
	p.last = c
	if inName(c) {
		if len(p.word) < 64 {
			p.word = utf8.AppendRune(p.word, c)
		}
		p.emptied = 0
		return
	}
	switch {
	case c == '"' || c == '\'':
		p.openString(byte(c))
		return
	case c == '#':
		p.endWord()
		p.comment = true
	case c == '\n' || c == '\r':
		p.newline()
	case c == ' ' || c == '\t' || c == '\f' || c == '\ufeff':
		p.endWord()
	case c == '\\':
		p.endWord()
		p.continued = true
	case c == '?' || c == '$' || c >= utf8.RuneSelf:
		p.proof()
	default:
		p.punctuation(c)
	}
	p.emptied = 0
}

func (p *pythonProof) punctuation(c rune) {
	p.endWord()
	if c == '(' && p.lastClose {
		p.acts = true
	}
	if c == ':' && p.lastActor {
		p.proof()
	}
	switch c {
	case '(', '[', '{':
		p.depth++
	case ')', ']', '}':
		if p.depth--; p.depth < 0 {
			p.depth = 0
			p.proof()
		}
	}
	if c == ':' && p.line == lineName {
		p.line = lineLabel
	} else {
		p.line = lineOther
	}
	p.lastWord, p.lastActor = false, false
	p.lastClose = c == ')' || c == ']' || c == '}'
}

// openString begins a string; an empty one followed by a quote of its kind
// begins a string of three.
func (p *pythonProof) openString(q byte) {
	if p.emptied == q {
		p.quote, p.triple, p.emptied, p.run = q, true, 0, 0
		return
	}
	if len(p.word) <= 2 && strings.ContainsAny(string(p.word), "fFtT") {
		p.unsure = true
	}
	p.line = lineOther
	p.word = p.word[:0] // a prefix, or a name beside the string
	p.lastWord, p.lastActor = false, false
	p.quote, p.triple = q, false
	p.emptied = q
}

// endWord closes a name or number, and looks at what stands before it.
func (p *pythonProof) endWord() {
	if len(p.word) == 0 {
		return
	}
	w := string(p.word)
	p.word = p.word[:0]
	if p.line == lineEmpty && !keywords[w] && w[0] > '9' {
		p.line = lineName
	} else {
		p.line = lineOther
	}
	if keywords[w] {
		p.acts = p.acts || actors[w]
		// "print (x)" and "exec (x)" call; "in (x)" does not.
		p.lastActor = w == "class" || w == "def" || w == "import"
		p.lastWord, p.lastClose = false, w == "print" || w == "exec" || w == "type" || w == "match" || w == "case"
		return
	}
	name := w[0] > '9'
	if p.lastWord && name {
		p.proof()
	}
	p.lastActor = false
	p.lastWord, p.lastClose = name, true
}
