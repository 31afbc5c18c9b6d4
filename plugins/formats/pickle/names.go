package pickle

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/cavra/cavra/schemas/predicate"
)

// noImport is the id of an import that could not be named.
const noImport = -1

// lineOpcodes are the opcodes that name an import in two lines.
var lineOpcodes = map[byte]predicate.How{opGlobal: predicate.ByGlobal, opInst: predicate.ByInst}

// global is an import as the stream uses it.
type global struct {
	// canonical is the name under which its effect is known: that of Python 3,
	// of the public module.
	canonical string
	// module and name are those that Python 3 resolves.
	module, name string
	// imports are what it is listed as: one pair, or two when Python 3 maps it.
	imports []int
	judged  []Judgement
	effect  effect
}

func (m *machine) global() bool {
	id, ok := m.importLines(predicate.ByGlobal)
	return ok && m.pushImport(id)
}

func (m *machine) inst() bool {
	// pickle.py resolves the name before it looks for the mark; _pickle.c after.
	id, ok := m.importLines(predicate.ByInst)
	if !ok {
		return false
	}
	items, ok := m.popMark()
	if !ok {
		return false
	}
	callee := unknown
	if id != noImport {
		callee = globalValue(id)
	}
	return m.push(m.instantiate(callee, m.nodes.container(nodeTuple, items), len(items)))
}

func (m *machine) importLines(how predicate.How) (int, bool) {
	if m.argLen > maxLine || m.argLen2 > maxLine {
		m.event(ImportUnresolved, "a name of more than 4096 bytes", "")
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
	g := global{module: string(module), name: string(name)}
	m.list(&g, Resolved{Module: g.module, Name: g.name, How: how, At: m.at})
	if newModule, newName, ok := fromPython2(g.module, g.name); ok && how != predicate.ByComputed {
		switch {
		case m.proto < 3:
			g.module, g.name = newModule, newName
			m.list(&g, Resolved{Module: newModule, Name: newName, How: how, At: m.at})
		case how == predicate.ByGlobal && torchRenames(g.module, g.name):
			m.list(&g, Resolved{Module: newModule, Name: newName, How: how, At: m.at})
		}
	}
	g.canonical = canonical(g.module, g.name)
	g.effect = effectOf(g.canonical)
	m.globals = append(m.globals, g)
	return id, true
}

// list records an import, and what is held of it.
func (m *machine) list(g *global, r Resolved) {
	g.imports = append(g.imports, m.record(r))
	g.judged = append(g.judged, m.table.Judge(r.Module, r.Name))
}

func (m *machine) record(r Resolved) int {
	key := importKey{r.Module, r.Name, r.How}
	if i, there := m.seen[key]; there {
		return i
	}
	r.At = m.place(r.At)
	m.seen[key] = len(m.out.Imports)
	m.out.Imports = append(m.out.Imports, r)
	return len(m.out.Imports) - 1
}

// twins are modules that give what others give.
var twins = map[string]string{
	"__builtin__": "builtins", "_operator": "operator", "_functools": "functools", "_codecs": "codecs", "_io": "io", "_pyio": "io",
	"_pickle": "pickle", "cPickle": "pickle", "copy_reg": "copyreg", "_collections": "collections",
	"importlib._bootstrap": "importlib", "_frozen_importlib": "importlib", "numpy.core": "numpy._core",
}

func canonical(module, name string) string {
	if to, ok := twins[module]; ok {
		module = to
	}
	return module + "." + name
}

// derived is the import that a call amounts to.
func (m *machine) derived(module, name string) (value, bool) {
	if len(module) > maxLine || len(name) > maxLine {
		return unknown, false
	}
	id, ok := m.intern([]byte(module), []byte(name), predicate.ByComputed)
	if !ok {
		return unknown, false
	}
	return globalValue(id), true
}

func (m *machine) stackGlobal() bool {
	if !m.has(2) {
		return m.underflow()
	}
	module, name := m.top(2), m.top(1)
	if kept := [2]value{m.other(2), m.other(1)}; kept != [2]value{module, name} && kept[0].isText() && kept[1].isText() {
		if _, ok := m.writtenStrs(kept[0], kept[1]); !ok {
			return false
		}
	}
	m.stack = m.stack[:len(m.stack)-2]
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
	if module.isText() && name.isText() {
		return m.writtenStrs(module, name)
	}
	mod, ok := m.constant(module, 0)
	nam, ok2 := m.constant(name, 0)
	if m.failed != nil {
		return noImport, false
	}
	if !ok || !ok2 || mod.kind != isText || nam.kind != isText || len(mod.s) > maxLine || len(nam.s) > maxLine {
		m.event(ImportUnresolved, "a name that is no plain string", m.spell(module)+" . "+m.spell(name))
		return noImport, true
	}
	m.event(ImportUnresolved, "a name that is computed", clip(string(mod.s)+"."+string(nam.s)+" = "+m.spell(module)+" . "+m.spell(name)))
	return m.intern(mod.s, nam.s, predicate.ByComputed)
}

func (m *machine) writtenStrs(module, name value) (int, bool) {
	mod, ok := m.text(module, maxLine)
	nam, ok2 := m.text(name, maxLine)
	if !ok || !ok2 {
		if m.failed == nil {
			m.event(ImportUnresolved, "a name that is too long or not text", "")
		}
		return noImport, m.failed == nil
	}
	id, ok := m.intern(mod, nam, predicate.ByStackGlobal)
	if len(m.byStrs) < maxImports {
		m.byStrs[[2]value{module, name}] = id
	}
	return id, ok
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
