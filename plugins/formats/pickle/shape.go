package pickle

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"
)

// Use is what a stream does with an import. To import it alone needs no leave.
type Use uint8

const (
	// useCall is a call with arguments of the file's choice: REDUCE, INST, OBJ.
	useCall Use = 1 << iota
	// useNew makes an instance without __init__: NEWOBJ, NEWOBJ_EX, and
	// copyreg's helpers.
	useNew
	// useState sets the state of an instance, or of what a call has returned.
	useState
)

// uses are the words of the table.
var uses = map[string]Use{"call": useCall, "new": useNew, "state": useState}

// Shape is what a harmless name was vetted for.
type Shape struct {
	Uses Use
	// Args are the kinds of the arguments of a call, in order; nil is any number
	// of any kind. "…" at the end is any number of the kind before it.
	Args []string
	// Lacks are keys that a state must be known not to have.
	Lacks []string
}

// argKinds are the words for arguments.
//
//	any    any value; what it imports is judged by itself
//	data   a literal, or a container of such
//	text, bytes, int, none
//	class  an import, or none
//	tuple  a tuple or a list of anything
var argKinds = map[string]bool{"any": true, "data": true, "text": true, "bytes": true, "int": true, "none": true, "class": true, "tuple": true, "…": true}

func parseShape(use, args, lacks []string) (Shape, error) {
	var s Shape
	if use == nil {
		return s, errors.New("use is required, if only an empty list")
	}
	for _, u := range use {
		if uses[u] == 0 {
			return s, fmt.Errorf("use %q is not known", u)
		}
		s.Uses |= uses[u]
	}
	if args != nil && s.Uses&(useCall|useNew) == 0 {
		return s, errors.New("arguments of what is not called")
	}
	for i, a := range args {
		if !argKinds[a] || a == "…" && (i == 0 || i < len(args)-1) {
			return s, fmt.Errorf("argument %q is not known here", a)
		}
	}
	if lacks != nil && s.Uses&useState == 0 {
		return s, errors.New("keys of a state that is not set")
	}
	s.Args, s.Lacks = args, lacks
	return s, nil
}

// serves reports whether a use with these arguments, or with this state, is one
// that a shape allows.
func (m *machine) serves(s Shape, how Use, args value) bool {
	switch {
	case s.Uses&how == 0:
		return false
	case how == useState:
		return s.Lacks == nil || m.lacks(s.Lacks, args)
	}
	return m.fits(s, args)
}

// lacks reports whether a state is a dict all of whose keys are known, and none
// of them is among keys.
func (m *machine) lacks(keys []string, state value) bool {
	n := m.nodes.get(state)
	if n == nil || state.kind() != kindNode || state.shape() != nodeDict || !n.whole() {
		return false
	}
	for i := 0; i < n.n; i += 2 {
		key, ok := m.word(n.items[i])
		if !ok || slices.Contains(keys, key) {
			return false
		}
	}
	return true
}

// fits reports whether the arguments of a call are of a shape's kinds. Fewer
// are, since functions have defaults; arguments that are not known are not.
func (m *machine) fits(s Shape, args value) bool {
	if s.Args == nil {
		return true
	}
	n := m.nodes.get(args)
	if n == nil || args.kind() != kindNode {
		return false
	}
	for i := range n.n {
		kind := ""
		switch {
		case i < len(s.Args) && s.Args[i] != "…":
			kind = s.Args[i]
		case len(s.Args) > 1 && s.Args[len(s.Args)-1] == "…":
			kind = s.Args[len(s.Args)-2]
		default:
			return false
		}
		if i >= held || !m.isA(n.items[i], kind) {
			return false
		}
	}
	return true
}

func (m *machine) isA(v value, kind string) bool {
	switch kind {
	case "any":
		return true
	case "data":
		return m.isData(v, 0)
	case "text":
		return v.isText()
	case "bytes":
		return v.isBytes() || v.isText() || m.isEncoded(v)
	case "int":
		_, ok := m.integer(v)
		return ok
	case "none":
		return isNone(v)
	case "class":
		return v.kind() == kindGlobal || isNone(v)
	case "tuple":
		return v.kind() == kindNode && v.shape() != nodeDict
	}
	return false
}

// isEncoded reports whether v is bytes as protocols 0 to 2 write them.
func (m *machine) isEncoded(v value) bool {
	id, ok := v.callee()
	return ok && (m.globals[id].canonical == "codecs.encode" || m.globals[id].canonical == "builtins.bytes")
}

// isData reports whether v is a literal, or a container of nothing else as far
// as all of it is remembered.
func (m *machine) isData(v value, depth int) bool {
	switch v.kind() {
	case kindLiteral:
		return true
	case kindNode:
		n := m.nodes.get(v)
		if n == nil || n.mixed || depth > maxNesting {
			return false
		}
		for _, item := range n.known() {
			if !m.isData(item, depth+1) {
				return false
			}
		}
		return true
	}
	return m.isEncoded(v)
}

// Harmless reports whether the judgement is that a name is harmless for a use:
// "call", "new" or "state".
func (j Judgement) Harmless(use string) bool {
	return j.Judged == predicate.JudgedHarmless && j.Shape.Uses&uses[use] != 0
}
