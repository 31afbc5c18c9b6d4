// Package python reads Python programs and says what they do when they are
// imported, when what loads a model makes and calls what they define, and when
// something else of them is called. It executes nothing: it follows statements in
// their order, all branches, with what is known of names, constants and the
// functions of the same file, and judges calls of everything else by exact paths.
//
// A program that cannot be read to its end, or followed within the bounds, is
// never complete. Definitions and ordinary calls give no finding.
package python

import (
	"context"
	"errors"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// ID is the format's id, and the class of its findings.
const ID = "python"

const (
	// MaxBytes is how long a program may be.
	MaxBytes = 4 << 20
	// cost is how much memory a byte of a program may take.
	cost = 20
)

// Program is what is known of a program.
type Program struct {
	problems []problem
	// Understood is set when it was read and followed to its end.
	Understood bool
	// Serious is the rule of a finding that makes the program fail, if any.
	Serious string
	// Imports are the modules that it imports, with the dots of relative ones, in
	// the order of the program. "from a import b" is "a" and "a.b", since b may be
	// one too.
	Imports []string
	// Plain is set when it consists of annotations and literals only, as settings
	// in YAML may.
	Plain bool
}

// Check reads and follows a program. An error says that it could not be read, or
// not be followed to its end; what was found until then is returned all the same.
func Check(src string) (Program, error) {
	t, err := shipped()
	if err != nil {
		return Program{}, err
	}
	l, err := lex(src)
	if err != nil {
		return Program{}, err
	}
	body, err := parse(l)
	if err != nil {
		return Program{}, err
	}
	r := newRunner(t)
	for _, d := range l.disguised {
		r.found(ruleDisguised, d.at, d.text)
	}
	r.program(body)
	r.problems = slices.DeleteFunc(r.problems, func(p problem) bool { return p.rule == ruleReference && r.called(p.what[0]) })
	p := Program{problems: r.problems, Imports: r.imported, Plain: plain(body)}
	for _, one := range r.problems {
		if one.rule == ruleDangerous || one.rule == ruleObscured || one.rule == ruleUse && p.Serious == "" {
			p.Serious = one.rule
		}
	}
	if r.spent || r.lost {
		return p, errLimit
	}
	return p, nil
}

func plain(body []*stmt) bool {
	for _, s := range body {
		literal := s.kind == stmtExpr && s.list[0].kind != exprCall && s.list[0].kind != exprText
		if !literal && s.kind != stmtAnnotated {
			return false
		}
	}
	return true
}

// Scan inspects content that may be a Python program, and claims it. It reports
// what it is known to be.
func Scan(_ context.Context, v *content.Visit) (Program, error) {
	v.Format = ID
	if v.Size > MaxBytes || !v.Budget.Hold(v.Size*cost) {
		v.Found(ruleUnparsed, ID, 0, "too long")
		v.Unread(0, v.Size, predicate.LimitBytes)
		return Program{}, nil
	}
	defer v.Budget.Release(v.Size * cost)
	b := make([]byte, v.Size)
	if err := content.ReadFull(v.Bytes, b, 0); err != nil {
		return Program{}, err
	}
	p, err := Check(string(b))
	for _, one := range p.problems {
		v.Found(one.rule, ID, int64(one.at), one.what...)
	}
	switch {
	case err == nil:
		p.Understood = true
		v.Parsed(0, v.Size)
	case errors.Is(err, errLimit):
		v.Found(ruleUnparsed, ID, 0, err.Error())
		v.Unread(0, v.Size, predicate.LimitMembers)
	case errors.Is(err, errSyntax):
		v.Found(ruleUnparsed, ID, 0, err.Error())
		v.Unread(0, v.Size, predicate.Malformed)
	default:
		return p, err
	}
	return p, nil
}
