package python

import "slices"

// valueKind says what is known of a value.
type valueKind uint8

const (
	// valueText is a constant text or bytes; valueNumber a whole number.
	valueText valueKind = iota
	valueNumber
	// valueOpaque is what a decoder made of something that is not known here.
	valueOpaque
	// valueRef is what an import or a builtin name leads to, by its path.
	valueRef
	valueFunction
	valueClass
	valueInstance
	// valueList is any sequence, valueDict a mapping by constant keys.
	valueList
	valueDict
	// valueMethod is a method of a constant or of a container.
	valueMethod
	// valueRest stands for alternatives, or items, beyond those that are kept.
	valueRest
)

// value is one thing that an expression may be. What is not known is no value.
type value struct {
	kind valueKind
	// text is a constant, a path, or a method's name.
	text   string
	number int64
	// decoded says that a constant was put together so that it cannot be read in
	// the source: from base64, numbers, or backwards.
	decoded bool
	// made says that a reference is what calling its path gives, space that it
	// is the namespace of what its path names.
	made, space bool
	// method says that it is an attribute of what was made.
	method bool
	fn     *function
	scope  *scope
	// defaults are those of a function's parameters, by their place.
	defaults []values
	self     *value
	// property, ofClass and static are how a function is an attribute: called when
	// it is read, with the class before its arguments, or with nothing.
	property, ofClass, static bool
	class                     *class
	items                     []values
	fields                    map[string]values
	// dropped says that a container holds more than is kept.
	dropped bool
}

// values are the alternatives of what an expression may be; none is not known.
type values []*value

// maxAlternatives of a value are kept, the first ones, and then one that stands
// for the others.
const maxAlternatives = 64

var rest, restOfTexts = &value{kind: valueRest}, &value{kind: valueOpaque}

func (v values) add(more ...*value) values {
	for _, m := range more {
		plain := m.kind <= valueOpaque
		switch {
		case len(v) < maxAlternatives && !v.has(m):
			v = append(v, m)
		case len(v) < maxAlternatives || v.has(m):
		case len(v) == maxAlternatives && plain:
			v = append(v, restOfTexts)
		case len(v) == maxAlternatives || v[maxAlternatives] == restOfTexts && !plain:
			v = append(slices.Clone(v[:maxAlternatives]), rest)
		}
	}
	return v
}

func (v values) has(m *value) bool {
	for _, x := range v {
		if x == m || x.kind == m.kind && m.kind <= valueRef && x.text == m.text && x.number == m.number && x.made == m.made && x.space == m.space {
			return true
		}
	}
	return false
}

// texts reports whether all alternatives are constant texts.
func texts(v values) bool {
	for _, x := range v {
		if x.kind != valueText {
			return false
		}
	}
	return true
}

func ref(path string) *value { return &value{kind: valueRef, text: canonical(path)} }

func text(s string, decoded bool) *value { return &value{kind: valueText, text: s, decoded: decoded} }

// class is one that the program makes.
type class struct {
	name   string
	scope  *scope
	bases  values
	fields map[string]values
	// dropped says that it has more fields than are kept.
	dropped bool
}

// scope holds names. A class's is not seen from the functions in it.
type scope struct {
	names   map[string]values
	parent  *scope
	class   bool
	globals map[string]bool
}

func newScope(parent *scope) *scope { return &scope{names: make(map[string]values), parent: parent} }

// outer is the next scope that a function in s sees.
func (s *scope) outer() *scope {
	for o := s.parent; o != nil; o = o.parent {
		if !o.class {
			return o
		}
	}
	return nil
}

func (s *scope) module() *scope {
	for s.parent != nil {
		s = s.parent
	}
	return s
}

// find looks a name up, without the builtin ones.
func (s *scope) find(name string) (values, bool) {
	if s.globals[name] {
		v, ok := s.module().names[name]
		return v, ok
	}
	for ; s != nil; s = s.outer() {
		if v, ok := s.names[name]; ok {
			return v, true
		}
	}
	return nil, false
}
