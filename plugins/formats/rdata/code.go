package rdata

import (
	"github.com/cavra/cavra/schemas/predicate"
)

// maxConstants bounds those of one piece of bytecode.
const maxConstants = 1_000_000

// code reads a piece of bytecode: its instructions, which stay unread, and its
// constants, which hold every name that it uses.
func (s *scan) code(depth int) {
	if depth > maxDepth {
		s.r.Limit("objects are nested too deep", predicate.LimitDepth)
		return
	}
	from := s.r.At()
	s.claim()
	s.item(depth + 1)
	if s.r.Ok() {
		s.v.Unread(from, s.r.At(), predicate.UnsupportedFormat)
		s.claimed = s.r.At()
	}
	n := s.int()
	if n < 0 || n > maxConstants {
		s.r.Fail("too many constants")
		return
	}
	for range n {
		if s.count() {
			return
		}
		switch kind := int(s.int()); kind {
		case tBytecode:
			s.code(depth + 1)
		case tCall, tList, tRepDef, tRepRef, tAttrCall, tAttrList:
			s.language(kind, depth+1)
		default:
			if v := s.item(depth + 1); v.kind == tSymbol {
				s.judgeName(v, strict)
			}
		}
	}
}

// language reads a call or a list as bytecode has it among its constants.
func (s *scan) language(kind, depth int) value {
	v := value{kind: kind, at: s.r.At()}
	if depth > maxDepth {
		s.r.Limit("objects are nested too deep", predicate.LimitDepth)
		return v
	}
	c := calling{s: s, kind: tCall}
	for first := true; !s.count(); first = false {
		if kind == tRepDef {
			s.int()
			kind = int(s.int())
		}
		switch kind {
		case tRepRef:
			s.int()
			return v
		case tCall, tList, tAttrCall, tAttrList:
		default:
			x := s.item(depth + 1)
			if first {
				return x
			}
			return v
		}
		if first {
			c.call = kind == tCall || kind == tAttrCall
		}
		if kind == tAttrCall || kind == tAttrList {
			s.item(depth + 1)
		}
		s.item(depth + 1) // tag
		c.add(s.language(int(s.int()), depth+1))
		kind = int(s.int())
	}
	return v
}
