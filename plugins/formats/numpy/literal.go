package numpy

import (
	"errors"
	"fmt"
	"strconv"
)

// The values that a header's literal may have besides string, int64, bool and
// nil.
type (
	dict  map[string]any
	list  []any
	tuple []any
)

var errLiteral = errors.New("not a plain literal")

// maxLiteralDepth bounds nesting.
const maxLiteralDepth = 32

// literal parses a Python literal of dictionaries with string keys, lists,
// tuples, strings, integers, booleans and None: no expression, no call.
type literal struct {
	text []byte
	at   int
}

func parseLiteral(text []byte) (any, error) {
	p := &literal{text: text}
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if p.space(); p.at != len(p.text) {
		return nil, fmt.Errorf("%w: text after it", errLiteral)
	}
	return v, nil
}

func (p *literal) space() {
	for p.at < len(p.text) && (p.text[p.at] == ' ' || p.text[p.at] == '\n' || p.text[p.at] == '\t' || p.text[p.at] == '\r') {
		p.at++
	}
}

// peek is the next byte that is no white space, or 0.
func (p *literal) peek() byte {
	p.space()
	if p.at == len(p.text) {
		return 0
	}
	return p.text[p.at]
}

func (p *literal) value(depth int) (any, error) {
	if depth > maxLiteralDepth {
		return nil, fmt.Errorf("%w: too deep", errLiteral)
	}
	switch c := p.peek(); {
	case c == '{':
		return p.dict(depth)
	case c == '[':
		items, _, err := p.items(']', depth)
		return list(items), err
	case c == '(':
		items, comma, err := p.items(')', depth)
		if len(items) == 1 && !comma {
			return items[0], err
		}
		return tuple(items), err
	case c == '\'' || c == '"':
		return p.str()
	case c == '-' || c >= '0' && c <= '9':
		return p.integer()
	}
	for word, v := range map[string]any{"True": true, "False": false, "None": nil} {
		if len(p.text)-p.at >= len(word) && string(p.text[p.at:p.at+len(word)]) == word {
			p.at += len(word)
			return v, nil
		}
	}
	return nil, errLiteral
}

// items reads values up to the closing byte, and whether a comma stood last.
func (p *literal) items(closing byte, depth int) (items []any, comma bool, err error) {
	p.at++
	for {
		if p.peek() == closing {
			p.at++
			return items, comma, nil
		}
		if len(items) > 0 && !comma || len(items) > maxFields {
			return nil, false, errLiteral
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, false, err
		}
		items = append(items, v)
		if comma = p.peek() == ','; comma {
			p.at++
		}
	}
}

func (p *literal) dict(depth int) (any, error) {
	p.at++
	d := make(dict)
	for comma := true; ; {
		c := p.peek()
		if c == '}' {
			p.at++
			return d, nil
		}
		if !comma || c != '\'' && c != '"' {
			return nil, errLiteral
		}
		key, err := p.str()
		if err != nil {
			return nil, err
		}
		if _, twice := d[key]; twice || p.peek() != ':' {
			return nil, fmt.Errorf("%w: key %q", errLiteral, key)
		}
		p.at++
		if d[key], err = p.value(depth + 1); err != nil {
			return nil, err
		}
		if comma = p.peek() == ','; comma {
			p.at++
		}
	}
}

// str reads a quoted string. The escapes that a field's name may have are kept
// as they are: names do not matter here.
func (p *literal) str() (string, error) {
	quote := p.text[p.at]
	for i := p.at + 1; i < len(p.text); i++ {
		switch p.text[i] {
		case '\\':
			i++
		case quote:
			s := string(p.text[p.at+1 : i])
			p.at = i + 1
			return s, nil
		case '\n':
			return "", errLiteral
		}
	}
	return "", errLiteral
}

func (p *literal) integer() (any, error) {
	end := p.at + 1
	for end < len(p.text) && p.text[end] >= '0' && p.text[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(string(p.text[p.at:end]), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: number", errLiteral)
	}
	p.at = end
	// Python 2 wrote long integers so.
	if p.at < len(p.text) && p.text[p.at] == 'L' {
		p.at++
	}
	return n, nil
}
