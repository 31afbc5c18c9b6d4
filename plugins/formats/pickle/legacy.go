package pickle

import (
	"encoding/binary"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// legacyMagic is the number that begins torch's format before zip archives,
// 0x1950a86a20f9469cfc6c, as LONG1 writes it.
const legacyMagic = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"

// The pickles of that format: the magic number, the protocol, facts of the
// machine, the object, and the keys of the storages, whose bytes follow.
const (
	afterMagic = 1
	afterKeys  = 5
)

// maxStorages bounds the storages that are kept.
const maxStorages = 1 << 20

// storageSizes are the bytes of an element of each storage type.
var storageSizes = map[string]int64{
	"DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "LongStorage": 8, "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1,
	"ByteStorage": 1, "BoolStorage": 1, "BFloat16Storage": 2, "ComplexDoubleStorage": 16, "ComplexFloatStorage": 8, "QUInt8Storage": 1,
	"QInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1, "UntypedStorage": 1,
}

// legacyFile follows torch's format before zip archives.
type legacyFile struct {
	// stage counts the pickles that have ended, from the magic number on.
	stage int
	// collects is set while the storages' keys are read.
	collects bool
	keys     []value
	sizes    map[string]int64
	// odd is set when the keys are not what torch writes.
	odd bool
}

// ended is told of each stream's end, with the value that it gives.
func (l *legacyFile) ended(m *machine, top value) {
	switch {
	case l.stage > 0:
		l.stage++
	case len(m.out.Ends) == afterMagic && m.isMagic(top):
		l.stage, l.sizes = afterMagic, make(map[string]int64)
	}
	l.collects = l.stage == afterKeys-1
	if l.stage == afterKeys {
		n := m.nodes.get(top)
		l.odd = l.odd || n == nil || top.kind() != kindNode || top.shape() != nodeList || n.n != len(l.keys)
	}
}

func (m *machine) isMagic(v value) bool {
	if v.kind() != kindLiteral || v.code() != opLong1 {
		return false
	}
	at, n, ok := m.extent(v)
	if !ok || n != int64(len(legacyMagic)) {
		return false
	}
	b, ok := m.peek(at, n)
	return ok && string(b) == legacyMagic
}

func (l *legacyFile) key(v value) {
	if len(l.keys) >= maxStorages {
		l.odd = true
		return
	}
	l.keys = append(l.keys, v)
}

// load gives what torch's persistent_load returns for an id: a storage, whose
// size is noted, or the class of a module that was saved with its source.
func (l *legacyFile) load(m *machine, id value) value {
	items := m.argumentsOf(id)
	if len(items) < 2 || items[1].kind() != kindGlobal {
		return persistent
	}
	switch what, _ := m.word(items[0]); {
	case what == "module":
		return items[1]
	case what == "storage" && len(items) >= 5:
		l.storage(m, items)
	}
	return persistent
}

func (l *legacyFile) storage(m *machine, items []value) {
	key, ok := m.word(items[2])
	g := m.globals[items[1].index()]
	size := storageSizes[g.name]
	if !ok || size == 0 || g.module != "torch" && g.module != "torch.cuda" && g.module != "torch.storage" || len(l.sizes) >= maxStorages {
		return
	}
	l.sizes[strings.Clone(key)] = size
}

// storages goes past the storages behind the keys: each is a count of elements
// in eight bytes, and the elements. It reports whether the content is what the
// structure says.
func (m *machine) storages() bool {
	l := &m.legacy
	if l.odd {
		m.event(Malformed, "keys of storages that are no list of names", "")
		return false
	}
	for _, k := range l.keys {
		key, ok := m.word(k)
		size := l.sizes[key]
		if !ok || size == 0 {
			m.event(Malformed, "a key of no storage", "")
			return false
		}
		at := m.offset()
		b, ok := m.peek(at, 8)
		if !ok {
			return m.truncated()
		}
		n := int64(binary.LittleEndian.Uint64(b))
		if n < 0 || n > (m.left()-8)/size {
			m.at = at
			return m.fail(predicate.Truncated, "a storage beyond the end")
		}
		// What is read as a pickle from here on would be the storage itself.
		if len(m.plain) < maxPlain {
			m.plain = append(m.plain, at, at+8)
		}
		if !m.skip(8) || !m.skip(n*size) {
			return false
		}
	}
	return true
}
