package matlab

import (
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/tensor"
)

// The classes of arrays.
const (
	classCell, classStruct, classObject, classChar, classSparse = 1, 2, 3, 4, 5
	classFirst, classLast                                       = 6, 15 // numbers
	classFunction, classOpaque                                  = 16, 17

	flagComplex = 0x800
)

// matrix reads an array: what it is, and its data.
func (s *scan) matrix(e element, depth int) {
	if depth > maxDepth {
		s.r.Limit("arrays are nested too deep", predicate.LimitDepth)
	}
	s.r.Goto(e.start)
	if !s.r.Ok() || e.size() == 0 {
		return // an empty cell or field
	}
	flags := s.part(e.end, miUint32)
	if flags.size() != 8 {
		s.r.Fail("flags of another size")
		return
	}
	after := s.r.At()
	s.r.Goto(flags.start)
	what := s.r.U32()
	s.r.Goto(after)
	if what&0xff == classOpaque {
		s.opaque(e, depth)
		return
	}
	items, ok := s.dimensions(e.end)
	if !ok && s.r.Ok() {
		s.r.Fail("dimensions that overflow")
	}
	s.text(e.end)
	switch kind := what & 0xff; {
	case !s.r.Ok():
	case kind == classCell:
		s.matrices(items, e.end, depth)
	case kind == classStruct, kind == classObject:
		if kind == classObject {
			s.v.Found(ruleObject, ID, e.start, s.text(e.end))
		}
		s.fields(items, e.end, depth)
	case kind == classFunction:
		s.v.Found(ruleFunction, ID, e.start)
		s.function++
		s.matrices(1, e.end, depth)
		s.function--
	case kind == classSparse:
		s.part(e.end, miInt32, miUint32)
		s.part(e.end, miInt32, miUint32)
		s.numbers(-1, what, e.end)
	case kind == classChar:
		s.numbers(-1, 0, e.end) // of what width its characters are, depends on who wrote it
	case kind >= classFirst && kind <= classLast:
		s.numbers(items, what, e.end)
	default:
		s.r.Fail("an array of a class that is not known")
	}
	if s.r.Ok() && s.r.At() < e.end {
		s.r.Fail("bytes behind the end of an array")
	}
}

// dimensions gives the number of items in an array.
func (s *scan) dimensions(end int64) (int64, bool) {
	e := s.part(end, miInt32, miUint32)
	after := s.r.At()
	if e.size()/4 > tensor.MaxDims || e.size()%4 != 0 {
		return 0, false
	}
	s.r.Goto(e.start)
	var dims []uint64
	for range e.size() / 4 {
		dims = append(dims, uint64(s.r.U32()))
	}
	s.r.Goto(after)
	return tensor.Items(dims)
}

// numbers reads the data of an array of n items, or of any number below 0, and
// the imaginary ones behind.
func (s *scan) numbers(n int64, flags uint32, end int64) {
	parts := 1
	if flags&flagComplex != 0 {
		parts = 2
	}
	for range parts {
		e := s.element(end)
		width := widths[e.kind]
		switch {
		case !s.r.Ok():
			return
		case width == 0:
			s.r.Fail("data of a type that are no numbers")
			return
		case n >= 0 && e.kind != miUTF8 && e.kind != miUTF16 && e.kind != miUTF32 && e.size()/width != n:
			s.r.Fail("data that are not as long as the dimensions need")
			return
		}
		if s.function > 0 && e.size() > 0 {
			s.judgeText(e)
		}
		if e.size() >= bulk {
			s.v.Parsed(s.claimed, e.start)
			s.v.Inert(e.start, e.end)
			s.claimed = e.end
		}
		s.leave(e)
	}
}

// matrices reads n arrays within another.
func (s *scan) matrices(n, end int64, depth int) {
	if n > (end-s.r.At())/8 {
		s.r.Fail("more arrays than there is room for")
	}
	for i := int64(0); i < n && s.r.Ok(); i++ {
		e := s.element(end)
		if s.r.Ok() && e.kind != miMatrix {
			s.r.Fail("a cell that is no array")
			return
		}
		s.matrix(e, depth+1)
		s.leave(e)
	}
}

// fields reads the names of fields, and their arrays.
func (s *scan) fields(items, end int64, depth int) {
	length := s.part(end, miInt32)
	after := s.r.At()
	s.r.Goto(length.start)
	n := int64(s.r.U32())
	s.r.Goto(after)
	names := s.part(end, miInt8, miUint8, miUTF8)
	if !s.r.Ok() {
		return
	}
	if n <= 0 || n > maxName || names.size()%n != 0 {
		if names.size() != 0 {
			s.r.Fail("names of fields that are not as long as they say")
		}
		return
	}
	total, ok := tensor.Times(items, names.size()/n)
	if !ok {
		s.r.Fail("more fields than there is room for")
		return
	}
	s.matrices(total, end, depth)
}

// opaque reads an object of a class that only its own code knows: its name, the
// system that it is of, its class, and its data.
func (s *scan) opaque(e element, depth int) {
	s.text(e.end)
	system, name := s.text(e.end), s.text(e.end)
	if !s.r.Ok() {
		return
	}
	rule := ruleObject
	if system == "java" {
		rule = ruleJava
	}
	s.v.Found(rule, ID, e.start, system, name)
	s.v.Unread(e.start, e.start, predicate.UnsupportedFormat) // its meaning is its class's
	s.matrices(1, e.end, depth)
	if s.r.Ok() && s.r.At() < e.end {
		s.r.Fail("bytes behind the end of an object")
	}
}

// dangerous are functions of MATLAB that run programs or text, or reach out.
var dangerous = []string{
	"system", "unix", "dos", "perl", "python", "eval", "evalc", "evalin", "feval", "assignin", "builtin", "run", "urlread", "urlwrite", "webread",
	"webwrite", "websave", "loadlibrary", "calllib", "mex", "javaaddpath", "javaMethod", "javaObject", "delete", "rmdir", "fopen", "tcpclient", "pyrun", "pyrunfile",
}

// judgeText judges the text of a function.
func (s *scan) judgeText(e element) {
	text := s.characters(e, maxText)
	words := strings.FieldsFunc(text, func(c rune) bool {
		return c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	})
	for _, w := range words {
		for _, d := range dangerous {
			if w == d {
				s.v.Found(ruleDangerous, ID, e.start, d)
			}
		}
	}
	if e.size() > maxText {
		s.v.Unread(e.start, e.start, predicate.LimitBytes)
	}
}
