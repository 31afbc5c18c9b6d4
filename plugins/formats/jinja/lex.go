package jinja

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// errSyntax says that the text is no template of the language that is read here.
var errSyntax = errors.New("not a template that can be read")

// ErrLimit says that a template is deeper or has more parts than is read here.
// It may be one all the same.
var ErrLimit = fmt.Errorf("%w: beyond the limits", errSyntax)

// maxTokens of one template.
const maxTokens = 400_000

type kind uint8

const (
	endOfTag kind = iota
	name
	text
	number
	sign
)

// token is one of an expression's. For text, value is what its escapes mean.
type token struct {
	kind  kind
	value string
	at    int
}

// piece is a stretch of plain text, an output or a statement.
type piece struct {
	open   byte // 0 for plain text, '{' for an output, '%' for a statement
	text   string
	tokens []token
	at     int
}

// signs are the operators, longest first.
var signs = []string{"**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", ".", ",", ":", "|", "(", ")", "[", "]", "{", "}", ";"}

// lex cuts a template into pieces.
func lex(src string) ([]piece, error) {
	var pieces []piece
	tokenCount := 0
	for at := 0; at < len(src); {
		next := opening(src, at)
		if next > at {
			pieces = append(pieces, piece{text: src[at:next], at: at})
		}
		if next == len(src) {
			break
		}
		if src[next+1] == '#' {
			end := strings.Index(src[next+2:], "#}")
			if end < 0 {
				return nil, fmt.Errorf("%w: a comment has no end", errSyntax)
			}
			at = next + 2 + end + 2
			continue
		}
		p := piece{open: src[next+1], at: next}
		tokens, end, err := lexTag(src, next+2, p.open)
		if err != nil {
			return nil, err
		}
		p.tokens = tokens
		at = end
		if p.open == '%' && len(tokens) == 2 && tokens[0].value == "raw" {
			body, after, err := rawBlock(src, at)
			if err != nil {
				return nil, err
			}
			pieces = append(pieces, piece{text: body, at: at})
			at = after
			continue
		}
		pieces = append(pieces, p)
		if tokenCount += len(tokens); tokenCount > maxTokens {
			return nil, fmt.Errorf("%w: more than %d tokens", ErrLimit, maxTokens)
		}
	}
	return pieces, nil
}

func opening(src string, at int) int {
	for {
		i := strings.IndexByte(src[at:], '{')
		if i < 0 || at+i+1 >= len(src) {
			return len(src)
		}
		at += i
		switch src[at+1] {
		case '{', '%', '#':
			return at
		}
		at++
	}
}

// rawBlock returns the text up to the endraw tag, and where that ends.
func rawBlock(src string, at int) (string, int, error) {
	for from := at; ; {
		i := strings.Index(src[from:], "{%")
		if i < 0 {
			return "", 0, fmt.Errorf("%w: a raw block has no end", errSyntax)
		}
		tag := from + i
		if end := strings.Index(src[tag:], "%}"); end >= 0 && strings.Trim(src[tag+2:tag+end], "-+ \t\r\n") == "endraw" {
			return src[at:tag], tag + end + 2, nil
		}
		from = tag + 2
	}
}

// lexTag reads tokens up to the tag's end.
func lexTag(src string, at int, open byte) ([]token, int, error) {
	closing := "}}"
	if open == '%' {
		closing = "%}"
	}
	if at < len(src) && (src[at] == '-' || src[at] == '+') {
		at++
	}
	var tokens []token
	braces := 0
	for at < len(src) {
		rest := src[at:]
		if len(tokens) > maxTokens {
			return nil, 0, fmt.Errorf("%w: more than %d tokens", ErrLimit, maxTokens)
		}
		if braces == 0 {
			trimmed := strings.TrimPrefix(strings.TrimPrefix(rest, "-"), "+")
			if len(rest)-len(trimmed) <= 1 && strings.HasPrefix(trimmed, closing) {
				return append(tokens, token{kind: endOfTag, at: at}), len(src) - len(trimmed) + 2, nil
			}
		}
		switch c := rest[0]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			at++
			continue
		case c == '"' || c == '\'':
			n, s, err := lexText(rest)
			if err != nil {
				return nil, 0, err
			}
			tokens = append(tokens, token{text, s, at})
			at += n
			continue
		case c >= '0' && c <= '9':
			n := 1
			for n < len(rest) && (rest[n] == '_' || rest[n]|0x20 >= 'a' && rest[n]|0x20 <= 'z' || rest[n] >= '0' && rest[n] <= '9' ||
				rest[n] == '.' && n+1 < len(rest) && rest[n+1] >= '0' && rest[n+1] <= '9') {
				n++
			}
			tokens = append(tokens, token{number, rest[:n], at})
			at += n
			continue
		}
		if n := nameLength(rest); n > 0 {
			tokens = append(tokens, token{name, rest[:n], at})
			at += n
			continue
		}
		s := signAt(rest)
		switch s {
		case "":
			return nil, 0, fmt.Errorf("%w: a character that no token has, at %d", errSyntax, at)
		case "{":
			braces++
		case "}":
			braces--
		}
		tokens = append(tokens, token{sign, s, at})
		at += len(s)
	}
	return nil, 0, fmt.Errorf("%w: a tag has no end", errSyntax)
}

func signAt(s string) string {
	for _, x := range signs {
		if strings.HasPrefix(s, x) {
			return x
		}
	}
	return ""
}

func nameLength(s string) int {
	for i, r := range s {
		if r == '_' || unicode.IsLetter(r) || i > 0 && (unicode.IsDigit(r) || unicode.IsMark(r)) {
			continue
		}
		return i
	}
	return len(s)
}

// lexText reads a quoted text, and returns its length with the quotes and what it
// means.
func lexText(s string) (int, string, error) {
	quote := s[0]
	var b strings.Builder
	for i := 1; i < len(s); {
		switch c := s[i]; c {
		case quote:
			return i + 1, b.String(), nil
		case '\\':
			n, r := unescape(s[i:])
			if n == 0 {
				return 0, "", fmt.Errorf("%w: a text has no end", errSyntax)
			}
			b.WriteString(r)
			i += n
		default:
			b.WriteByte(c)
			i++
		}
	}
	return 0, "", fmt.Errorf("%w: a text has no end", errSyntax)
}

// unescape reads one escape as Python does, and returns its length. What is none
// stays as it is.
func unescape(s string) (int, string) {
	if len(s) < 2 {
		return 0, ""
	}
	if i := strings.IndexByte(`\'"abfnrtv`, s[1]); i >= 0 {
		return 2, "\\'\"\a\b\f\n\r\t\v"[i : i+1]
	}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[1]]
	if digits > 0 && len(s) >= 2+digits {
		if n, err := strconv.ParseUint(s[2:2+digits], 16, 32); err == nil && n <= utf8.MaxRune {
			return 2 + digits, string(rune(n))
		}
	}
	n := 1
	for n < len(s) && n < 4 && s[n] >= '0' && s[n] <= '7' {
		n++
	}
	if n > 1 {
		if c, err := strconv.ParseUint(s[1:n], 8, 16); err == nil {
			return n, string(rune(c))
		}
	}
	if end := strings.IndexByte(s, '}'); s[1] == 'N' && end > 0 && strings.EqualFold(s[2:end], "{low line") {
		return end + 1, "_"
	}
	if s[1] == '\n' {
		return 2, ""
	}
	return 1, `\`
}
