package pickle

import (
	"context"
	"fmt"
	"io"
	"math"
	"unicode/utf8"

	"github.com/cavra/cavra/schemas/predicate"
)

// Resolved is a module and a name that loading could resolve, at the first
// opcode that does.
type Resolved struct {
	Module, Name string
	How          predicate.How
	At           int64
	// Misused says what a vetted name is used for that it is not vetted for.
	Misused string
	// Trace are the first calls of what is not vetted, as Python would write
	// them; values that are not known are "…".
	Trace []string
}

// What an Event says.
const (
	CallUnresolved   = "call"      // a call of what no import gave
	ImportUnresolved = "import"    // an import whose name is computed
	Extension        = "extension" // an extension code
	StateOfGlobal    = "state"     // BUILD or SETITEM on what an import gave
	Malformed        = "malformed" // read on, but loaders differ
	Limited          = "limit"     // something was not looked at
)

// Event is something that a stream does besides importing.
type Event struct {
	Kind string
	At   int64
	What string
	// Trace is the call or the change as Python would write it; it may be empty.
	Trace string
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
// are CPython's, the objects are not. It breaks where every unpickler (CPython's
// two, and torch's restricted one) does, and goes on where any goes on.
type machine struct {
	*walker
	table *Table
	stack []value
	// marks are the heights of the stack at each open mark; fence is the last.
	marks []int
	fence int
	memo  memo
	// carried is the memo as it is for one Unpickler that loads stream after stream.
	// otherwise has what it makes of a value on the stack, by its place, where
	// that is another than for a new Unpickler.
	carried   memo
	otherwise map[int]value
	nodes     nodes
	// proto is the last that a PROTO opcode said. From 4 on names are dotted,
	// below 3 they are mapped from Python 2.
	proto int64
	// start is where the stream begins. frameEnd is where the frame ends that is
	// being read, frameAt where its FRAME stands; frameEnds are ends that are
	// known to be others than FRAME says.
	start, frameAt, frameEnd int64
	frameEnds                map[int64]int64
	// gaps are what this reading leaves out; readings are others.
	gaps     []gap
	readings []reading
	// later is set after the first stream: whether the memo is still the one
	// before's depends on the loader.
	later    bool
	maxStack int
	// evaluated counts the bytes that were computed with, astray the work besides
	// the first reading.
	evaluated, astray int64

	out     *Resolution
	globals []global
	ids     map[string]int
	seen    map[importKey]int
	byStrs  map[[2]value]int
	key     []byte

	modules    []string
	kept       []elementType
	extensions map[int64]value
	nested     nestedParts
	specials   map[value]string
	legacy     legacyFile
	// aside are offsets at which some loader would begin another stream, plain
	// those of raw data that a plain loader takes for opcodes.
	aside, plain []int64
	// inline is where a stream begins within this one; depth counts such streams
	// within each other.
	inline int64
	depth  int
}

// importKey tells imports apart.
type importKey struct {
	module, name string
	how          predicate.How
}

// limits of a run, in opcodes, memo entries and stack values.
type limits struct {
	opcodes     int64
	memo, stack int
}

func newMachine(src io.ReaderAt, start, size int64, l limits, table *Table) *machine {
	return &machine{
		walker: newWalker(src, start, size), table: table, memo: memo{limit: l.memo}, maxStack: l.stack,
		out: &Resolution{}, ids: make(map[string]int), seen: make(map[importKey]int), byStrs: make(map[[2]value]int),
	}
}

// contextEvery is how many opcodes run between two looks at the context.
const contextEvery = 1 << 16

// begin empties the stack and the memo for another stream.
func (m *machine) begin() {
	m.stack, m.marks, m.fence = m.stack[:0], m.marks[:0], 0
	if m.later && m.carried.entries == 0 {
		m.carried = m.memo
	}
	m.memo, m.otherwise = memo{limit: m.memo.limit}, nil
	m.proto, m.start = 0, m.offset()
	// One Unpickler that loads stream after stream still has the frame that goes
	// on behind STOP.
	if !m.later || m.frameEnd <= m.start {
		m.frameEnd = math.MaxInt64
	}
}

// stream runs one stream to its STOP. It reports false at a break; an error is
// a read error or the context's.
func (m *machine) stream(ctx context.Context, opcodes int64) (bool, error) {
	m.begin()
	return m.run(ctx, opcodes)
}

func (m *machine) run(ctx context.Context, opcodes int64) (bool, error) {
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
			if m.frameEnd != math.MaxInt64 {
				m.leaveFrame()
			}
			return false, m.stopped()
		}
		m.out.Opcodes++
		if m.offset() > m.frameEnd {
			m.leaveFrame()
		}
		if m.code == opStop {
			return m.finish(), m.failed
		}
		if m.step() {
			continue
		}
		if m.inline == 0 || m.broken != nil || m.failed != nil {
			return false, m.stopped()
		}
		if ok, err := m.runInline(ctx, opcodes-n); err != nil || !ok {
			return false, err
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

// maxAside bounds the places that are kept for a second look.
const maxAside = 100

func (m *machine) finish() bool {
	if len(m.stack) <= m.fence {
		m.underflow()
		m.out.Broken = m.broken
		return false
	}
	end := m.offset()
	if m.frameEnd != math.MaxInt64 && m.frameEnd > end {
		// Loaders that read by frames go on behind the frame, others behind STOP.
		m.event(Malformed, "a frame goes on behind STOP", "")
		if len(m.aside) < maxAside {
			m.aside = append(m.aside, m.frameEnd)
		}
	}
	m.out.Ends = append(m.out.Ends, end)
	m.legacy.ended(m, m.stack[len(m.stack)-1])
	m.later = true
	return true
}

func (m *machine) underflow() bool { return m.fail(predicate.Malformed, "stack underflow") }

func (m *machine) limit(what string) bool { return m.fail(predicate.LimitBytes, what) }

func (m *machine) push(v value) bool {
	if len(m.stack) >= m.maxStack {
		return m.limit("stack")
	}
	if m.otherwise != nil {
		delete(m.otherwise, len(m.stack))
	}
	m.stack = append(m.stack, v)
	return true
}

// become puts v in the place of what is at a height and above.
func (m *machine) become(at int, v value) {
	delete(m.otherwise, at)
	m.stack[at] = v
	m.stack = m.stack[:at+1]
}

func (m *machine) dup() bool {
	if !m.has(1) {
		return m.underflow()
	}
	v, other := m.top(1), m.other(1)
	if !m.push(v) {
		return false
	}
	if other != v {
		m.otherwiseAt(1, other)
	}
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

// top is the value that is n below the top, 1 being the top itself.
func (m *machine) top(n int) value { return m.stack[len(m.stack)-n] }

// has reports whether n values are there to be looked at.
func (m *machine) has(n int) bool { return len(m.stack)-n >= m.fence }

// popMark takes the last mark and what is above it, and returns those values,
// which stay valid until the next push.
func (m *machine) popMark() ([]value, bool) {
	if len(m.marks) == 0 {
		return nil, m.fail(predicate.Malformed, "no mark")
	}
	at := m.marks[len(m.marks)-1]
	m.marks = m.marks[:len(m.marks)-1]
	m.fence = 0
	if n := len(m.marks); n > 0 {
		m.fence = m.marks[n-1]
	}
	items := m.stack[at:]
	m.stack = m.stack[:at]
	return items, true
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
func (m *machine) event(kind, what, trace string) {
	if len(m.out.Events) >= maxEvents {
		m.out.EventsOmitted++
		return
	}
	m.out.Events = append(m.out.Events, Event{Kind: kind, At: m.place(m.at), What: what, Trace: trace})
}
