package pickle

import (
	"context"
	"io"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

const (
	// huntWindow is how much is read at a time, huntOverlap how much of it again,
	// so that no beginning lies across two windows.
	huntWindow  = 1 << 20
	huntOverlap = 1 << 10
	// trialOpcodes bounds the work on one place that is tried as a pickle, and
	// maxAstray that on all places and readings besides the first, in opcodes.
	// A look at a name counts as judgeWork.
	trialOpcodes = 1 << 20
	maxAstray    = 40_000_000
	judgeWork    = 64
	// maxPlain bounds the places of raw data that are tried so.
	maxPlain = 10_000
	// decoys are the values that a stream finds below what it has pushed, when
	// it is entered in the middle.
	decoys = 8
)

// hunter looks for pickles in bytes that are none: behind a break, or behind
// what the last pickle has left.
type hunter struct {
	m *machine
	v *content.Visit
	// next is the first offset that no pickle has covered yet.
	next int64
}

// hunt looks for pickles from start to the end of the content, and adds what
// they resolve. It claims nothing: bytes of unknown kind stay unread.
func (m *machine) hunt(ctx context.Context, v *content.Visit, start int64) error {
	h := &hunter{m: m, v: v, next: start}
	window := make([]byte, min(huntWindow, v.Size-start))
	for at := start; at < v.Size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := window[:min(int64(len(window)), v.Size-at)]
		if err := content.ReadFull(v.Bytes, b, at); err != nil {
			return err
		}
		if err := h.window(ctx, b, at); err != nil {
			return err
		}
		if m.strayed() {
			m.at = at
			m.event(Limited, "later pickles are looked for no further", "")
			return nil
		}
		if at+int64(len(b)) == v.Size {
			return nil
		}
		at = max(at+int64(len(b))-huntOverlap, min(h.next, v.Size))
	}
	return nil
}

// clues are the bytes at which a beginning is looked for: PROTO, the newline in
// the middle of a GLOBAL, and STACK_GLOBAL.
var clues = [256]bool{opProto: true, '\n': true, opStackGlobal: true}

func (h *hunter) window(ctx context.Context, b []byte, base int64) error {
	for i := 0; i < len(b); i++ {
		if !clues[b[i]] {
			continue
		}
		var from int
		var ok bool
		switch b[i] {
		case opProto:
			from = i
			ok = i+2 < len(b) && b[i+1] <= highestProtocol && arguments[b[i+2]] != argUnknown
		case '\n':
			from, ok = h.behindLines(b, i)
		default:
			from, ok = h.behindStrings(b, i)
		}
		if !ok || base+int64(from) < h.next {
			continue
		}
		end, err := h.try(ctx, base+int64(from))
		if err != nil || h.m.strayed() {
			return err
		}
		if end > base+int64(i) {
			i = int(min(end-base, int64(len(b)))) - 1
		}
	}
	return nil
}

// longestWord is the longest module or name that is looked for.
const longestWord = 128

func wordly(c byte) bool {
	return c == '_' || c == '.' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

// behindLines finds a GLOBAL or an INST of a dangerous name whose first line
// ends at i.
func (h *hunter) behindLines(b []byte, i int) (int, bool) {
	end := i + 1
	for end < len(b) && end-i <= longestWord && wordly(b[end]) {
		end++
	}
	if end == i+1 || end == len(b) || b[end] != '\n' {
		return 0, false
	}
	name := string(b[i+1 : end])
	for from := i - 1; from >= 0 && i-from <= longestWord && wordly(b[from]); from-- {
		if from+1 < i && (b[from] == opGlobal || b[from] == opInst) && h.dangerous(string(b[from+1:i]), name) {
			return from, true
		}
	}
	return 0, false
}

// behindStrings finds the two short strings of a dangerous name before a
// STACK_GLOBAL at i.
func (h *hunter) behindStrings(b []byte, i int) (int, bool) {
	name, at, ok := shortBefore(b, i)
	if !ok {
		return 0, false
	}
	module, at, ok := shortBefore(b, at)
	return at, ok && h.dangerous(module, name)
}

// shortBefore is the short string that ends before i, memoized or not.
func shortBefore(b []byte, i int) (string, int, bool) {
	if i > 0 && b[i-1] == opMemoize {
		i--
	} else if i > 1 && b[i-2] == opBinPut {
		i -= 2
	}
	for n := 1; n <= longestWord && n+1 < i && wordly(b[i-n]); n++ {
		if at := i - n - 2; at >= 0 && int(b[at+1]) == n && b[at] == opShortBinUnicode {
			return string(b[i-n : i]), at, true
		}
	}
	return "", 0, false
}

func (h *hunter) dangerous(module, name string) bool {
	h.m.astray += judgeWork
	return h.m.table.Judge(module, name).Judged == predicate.JudgedDangerous
}

// try runs what may begin at an offset, and takes over what it resolves when it
// is a pickle that does anything. It gives the end of that, or 0.
func (h *hunter) try(ctx context.Context, at int64) (int64, error) {
	c := newMachine(h.v.Bytes, at, h.v.Size, limits{memo: h.m.memo.limit, stack: h.m.maxStack}, h.m.table)
	c.evaluated = h.m.evaluated
	c.begin()
	t, err := h.m.attempt(ctx, c, h.v.Budget)
	if err != nil || !t.imports {
		return 0, err
	}
	h.m.merge(c)
	h.next = c.at + 1
	if t.done {
		h.next = c.offset()
	}
	return h.next, nil
}

// strayed reports whether the work besides the first reading is used up.
func (m *machine) strayed() bool { return m.astray >= maxAstray }

// attempt runs another machine over what may be no pickle, within the budget.
func (m *machine) attempt(ctx context.Context, c *machine, b *content.Budget) (trial, error) {
	done, err := c.run(ctx, min(b.OpcodesLeft(), trialOpcodes, maxAstray-m.astray))
	b.SpendOpcodes(c.out.Opcodes)
	m.astray += c.out.Opcodes + judgeWork*int64(1+len(c.out.Imports))
	m.evaluated = c.evaluated
	if err != nil {
		return trial{}, err
	}
	return c.shown(done), nil
}

// merge takes over what a machine of its own resolution has found.
func (m *machine) merge(c *machine) {
	for _, r := range c.out.Imports {
		m.record(r)
	}
	for _, e := range c.out.Events {
		if len(m.out.Events) < maxEvents {
			m.out.Events = append(m.out.Events, e)
		} else {
			m.out.EventsOmitted++
		}
	}
	m.out.EventsOmitted += c.out.EventsOmitted
	m.out.Called = m.out.Called || c.out.Called
	m.nested.add(c.nested)
}

// lookAside runs what other loaders than the one that was followed would run.
func (m *machine) lookAside(ctx context.Context, v *content.Visit) error {
	if err := m.alternatives(ctx, v.Budget); err != nil {
		return err
	}
	for _, at := range m.plain {
		if m.strayed() {
			m.event(Limited, "raw data is read as opcodes no further", "")
			return nil
		}
		c := newMachine(v.Bytes, at, v.Size, limits{memo: m.memo.limit, stack: m.maxStack}, m.table)
		c.evaluated = m.evaluated
		c.begin()
		c.enterBlind()
		t, err := m.attempt(ctx, c, v.Budget)
		if err != nil {
			return err
		}
		if t.imports {
			m.merge(c)
		}
	}
	return nil
}

// enterBlind gives a machine a stack, marks and a memo of unknown values, as a
// stream has that is entered in the middle.
func (m *machine) enterBlind() {
	m.later = true
	for range decoys {
		for range decoys {
			m.stack = append(m.stack, unknown)
		}
		m.marks = append(m.marks, len(m.stack))
	}
	for range decoys {
		m.stack = append(m.stack, unknown)
	}
	m.fence = m.marks[len(m.marks)-1]
}

// tryBytes runs bytes that may be no pickle.
func tryBytes(ctx context.Context, v *content.Visit, src io.ReaderAt, start, size int64) (trial, error) {
	table, err := Shipped()
	if err != nil {
		return trial{}, err
	}
	m := newMachine(src, start, size, limitsOf(v.Budget), table)
	done, err := m.stream(ctx, v.Budget.OpcodesLeft())
	v.Budget.SpendOpcodes(m.out.Opcodes)
	if err != nil {
		return trial{}, err
	}
	return m.shown(done), nil
}
