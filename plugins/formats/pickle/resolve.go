package pickle

import (
	"context"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/cavra/cavra/schemas/predicate"
)

// Resolved is a module and a name that loading could resolve, at the first
// opcode that does.
type Resolved struct {
	Module, Name string
	How          predicate.How
	At           int64
}

// What an Event says.
const (
	CallUnresolved   = "call"      // a call of what no import gave
	ImportUnresolved = "import"    // an import whose name is computed
	Extension        = "extension" // an extension code
	StateOfGlobal    = "state"     // BUILD on what an import gave
	Malformed        = "malformed" // read on, but loaders differ
)

// Event is something that a stream does besides importing.
type Event struct {
	Kind string
	At   int64
	What string
}

// maxEvents bounds the events that are kept; the rest is counted. maxImports
// bounds the different imports of one pickle, and the walk ends there.
const (
	maxEvents  = 1000
	maxImports = 20_000
)

// Resolution is what loading a run of pickle streams could resolve.
type Resolution struct {
	Imports []Resolved
	Events  []Event
	// Ends are the offsets after each STOP.
	Ends []int64
	// Broken is set when the last stream did not reach STOP.
	Broken *Break
	// Called is set when a stream calls anything, or sets anything's state.
	Called  bool
	Opcodes int64

	EventsOmitted uint64
}

// machine runs a stream over abstract values: the stack, the marks and the memo
// are CPython's, the objects are not. It breaks where every CPython unpickler
// (the C one and the Python one) does, and goes on where any goes on.
type machine struct {
	*walker
	stack []value
	// marks are the heights of the stack at each open mark; fence is the last.
	marks []int
	fence int
	memo  memo
	// proto is the last that a PROTO opcode said. From 4 on names are dotted,
	// below 3 they are mapped from Python 2.
	proto int64
	// later is set after the first stream: whether the memo is still the first
	// one's depends on the loader.
	later    bool
	maxStack int

	out    *Resolution
	ids    map[string]int
	seen   map[Resolved]bool
	byStrs map[[2]value]int
	key    []byte
}

// limits of a run, in opcodes, memo entries and stack values.
type limits struct {
	opcodes     int64
	memo, stack int
}

func newMachine(src io.ReaderAt, start, size int64, l limits) *machine {
	return &machine{
		walker: newWalker(src, start, size), memo: memo{limit: l.memo}, maxStack: l.stack,
		out: &Resolution{}, ids: make(map[string]int), seen: make(map[Resolved]bool), byStrs: make(map[[2]value]int),
	}
}

// contextEvery is how many opcodes run between two looks at the context.
const contextEvery = 1 << 16

// stream runs one stream to its STOP. It reports false at a break; an error is
// a read error or the context's.
func (m *machine) stream(ctx context.Context, opcodes int64) (bool, error) {
	m.stack, m.marks, m.fence = m.stack[:0], m.marks[:0], 0
	m.memo = memo{limit: m.memo.limit}
	m.proto = 0
	for n := int64(0); ; n++ {
		if n%contextEvery == 0 {
			if err := ctx.Err(); err != nil {
				return false, fmt.Errorf("walk pickle: %w", err)
			}
		}
		if n >= opcodes {
			m.at = m.offset()
			m.fail(predicate.LimitTime, "opcodes")
			return false, m.stopped()
		}
		if !m.next() {
			if m.cutLines && utf8.Valid(m.line) && utf8.Valid(m.line2) {
				m.intern(m.line, m.line2, lineOpcodes[m.code])
			}
			return false, m.stopped()
		}
		m.out.Opcodes++
		if m.code == opStop {
			return m.finish(), m.failed
		}
		if !m.step() {
			return false, m.stopped()
		}
	}
}

// stopped keeps the break, and passes a read error on.
func (m *machine) stopped() error {
	if m.failed != nil {
		return m.failed
	}
	m.out.Broken = m.broken
	return nil
}

func (m *machine) finish() bool {
	if len(m.stack) <= m.fence {
		m.underflow()
		m.out.Broken = m.broken
		return false
	}
	m.out.Ends = append(m.out.Ends, m.offset())
	m.later = true
	return true
}

func (m *machine) underflow() bool { return m.fail(predicate.Malformed, "stack underflow") }

func (m *machine) limit(what string) bool { return m.fail(predicate.LimitBytes, what) }

func (m *machine) push(v value) bool {
	if len(m.stack) >= m.maxStack {
		return m.limit("stack")
	}
	m.stack = append(m.stack, v)
	return true
}

// pop takes n values, none of them from below the last mark.
func (m *machine) pop(n int) bool {
	if len(m.stack)-n < m.fence {
		return m.underflow()
	}
	m.stack = m.stack[:len(m.stack)-n]
	return true
}

// has reports whether n values are there to be looked at.
func (m *machine) has(n int) bool { return len(m.stack)-n >= m.fence }

// popMark takes the last mark and what is above it, and returns how many values
// that were, or -1 at a break. They stay readable behind the stack's end.
func (m *machine) popMark() int {
	if len(m.marks) == 0 {
		m.fail(predicate.Malformed, "no mark")
		return -1
	}
	at := m.marks[len(m.marks)-1]
	m.marks = m.marks[:len(m.marks)-1]
	m.fence = 0
	if n := len(m.marks); n > 0 {
		m.fence = m.marks[n-1]
	}
	n := len(m.stack) - at
	m.stack = m.stack[:at]
	return n
}

func (m *machine) mark() bool {
	if len(m.marks) >= m.maxStack {
		return m.limit("marks")
	}
	m.marks = append(m.marks, len(m.stack))
	m.fence = len(m.stack)
	return true
}

// event records an event, bounded.
func (m *machine) event(kind, what string) {
	if len(m.out.Events) >= maxEvents {
		m.out.EventsOmitted++
		return
	}
	m.out.Events = append(m.out.Events, Event{Kind: kind, At: m.at, What: what})
}

// call notes that v is called.
func (m *machine) call(v value) {
	m.out.Called = true
	switch v.kind() {
	case kindGlobal:
	case kindResult:
		m.event(CallUnresolved, "a call's result is called")
	case kindUnknown:
		m.event(CallUnresolved, "a value of unknown origin is called")
	default:
		m.event(CallUnresolved, "a plain value is called")
	}
}
