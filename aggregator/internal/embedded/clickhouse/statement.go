package clickhouse

import (
	"slices"
	"strings"
)

// statement is what the HTTP interface has to know of a query's text. The
// engine would run several statements in one text, which a ClickHouse server
// refuses over HTTP; and it reads inserted data from a file only.
type statement struct {
	// text is the query without data that followed it.
	text string
	// insert is set for an INSERT that takes its rows as data in a format.
	insert bool
	// infile is the position in text where FROM INFILE belongs.
	infile int
	// format is the format that the text ends with, or empty.
	format string
	// data is what followed the format of an INSERT, in the text itself.
	data string
}

// token is a piece of SQL. Quoted text and comments are single tokens.
type token struct {
	start, end int
	word       string // in upper case; empty unless an unquoted identifier
	depth      int    // of parentheses
	separator  bool   // a semicolon
}

// parseStatement looks at the outline of a query and refuses a second
// statement after it.
func parseStatement(text string) (statement, error) {
	o := outline{statement: statement{text: text}, settings: -1}
	lex := lexer{text: text}
	for {
		t, ok := lex.next()
		switch {
		case !ok && o.tokens == 0:
			return statement{}, exceptionf(codeSyntaxError, "Empty query. (SYNTAX_ERROR)")
		case !ok:
			return o.statement, nil
		case t.separator && !o.ended:
			o.ended, o.text = true, text[:t.start]
		case t.separator:
		case o.ended:
			return statement{}, exceptionf(codeSyntaxError, "Multi-statements are not allowed: one statement a request. (SYNTAX_ERROR)")
		case o.add(t):
			return o.statement, nil
		}
	}
}

// outline collects a statement from its tokens.
type outline struct {
	statement
	tokens   int
	ended    bool
	takes    bool     // an INSERT whose rows have not been named yet
	settings int      // where SETTINGS begins, or -1
	last     [2]token // the tokens before, the nearest first
}

// add takes the next token and reports that the rest of the text is data.
func (o *outline) add(t token) (data bool) {
	if o.tokens == 0 {
		o.takes = t.word == "INSERT"
	}
	isFormat := t.depth == 0 && t.word != "" && o.last[0].word == "FORMAT" && !o.last[0].names(o.last[1], o.text)
	switch {
	case isFormat && o.takes:
		o.insert, o.infile = true, o.last[0].start
		if o.settings >= 0 {
			o.infile = o.settings
		}
		o.format, o.data = o.text[t.start:t.end], insertData(o.text[t.end:])
		o.text = o.text[:t.end]
		return true
	case isFormat:
		o.format = o.text[t.start:t.end]
	case t.depth == 0 && t.word == "SETTINGS":
		o.settings = t.start
	case o.settings < 0 || t.depth > 0:
		// A format is followed by nothing or SETTINGS: this was a column.
		o.format = ""
	}
	if t.depth == 0 && slices.Contains(rowSources, t.word) && !t.names(o.last[0], o.text) {
		o.takes = false
	}
	o.tokens++
	o.last[1], o.last[0] = o.last[0], t
	return false
}

// rowSources begin the rows of an INSERT that the engine finds by itself.
var rowSources = []string{"SELECT", "WITH", "VALUES", "INFILE", "WATCH"}

// names says that the word is a name, by what stands before it.
func (t token) names(before token, text string) bool {
	return slices.Contains([]string{"INTO", "TABLE", "FROM", "AS"}, before.word) ||
		before.word == "" && text[before.start:before.end] == "."
}

// insertData strips what may stand between a format's name and the data: one
// newline, or blanks, or the semicolon that ends a statement without data.
func insertData(rest string) string {
	trimmed := strings.TrimLeft(rest, " \t\r")
	if strings.TrimSpace(trimmed) == ";" {
		return ""
	}
	return strings.TrimPrefix(trimmed, "\n")
}

// withInfile is the INSERT's text that reads its rows from a file.
func (s statement) withInfile(path string) string {
	return s.text[:s.infile] + " FROM INFILE " + quoteString(path) + " " + s.text[s.infile:]
}

type lexer struct {
	text  string
	at    int
	depth int
}

// next returns the next token that is neither blank nor comment. Text that
// is not closed (a quote, a comment) runs to the end, as the engine will say.
func (l *lexer) next() (token, bool) {
	for l.at < len(l.text) {
		start, rest := l.at, l.text[l.at:]
		switch c := rest[0]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v' || c == 0:
			l.at++
		case strings.HasPrefix(rest, "--"), strings.HasPrefix(rest, "#!"), strings.HasPrefix(rest, "# "):
			l.skipPast("\n", 1)
		case strings.HasPrefix(rest, "/*"):
			l.skipComment()
		case c == '\'' || c == '"' || c == '`':
			l.skipQuoted(c)
			return token{start: start, end: l.at, depth: l.depth}, true
		case c == '$' && l.skipHeredoc():
			return token{start: start, end: l.at, depth: l.depth}, true
		case isWord(c):
			for l.at < len(l.text) && isWord(l.text[l.at]) {
				l.at++
			}
			return token{start: start, end: l.at, depth: l.depth, word: strings.ToUpper(l.text[start:l.at])}, true
		default:
			switch c {
			case '(', '[', '{':
				l.depth++
			case ')', ']', '}':
				l.depth--
			}
			l.at++
			return token{start: start, end: l.at, depth: l.depth, separator: c == ';'}, true
		}
	}
	return token{}, false
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func (l *lexer) skipPast(mark string, from int) {
	if i := strings.Index(l.text[l.at+from:], mark); i >= 0 {
		l.at += from + i + len(mark)
		return
	}
	l.at = len(l.text)
}

// skipComment passes a block comment; ClickHouse nests them.
func (l *lexer) skipComment() {
	for depth := 0; l.at < len(l.text); {
		switch rest := l.text[l.at:]; {
		case strings.HasPrefix(rest, "/*"):
			depth++
			l.at += 2
		case strings.HasPrefix(rest, "*/"):
			depth--
			l.at += 2
			if depth == 0 {
				return
			}
		default:
			l.at++
		}
	}
}

func (l *lexer) skipQuoted(quote byte) {
	for l.at++; l.at < len(l.text); l.at++ {
		switch l.text[l.at] {
		case '\\':
			l.at++
		case quote:
			// A doubled quote is one quote inside of the text.
			if l.at+1 >= len(l.text) || l.text[l.at+1] != quote {
				l.at++
				return
			}
			l.at++
		}
	}
	l.at = len(l.text)
}

// skipHeredoc passes $tag$…$tag$ and reports whether there was one.
func (l *lexer) skipHeredoc() bool {
	rest := l.text[l.at:]
	n := 1
	for n < len(rest) && isWord(rest[n]) {
		n++
	}
	if n >= len(rest) || rest[n] != '$' {
		return false
	}
	mark := rest[:n+1]
	if !strings.Contains(rest[len(mark):], mark) {
		return false
	}
	l.skipPast(mark, len(mark))
	return true
}

var stringEscapes = strings.NewReplacer(`\`, `\\`, `'`, `\'`)

// quoteString writes s as a ClickHouse string literal.
func quoteString(s string) string { return "'" + stringEscapes.Replace(s) + "'" }

var identifierEscapes = strings.NewReplacer(`\`, `\\`, "`", "\\`")

// quoteIdentifier writes s as a ClickHouse identifier.
func quoteIdentifier(s string) string { return "`" + identifierEscapes.Replace(s) + "`" }
