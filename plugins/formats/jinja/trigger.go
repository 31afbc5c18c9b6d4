package jinja

import (
	"slices"
	"strings"
	"unicode"
)

// isContent reports whether a member of a message holds what somebody wrote.
func isContent(member string) bool { return member == "content" || member == "text" }

// body walks statements in order.
func (c *checker) body(list []*node) {
	for _, n := range list {
		c.node(n)
	}
}

func (c *checker) node(n *node) {
	var last value
	for _, e := range n.exprs {
		last = c.walk(e)
	}
	switch n.tag {
	case "include", "import", "extends", "from":
		c.found(ruleLoad, n.at, n.tag)
	case "set", "with", "for":
		for _, id := range n.names {
			if len(n.branches) == 0 || n.tag != "set" {
				if (len(last.texts) == 0) != (len(c.values[id]) == 0) && !last.constant && n.tag == "set" {
					last.texts = append(slices.Clone(last.texts), others) // known texts, or something else
				}
				c.values[id] = bounded(append(c.values[id], last.texts...))
				c.content[id] = c.content[id] || last.content && n.tag != "for"
			}
		}
	case "if":
		for i, b := range n.branches {
			c.walk(b.condition)
			what := outputs(b.body)
			if i+1 < len(n.branches) && n.branches[i+1].condition == nil {
				what = append(what, outputs(n.branches[i+1].body)...)
			}
			if b.condition != nil {
				c.choice(b.condition, what, n.at)
			}
		}
	}
	for _, b := range n.branches {
		c.body(b.body)
	}
}

// outputs are the texts that nodes write or keep by themselves, without what is
// handed in.
func outputs(list []*node) []string {
	var out []string
	for _, n := range list {
		switch n.tag {
		case "":
			out = append(out, n.text)
		case "output", "set":
			for _, e := range n.exprs {
				out = append(out, written(e, 0)...)
			}
		}
		for _, b := range n.branches {
			if n.tag != "if" { // that has its own condition
				out = append(out, outputs(b.body)...)
			}
		}
	}
	return out
}

// written are the constants of an expression that end up in its value.
func written(e *expr, depth int) []string {
	if e == nil || depth > maxDepth {
		return nil
	}
	switch e.op {
	case "text":
		return []string{e.value}
	case "+", "~", "list", "tuple", "dict":
		var out []string
		for _, a := range e.args {
			out = append(out, written(a, depth+1)...)
		}
		return out
	case "filter":
		return written(e.args[0], depth+1)
	case "if":
		return append(written(e.args[1], depth+1), written(e.args[2], depth+1)...)
	}
	return nil
}

// choice judges a condition and what is written under it: a template that adds
// words of its own because the conversation holds certain words, or because of
// the date, does something to the model that nobody asked for.
func (c *checker) choice(condition *expr, texts []string, at int) {
	trigger := c.trigger(condition, 0)
	if trigger == "" {
		return
	}
	for _, t := range texts {
		if words(t) {
			c.found(ruleTrigger, at, trigger)
			return
		}
	}
}

// trigger returns the words that a condition waits for.
func (c *checker) trigger(e *expr, depth int) string {
	if e == nil || depth > maxDepth {
		return ""
	}
	literal, other := "", (*expr)(nil)
	switch {
	case e.op == "in" || e.op == "not in" || e.op == "==" || e.op == "!=" || e.op == "<" || e.op == ">" || e.op == "<=" || e.op == ">=":
		for i, a := range e.args {
			if l := phrase(a); l != "" {
				literal, other = l, e.args[1-i]
			}
		}
	case e.op == "call" && e.args[0].op == "attr" && len(e.args) > 1:
		switch e.args[0].value {
		case "startswith", "endswith", "find", "count", "index":
			literal, other = phrase(e.args[1]), e.args[0].args[0]
		}
	}
	if literal != "" && (c.mentions(other, 0) && !marker(literal) || clock(other, 0)) {
		return literal
	}
	for _, a := range e.args {
		if t := c.trigger(a, depth+1); t != "" {
			return t
		}
	}
	return ""
}

// phrase is the constant of an expression that is one, or a list of them.
func phrase(e *expr) string {
	if e.op == "text" {
		return e.value
	}
	if e.op == "list" || e.op == "tuple" {
		for _, a := range e.args {
			if a.op == "text" && !marker(a.value) {
				return a.value
			}
		}
	}
	return ""
}

// mentions reports whether an expression reads what somebody wrote.
func (c *checker) mentions(e *expr, depth int) bool {
	if e == nil || depth > maxDepth {
		return false
	}
	switch e.op {
	case "name":
		return c.content[e.value] || isContent(e.value)
	case "attr":
		if isContent(e.value) || e.args[0].op == "name" && c.content[e.args[0].value+"."+e.value] {
			return true
		}
		return e.value != "role" && e.value != "type" && c.mentions(e.args[0], depth+1)
	case "item":
		if len(e.args) == 2 && e.args[1].op == "text" {
			return isContent(e.args[1].value) || e.args[1].value != "role" && e.args[1].value != "type" && c.mentions(e.args[0], depth+1)
		}
	case "test":
		return false
	}
	for _, a := range e.args {
		if c.mentions(a, depth+1) {
			return true
		}
	}
	return false
}

// clock reports whether an expression asks for the time.
func clock(e *expr, depth int) bool {
	if e == nil || depth > maxDepth {
		return false
	}
	if e.op == "name" && (e.value == "strftime_now" || e.value == "now") {
		return true
	}
	for _, a := range e.args {
		if clock(a, depth+1) {
			return true
		}
	}
	return false
}

// marker reports whether a text is a mark of the conversation's format, such as
// <|im_start|>, [INST] or a fence, or holds no word at all.
func marker(s string) bool {
	s = strings.TrimSpace(s)
	if s == "" || strings.HasPrefix(s, "<") || strings.HasPrefix(s, "[") || strings.HasPrefix(s, "/") || strings.HasSuffix(s, ">") {
		return true
	}
	return strings.IndexFunc(s, unicode.IsLetter) < 0
}

// words reports whether a text holds two words or more, besides marks of the
// conversation's format.
func words(s string) bool {
	var plain strings.Builder
	depth := 0
	for _, r := range s {
		switch r {
		case '<', '[':
			depth++
		case '>', ']':
			depth = max(0, depth-1)
			r = ' '
		}
		if depth == 0 {
			plain.WriteRune(r)
		}
	}
	n := 0
	for w := range strings.FieldsSeq(plain.String()) {
		if strings.IndexFunc(w, unicode.IsLetter) >= 0 {
			n++
		}
	}
	return n >= 2
}
