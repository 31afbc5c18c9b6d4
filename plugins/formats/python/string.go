package python

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// str reads a string that begins at start with a prefix, in lower case.
func (l *lexer) str(start int, prefix string) error {
	quote := l.src[l.pos : l.pos+1]
	if strings.HasPrefix(l.src[l.pos:], strings.Repeat(quote, 3)) {
		quote = strings.Repeat(quote, 3)
	}
	l.pos += len(quote)
	raw, bytes := strings.Contains(prefix, "r"), strings.Contains(prefix, "b")
	if strings.ContainsAny(prefix, "ft") {
		return l.format(start, quote, raw)
	}
	text, err := l.plain(quote, raw, bytes)
	if err != nil {
		return err
	}
	if err := l.add(tokenString, start, text); err != nil {
		return err
	}
	l.tokens[len(l.tokens)-1].bytes = bytes
	return nil
}

// plain reads a string's characters and its closing quote.
func (l *lexer) plain(quote string, raw, bytes bool) (string, error) {
	var b strings.Builder
	from := l.pos
	for l.pos < len(l.src) {
		switch c := l.src[l.pos]; {
		case strings.HasPrefix(l.src[l.pos:], quote):
			b.WriteString(l.src[from:l.pos])
			l.pos += len(quote)
			return b.String(), nil
		case c == '\\':
			if l.pos+1 == len(l.src) {
				return "", errSyntax
			}
			if raw {
				l.pos += 2
				continue
			}
			b.WriteString(l.src[from:l.pos])
			n, s := escape(l.src[l.pos:], bytes)
			b.WriteString(s)
			l.pos += n
			from = l.pos
		case (c == '\n' || c == '\r') && len(quote) == 1:
			return "", errSyntax
		default:
			l.pos++
		}
	}
	return "", errSyntax
}

// escape reads one at the beginning of s, and returns its length and value.
func escape(s string, bytes bool) (int, string) {
	const plain = "\n\\'\"abfnrtv"
	c := s[1]
	if i := strings.IndexByte(plain, c); i >= 0 {
		return 2, []string{"", "\\", "'", "\"", "\a", "\b", "\f", "\n", "\r", "\t", "\v"}[i]
	}
	switch {
	case c == '\r':
		if len(s) > 2 && s[2] == '\n' {
			return 3, ""
		}
		return 2, ""
	case c >= '0' && c <= '7':
		n := 2
		for n < len(s) && n < 4 && s[n] >= '0' && s[n] <= '7' {
			n++
		}
		return n, unit(s[1:n], 8, bytes)
	case c == 'x' && len(s) >= 4:
		return 4, unit(s[2:4], 16, bytes)
	case c == 'u' && !bytes && len(s) >= 6:
		return 6, unit(s[2:6], 16, false)
	case c == 'U' && !bytes && len(s) >= 10:
		return 10, unit(s[2:10], 16, false)
	case c == 'N' && !bytes && len(s) > 2 && s[2] == '{':
		if end := strings.IndexByte(s[:min(len(s), 100)], '}'); end > 0 {
			return end + 1, named(s[3:end])
		}
	}
	return 1, "\\"
}

// unit is a character by its number; of bytes, the byte.
func unit(digits string, base int, bytes bool) string {
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil {
		return "\ufffd"
	}
	if bytes {
		return string([]byte{byte(n)})
	}
	return string(utf8.AppendRune(nil, rune(n))) //nolint:gosec // 32 bits were asked for; what is no character becomes the replacement
}

// named is a character by its Unicode name: letters only, since those spell names.
func named(name string) string {
	name = strings.ToUpper(name)
	if s, ok := strings.CutPrefix(name, "LATIN SMALL LETTER "); ok && len(s) == 1 {
		return strings.ToLower(s)
	}
	if s, ok := strings.CutPrefix(name, "LATIN CAPITAL LETTER "); ok && len(s) == 1 {
		return s
	}
	switch name {
	case "LOW LINE", "UNDERSCORE":
		return "_"
	case "FULL STOP":
		return "."
	}
	return "\ufffd"
}

// format reads an f-string. Strings may nest in its fields with any quotes, as
// from Python 3.12 on; before, that is an error and so no other program.
func (l *lexer) format(start int, quote string, raw bool) error {
	t := token{kind: tokenString, at: l.base + start}
	if err := l.pieces(&t, quote, raw, false); err != nil {
		return err
	}
	if len(l.tokens) >= maxTokens {
		return errLimit
	}
	l.tokens = append(l.tokens, t)
	return nil
}

// pieces reads literals and fields up to the closing quote, or to the end of a
// format specification.
func (l *lexer) pieces(t *token, quote string, raw, spec bool) error {
	l.nesting++
	defer func() { l.nesting-- }()
	if l.nesting > maxNesting {
		return errLimit
	}
	var b strings.Builder
	flush := func() {
		if b.Len() > 0 {
			t.parts = append(t.parts, part{literal: b.String()})
			b.Reset()
		}
	}
	for l.pos < len(l.src) {
		c := l.src[l.pos]
		rest := l.src[l.pos:]
		switch {
		case spec && c == '}':
			flush()
			return nil
		case strings.HasPrefix(rest, quote):
			if spec {
				return errSyntax
			}
			flush()
			l.pos += len(quote)
			return nil
		case c == '\\' && len(rest) > 1:
			if n, s := escape(rest, false); !raw {
				b.WriteString(s)
				l.pos += n
				continue
			}
			b.WriteByte(c)
			l.pos++
			if rest[1] != '{' && rest[1] != '}' {
				b.WriteByte(rest[1])
				l.pos++
			}
		case !spec && (strings.HasPrefix(rest, "{{") || strings.HasPrefix(rest, "}}")):
			b.WriteByte(c)
			l.pos += 2
		case c == '{':
			flush()
			if err := l.field(t, quote, raw); err != nil {
				return err
			}
		case c == '}' || (c == '\n' || c == '\r') && len(quote) == 1 && !spec:
			return errSyntax
		default:
			b.WriteByte(c)
			l.pos++
		}
	}
	return errSyntax
}

// field reads "{expression!r:specification}".
func (l *lexer) field(t *token, quote string, raw bool) error {
	l.pos++
	from, depth := l.pos, 0
	for l.pos < len(l.src) {
		c := l.src[l.pos]
		switch {
		case c == '"' || c == '\'':
			if err := l.skipString(); err != nil {
				return err
			}
			continue
		case c == '#':
			l.comment()
			continue
		case c == '(' || c == '[' || c == '{':
			depth++
		case depth > 0 && (c == ')' || c == ']' || c == '}'):
			depth--
		case depth == 0 && (c == '}' || c == ':' || c == '!' && !strings.HasPrefix(l.src[l.pos:], "!=")):
			t.parts = append(t.parts, part{source: l.src[from:l.pos], at: l.base + from, field: true})
			return l.afterField(t, quote, raw)
		}
		l.pos++
	}
	return errSyntax
}

func (l *lexer) afterField(t *token, quote string, raw bool) error {
	if l.src[l.pos] == '!' {
		for l.pos++; l.pos < len(l.src) && l.src[l.pos]|0x20 >= 'a' && l.src[l.pos]|0x20 <= 'z'; {
			l.pos++
		}
	}
	if l.pos < len(l.src) && l.src[l.pos] == ':' {
		l.pos++
		if err := l.pieces(t, quote, raw, true); err != nil {
			return err
		}
	}
	if l.pos >= len(l.src) || l.src[l.pos] != '}' {
		return errSyntax
	}
	l.pos++
	return nil
}

// skipString goes past a string in a field; it is read when the field is.
func (l *lexer) skipString() error {
	before := l.pos
	for before > 0 && strings.IndexByte("rRbBuUfFtT", l.src[before-1]) >= 0 {
		before--
	}
	sub := &lexer{src: l.src, base: l.base, pos: l.pos, nesting: l.nesting + 1}
	if sub.nesting > maxNesting {
		return errLimit
	}
	prefix := strings.ToLower(l.src[before:l.pos])
	if !isPrefix(prefix) {
		prefix = ""
	}
	err := sub.str(l.pos, prefix)
	l.pos = sub.pos
	return err
}

// fieldTokens are those of the expression in a field; "x=" shows its own text.
func fieldTokens(p part, nesting int) ([]token, error) {
	src := strings.TrimRight(p.source, " \t\r\n")
	if strings.HasSuffix(src, "=") && !strings.HasSuffix(src, "==") && !strings.HasSuffix(src, "!=") && !strings.HasSuffix(src, "<=") && !strings.HasSuffix(src, ">=") {
		src = strings.TrimSuffix(src, "=")
	}
	l := &lexer{src: src, base: p.at, bracket: []byte{0}, nesting: nesting}
	if err := l.logicalLine(); err != nil {
		return nil, err
	}
	if len(l.bracket) != 1 {
		return nil, errSyntax
	}
	last := &l.tokens[len(l.tokens)-1]
	last.kind = tokenEnd
	return l.tokens, nil
}
