package numpy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"github.com/cavra/cavra/plugins/formats/content"
)

const magic = "\x93NUMPY"

// maxHeader bounds the header's text. numpy's own reader stops at 10,000.
const maxHeader = 1 << 20

// header is what the preamble of an npy file says (NEP 1, versions 1.0 to 3.0).
type header struct {
	// size of the preamble: magic, version, length and text.
	size  int64
	dtype dtype
	// items is the product of the shape.
	items int64
}

var errHeader = errors.New("not a header of an array file")

// readHeader reads the preamble. An error that is errHeader is the content's
// fault; any other is a read error.
func readHeader(v *content.Visit) (header, error) {
	if len(v.Head) < 12 || v.Head[7] != 0 || v.Head[6] < 1 || v.Head[6] > 3 {
		return header{}, fmt.Errorf("%w: version", errHeader)
	}
	start, n := int64(10), int64(binary.LittleEndian.Uint16(v.Head[8:]))
	if v.Head[6] > 1 {
		start, n = 12, int64(binary.LittleEndian.Uint32(v.Head[8:]))
	}
	if n > maxHeader || start+n > v.Size {
		return header{}, fmt.Errorf("%w: length %d", errHeader, n)
	}
	text := make([]byte, n)
	if err := content.ReadFull(v.Bytes, text, start); err != nil {
		return header{}, err
	}
	h, err := parseHeader(text)
	h.size = start + n
	return h, err
}

// parseHeader reads the literal dictionary with exactly the keys descr,
// fortran_order and shape.
func parseHeader(text []byte) (header, error) {
	lit, err := parseLiteral(text)
	if err != nil {
		return header{}, fmt.Errorf("%w: %w", errHeader, err)
	}
	d, ok := lit.(dict)
	if !ok || len(d) != 3 {
		return header{}, fmt.Errorf("%w: not a dictionary of three keys", errHeader)
	}
	if _, ok := d["fortran_order"].(bool); !ok {
		return header{}, fmt.Errorf("%w: fortran_order", errHeader)
	}
	items, err := product(d["shape"])
	if err != nil {
		return header{}, err
	}
	t, err := parseDtype(d["descr"], 0)
	if err != nil {
		return header{}, err
	}
	return header{dtype: t, items: items}, nil
}

func product(shape any) (int64, error) {
	dims, ok := shape.(tuple)
	if !ok || len(dims) > 64 {
		return 0, fmt.Errorf("%w: shape", errHeader)
	}
	items := uint64(1)
	for _, d := range dims {
		n, ok := d.(int64)
		if !ok || n < 0 {
			return 0, fmt.Errorf("%w: shape", errHeader)
		}
		hi, lo := bits.Mul64(items, uint64(n))
		if hi != 0 || lo > math.MaxInt64 {
			return 0, fmt.Errorf("%w: shape is too large", errHeader)
		}
		items = lo
	}
	return int64(items), nil
}

// dtype is what matters of an element's type.
type dtype struct {
	// size in bytes of one element.
	size int64
	// object is set when any part of it is a pickled object.
	object bool
}

// maxFields and maxNesting bound structured types.
const (
	maxFields  = 10_000
	maxNesting = 16
)

// parseDtype reads a type string such as "<f4", or the list of fields of a
// structured type.
func parseDtype(descr any, depth int) (dtype, error) {
	if depth > maxNesting {
		return dtype{}, fmt.Errorf("%w: descr is too deep", errHeader)
	}
	switch d := descr.(type) {
	case string:
		return typeString(d)
	case list:
		return fields(d, depth)
	case tuple:
		// (base, shape): a subarray.
		if len(d) != 2 {
			return dtype{}, fmt.Errorf("%w: descr", errHeader)
		}
		return subarray(d[0], d[1], depth)
	}
	return dtype{}, fmt.Errorf("%w: descr", errHeader)
}

func subarray(base, shape any, depth int) (dtype, error) {
	t, err := parseDtype(base, depth+1)
	if err != nil {
		return t, err
	}
	if n, ok := shape.(int64); ok {
		shape = tuple{n}
	}
	n, err := product(shape)
	if err != nil {
		return t, err
	}
	t.size, err = times(t.size, n)
	return t, err
}

func times(a, b int64) (int64, error) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi != 0 || lo > math.MaxInt64/2 {
		return 0, fmt.Errorf("%w: size overflows", errHeader)
	}
	return int64(lo), nil
}

func fields(d list, depth int) (dtype, error) {
	if len(d) > maxFields {
		return dtype{}, fmt.Errorf("%w: too many fields", errHeader)
	}
	var whole dtype
	for _, f := range d {
		field, ok := f.(tuple)
		if !ok || len(field) < 2 || len(field) > 3 {
			return dtype{}, fmt.Errorf("%w: field", errHeader)
		}
		t, err := parseDtype(field[1], depth+1)
		if err == nil && len(field) == 3 {
			t, err = subarray(field[1], field[2], depth+1)
		}
		if err != nil {
			return dtype{}, err
		}
		whole.size += t.size
		whole.object = whole.object || t.object
		if whole.size > math.MaxInt64/2 {
			return dtype{}, fmt.Errorf("%w: size overflows", errHeader)
		}
	}
	return whole, nil
}

// typeString reads a type string of the array interface: byte order, kind,
// size; U counts characters of 4 bytes, and M and m may name a unit.
func typeString(s string) (dtype, error) {
	s = strings.TrimLeft(s, "<>=|")
	if s == "" {
		return dtype{}, fmt.Errorf("%w: descr", errHeader)
	}
	kind, rest := s[0], s[1:]
	if kind == 'O' {
		return dtype{size: 8, object: true}, nil
	}
	if kind == 'M' || kind == 'm' {
		rest, _, _ = strings.Cut(rest, "[")
	}
	if kind == '?' && rest == "" {
		rest = "1"
	}
	n, err := strconv.ParseInt(rest, 10, 32)
	if err != nil || n < 0 || !strings.ContainsRune("?biufcmMSaUV", rune(kind)) {
		return dtype{}, fmt.Errorf("%w: type string", errHeader)
	}
	if kind == 'U' {
		n *= 4
	}
	return dtype{size: n}, nil
}

func isMagic(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }
