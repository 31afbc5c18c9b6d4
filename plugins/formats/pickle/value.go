package pickle

// value is what the machine knows of a Python object: 8 bytes, nothing behind
// a pointer. The lowest four bits are the kind.
//
// A literal is known by its opcode and where that stands in the stream; it is
// read again only when someone asks for it. Containers and calls are nodes, of
// which the last few thousand are remembered.
type value uint64

const (
	kindAbsent  = iota // a memo entry that is not set
	kindLiteral        // a number, a str, bytes, a constant: as it is written
	kindNode           // a container
	kindGlobal         // what an import gave
	kindResult         // what a call returned, or an instance
	kindModule         // a module that a call has imported by name
	kindKept           // an array's element type
	// kindPersistent is what persistent_load gives, kindUnknown a buffer, an
	// extension code, or what cannot be named.
	kindPersistent
	kindUnknown
)

const (
	persistent value = kindPersistent
	unknown    value = kindUnknown
)

func (v value) kind() uint64 { return uint64(v) & 15 }

const (
	codeBits  = 4  // where a literal's opcode begins
	placeBits = 12 // where its offset begins
)

// literal is what the opcode at an offset writes. An offset beyond 2^52 does
// not fit; no such artifact can be scanned.
func literal(code byte, at int64) value {
	return value(at)<<placeBits | value(code)<<codeBits | kindLiteral
}

func (v value) code() byte { return byte(v >> codeBits) }
func (v value) at() int64  { return int64(v >> placeBits) }

// isText reports whether v is written as a str, or as what Python 2 called one.
func (v value) isText() bool {
	if v.kind() != kindLiteral {
		return false
	}
	switch v.code() {
	case opShortBinUnicode, opBinUnicode, opBinUnicode8, opUnicode, opString, opBinString, opShortBinString:
		return true
	}
	return false
}

// isBytes reports whether v is written as bytes.
func (v value) isBytes() bool {
	if v.kind() != kindLiteral {
		return false
	}
	switch v.code() {
	case opBinBytes, opShortBinBytes, opBinBytes8, opByteArray8:
		return true
	}
	return false
}

func globalValue(id int) value { return value(id)<<4 | kindGlobal }
func moduleValue(id int) value { return value(id)<<4 | kindModule }
func keptValue(id int) value   { return value(id)<<4 | kindKept }

// index is the import, the module or the element type that v stands for.
func (v value) index() int { return int(v >> 4) }

// What a node is.
const (
	nodeTuple = iota
	nodeList
	nodeDict
	nodeSet
)

const (
	shapeBits  = 4
	nodeBits   = 8  // where a container's serial number begins
	resultBits = 24 // where a call's serial number begins
	calleeMask = 1<<(resultBits-4) - 1
)

// emptyTuple has no node of its own.
const emptyTuple value = nodeTuple<<shapeBits | kindNode

func (v value) shape() int { return int(v>>shapeBits) & 15 }

// callee is the import whose call or instance v is.
func (v value) callee() (int, bool) {
	id := int(v>>4) & calleeMask
	return id - 1, v.kind() == kindResult && id > 0
}

// serial is the number of the node that v refers to.
func (v value) serial() uint64 {
	switch v.kind() {
	case kindNode:
		return uint64(v >> nodeBits)
	case kindResult:
		return uint64(v >> resultBits)
	}
	return 0
}

const (
	// held is how many items of a container are remembered, chunk times chunks
	// how many nodes.
	held   = 32
	chunk  = 128
	chunks = 32
)

// node is a container's items, or a call: its arguments are the items.
type node struct {
	serial uint64
	callee value
	// n counts all items, those beyond held too; mixed is set when one of those
	// is no literal.
	n     int
	mixed bool
	items [held]value
}

func (n *node) add(v value) {
	if n.n < held {
		n.items[n.n] = v
	} else if v.kind() != kindLiteral {
		n.mixed = true
	}
	n.n++
}

func (n *node) addAll(vs []value) {
	if n.n+len(vs) <= held {
		copy(n.items[n.n:], vs)
		n.n += len(vs)
		return
	}
	for _, v := range vs {
		n.add(v)
	}
}

// known are the items that are remembered.
func (n *node) known() []value { return n.items[:min(n.n, held)] }

// whole reports whether all items are.
func (n *node) whole() bool { return n.n <= held }

// nodes remembers the last nodes that were made.
type nodes struct {
	ring [chunks]*[chunk]node
	last uint64
}

var noItems node

// get gives the node that v refers to, or nil when it is forgotten.
func (ns *nodes) get(v value) *node {
	if v == emptyTuple {
		return &noItems
	}
	serial := v.serial()
	c := ns.ring[serial/chunk%chunks]
	if c == nil || serial == 0 {
		return nil
	}
	if n := &c[serial%chunk]; n.serial == serial {
		return n
	}
	return nil
}

func (ns *nodes) next() *node {
	ns.last++
	c := &ns.ring[ns.last/chunk%chunks]
	if *c == nil {
		*c = new([chunk]node)
	}
	n := &(*c)[ns.last%chunk]
	n.serial, n.callee, n.n, n.mixed = ns.last, 0, 0, false
	return n
}

// container makes a container of a shape.
func (ns *nodes) container(shape value, items []value) value {
	n := ns.next()
	n.addAll(items)
	return value(n.serial)<<nodeBits | shape<<shapeBits | kindNode
}

// result is what a call returns; id is the import whose call or instance it is,
// or less than 0.
func (ns *nodes) result(id int, callee value, args ...value) value {
	n := ns.next()
	n.callee = callee
	n.addAll(args)
	return value(n.serial)<<resultBits | value(max(id, -1)+1)<<4 | kindResult
}
