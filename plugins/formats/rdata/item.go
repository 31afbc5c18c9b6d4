package rdata

import (
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// The types of objects, as R numbers them (Rinternals.h, serialize.c).
const (
	tSymbol, tList, tClosure, tEnvironment, tPromise, tCall    = 1, 2, 3, 4, 5, 6
	tSpecial, tBuiltin, tChars, tLogical, tInteger, tReal      = 7, 8, 9, 10, 13, 14
	tComplex, tStrings, tDots, tVector, tExpression, tBytecode = 15, 16, 17, 19, 20, 21
	tPointer, tWeak, tRaw, tS4                                 = 22, 23, 24, 25

	tAltrep, tAttrList, tAttrCall, tBaseEnv, tEmptyEnv, tRepRef, tRepDef = 238, 239, 240, 241, 242, 243, 244
	tPersistent, tPackage, tNamespace, tBaseNamespace                    = 247, 248, 249, 250
	tMissing, tUnbound, tGlobal, tNil, tRef                              = 251, 252, 253, 254, 255
)

const (
	flagAttributes = 1 << 9
	flagTag        = 1 << 10
	// flagActive marks a binding whose value a function computes.
	flagActive = 1 << (12 + 15)
)

// value is what a caller may need to know of an object.
type value struct {
	kind int
	// name is a symbol's or a text's.
	name string
	at   int64
	// bound is set for what a variable of an environment is bound to.
	bound bool
}

// item reads an object.
func (s *scan) item(depth int) value { return s.object(s.int(), depth) }

// object reads an object whose flags have been read.
func (s *scan) object(flags int32, depth int) value {
	v := value{kind: int(flags & 0xff), at: s.r.At(), bound: s.bound}
	s.bound = false
	if s.count() {
		return v
	}
	if depth > maxDepth {
		s.r.Limit("objects are nested too deep", predicate.LimitDepth)
		return v
	}
	switch v.kind {
	case tNil, tGlobal, tUnbound, tMissing, tBaseNamespace, tEmptyEnv, tBaseEnv:
		return v
	case tRef:
		return s.reference(flags, v)
	case tSymbol:
		v.name = s.item(depth + 1).name
		s.refs = append(s.refs, v.name)
		return v
	case tPersistent, tPackage, tNamespace:
		s.named(v, depth)
		return v
	case tEnvironment:
		s.refs = append(s.refs, "")
		s.int()
		s.item(depth + 1) // enclosing one
		s.frame(depth + 1)
		s.frame(depth + 1) // table of frames
		s.item(depth + 1)  // attributes
		return v
	case tList, tCall, tClosure, tPromise, tDots:
		s.pairs(flags, v, depth, false)
		return v
	case tAltrep:
		s.altrep(v, depth)
		return v
	}
	s.vector(&v, depth)
	if flags&flagAttributes != 0 {
		s.item(depth + 1)
	}
	return v
}

func (s *scan) reference(flags int32, v value) value {
	n := int64(uint32(flags) >> 8)
	if n == 0 {
		n = int64(s.int())
	}
	if n < 1 || n > int64(len(s.refs)) {
		s.r.Fail("a reference to an object that is not there")
		return v
	}
	if name := s.refs[n-1]; name != "" {
		v.kind, v.name = tSymbol, name
	}
	return v
}

// named reads what is found by its name: a package's environment or namespace,
// which R loads, or what the reader keeps.
func (s *scan) named(v value, depth int) {
	s.int()
	n := s.int()
	if n < 0 || n > 64 {
		s.r.Fail("a name of too many parts")
		return
	}
	for i := range n {
		name := s.item(depth + 1).name
		if i == 0 && s.r.Ok() {
			v.name = name
		}
	}
	s.refs = append(s.refs, "")
	s.judgePackage(v)
}

// pairs reads a list of pairs, and what is stored like one. What follows the
// first pair is read in a loop, since lists are long.
func (s *scan) pairs(flags int32, v value, depth int, frame bool) {
	c := calling{s: s, call: v.kind == tCall, kind: v.kind}
	for {
		if flags&flagAttributes != 0 {
			s.item(depth + 1)
		}
		tag := value{}
		if flags&flagTag != 0 {
			tag = s.item(depth + 1)
		}
		if flags&flagActive != 0 && s.r.Ok() {
			s.v.Found(ruleBinding, ID, v.at, tag.name)
		}
		s.bound = frame
		car := s.item(depth + 1)
		c.add(car)
		if depth == 0 && s.workspace {
			s.judgeHook(tag)
		}
		next := s.int()
		if s.count() {
			return
		}
		switch kind := int(next & 0xff); {
		case c.kind == tClosure || c.kind == tPromise:
			s.object(next, depth+1)
			s.judgeDelayed(v, car)
			return
		case kind == tList || kind == tCall || kind == tDots:
			flags = next
		default:
			s.object(next, depth+1)
			return
		}
	}
}

// frame reads the variables of an environment: a list of pairs, or a table of them.
func (s *scan) frame(depth int) {
	flags := s.int()
	v := value{kind: int(flags & 0xff), at: s.r.At()}
	switch {
	case s.count():
	case v.kind == tList:
		s.pairs(flags, v, depth, true)
	case v.kind == tVector:
		n := s.length()
		for i := int64(0); i < n && s.r.Ok(); i++ {
			if flags := s.int(); int(flags&0xff) == tList {
				s.pairs(flags, value{kind: tList, at: s.r.At()}, depth+1, true)
			} else {
				s.object(flags, depth+1)
			}
		}
		if flags&flagAttributes != 0 {
			s.item(depth + 1)
		}
	default:
		s.object(flags, depth)
	}
}

func (s *scan) altrep(v value, depth int) {
	info := s.int()
	var names []string
	if int(info&0xff) == tList {
		names = s.names(info, depth+1)
	} else {
		s.object(info, depth+1)
	}
	s.item(depth + 1) // state
	s.item(depth + 1) // attributes
	if len(names) < 2 {
		names = append(names, "", "")
	}
	switch {
	case !s.r.Ok():
	case strings.HasPrefix(names[0], "mmap_"):
		s.v.Found(ruleMap, ID, v.at, names[1], names[0])
	case names[1] != "base" || !altrep[names[0]]:
		s.v.Found(ruleAltrep, ID, v.at, names[1], names[0])
	}
}

// names are the symbols in a list of pairs.
func (s *scan) names(flags int32, depth int) []string {
	var list []string
	for int(flags&0xff) == tList && !s.count() && len(list) < 16 {
		if flags&flagAttributes != 0 {
			s.item(depth + 1)
		}
		if flags&flagTag != 0 {
			s.item(depth + 1)
		}
		list = append(list, s.item(depth+1).name)
		flags = s.int()
	}
	s.object(flags, depth+1)
	return list
}

// vector reads an object that is no list of pairs, without its attributes.
func (s *scan) vector(v *value, depth int) {
	switch v.kind {
	case tChars:
		n := int64(s.int())
		if n == -1 {
			return
		}
		if n < 0 || n > s.r.Left() {
			s.r.Fail("a text is longer than the content")
			return
		}
		v.name = s.chars(n)
	case tSpecial, tBuiltin:
		n := s.int()
		if n < 0 || n > maxText {
			s.r.Fail("the name of a function is too long")
			return
		}
		v.name = s.chars(int64(n))
		v.kind = tSymbol // it stands for the function
	case tLogical, tInteger:
		s.numbers(s.length(), 4)
	case tReal:
		s.numbers(s.length(), 8)
	case tComplex:
		s.numbers(s.length(), 16)
	case tRaw:
		s.numbers(s.length(), 1)
	case tStrings, tVector, tExpression:
		n := s.length()
		for i := int64(0); i < n && s.r.Ok(); i++ {
			if x := s.item(depth + 1); v.kind == tStrings && n == 1 {
				v.name = x.name
			}
		}
	case tBytecode:
		s.noteBytecode(v.at)
		s.int()
		s.code(depth + 1)
	case tPointer:
		s.refs = append(s.refs, "")
		s.notePointer(v.at)
		s.item(depth + 1)
		s.item(depth + 1)
	case tWeak:
		s.refs = append(s.refs, "")
	case tS4:
	default:
		s.r.Fail("an object of a type that is not known")
	}
}
