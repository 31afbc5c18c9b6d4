package pickle

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/cavra/cavra/plugins/formats/content"
)

// peek gives n bytes of the source: from the window where they are in it.
func (m *machine) peek(at, n int64) ([]byte, bool) {
	if at < 0 || n < 0 || at+n > m.size || at+n < at {
		return nil, false
	}
	if from := at - m.base; from >= 0 && from+n <= int64(m.end) {
		return m.buf[from : from+n : from+n], true
	}
	b := make([]byte, n)
	if err := content.ReadFull(m.src, b, at); err != nil {
		m.failed = err
		return nil, false
	}
	return b, true
}

// extent is where a literal's text or bytes lie.
func (m *machine) extent(v value) (at, n int64, ok bool) {
	code, at := v.code(), v.at()
	form := arguments[code]
	if form == argLine {
		return m.lineExtent(at + 1)
	}
	head, ok := m.peek(at+1, int64(fixed[form]))
	if !ok {
		return 0, 0, false
	}
	switch form {
	case argCount1:
		n = int64(head[0])
	case argCount4:
		n = int64(binary.LittleEndian.Uint32(head))
	case argCount4Signed:
		n = int64(int32(binary.LittleEndian.Uint32(head)))
	case argCount8:
		n = int64(min(binary.LittleEndian.Uint64(head), math.MaxInt64))
	default:
		n = 0
	}
	at += 1 + int64(fixed[form])
	return at, n, n >= 0 && n <= m.size-at
}

func (m *machine) lineExtent(at int64) (int64, int64, bool) {
	for n := int64(64); ; n *= 8 {
		n = min(n, m.size-at, maxLine+1)
		b, ok := m.peek(at, n)
		if !ok {
			return 0, 0, false
		}
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			return at, int64(i), true
		}
		if n > maxLine || n == m.size-at {
			return 0, 0, false
		}
	}
}

// text is a literal's text, of at most limit bytes as written.
func (m *machine) text(v value, limit int64) ([]byte, bool) {
	if !v.isText() {
		return nil, false
	}
	at, n, ok := m.extent(v)
	if !ok || n > limit || !m.spend(n) {
		return nil, false
	}
	b, ok := m.peek(at, n)
	if !ok {
		return nil, false
	}
	switch v.code() {
	case opUnicode:
		return unescapeRaw(b)
	case opString:
		b = bytes.TrimRight(b, " \t\r\v\f")
		if len(b) < 2 {
			return nil, false
		}
		return unescape(b[1 : len(b)-1])
	case opBinString, opShortBinString:
		return latin1(bytes.Clone(b)), true
	}
	return bytes.Clone(b), utf8.Valid(b)
}

// bytes is a literal's bytes, of at most limit.
func (m *machine) bytes(v value, limit int64) ([]byte, bool) {
	if !v.isBytes() {
		return nil, false
	}
	at, n, ok := m.extent(v)
	if !ok || n > limit || !m.spend(n) {
		return nil, false
	}
	b, ok := m.peek(at, n)
	return bytes.Clone(b), ok
}

// integer is a literal's number.
func (m *machine) integer(v value) (int64, bool) {
	if v.kind() != kindLiteral {
		return 0, false
	}
	switch v.code() {
	case opNewTrue:
		return 1, true
	case opNewFalse:
		return 0, true
	case opInt, opLong:
		at, n, ok := m.lineExtent(v.at() + 1)
		if !ok {
			return 0, false
		}
		b, ok := m.peek(at, n)
		if !ok {
			return 0, false
		}
		i, err := strconv.ParseInt(string(bytes.TrimSuffix(trimSpace(b), []byte("L"))), 0, 64)
		return i, err == nil
	case opBinInt, opBinInt1, opBinInt2:
		b, ok := m.peek(v.at()+1, int64(fixed[arguments[v.code()]]))
		if !ok {
			return 0, false
		}
		switch len(b) {
		case 1:
			return int64(b[0]), true
		case 2:
			return int64(binary.LittleEndian.Uint16(b)), true
		}
		return int64(int32(binary.LittleEndian.Uint32(b))), true
	case opLong1, opLong4:
		at, n, ok := m.extent(v)
		if !ok || n > 8 {
			return 0, false
		}
		b, ok := m.peek(at, n)
		return littleEndian(b), ok
	}
	return 0, false
}

// littleEndian is a two's complement number of up to 8 bytes.
func littleEndian(b []byte) int64 {
	var u uint64
	for i, c := range b {
		u |= uint64(c) << (8 * i)
	}
	if n := len(b); n > 0 && n < 8 && b[n-1] >= 0x80 {
		u |= math.MaxUint64 << (8 * n)
	}
	return int64(u)
}

// isNone reports whether v is None.
func isNone(v value) bool { return v.kind() == kindLiteral && v.code() == opNone }

// maxEvaluated bounds the bytes of literals that one machine reads again and
// computes with.
const maxEvaluated = 64 << 20

func (m *machine) spend(n int64) bool {
	m.evaluated += n
	return m.evaluated <= maxEvaluated
}
