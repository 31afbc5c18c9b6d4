package pickle

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxTrace is the length of a trace in bytes, maxSpelled that of one str.
	maxTrace   = 240
	maxSpelled = 60
	unseen     = "…"
)

// speller writes values as Python would, bounded in length and depth.
type speller struct {
	m   *machine
	out strings.Builder
}

func (m *machine) spell(v value) string {
	s := speller{m: m}
	s.value(v, 0)
	return clip(s.out.String())
}

func (m *machine) spellCall(callee, args value) string {
	s := speller{m: m}
	s.value(callee, 1)
	s.arguments(args, 1)
	return clip(s.out.String())
}

// spellUse is a use of an import.
func (m *machine) spellUse(callee value, how Use, args value) string {
	s := speller{m: m}
	s.value(callee, 1)
	switch how {
	case useNew:
		s.out.WriteString(".__new__")
	case useState:
		s.out.WriteString("().__setstate__(")
		s.value(args, 1)
		s.out.WriteByte(')')
		return clip(s.out.String())
	}
	s.arguments(args, 1)
	return clip(s.out.String())
}

func (m *machine) spellSet(target, state value) string {
	s := speller{m: m}
	s.value(target, 1)
	s.out.WriteString(" ← ")
	s.value(state, 1)
	return clip(s.out.String())
}

func (m *machine) spellItems(target value, items []value) string {
	s := speller{m: m}
	s.value(target, 1)
	s.out.WriteString(" ← [")
	s.list(items[:min(len(items), held)], len(items), 1)
	s.out.WriteByte(']')
	return clip(s.out.String())
}

// clip cuts a trace to its length, and makes it valid text.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "�")
	if len(s) <= maxTrace {
		return s
	}
	n := maxTrace - len(unseen)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + unseen
}

func (s *speller) full() bool { return s.out.Len() > maxTrace }

func (s *speller) arguments(args value, depth int) {
	n := s.m.nodes.get(args)
	if n == nil || args.kind() != kindNode {
		s.out.WriteString("(" + unseen + ")")
		return
	}
	s.out.WriteByte('(')
	s.list(n.known(), n.n, depth)
	s.out.WriteByte(')')
}

func (s *speller) list(items []value, n, depth int) {
	for i, v := range items {
		if s.full() {
			return
		}
		if i > 0 {
			s.out.WriteString(", ")
		}
		s.value(v, depth+1)
	}
	if n > len(items) {
		s.out.WriteString(", " + unseen)
	}
}

func (s *speller) value(v value, depth int) {
	if s.full() || depth > maxNesting {
		s.out.WriteString(unseen)
		return
	}
	switch v.kind() {
	case kindLiteral:
		s.literal(v)
	case kindGlobal:
		g := s.m.globals[v.index()]
		s.out.WriteString(g.module + "." + g.name)
	case kindModule:
		s.out.WriteString(s.m.modules[v.index()])
	case kindNode:
		s.container(v, depth)
	case kindResult:
		n := s.m.nodes.get(v)
		if n == nil {
			s.out.WriteString(unseen)
			return
		}
		s.value(n.callee, depth+1)
		s.arguments(first(n.known()), depth+1)
	case kindPersistent:
		s.out.WriteString("persistent_load(" + unseen + ")")
	default:
		s.out.WriteString(unseen)
	}
}

func (s *speller) container(v value, depth int) {
	n := s.m.nodes.get(v)
	brackets := [...]string{nodeTuple: "()", nodeList: "[]", nodeDict: "{}", nodeSet: "{}"}[v.shape()]
	s.out.WriteByte(brackets[0])
	if n == nil {
		s.out.WriteString(unseen)
	} else {
		s.list(n.known(), n.n, depth)
	}
	s.out.WriteByte(brackets[1])
}

func (s *speller) literal(v value) {
	switch {
	case v.isText():
		s.text(v)
	case v.isBytes():
		if _, n, ok := s.m.extent(v); ok {
			s.out.WriteString("<" + strconv.FormatInt(n, 10) + " bytes>")
		}
	case isNone(v):
		s.out.WriteString("None")
	default:
		if i, ok := s.m.integer(v); ok {
			s.out.WriteString(strconv.FormatInt(i, 10))
			return
		}
		s.out.WriteString(unseen)
	}
}

func (s *speller) text(v value) {
	at, n, ok := s.m.extent(v)
	if !ok {
		s.out.WriteString(unseen)
		return
	}
	b, ok := s.m.peek(at, min(n, maxSpelled))
	if !ok {
		return
	}
	q := strconv.Quote(strings.ToValidUTF8(string(b), "�"))
	if n > maxSpelled {
		q += unseen
	}
	s.out.WriteString(q)
}
