package pickle

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// noImport is the id of an import that could not be named.
const noImport = -1

// lineOpcodes are the opcodes that name an import in two lines.
var lineOpcodes = map[byte]predicate.How{opGlobal: predicate.ByGlobal, opInst: predicate.ByInst}

func (m *machine) global() bool {
	id, ok := m.importLines(predicate.ByGlobal)
	return ok && m.pushImport(id)
}

func (m *machine) inst() bool {
	// pickle.py resolves the name before it looks for the mark; _pickle.c after.
	id, ok := m.importLines(predicate.ByInst)
	if !ok || m.popMark() < 0 {
		return false
	}
	m.out.Called = true
	if id == noImport {
		m.event(CallUnresolved, "INST of a name that could not be read")
	}
	return m.push(result)
}

func (m *machine) importLines(how predicate.How) (int, bool) {
	if m.argLen > maxLine || m.argLen2 > maxLine {
		m.event(ImportUnresolved, "a name of more than 4096 bytes")
		return noImport, true
	}
	if !utf8.Valid(m.line) || !utf8.Valid(m.line2) {
		return 0, m.fail(predicate.Malformed, "name is not UTF-8")
	}
	return m.intern(m.line, m.line2, how)
}

func (m *machine) pushImport(id int) bool {
	if id == noImport {
		return m.push(unknown)
	}
	return m.push(globalValue(id))
}

// intern gives the id of an import, and records it when it is new. Past the
// bound it reports false: what follows could then not be listed.
func (m *machine) intern(module, name []byte, how predicate.How) (int, bool) {
	m.key = append(append(append(append(append(m.key[:0], module...), 0), name...), 0), how...)
	if m.proto < 3 {
		m.key = append(m.key, '2')
	}
	if id, there := m.ids[string(m.key)]; there {
		return id, true
	}
	id := len(m.ids)
	if id >= maxImports {
		return noImport, m.limit("imports")
	}
	m.ids[string(m.key)] = id
	m.record(Resolved{Module: string(module), Name: string(name), How: how, At: m.at})
	if m.proto < 3 {
		if newModule, newName, ok := fromPython2(string(module), string(name)); ok {
			m.record(Resolved{Module: newModule, Name: newName, How: how, At: m.at})
		}
	}
	return id, true
}

func (m *machine) record(r Resolved) {
	key := r
	key.At = 0
	if !m.seen[key] {
		m.seen[key] = true
		m.out.Imports = append(m.out.Imports, r)
	}
}

func (m *machine) stackGlobal() bool {
	if !m.has(2) {
		return m.underflow()
	}
	top := len(m.stack)
	module, name := m.stack[top-2], m.stack[top-1]
	m.stack = m.stack[:top-2]
	id, known := m.byStrs[[2]value{module, name}]
	if !known {
		var ok bool
		if id, ok = m.resolveStrs(module, name); !ok {
			return false
		}
	}
	return m.pushImport(id)
}

// resolveStrs names the import of two values from the stack.
func (m *machine) resolveStrs(module, name value) (int, bool) {
	if module.kind() != kindStr || name.kind() != kindStr {
		m.event(ImportUnresolved, "a name that is no plain string")
		return noImport, true
	}
	mod, ok := m.text(module)
	nam, ok2 := m.text(name)
	if !ok || !ok2 {
		if m.failed == nil {
			m.event(ImportUnresolved, "a name that is too long or not text")
		}
		return noImport, m.failed == nil
	}
	id, ok := m.intern(mod, nam, predicate.ByStackGlobal)
	if len(m.byStrs) < maxImports {
		m.byStrs[[2]value{module, name}] = id
	}
	return id, ok
}

// text reads a str again from where it stands.
func (m *machine) text(v value) ([]byte, bool) {
	encoding, at, n := v.str()
	if encoding == strTooLong || n > maxLine {
		return nil, false
	}
	b := make([]byte, n)
	if err := content.ReadFull(m.src, b, at); err != nil {
		m.failed = err
		return nil, false
	}
	switch encoding {
	case strUTF8:
		return b, utf8.Valid(b)
	case strRaw:
		return unescapeRaw(b)
	case strQuoted:
		return unescape(b)
	}
	return latin1(b), true
}

// latin1 is how an old BINSTRING reads where it is not ASCII; for ASCII, all
// encodings that a loader may choose agree.
func latin1(b []byte) []byte {
	if !bytes.ContainsFunc(b, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return b
	}
	var s strings.Builder
	for _, c := range b {
		s.WriteRune(rune(c))
	}
	return []byte(s.String())
}
