package pickle

import (
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// instantiate is what INST and OBJ do: without arguments a class is only made.
func (m *machine) instantiate(callee, args value, n int) value {
	how := useCall
	if n == 0 && callee.kind() == kindGlobal && m.allows(callee, useNew) {
		how = useNew
	}
	return m.invoke(callee, how, args, 0)
}

func (m *machine) obj() bool {
	items, ok := m.popMark()
	switch {
	case !ok:
		return false
	case len(items) == 0:
		return m.underflow()
	}
	return m.push(m.instantiate(items[0], m.nodes.container(nodeTuple, items[1:]), len(items)-1))
}

// reduce calls what is below the arguments.
func (m *machine) reduce(how Use) bool {
	if !m.has(2) {
		return m.underflow()
	}
	at := len(m.stack) - 2
	m.become(at, m.invoke(m.stack[at], how, m.stack[at+1], 0))
	return m.broken == nil && m.failed == nil
}

func (m *machine) newObjEx() bool {
	if !m.has(3) {
		return m.underflow()
	}
	at := len(m.stack) - 3
	args, kwargs := m.stack[at+1], m.stack[at+2]
	m.nested.offer(m, kwargs)
	m.become(at, m.invoke(m.stack[at], useNew, args, 0))
	return m.broken == nil && m.failed == nil
}

// invoke notes that callee is called, and gives what it returns as far as that
// can be known. args is a container, or unknown.
func (m *machine) invoke(callee value, how Use, args value, depth int) value {
	m.out.Called = true
	switch callee.kind() {
	case kindGlobal:
		return m.invokeGlobal(callee, how, args, depth)
	case kindResult:
		m.event(CallUnresolved, "a call's result is called", m.spellCall(callee, args))
		m.nested.offer(m, args)
		if depth < maxNesting {
			if v, ok := m.chain(callee, args, depth); ok {
				return v
			}
		}
	case kindUnknown, kindPersistent, kindModule:
		m.event(CallUnresolved, "a value of unknown origin is called", m.spellCall(callee, args))
		m.nested.offer(m, args)
	default:
		m.event(CallUnresolved, "a plain value is called", m.spellCall(callee, args))
	}
	return m.nodes.result(-1, callee, args)
}

func (m *machine) invokeGlobal(callee value, how Use, args value, depth int) value {
	id := callee.index()
	m.use(callee, how, args)
	if f := m.globals[id].effect; f != nil && depth < maxNesting {
		if v, ok := f(m, call{callee: callee, args: m.argumentsOf(args), depth: depth, how: how}); ok {
			return v
		}
	}
	return m.nodes.result(id, callee, args)
}

// argumentsOf are the items of a container of arguments that are remembered.
func (m *machine) argumentsOf(args value) []value {
	if n := m.nodes.get(args); n != nil && args.kind() == kindNode {
		return n.known()
	}
	return nil
}

// allows reports whether all pairs of a global are vetted for a use.
func (m *machine) allows(callee value, how Use) bool {
	for _, j := range m.globals[callee.index()].judged {
		if j.Judged != predicate.JudgedHarmless || j.Shape.Uses&how == 0 {
			return false
		}
	}
	return true
}

// remembers reports whether all arguments of a call are known.
func (m *machine) remembers(args value) bool {
	n := m.nodes.get(args)
	return n != nil && args.kind() == kindNode && n.whole()
}

// maxTraces bounds the calls that are kept of one import.
const maxTraces = 3

// use holds a use of an import against what it is vetted for.
func (m *machine) use(callee value, how Use, args value) {
	g := &m.globals[callee.index()]
	vetted := true
	for i, j := range g.judged {
		listed := &m.out.Imports[g.imports[i]]
		switch {
		case j.Judged != predicate.JudgedHarmless:
			vetted = false
			if len(listed.Trace) < maxTraces {
				listed.Trace = append(listed.Trace, m.spellUse(callee, how, args))
			}
		case !m.serves(j.Shape, how, args), g.effect != nil && how == useCall && !m.remembers(args):
			// What a function would do with arguments that are forgotten is not known.
			vetted = false
			if listed.Misused == "" {
				listed.Misused = m.spellUse(callee, how, args)
			}
		}
	}
	if !vetted {
		m.nested.offer(m, args)
	}
}

// build sets the state of what is below it. On an import's own result that
// changes a class or a function for everyone, which no pickler writes.
func (m *machine) build() bool {
	if !m.has(2) {
		return m.underflow()
	}
	state := m.top(1)
	m.stack = m.stack[:len(m.stack)-1]
	inst := m.top(1)
	switch inst.kind() {
	case kindGlobal:
		m.out.Called = true
		m.event(StateOfGlobal, "BUILD on an import", m.spellSet(inst, state))
	case kindModule:
		m.out.Called = true
		m.event(StateOfGlobal, "BUILD on a module", m.spellSet(inst, state))
	case kindUnknown, kindPersistent:
		m.out.Called = true
		m.event(CallUnresolved, "a value of unknown origin gets a state", m.spellSet(inst, state))
	case kindResult:
		m.out.Called = true
		return m.buildInstance(inst, state)
	case kindKept:
		m.kept[inst.index()].take(m, state, 0)
	}
	return true
}

func (m *machine) buildInstance(inst, state value) bool {
	if name := m.specialSlot(state); name != "" {
		m.event(StateOfGlobal, "a state sets "+name, m.spellSet(inst, state))
	}
	id, ok := inst.callee()
	if !ok {
		m.nested.offer(m, state)
		return true
	}
	m.use(globalValue(id), useState, state)
	if m.globals[id].canonical == arrayWrapper {
		return m.rawArray(state)
	}
	return true
}

// specialSlot is the name of a special attribute that a state would set, as no
// pickler writes it.
func (m *machine) specialSlot(state value) string {
	if name := m.specialKey(state); name != "" || state.shape() != nodeTuple {
		return name
	}
	// A pair of a state and of slots.
	for _, d := range m.argumentsOf(state) {
		if name := m.specialKey(d); name != "" {
			return name
		}
	}
	return ""
}

func (m *machine) specialKey(d value) string {
	n := m.nodes.get(d)
	if n == nil || d.kind() != kindNode || d.shape() != nodeDict {
		return ""
	}
	for i := 0; i+1 < len(n.known()); i += 2 {
		if name := m.special(n.items[i]); name != "" {
			return name
		}
	}
	return ""
}

// maxSpecial bounds the keys whose look is remembered: picklers write the names
// of attributes once, and refer to them from then on.
const maxSpecial = 4096

// special is the text of a key when that is a special attribute's.
func (m *machine) special(key value) string {
	if !key.isText() {
		return ""
	}
	if known, ok := m.specials[key]; ok {
		return known
	}
	name := ""
	if at, n, ok := m.extent(key); ok && n >= 5 && n <= 64 {
		if b, ok := m.peek(at, n); ok && alarming[string(b)] {
			name = string(b)
		}
	}
	if len(m.specials) < maxSpecial {
		if m.specials == nil {
			m.specials = make(map[value]string)
		}
		m.specials[key] = name
	}
	return name
}

// into notes that items go into target: those of a pair each for a dict.
func (m *machine) into(target value, items []value) {
	switch target.kind() {
	case kindNode:
		if n := m.nodes.get(target); n != nil && target != emptyTuple {
			n.addAll(items)
		}
	case kindGlobal, kindModule:
		m.out.Called = true
		m.event(StateOfGlobal, "items are put into an import", m.spellItems(target, items))
		m.registry(target, items)
	case kindUnknown, kindPersistent:
		m.out.Called = true
		m.event(CallUnresolved, "items are put into a value of unknown origin", m.spellItems(target, items))
	}
}

// registry follows what is put into copyreg's tables of extension codes.
func (m *machine) registry(target value, items []value) {
	if target.kind() != kindGlobal {
		return
	}
	name := m.globals[target.index()].canonical
	for i := 0; i+1 < len(items) && strings.HasPrefix(name, "copyreg._"); i += 2 {
		code, ok := m.integer(items[i])
		if !ok {
			continue
		}
		switch name {
		case "copyreg._extension_cache":
			m.register(code, items[i+1])
		case "copyreg._inverted_registry":
			if pair := m.argumentsOf(items[i+1]); len(pair) == 2 {
				m.registerPair(code, pair[0], pair[1])
			}
		}
	}
}

// maxExtensions bounds the codes that a stream can register.
const maxExtensions = 4096

func (m *machine) register(code int64, v value) {
	if m.extensions == nil {
		m.extensions = make(map[int64]value)
	}
	if len(m.extensions) < maxExtensions {
		m.extensions[code] = v
	}
}

func (m *machine) registerPair(code int64, module, name value) {
	mod, ok := m.constant(module, 0)
	nam, ok2 := m.constant(name, 0)
	if !ok || !ok2 || mod.kind != isText || nam.kind != isText || len(mod.s) > maxLine || len(nam.s) > maxLine {
		return
	}
	if id, ok := m.intern(mod.s, nam.s, predicate.ByExtension); ok {
		m.register(code, globalValue(id))
	}
}

// persistentID is what torch refers to storages and, before zip archives, to
// classes by.
func (m *machine) persistentID() bool {
	if !m.has(1) {
		return m.underflow()
	}
	what := persistent
	if m.legacy.stage > 0 {
		what = m.legacy.load(m, m.top(1))
	}
	m.become(len(m.stack)-1, what)
	return true
}
