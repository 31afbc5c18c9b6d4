// Package msgpack reads weights in MessagePack, as Flax writes them: maps of
// names, and arrays in extensions, whose data is inert by an extent that must fit
// the shape and type. Data that a reader of Python objects would unpickle is
// scanned as content, and extensions of nobody are unread.
package msgpack

import (
	"context"
	"encoding/binary"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
)

// ID is the format's id.
const ID = "msgpack"

const (
	ruleMalformed = "msgpack.malformed"
	ruleObject    = "msgpack.array.object"
	ruleExtension = "msgpack.extension.unknown"
	ruleDuplicate = "msgpack.key.duplicate"

	// maxDepth of maps and arrays within each other; Python's reader allows 1024.
	maxDepth = 256
	// maxValues of one file. Flax's have some thousand.
	maxValues = 5_000_000
	// maxKey is how much of a key is kept, and maxDims how many dimensions an
	// array may have (numpy: 64).
	maxKey  = 256
	maxDims = 64
)

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{"archive.entry.hidden", "model.limit", ruleDuplicate, ruleExtension, ruleMalformed, ruleObject}
}

// Format is MessagePack as a format of the program.
type Format struct{}

// Identify implements content.Format. MessagePack has no mark: content is taken
// for it when it is a map whose first keys are names.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	h := v.Head
	if len(h) < 3 {
		return false, nil
	}
	n := 1
	switch c := h[0]; {
	case c > 0x80 && c <= 0x8f:
	case c == 0xde:
		n = 3
	case c == 0xdf:
		n = 5
	default:
		return false, nil
	}
	r := cursor.New(v.Bytes, v.Size)
	r.Order = binary.BigEndian
	r.Skip(int64(n))
	size, ok := keySize(r, r.U8())
	if !ok || size < 1 || size > maxKey || !r.Ok() {
		return false, nil
	}
	key := r.Text(size, maxKey)
	next := r.U8()
	return r.Ok() && name(key) && next != 0xc1, nil
}

// keySize is the length of a text that begins with c.
func keySize(r *cursor.Reader, c byte) (int64, bool) {
	switch {
	case c >= 0xa0 && c <= 0xbf:
		return int64(c & 0x1f), true
	case c == 0xd9 || c == 0xc4:
		return int64(r.U8()), true
	case c == 0xda || c == 0xc5:
		return int64(r.U16()), true
	case c == 0xdb || c == 0xc6:
		return int64(r.U32()), true
	}
	return 0, false
}

func name(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	r := cursor.New(v.Bytes, v.Size)
	r.Order = binary.BigEndian
	s := &scan{Reader: r, v: v, ctx: ctx}
	s.value("", 0)
	if !r.Ok() {
		return cursor.Settle(v, r.Err(), ID, ruleMalformed, s.claimed)
	}
	v.Parsed(s.claimed, r.At())
	return v.Trailing(ctx, ID, r.At())
}

// scan is one scan of one file. It holds ctx for its own length only.
type scan struct {
	*cursor.Reader
	v       *content.Visit
	ctx     context.Context //nolint:containedctx // a scan lives as long as the call
	claimed int64
	values  int
}

// value reads a value that stands under a key.
func (s *scan) value(key string, depth int) {
	if s.values++; s.values > maxValues {
		s.Limit("too many values", predicate.LimitMembers)
	}
	if depth > maxDepth {
		s.Limit("values are nested too deep", predicate.LimitDepth)
	}
	c := s.U8()
	if !s.Ok() {
		return
	}
	switch {
	case c <= 0x7f || c >= 0xe0 || c == 0xc0 || c == 0xc2 || c == 0xc3:
	case c <= 0x8f:
		s.object(int64(c&0x0f), depth)
	case c <= 0x9f:
		s.array(int64(c&0x0f), depth)
	case c <= 0xbf:
		s.Skip(int64(c & 0x1f))
	case c == 0xdc:
		s.array(int64(s.U16()), depth)
	case c == 0xdd:
		s.array(int64(s.U32()), depth)
	case c == 0xde:
		s.object(int64(s.U16()), depth)
	case c == 0xdf:
		s.object(int64(s.U32()), depth)
	default:
		s.sized(c, key)
	}
}

// sized reads a number, a text, bytes or an extension.
func (s *scan) sized(c byte, key string) {
	switch c {
	case 0xca, 0xce, 0xd2:
		s.Skip(4)
	case 0xcb, 0xcf, 0xd3:
		s.Skip(8)
	case 0xcc, 0xd0:
		s.Skip(1)
	case 0xcd, 0xd1:
		s.Skip(2)
	case 0xd9, 0xda, 0xdb:
		n, _ := keySize(s.Reader, c)
		s.Skip(n)
	case 0xc4, 0xc5, 0xc6:
		n, _ := keySize(s.Reader, c)
		s.bytes(key, n)
	case 0xc7:
		s.extension(int64(s.U8()))
	case 0xc8:
		s.extension(int64(s.U16()))
	case 0xc9:
		s.extension(int64(s.U32()))
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8:
		s.extension(1 << (c - 0xd4))
	default:
		s.Fail("a type that is not known")
	}
}

// fits holds a number of values against the bytes that are left.
func (s *scan) fits(n, least int64) bool {
	if n > s.Left()/least {
		s.Fail("more values than the content can hold")
	}
	return s.Ok()
}

func (s *scan) array(n int64, depth int) {
	for i := int64(0); s.fits(n-i, 1) && i < n; i++ {
		s.value("", depth+1)
	}
}

func (s *scan) object(n int64, depth int) {
	seen := make(map[string]bool)
	object := false
	for i := int64(0); s.fits(n-i, 2) && i < n; i++ {
		at := s.At()
		var key string
		size, text := keySize(s.Reader, s.U8())
		if text {
			key = s.Text(size, maxKey)
		} else {
			s.Goto(at)
			s.value("", depth+1)
		}
		if text && size <= maxKey && s.Ok() {
			if seen[key] {
				s.v.Found(ruleDuplicate, ID, at, cursor.Clean(key))
			}
			if len(seen) < 1<<16 {
				seen[key] = true
			}
		}
		before := s.At()
		s.value(key, depth+1)
		if key == "kind" && s.Ok() && s.At()-before <= 3 {
			object = s.isObject(before)
		}
	}
	if object && (seen["nd"] || seen["data"]) {
		s.v.Found(ruleObject, ID, s.At(), "kind is O")
	}
}

// isObject reports whether the value at an offset is the text "O".
func (s *scan) isObject(at int64) bool {
	end := s.At()
	s.Goto(end - 1)
	is := end-at >= 2 && s.U8() == 'O'
	s.Goto(end)
	return is
}

// bytes claims data: inert, unless it is what a reader would unpickle.
func (s *scan) bytes(key string, n int64) {
	start := s.At()
	s.Skip(n)
	if !s.Ok() || n == 0 {
		return
	}
	s.v.Parsed(s.claimed, start)
	s.claimed = s.At()
	s.inner(key, start, s.At())
}

// inner enters data as content when it begins as a pickle or another format does;
// all else is numbers.
func (s *scan) inner(key string, start, end int64) {
	head := make([]byte, min(8, end-start))
	if err := content.ReadFull(s.v.Bytes, head, start); err != nil {
		s.Stop(err)
		return
	}
	marked := len(head) > 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5
	if key != "data" && key != "__reduce__" && !marked {
		s.v.Inert(start, end)
		return
	}
	if _, err := s.v.EnterWith(s.ctx, s.v.Part(start, end), s.pickled); err != nil {
		s.Stop(err)
	}
}

// extension reads an extension of n bytes: Flax's three, and the time of
// MessagePack itself.
func (s *scan) extension(n int64) {
	at := s.At()
	kind := int8(s.U8())
	end := s.At() + n
	if n > s.Left() {
		s.Skip(n)
	}
	if !s.Ok() {
		return
	}
	switch kind {
	case 1, 3:
		s.tensor(end)
	case 2, -1:
		s.Goto(end)
	default:
		s.v.Found(ruleExtension, ID, at)
		s.v.Parsed(s.claimed, s.At())
		s.v.Unread(s.At(), end, predicate.UnsupportedFormat)
		s.Goto(end)
		s.claimed = s.At()
	}
}

// tensor reads an array: its shape, the name of its type, and its data, which
// ends at end.
func (s *scan) tensor(end int64) {
	if s.U8() != 0x93 {
		s.Fail("an array of other than three parts")
	}
	count, dims := int64(1), int64(0)
	switch c := s.U8(); {
	case c >= 0x90 && c <= 0x9f:
		dims = int64(c & 0x0f)
	case c == 0xdc:
		dims = int64(s.U16())
	default:
		s.Fail("an array without a shape")
	}
	if dims > maxDims {
		s.Fail("an array of too many dimensions")
	}
	for i := int64(0); i < dims && s.Ok(); i++ {
		n := s.natural()
		if n != 0 && count > math.MaxInt64/n {
			s.Fail("a shape that overflows")
			return
		}
		count *= n
	}
	at := s.At()
	size, ok := keySize(s.Reader, s.U8())
	if !ok || size > maxKey {
		s.Fail("an array without a type")
	}
	kind := s.Text(size, maxKey)
	width := itemSize(kind)
	n, ok := keySize(s.Reader, s.U8())
	if !s.Ok() {
		return
	}
	if !ok || s.At()+n != end {
		s.Fail("an array whose data is not where it ends")
		return
	}
	if width == 0 {
		s.v.Found(ruleObject, ID, at, cursor.Clean(kind))
	} else if count > math.MaxInt64/width || count*width != n {
		s.Fail("a shape that does not fit the data")
		return
	}
	s.v.Parsed(s.claimed, s.At())
	s.v.Inert(s.At(), end)
	s.Goto(end)
	s.claimed = end
}

// natural reads a number that is not negative.
func (s *scan) natural() int64 {
	switch c := s.U8(); {
	case c <= 0x7f:
		return int64(c)
	case c == 0xcc:
		return int64(s.U8())
	case c == 0xcd:
		return int64(s.U16())
	case c == 0xce:
		return int64(s.U32())
	case c == 0xcf:
		if n := s.U64(); n <= math.MaxInt64 {
			return int64(n)
		}
	}
	s.Fail("a dimension that is no length")
	return 0
}

// itemSize is the size of an item by the name that numpy or JAX has for its type;
// 0 when it is none of numbers.
func itemSize(kind string) int64 {
	switch kind {
	case "bool", "int8", "uint8", "int4", "uint4", "int2", "uint2":
		return 1
	case "int16", "uint16", "float16", "bfloat16":
		return 2
	case "int32", "uint32", "float32":
		return 4
	case "int64", "uint64", "float64", "complex64":
		return 8
	case "complex128", "float128", "longdouble":
		return 16
	}
	if strings.HasPrefix(kind, "float8_") || strings.HasPrefix(kind, "float4_") || strings.HasPrefix(kind, "float6_") {
		return 1
	}
	return 0
}

// pickled scans data as a pickle when it is one.
func (*scan) pickled(ctx context.Context, v *content.Visit) error {
	found, err := pickleIn(ctx, v)
	if err != nil || found {
		return err
	}
	v.Format = "data"
	v.Inert(0, v.Size)
	return nil
}
