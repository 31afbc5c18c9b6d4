package xgboost

import (
	"encoding/binary"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/cursor"
)

// width of a number by its type mark (UBJSON draft 12), and of the few that hold
// no bytes.
var width = map[byte]int64{'i': 1, 'U': 1, 'C': 1, 'I': 2, 'l': 4, 'd': 4, 'L': 8, 'D': 8, 'Z': 0, 'N': 0, 'T': 0, 'F': 0}

const (
	// maxDepth of values within each other. XGBoost's own take about eight.
	maxDepth = 100
	// maxValues bounds the values that are looked at one by one; an array of one
	// type of numbers is a single one.
	maxValues = 40_000_000
	// maxKey is how much of a key is kept, in bytes.
	maxKey = 64
)

// ubj reads Universal Binary JSON into what the model's check asks for.
type ubj struct {
	*cursor.Reader
	m      *model
	values int
}

func newUBJ(r *cursor.Reader, m *model) *ubj {
	r.Order = binary.BigEndian
	return &ubj{Reader: r, m: m}
}

// mark takes the next type mark that is no padding.
func (u *ubj) mark() byte {
	c := u.U8()
	for c == 'N' && u.Ok() {
		c = u.U8()
	}
	return c
}

// integer takes a number of the type.
func (u *ubj) integer(kind byte) int64 {
	switch kind {
	case 'i':
		return int64(int8(u.U8()))
	case 'U':
		return int64(u.U8())
	case 'I':
		return int64(int16(u.U16()))
	case 'l':
		return int64(int32(u.U32()))
	case 'L':
		return int64(u.U64())
	}
	u.Fail("a length of no integer type")
	return 0
}

// length takes a length, with its type before it.
func (u *ubj) length() int64 {
	n := u.integer(u.U8())
	if n < 0 {
		u.Fail("a negative length")
	}
	return n
}

// value takes a value of the type, which lies under a path of keys.
func (u *ubj) value(kind byte, path []string) {
	if u.values++; u.values > maxValues {
		u.Limit("too many values", predicate.LimitMembers)
	}
	if !u.Ok() {
		return
	}
	switch kind {
	case '{':
		u.object(path)
	case '[':
		u.array(path)
	case 'S', 'H':
		n := u.length()
		u.m.text(path, u.Text(n, maxKey))
	case 'i', 'U', 'I', 'l', 'L':
		u.m.number(path, u.integer(kind))
	default:
		n, known := width[kind]
		if !known {
			u.Fail("a type that is not known")
			return
		}
		u.Skip(n)
	}
}

// header takes what an array or object may begin with: a type for all its
// values, and their number. Without a number it is -1.
func (u *ubj) header(end byte) (kind, first byte, n int64) {
	first = u.mark()
	if first == '$' {
		kind = u.U8()
		first = u.mark()
		if first != '#' {
			u.Fail("a type for all without their number")
		}
	}
	if first != '#' {
		return 0, first, -1
	}
	n = u.length()
	if n > u.Left() && u.Ok() {
		u.Fail("more values than the content can hold")
	}
	if kind != 0 {
		if w, ok := width[kind]; (!ok || w == 0) && kind != '[' && kind != '{' && kind != 'S' && kind != 'H' {
			u.Fail("a type for all that holds nothing")
		}
	}
	return kind, end, n
}

func (u *ubj) object(path []string) {
	u.m.enter(u.Reader, path)
	kind, c, n := u.header('}')
	for i := int64(0); u.Ok() && (n < 0 && c != '}' || i < n); i++ {
		var size int64
		if n < 0 {
			size = u.integer(c)
		} else {
			size = u.length()
		}
		if size < 0 {
			u.Fail("a negative length")
		}
		key := u.Text(size, maxKey)
		u.m.key(u.At(), path, key)
		k := kind
		if k == 0 {
			k = u.mark()
		}
		u.below(k, path, key)
		if n < 0 {
			c = u.mark()
		}
	}
	u.m.leave(u.Reader, path)
}

// below takes a value one level deeper.
func (u *ubj) below(kind byte, path []string, key string) {
	if len(path) >= maxDepth {
		u.Limit("values are nested too deep", predicate.LimitDepth)
		return
	}
	u.value(kind, append(path, key))
}

func (u *ubj) array(path []string) {
	at := u.At()
	kind, c, n := u.header(']')
	if w := width[kind]; kind != 0 && w > 0 {
		u.typed(kind, n, w, path, at)
		return
	}
	count := int64(0)
	for ; u.Ok() && (n < 0 && c != ']' || count < n); count++ {
		k := kind
		switch {
		case k != 0:
		case n < 0:
			k = c
		default:
			k = u.mark()
		}
		u.below(k, path, "")
		if n < 0 {
			c = u.mark()
		}
	}
	u.m.array(path, count, at)
}

// typed takes an array of numbers of one type: the bounded ones that lead to
// other nodes are looked at, all others are stepped over.
func (u *ubj) typed(kind byte, n, w int64, path []string, at int64) {
	if !u.m.wants(path) || kind == 'd' || kind == 'D' {
		u.Items(n, w)
		u.m.array(path, n, at)
		return
	}
	for i := int64(0); i < n && u.Ok(); i++ {
		u.m.number(append(path, ""), u.integer(kind))
	}
	u.m.array(path, n, at)
}
