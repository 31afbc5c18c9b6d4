package plugin

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// text makes s fit a string of the wire: what is not UTF-8 is spelled \xHH, and
// what is over limit bytes is cut.
func text(s string, limit int) string {
	if !utf8.ValidString(s) {
		var b strings.Builder
		for i := 0; i < len(s) && b.Len() < limit; {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				fmt.Fprintf(&b, `\x%02x`, s[i])
			} else {
				b.WriteString(s[i : i+n])
			}
			i += n
		}
		s = b.String()
	}
	if len(s) <= limit {
		return s
	}
	s = s[:limit]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// words quotes and cuts what another process said, for an error.
func words(s string) string { return strconv.QuoteToASCII(text(s, maxErrorBytes)) }
