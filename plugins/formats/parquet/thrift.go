package parquet

import (
	"math"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/cursor"
)

// The types of Thrift's compact protocol.
const (
	typeTrue, typeFalse, typeByte, typeI16, typeI32, typeI64 = 1, 2, 3, 4, 5, 6
	typeDouble, typeBinary, typeList, typeSet, typeMap       = 7, 8, 9, 10, 11
	typeStruct                                               = 12
)

const (
	// maxDepth and maxValues bound what one structure holds.
	maxDepth  = 32
	maxValues = 4_000_000
	// maxText is how much of a name is kept, in bytes.
	maxText = 1024
)

// thrift reads structures of Thrift's compact protocol.
type thrift struct {
	*cursor.Reader
	values int
}

func (t *thrift) varint() uint64 {
	var n uint64
	for shift := uint(0); shift < 64 && t.Ok(); shift += 7 {
		b := t.U8()
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
	t.Fail("a number is too long")
	return 0
}

func (t *thrift) int() int64 {
	n := t.varint()
	return int64(n>>1) ^ -int64(n&1)
}

// fields calls each for the fields of a structure; each takes the value.
func (t *thrift) fields(depth int, each func(id int, kind byte)) {
	if depth > maxDepth {
		t.Limit("structures are nested too deep", predicate.LimitDepth)
	}
	id := 0
	for t.Ok() {
		if t.values++; t.values > maxValues {
			t.Limit("too many values", predicate.LimitMembers)
			return
		}
		b := t.U8()
		if b == 0 {
			return
		}
		if delta := int(b >> 4); delta != 0 {
			id += delta
		} else {
			id = int(t.int() & math.MaxInt16)
		}
		each(id, b&15)
	}
}

// list calls each for the items of a list.
func (t *thrift) list(each func(kind byte)) {
	b := t.U8()
	n := uint64(b >> 4)
	if n == 15 {
		n = t.varint()
	}
	if n > uint64(t.Left()) {
		t.Fail("a list is longer than the content")
	}
	for i := uint64(0); i < n && t.Ok(); i++ {
		if t.values++; t.values > maxValues {
			t.Limit("too many values", predicate.LimitMembers)
			return
		}
		each(b & 15)
	}
}

func (t *thrift) text() string {
	n := t.varint()
	if n > uint64(t.Left()) {
		t.Fail("a text is longer than the content")
		return ""
	}
	return t.Text(int64(n), maxText)
}

// skip steps over a value.
func (t *thrift) skip(kind byte, depth int) {
	switch kind {
	case typeTrue, typeFalse:
	case typeByte:
		t.Skip(1)
	case typeI16, typeI32, typeI64:
		t.varint()
	case typeDouble:
		t.Skip(8)
	case typeBinary:
		t.text()
	case typeList, typeSet:
		t.list(func(kind byte) {
			if kind == typeTrue || kind == typeFalse {
				kind = typeByte // in a list they take a byte
			}
			if depth > maxDepth {
				t.Limit("lists are nested too deep", predicate.LimitDepth)
				return
			}
			t.skip(kind, depth+1)
		})
	case typeStruct:
		t.fields(depth+1, func(_ int, kind byte) { t.skip(kind, depth+1) })
	case typeMap:
		t.Unknown("a map, which no part of the format has")
	default:
		t.Fail("a type that is none")
	}
}
