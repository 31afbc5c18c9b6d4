// Package jinja reads chat templates (Jinja2, as transformers and llama.cpp use
// it) to a tree, and says what in them leaves the conversation that they are to
// format: a walk to an object's internals, by any spelling that can be computed
// here; a load of other templates; text that is added when the conversation
// holds certain words; and characters that a reviewer does not see.
//
// A template that cannot be read is a finding and never complete. What is read
// and holds none of it is complete.
package jinja

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// ID is the format's id, and the class of its findings.
const ID = "jinja"

// MaxBytes is how long a template may be. Real ones have some ten thousand bytes;
// text with a little of one in it may be long.
const MaxBytes = 16 << 20

// The rules of this package.
const (
	ruleComputed  = "template.attribute.computed"
	ruleHidden    = "template.character.hidden"
	ruleInjection = "template.injection"
	ruleInternals = "template.internals"
	ruleLoad      = "template.load"
	ruleTrigger   = "template.trigger"
	ruleUnparsed  = "template.unparsed"
)

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{ruleComputed, ruleHidden, ruleInjection, ruleInternals, ruleLoad, ruleTrigger, ruleUnparsed}
}

// Problem is what a template does that it should not.
type Problem struct {
	Rule string
	// At is an offset in the template, in bytes.
	At   int
	What string
}

// Check reads a template. It returns an error, besides what could be seen all the
// same, when the template cannot be read.
func Check(src string) ([]Problem, error) {
	c := &checker{values: make(map[string][]string), content: make(map[string]bool), known: make(map[*expr]value)}
	c.hidden(src, 0)
	tree, err := parse(src)
	if err != nil {
		return c.problems, err
	}
	c.body(tree)
	c.splitNames()
	return c.problems, nil
}

// Scan inspects content that is one template.
func Scan(_ context.Context, v *content.Visit) error {
	v.Format = ID
	if v.Size > MaxBytes || !v.Budget.Hold(2*v.Size) {
		v.Found(ruleUnparsed, ID, 0, "too long")
		v.Unread(0, v.Size, predicate.LimitBytes)
		return nil
	}
	defer v.Budget.Release(2 * v.Size)
	b := make([]byte, v.Size)
	if err := content.ReadFull(v.Bytes, b, 0); err != nil {
		return err
	}
	if Report(v, string(b), func(at int) int64 { return int64(at) }) {
		v.Parsed(0, v.Size)
	} else {
		v.Unread(0, v.Size, predicate.Malformed)
	}
	return nil
}

// Report adds a template's problems to a visit, and reports whether it could be
// read. The function maps offsets in the template to those in the content.
func Report(v *content.Visit, src string, place func(int) int64) bool {
	if len(src) > MaxBytes {
		v.Found(ruleUnparsed, ID, place(0), "too long")
		return false
	}
	problems, err := Check(src)
	for _, p := range problems {
		v.Found(p.Rule, ID, place(p.At), strings.ToValidUTF8(p.What, "\uFFFD"))
	}
	if errors.Is(err, errSyntax) {
		v.Found(ruleUnparsed, ID, place(0), err.Error())
		return false
	}
	return true
}

// Hidden reports whether a reader of text would not see the character, or would
// see the text in another order: zero width, marks of direction, tags, variation
// selectors, fillers.
func Hidden(r rune) bool {
	switch {
	case r >= 0x200b && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2060 && r <= 0x206f,
		r >= 0xe0000 && r <= 0xe0fff, r >= 0xfe00 && r <= 0xfe0f, r >= 0xfff9 && r <= 0xfffb,
		r == 0xfeff, r == 0xad, r == 0x34f, r == 0x61c, r == 0x115f, r == 0x1160, r == 0x180e, r == 0x3164, r == 0xffa0:
		return true
	}
	return false
}

// hidden looks for characters that are not seen. A joiner or a selector behind a
// symbol is how an emoji is written, and a mark of byte order may stand first.
func (c *checker) hidden(src string, at int) {
	var before rune
	for i, r := range src {
		emoji := (r == 0x200d || r == 0xfe0f) && (before >= 0x2190 && before < 0xe000 || before >= 0x1f000 && before < 0xe0000)
		first := i == 0 && r == 0xfeff && at == 0
		if Hidden(r) && !emoji && !first {
			c.found(ruleHidden, at+i, "U+"+hex(r))
			return
		}
		if r != utf8.RuneError {
			before = r
		}
	}
}

func hex(r rune) string {
	const digits = "0123456789ABCDEF"
	out := ""
	for ; r > 0 || len(out) < 4; r >>= 4 {
		out = string(digits[r&15]) + out
	}
	return out
}
