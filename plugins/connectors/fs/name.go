package fs

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// encode spells a file's name so that it is UTF-8 and can be turned back: a byte
// that is of no UTF-8 sequence becomes %HH, and so does a percent sign that
// would otherwise read as the beginning of one. Every other name stays itself.
func encode(name string) string {
	if utf8.ValidString(name) && !strings.Contains(name, "%") {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		if r == utf8.RuneError && n == 1 || name[i] == '%' && isEscape(name[i:]) {
			fmt.Fprintf(&b, "%%%02X", name[i])
		} else {
			b.WriteString(name[i : i+n])
		}
		i += n
	}
	return b.String()
}

func isEscape(s string) bool {
	return len(s) >= 3 && s[0] == '%' && hex(s[1]) >= 0 && hex(s[2]) >= 0
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// decode is the inverse of encode, and refuses what encode does not give or
// what is no file's name.
func decode(s string) (string, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if isEscape(s[i:]) {
			b = append(b, byte(hex(s[i+1])<<4|hex(s[i+2])))
			i += 2
			continue
		}
		b = append(b, s[i])
	}
	name := string(b)
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || encode(name) != s {
		return "", errors.New("not a file's name")
	}
	return name, nil
}
