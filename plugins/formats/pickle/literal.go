package pickle

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// trimSpace takes off what int() and float() of CPython ignore.
func trimSpace(b []byte) []byte { return bytes.Trim(b, " \t\r\v\f\x00\n\x1c\x1d\x1e\x1f") }

// isInteger reports whether CPython would take the line as an int: base 0 of
// int(), and what strtol takes with base 0, for INT; a trailing L for LONG. It
// errs towards yes: where the loader breaks, walking on only finds more.
func isInteger(line []byte, long bool) bool {
	if i := bytes.IndexByte(line, 0); i > 0 {
		line = line[:i]
	}
	s := trimSpace(line)
	if long {
		s = bytes.TrimSuffix(s, []byte("L"))
	}
	if len(s) > 0 && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	digits := func(c byte) bool { return c >= '0' && c <= '9' }
	if len(s) > 2 && s[0] == '0' {
		switch s[1] | 0x20 {
		case 'x':
			s, digits = s[2:], func(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }
		case 'o', 'b':
			s = s[2:]
		}
	}
	seen := false
	for _, c := range s {
		switch {
		case digits(c):
			seen = true
		case c == '_':
		case c >= utf8.RuneSelf && len(s) <= maxLine:
			// int() takes the digits of other scripts.
			seen = true
		default:
			return false
		}
	}
	return seen
}

// isFloat reports whether CPython would take the line as a float.
func isFloat(line []byte) bool {
	s := strings.ToLower(strings.ReplaceAll(string(trimSpace(line)), "_", ""))
	switch strings.TrimLeft(s, "+-") {
	case "inf", "infinity", "nan":
		return true
	}
	if strings.ContainsAny(s, "xp") {
		return false
	}
	_, err := strconv.ParseFloat(s, 64)
	return err == nil || errors.Is(err, strconv.ErrRange)
}

// memoKey is the decimal key of GET and PUT. _pickle.c reads it up to a NUL.
func memoKey(line []byte) (int64, bool) {
	if i := bytes.IndexByte(line, 0); i > 0 {
		line = line[:i]
	}
	s := strings.ReplaceAll(string(trimSpace(line)), "_", "")
	key, err := strconv.ParseInt(s, 10, 64)
	return key, err == nil
}

// unescapeRaw decodes raw-unicode-escape: \uXXXX and \UXXXXXXXX after an odd
// number of backslashes, Latin-1 otherwise.
func unescapeRaw(b []byte) ([]byte, bool) {
	var out strings.Builder
	for i := 0; i < len(b); {
		if b[i] != '\\' {
			out.WriteRune(rune(b[i]))
			i++
			continue
		}
		run := i
		for i < len(b) && b[i] == '\\' {
			i++
		}
		n := i - run
		digits := 0
		if i < len(b) && n%2 == 1 {
			digits = map[byte]int{'u': 4, 'U': 8}[b[i]]
		}
		if digits == 0 {
			out.WriteString(strings.Repeat(`\`, n))
			continue
		}
		out.WriteString(strings.Repeat(`\`, n-1))
		r, ok := hexRune(b[i+1:], digits)
		if !ok {
			return nil, false
		}
		out.WriteRune(r)
		i += 1 + digits
	}
	return []byte(out.String()), true
}

func hexRune(b []byte, n int) (rune, bool) {
	if len(b) < n {
		return 0, false
	}
	v, err := strconv.ParseUint(string(b[:n]), 16, 32)
	return rune(v), err == nil
}

var escapes = map[byte]byte{
	'\\': '\\', '\'': '\'', '"': '"', 'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v',
}

// unescape decodes the bytes of a quoted literal, as bytes literals are.
func unescape(b []byte) ([]byte, bool) {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			out = append(out, b[i])
			continue
		}
		i++
		if i == len(b) {
			return nil, false
		}
		switch c := b[i]; {
		case escapes[c] != 0:
			out = append(out, escapes[c])
		case c == 'x':
			r, ok := hexRune(b[i+1:], 2)
			if !ok {
				return nil, false
			}
			out = append(out, byte(r))
			i += 2
		case c >= '0' && c <= '7':
			n := 1
			for n < 3 && i+n < len(b) && b[i+n] >= '0' && b[i+n] <= '7' {
				n++
			}
			v, err := strconv.ParseUint(string(b[i:i+n]), 8, 16)
			if err != nil {
				return nil, false
			}
			out = append(out, byte(v))
			i += n - 1
		default:
			out = append(out, '\\', c)
		}
	}
	return latin1(out), true
}
