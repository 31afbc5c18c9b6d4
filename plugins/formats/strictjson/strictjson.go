// Package strictjson reads JSON text (RFC 8259) that formats embed, token by
// token and without building a tree. It sees what a decoder into values hides:
// where a value lies, and keys that are there twice. Memory is that of the text;
// depth is bounded.
package strictjson

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// ErrSyntax says that the text is not JSON, or not of the shape that was asked for.
var ErrSyntax = errors.New("not the JSON expected")

// MaxDepth of arrays and objects within each other. Python's own decoder gives
// up at about a thousand.
const MaxDepth = 1000

// Kind is what a value is, by its first byte.
type Kind byte

// The kinds of values.
const (
	None   Kind = 0
	Object Kind = '{'
	Array  Kind = '['
	String Kind = '"'
	Number Kind = '0'
	Word   Kind = 'w'
)

// Reader reads one text.
type Reader struct {
	// Duplicate, when set, is told of each key that its object has had already.
	Duplicate func(key string, at int)

	text  []byte
	at    int
	depth int
}

// New begins to read text.
func New(text []byte) *Reader { return &Reader{text: text} }

// At is the offset of the next byte.
func (r *Reader) At() int { return r.at }

func (r *Reader) fail(what string) error {
	return fmt.Errorf("%w: %s at %d", ErrSyntax, what, r.at)
}

// Space passes over white space.
func (r *Reader) Space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// Kind is that of the next value; None at the end or before what is none.
func (r *Reader) Kind() Kind {
	r.Space()
	if r.at == len(r.text) {
		return None
	}
	switch c := r.text[r.at]; {
	case c == '{' || c == '[' || c == '"':
		return Kind(c)
	case c == '-' || c >= '0' && c <= '9':
		return Number
	case c == 't' || c == 'f' || c == 'n' || c == 'N' || c == 'I':
		return Word
	}
	return None
}

func (r *Reader) take(c byte) bool {
	r.Space()
	if r.at == len(r.text) || r.text[r.at] != c {
		return false
	}
	r.at++
	return true
}

// Object reads an object. The function is called at each value, which it must
// read, with the key and the key's offset.
func (r *Reader) Object(member func(key string, at int) error) error {
	if !r.take('{') {
		return r.fail("no object")
	}
	if r.depth++; r.depth > MaxDepth {
		return r.fail("too deep")
	}
	defer func() { r.depth-- }()
	if r.take('}') {
		return nil
	}
	var seen keys
	for {
		r.Space()
		at := r.at
		key, err := r.String()
		if err != nil {
			return err
		}
		if !r.take(':') {
			return r.fail("no colon")
		}
		if r.Duplicate != nil && seen.add(key) {
			r.Duplicate(key, at)
		}
		if err := member(key, at); err != nil {
			return err
		}
		if r.take('}') {
			return nil
		}
		if !r.take(',') {
			return r.fail("no comma")
		}
	}
}

// keys are those that an object has had: the first few in a list, since most
// objects have no more.
type keys struct {
	few  [8]string
	n    int
	many map[string]struct{}
}

// add adds a key, and reports whether it was there.
func (k *keys) add(key string) bool {
	if slices.Contains(k.few[:k.n], key) {
		return true
	}
	if k.n < len(k.few) {
		k.few[k.n] = key
		k.n++
		return false
	}
	if k.many == nil {
		k.many = make(map[string]struct{})
	}
	_, twice := k.many[key]
	k.many[key] = struct{}{}
	return twice
}

// Array reads an array. The function is called at each value, which it must read.
func (r *Reader) Array(item func(i int) error) error {
	if !r.take('[') {
		return r.fail("no array")
	}
	if r.depth++; r.depth > MaxDepth {
		return r.fail("too deep")
	}
	defer func() { r.depth-- }()
	if r.take(']') {
		return nil
	}
	for i := 0; ; i++ {
		if err := item(i); err != nil {
			return err
		}
		if r.take(']') {
			return nil
		}
		if !r.take(',') {
			return r.fail("no comma")
		}
	}
}

// Skip reads any value.
func (r *Reader) Skip() error {
	switch r.Kind() {
	case Object:
		return r.Object(func(string, int) error { return r.Skip() })
	case Array:
		return r.Array(func(int) error { return r.Skip() })
	case String:
		_, err := r.String()
		return err
	case Number:
		return r.number()
	case Word:
		return r.word()
	}
	return r.fail("no value")
}

func (r *Reader) word() error {
	for _, w := range []string{"true", "false", "null", "NaN", "Infinity"} {
		if len(r.text)-r.at >= len(w) && string(r.text[r.at:r.at+len(w)]) == w {
			r.at += len(w)
			return nil
		}
	}
	return r.fail("no word")
}

func (r *Reader) number() error {
	start := r.at
	for r.at < len(r.text) {
		switch c := r.text[r.at]; {
		case c >= '0' && c <= '9', c == '-', c == '+', c == '.', c == 'e', c == 'E':
			r.at++
			continue
		}
		break
	}
	if string(r.text[start:r.at]) == "-" {
		return r.word() // -Infinity, of Python's writer
	}
	if _, err := strconv.ParseFloat(string(r.text[start:r.at]), 64); err != nil && !errors.Is(err, strconv.ErrRange) {
		return r.fail("no number")
	}
	return nil
}

// Uint reads a number that is a plain unsigned integer below 2^63: no sign, no
// fraction, no exponent, no leading zero.
func (r *Reader) Uint() (uint64, error) {
	r.Space()
	start := r.at
	for r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9' {
		r.at++
	}
	digits := string(r.text[start:r.at])
	if len(digits) == 0 || len(digits) > 1 && digits[0] == '0' {
		return 0, r.fail("no plain integer")
	}
	if r.at < len(r.text) && (r.text[r.at] == '.' || r.text[r.at] == 'e' || r.text[r.at] == 'E') {
		return 0, r.fail("no plain integer")
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, r.fail("integer too large")
	}
	return n, nil
}

// String reads a string and decodes it. Text that is not UTF-8, and half a
// surrogate pair, are errors.
func (r *Reader) String() (string, error) {
	if !r.take('"') {
		return "", r.fail("no string")
	}
	start := r.at
	for r.at < len(r.text) && r.text[r.at] != '"' && r.text[r.at] != '\\' && r.text[r.at] >= ' ' {
		r.at++
	}
	out := r.text[start:r.at:r.at]
	for r.at < len(r.text) {
		c := r.text[r.at]
		switch {
		case c == '"':
			r.at++
			if !utf8.Valid(out) {
				return "", r.fail("string is not UTF-8")
			}
			return string(out), nil
		case c == '\\':
			var err error
			if out, err = r.escape(out); err != nil {
				return "", err
			}
			continue
		case c < ' ':
			return "", r.fail("control character in string")
		}
		out = append(out, c)
		r.at++
	}
	return "", r.fail("string has no end")
}

func (r *Reader) escape(out []byte) ([]byte, error) {
	if r.at+1 >= len(r.text) {
		return nil, r.fail("escape has no end")
	}
	c := r.text[r.at+1]
	for i, from := range []byte(`"\/bfnrt`) {
		if c == from {
			r.at += 2
			return append(out, "\"\\/\b\f\n\r\t"[i]), nil
		}
	}
	if c != 'u' {
		return nil, r.fail("unknown escape")
	}
	x, err := r.hex()
	if err != nil {
		return nil, err
	}
	if utf16.IsSurrogate(x) {
		if r.at+1 >= len(r.text) || r.text[r.at] != '\\' || r.text[r.at+1] != 'u' {
			return nil, r.fail("half a surrogate pair")
		}
		y, err := r.hex()
		if err != nil {
			return nil, err
		}
		if x = utf16.DecodeRune(x, y); x == utf8.RuneError {
			return nil, r.fail("half a surrogate pair")
		}
	}
	return utf8.AppendRune(out, x), nil
}

// hex reads \uXXXX.
func (r *Reader) hex() (rune, error) {
	if r.at+6 > len(r.text) {
		return 0, r.fail("escape has no end")
	}
	n, err := strconv.ParseUint(string(r.text[r.at+2:r.at+6]), 16, 16)
	if err != nil {
		return 0, r.fail("unknown escape")
	}
	r.at += 6
	return rune(n), nil
}
