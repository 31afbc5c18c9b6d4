package pickle

import (
	"strconv"

	"github.com/cavra/cavra/schemas/predicate"
)

// step applies the opcode that the walker stands on, and reports whether the
// stream goes on. The switch is long because the language is: one line for each
// opcode shows better than any table what each does to the stack.
func (m *machine) step() bool {
	switch m.code {
	case opNone, opNewTrue, opNewFalse, opBinInt, opBinInt1, opBinInt2, opBinFloat, opLong1, opLong4,
		opEmptyTuple, opEmptyList, opEmptyDict, opEmptySet,
		opBinBytes, opShortBinBytes, opBinBytes8, opByteArray8:
		return m.push(data)
	case opShortBinUnicode, opBinUnicode, opBinUnicode8:
		return m.push(strValue(strUTF8, m.argAt, m.argLen))
	case opMemoize:
		return m.memoize(m.memo.entries)
	case opBinPut, opLongBinPut:
		return m.memoize(m.num)
	case opBinGet, opLongBinGet:
		return m.recall(m.num)
	case opMark:
		return m.mark()
	case opSetItems:
		return m.setItems()
	case opAppends, opAddItems:
		return m.popMark() >= 0 && (m.has(1) || m.underflow())
	case opSetItem:
		return m.onto(2)
	case opAppend:
		return m.onto(1)
	case opTuple, opList, opFrozenSet:
		return m.popMark() >= 0 && m.push(data)
	case opDict:
		return m.dict()
	case opTuple1:
		return m.pop(1) && m.push(data)
	case opTuple2:
		return m.pop(2) && m.push(data)
	case opTuple3:
		return m.pop(3) && m.push(data)
	case opReduce, opNewObj:
		return m.reduce(1)
	case opNewObjEx:
		return m.reduce(2)
	case opBuild:
		return m.build()
	}
	return m.rareStep()
}

// rareStep has the opcodes that are rare in what picklers write today.
func (m *machine) rareStep() bool {
	switch m.code {
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
		return true
	case opPop:
		return m.popOne()
	case opPopMark:
		return m.popMark() >= 0
	case opDup:
		return (m.has(1) || m.underflow()) && m.push(m.stack[len(m.stack)-1])
	case opExt1, opExt2, opExt4:
		return m.extension()
	case opPersID:
		return m.push(unknown)
	case opBinPersID:
		return m.pop(1) && m.push(unknown)
	case opNextBuffer:
		return m.push(data)
	case opReadonlyBuffer:
		return m.has(1) || m.underflow()
	}
	return m.textStep()
}

// textStep has the opcodes whose argument is a line.
func (m *machine) textStep() bool {
	switch m.code {
	case opInt:
		return m.literal(isInteger(m.line, false))
	case opLong:
		return m.literal(isInteger(m.line, true))
	case opFloat:
		return m.literal(isFloat(m.line))
	case opString:
		return m.quoted()
	case opBinString, opShortBinString:
		return m.push(strValue(strBytes, m.argAt, m.argLen))
	case opUnicode:
		return m.push(strValue(strRaw, m.argAt, m.argLen))
	case opGet:
		key, ok := memoKey(m.line)
		return m.literalKey(ok) && m.recall(key)
	case opPut:
		key, ok := memoKey(m.line)
		return m.literalKey(ok && key >= 0) && m.memoize(key)
	}
	return m.fail(predicate.Malformed, "opcode")
}

func (m *machine) literal(ok bool) bool {
	if !ok && m.argLen <= maxLine {
		return m.fail(predicate.Malformed, "number")
	}
	return m.push(data)
}

func (m *machine) literalKey(ok bool) bool {
	return ok || m.fail(predicate.Malformed, "memo key")
}

func (m *machine) quoted() bool {
	n := len(m.line)
	if m.argLen > maxLine {
		return m.push(strValue(strTooLong, m.argAt, 0))
	}
	if n < 2 || m.line[0] != m.line[n-1] || m.line[0] != '\'' && m.line[0] != '"' {
		return m.fail(predicate.Malformed, "string without quotes")
	}
	return m.push(strValue(strQuoted, m.argAt+1, m.argLen-2))
}

func (m *machine) memoize(key int64) bool {
	if !m.has(1) {
		return m.underflow()
	}
	return m.memo.put(key, m.stack[len(m.stack)-1]) || m.limit("memo")
}

func (m *machine) recall(key int64) bool {
	v := m.memo.get(key)
	if v == kindAbsent {
		if !m.later {
			return m.fail(predicate.Malformed, "memo entry is not set")
		}
		// One Unpickler that loads stream after stream keeps its memo.
		v = unknown
	}
	return m.push(v)
}

// onto takes n values off and needs one more below, which they go onto.
func (m *machine) onto(n int) bool {
	return m.has(n+1) && m.pop(n) || m.underflow()
}

func (m *machine) setItems() bool {
	n := m.popMark()
	switch {
	case n < 0:
		return false
	case n%2 != 0:
		return m.fail(predicate.Malformed, "odd number of items")
	}
	return m.has(1) || m.underflow()
}

func (m *machine) dict() bool {
	n := m.popMark()
	if n > 0 && n%2 != 0 {
		return m.fail(predicate.Malformed, "odd number of items")
	}
	return n >= 0 && m.push(data)
}

// reduce calls what is below n values of arguments.
func (m *machine) reduce(n int) bool {
	if !m.has(n + 1) {
		return m.underflow()
	}
	m.stack = m.stack[:len(m.stack)-n]
	top := len(m.stack) - 1
	m.call(m.stack[top])
	m.stack[top] = result
	return true
}

// build sets the state of what is below it. On an import's own result that
// changes a class or a function for everyone, which no pickler writes.
func (m *machine) build() bool {
	if !m.has(2) {
		return m.underflow()
	}
	m.stack = m.stack[:len(m.stack)-1]
	switch m.stack[len(m.stack)-1].kind() {
	case kindGlobal:
		m.out.Called = true
		m.event(StateOfGlobal, "BUILD on an import")
	case kindUnknown:
		m.out.Called = true
		m.event(CallUnresolved, "a value of unknown origin gets a state")
	case kindResult:
		m.out.Called = true
	}
	return true
}

func (m *machine) obj() bool {
	n := m.popMark()
	switch {
	case n < 0:
		return false
	case n == 0:
		return m.underflow()
	}
	// popMark leaves the values behind the end.
	m.call(m.stack[:len(m.stack)+n][len(m.stack)])
	return m.push(result)
}

// popOne is POP, which takes a mark when that is on top.
func (m *machine) popOne() bool {
	if n := len(m.marks); n > 0 && m.marks[n-1] == len(m.stack) {
		return m.popMark() >= 0
	}
	return m.pop(1)
}

func (m *machine) protocol() bool {
	if m.num > highestProtocol {
		return m.fail(predicate.Malformed, "protocol "+strconv.FormatInt(m.num, 10))
	}
	m.proto = m.num
	clear(m.byStrs)
	return true
}

func (m *machine) extension() bool {
	if m.num <= 0 {
		return m.fail(predicate.Malformed, "extension code")
	}
	m.event(Extension, "extension "+strconv.FormatInt(m.num, 10))
	return m.push(unknown)
}
