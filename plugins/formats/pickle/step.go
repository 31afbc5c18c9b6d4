package pickle

import (
	"bytes"
	"strconv"

	"github.com/cavra/cavra/schemas/predicate"
)

// step applies the opcode that the walker stands on, and reports whether the
// stream goes on. The switch is long because the language is: one line for each
// opcode shows better than any table what each does to the stack.
func (m *machine) step() bool {
	switch m.code {
	case opNone, opNewTrue, opNewFalse, opBinInt, opBinInt1, opBinInt2, opBinFloat, opLong1, opLong4:
		return m.push(literal(m.code, m.at))
	case opShortBinUnicode, opBinUnicode, opBinUnicode8:
		return m.pushText()
	case opMemoize:
		return m.memoize(m.memo.entries, m.carried.entries)
	case opBinPut, opLongBinPut:
		return m.memoize(m.num, m.num)
	case opBinGet, opLongBinGet:
		return m.recall(m.num)
	case opMark:
		return m.mark()
	case opEmptyTuple:
		return m.push(emptyTuple)
	case opEmptyList:
		return m.push(m.nodes.container(nodeList, nil))
	case opEmptyDict:
		return m.push(m.nodes.container(nodeDict, nil))
	case opSetItems:
		return m.setItems()
	case opAppends, opAddItems:
		return m.appends()
	case opSetItem:
		return m.has(3) && m.put(m.top(3), 2) || m.broken != nil || m.underflow()
	case opAppend:
		return m.has(2) && m.put(m.top(2), 1) || m.broken != nil || m.underflow()
	case opTuple:
		return m.collect(nodeTuple)
	case opTuple1:
		return m.tuple(1)
	case opTuple2:
		return m.tuple(2)
	case opTuple3:
		return m.tuple(3)
	case opReduce:
		return m.reduce(useCall)
	case opNewObj:
		return m.reduce(useNew)
	case opNewObjEx:
		return m.newObjEx()
	case opBuild:
		return m.build()
	}
	return m.rareStep()
}

// rareStep has the opcodes that are rare in what picklers write today.
func (m *machine) rareStep() bool {
	switch m.code {
	case opBinBytes, opShortBinBytes, opBinBytes8, opByteArray8:
		return m.pushBytes()
	case opGlobal:
		return m.global()
	case opStackGlobal:
		return m.stackGlobal()
	case opInst:
		return m.inst()
	case opObj:
		return m.obj()
	case opProto:
		return m.protocol()
	case opFrame:
		return m.enterFrame()
	case opPop:
		return m.popOne()
	case opPopMark:
		_, ok := m.popMark()
		return ok
	case opDup:
		return m.dup()
	case opList:
		return m.collect(nodeList)
	case opFrozenSet:
		return m.collect(nodeSet)
	case opDict:
		return m.dict()
	case opEmptySet:
		return m.push(m.nodes.container(nodeSet, nil))
	case opExt1, opExt2, opExt4:
		return m.extension()
	case opPersID:
		return m.push(persistent)
	case opBinPersID:
		return m.persistentID()
	case opNextBuffer:
		return m.push(unknown)
	case opReadonlyBuffer:
		return m.has(1) || m.underflow()
	}
	return m.textStep()
}

// textStep has the opcodes whose argument is a line.
func (m *machine) textStep() bool {
	switch m.code {
	case opInt:
		return m.number(isInteger(m.line, false))
	case opLong:
		return m.number(isInteger(m.line, true))
	case opFloat:
		return m.number(isFloat(m.line))
	case opString:
		return m.quoted()
	case opBinString, opShortBinString, opUnicode:
		return m.pushText()
	case opGet:
		key, ok := memoKey(m.line)
		return m.isKey(ok) && m.recall(key)
	case opPut:
		key, ok := memoKey(m.line)
		return m.isKey(ok && key >= 0) && m.memoize(key, key)
	}
	return m.fail(predicate.Malformed, "opcode")
}

func (m *machine) pushText() bool {
	v := literal(m.code, m.at)
	if m.legacy.collects {
		m.legacy.key(v)
	}
	return m.push(v)
}

// pushBytes also looks whether the bytes begin as something that is itself
// loaded: what happens to plain bytes later is the program's affair.
func (m *machine) pushBytes() bool {
	v := literal(m.code, m.at)
	if m.argLen >= minNested {
		m.nested.look(m, v)
	}
	return m.push(v)
}

// number goes on behind what is no number: all loaders break there, so that
// what follows can only add to what is found.
func (m *machine) number(ok bool) bool {
	if !ok && m.argLen <= maxLine {
		m.event(Malformed, "number", "")
	}
	return m.push(literal(m.code, m.at))
}

func (m *machine) isKey(ok bool) bool {
	return ok || m.fail(predicate.Malformed, "memo key")
}

func (m *machine) quoted() bool {
	// Python 2's C unpickler ignores space behind the closing quote.
	line := bytes.TrimRight(m.line, " \t\r\v\f")
	n := len(line)
	if m.argLen <= maxLine && (n < 2 || line[0] != line[n-1] || line[0] != '\'' && line[0] != '"') {
		return m.fail(predicate.Malformed, "string without quotes")
	}
	return m.pushText()
}

// collect makes a container of all above the mark.
func (m *machine) collect(shape value) bool {
	items, ok := m.popMark()
	if !ok {
		return false
	}
	if len(items) == 0 && shape == nodeTuple {
		return m.push(emptyTuple)
	}
	return m.push(m.nodes.container(shape, items))
}

func (m *machine) tuple(n int) bool {
	if !m.has(n) {
		return m.underflow()
	}
	at := len(m.stack) - n
	m.become(at, m.nodes.container(nodeTuple, m.stack[at:]))
	return true
}

func (m *machine) dict() bool {
	items, ok := m.popMark()
	if ok && len(items)%2 != 0 {
		return m.fail(predicate.Malformed, "odd number of items")
	}
	return ok && m.push(m.nodes.container(nodeDict, items))
}

// put puts the n values on top into what is below them.
func (m *machine) put(target value, n int) bool {
	at := len(m.stack) - n
	m.into(target, m.stack[at:])
	m.stack = m.stack[:at]
	return true
}

func (m *machine) setItems() bool {
	items, ok := m.popMark()
	switch {
	case !ok:
		return false
	case len(items)%2 != 0:
		return m.fail(predicate.Malformed, "odd number of items")
	case !m.has(1):
		return m.underflow()
	}
	m.into(m.top(1), items)
	return true
}

func (m *machine) appends() bool {
	items, ok := m.popMark()
	if !ok {
		return false
	}
	if !m.has(1) {
		return m.underflow()
	}
	m.into(m.top(1), items)
	return true
}

// popOne is POP, which takes a mark when that is on top.
func (m *machine) popOne() bool {
	if n := len(m.marks); n > 0 && m.marks[n-1] == len(m.stack) {
		_, ok := m.popMark()
		return ok
	}
	return m.pop(1)
}

// protocol goes on behind a number that CPython refuses: torch's restricted
// unpickler only warns of it.
func (m *machine) protocol() bool {
	if m.num > highestProtocol {
		m.event(Malformed, "protocol "+strconv.FormatInt(m.num, 10), "")
	}
	m.proto = m.num
	clear(m.byStrs)
	return true
}

// extension resolves a code by what the stream itself has registered.
func (m *machine) extension() bool {
	if m.num <= 0 {
		return m.fail(predicate.Malformed, "extension code")
	}
	m.event(Extension, "extension "+strconv.FormatInt(m.num, 10), "")
	if v, ok := m.extensions[m.num]; ok {
		return m.push(v)
	}
	return m.push(unknown)
}
