package pickle

import (
	"context"
	"strconv"

	"github.com/cavra/cavra/schemas/predicate"
)

// arrayWrapper is what joblib writes in an array's place: its raw elements stand
// in the stream behind the BUILD of it, and the pickle goes on behind them.
const arrayWrapper = "joblib.numpy_pickle.NumpyArrayWrapper"

// maxKept bounds the element types that are kept.
const maxKept = 1 << 16

// sizeInState is where a dtype's state has the size of a type of any size.
const sizeInState = 5

// elementType is a numpy dtype as far as its size goes.
type elementType struct {
	// size in bytes; 0 when it is not known.
	size int64
	// objects is set when elements are, or hold, Python objects.
	objects bool
}

// elementSizes are those of the types that are written without a size.
var elementSizes = map[string]int64{"?": 1, "b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "e": 2, "f": 4, "d": 8, "F": 8, "D": 16, "q": 8, "Q": 8, "bool": 1}

// keepType is the effect of numpy.dtype("f8", …).
func keepType(m *machine, c call) (value, bool) {
	if len(m.kept) >= maxKept {
		return 0, false
	}
	var t elementType
	if name, ok := m.word(first(c.args)); ok {
		t = elementTypeOf(name)
	}
	m.kept = append(m.kept, t)
	return keptValue(len(m.kept) - 1), true
}

func elementTypeOf(name string) elementType {
	for len(name) > 0 && (name[0] == '<' || name[0] == '>' || name[0] == '|' || name[0] == '=') {
		name = name[1:]
	}
	if n, ok := elementSizes[name]; ok {
		return elementType{size: n}
	}
	if name == "" {
		return elementType{}
	}
	n, err := strconv.ParseInt(name[1:], 10, 32)
	if err != nil || n <= 0 {
		n = 0
	}
	switch name[0] {
	case 'O':
		return elementType{objects: true}
	case 'U':
		return elementType{size: 4 * n}
	case 'b', 'i', 'u', 'f', 'c', 'S', 'V', 'M', 'm':
		return elementType{size: n}
	}
	return elementType{}
}

// take applies a dtype's state: fields that hold objects make it hold them.
func (t *elementType) take(m *machine, state value, depth int) {
	n := m.nodes.get(state)
	if n == nil || depth > maxNesting {
		return
	}
	if !n.whole() && n.mixed {
		t.size = 0
	}
	if t.size == 0 && depth == 0 && n.n > sizeInState {
		// A type that is named by its class has its size in the state.
		if size, ok := m.integer(n.items[sizeInState]); ok && size > 0 {
			t.size = size
		}
	}
	for _, v := range n.known() {
		switch v.kind() {
		case kindKept:
			t.objects = t.objects || m.kept[v.index()].objects
		case kindNode:
			t.take(m, v, depth+1)
		}
	}
}

// rawArray goes past the elements behind an array's wrapper, as joblib does.
func (m *machine) rawArray(state value) bool {
	count, dtype, aligned, ok := m.arrayState(state)
	if !ok {
		return m.fail(predicate.Malformed, "raw array of unknown size")
	}
	start := m.offset()
	if dtype.objects {
		// joblib unpickles an array of objects from the same file.
		m.inline = start
		return false
	}
	if aligned {
		b, ok := m.peek(start, 1)
		if !ok {
			return m.truncated()
		}
		if !m.skip(1 + int64(b[0])) {
			return false
		}
	}
	if dtype.size == 0 || count > 0 && dtype.size > m.left()/count {
		return m.truncated()
	}
	// pickle.load knows nothing of raw elements, and takes them for opcodes.
	if len(m.plain) < maxPlain {
		m.plain = append(m.plain, start)
	}
	return m.skip(count * dtype.size)
}

// arrayState reads a wrapper's state: how many elements of which type, and
// whether padding stands before them.
func (m *machine) arrayState(state value) (int64, elementType, bool, bool) {
	n := m.nodes.get(state)
	if n == nil || state.kind() != kindNode || state.shape() != nodeDict || !n.whole() {
		return 0, elementType{}, false, false
	}
	count, dtype := int64(-1), elementType{}
	known, aligned := false, false
	items := n.known()
	for i := 0; i+1 < len(items); i += 2 {
		key, ok := m.word(items[i])
		if !ok {
			return 0, elementType{}, false, false
		}
		v := items[i+1]
		switch key {
		case "shape":
			count = m.product(v)
		case "dtype":
			if known = v.kind() == kindKept; known {
				dtype = m.kept[v.index()]
			}
		case "numpy_array_alignment_bytes":
			aligned = !isNone(v)
		}
	}
	return count, dtype, aligned, known && count >= 0 && (dtype.size > 0 || dtype.objects)
}

// product is the number of elements of a shape, or -1.
func (m *machine) product(shape value) int64 {
	n := m.nodes.get(shape)
	if n == nil || !n.whole() || shape.kind() != kindNode {
		return -1
	}
	total := int64(1)
	for _, v := range n.known() {
		i, ok := m.integer(v)
		if !ok || i < 0 || i > 0 && total > m.size/i {
			return -1
		}
		total *= i
	}
	return total
}

// runInline runs the pickle that stands within another one, and goes on behind
// it. It reports false when that one breaks.
func (m *machine) runInline(ctx context.Context, opcodes int64) (bool, error) {
	inner := m.child(m.inline)
	m.inline, inner.depth = 0, m.depth+1
	if inner.depth > maxNesting {
		m.fail(predicate.LimitDepth, "arrays of objects within each other")
		return false, m.stopped()
	}
	inner.begin()
	ok, err := inner.run(ctx, opcodes)
	if err != nil || !ok {
		return false, err
	}
	m.adopt(inner)
	// What was run belongs to the outer pickle.
	m.out.Ends = m.out.Ends[:len(m.out.Ends)-1]
	m.skipped = append(m.skipped, inner.skipped...)
	if !m.moveTo(inner.offset()) {
		return false, m.stopped()
	}
	return true, nil
}

// child is a machine that lists into the same resolution.
func (m *machine) child(at int64) *machine {
	c := newMachine(m.src, at, m.size, limits{memo: m.memo.limit, stack: m.maxStack}, m.table)
	c.out, c.seen, c.evaluated = m.out, m.seen, m.evaluated
	return c
}

// adopt takes over what a child has put aside.
func (m *machine) adopt(c *machine) {
	m.plain = append(m.plain, c.plain...)
	m.aside = append(m.aside, c.aside...)
	m.nested.add(c.nested)
	m.evaluated = c.evaluated
}
