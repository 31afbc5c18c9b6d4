package tar

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/cavra/cavra/plugins/formats/content"
)

const blockSize = 512

// The types of entries, as in POSIX and as GNU tar extends them.
const (
	typeOld      = 0
	typeFile     = '0'
	typeHardLink = '1'
	typeLink     = '2'
	typeChar     = '3'
	typeBlock    = '4'
	typeFolder   = '5'
	typePipe     = '6'
	typeCont     = '7'
	typeGlobal   = 'g'
	typeExtended = 'x'
	typeSolaris  = 'X'
	typeLongLink = 'K'
	typeLongName = 'L'
	typeSparse   = 'S'
)

// header is one entry's block, and what the blocks before it say of it.
type header struct {
	at         int64
	name, link string
	kind       byte
	size       int64
	// odd says why readers may read the header differently.
	odd    string
	sparse []segment
	// real is the size of a sparse file.
	real  int64
	block [blockSize]byte
}

// parseHeader reads a block. It returns nil when its checksum is not right, with
// which every reader stops.
func parseHeader(b []byte) *header {
	if len(b) < blockSize {
		return nil
	}
	stated, _, ok := number(b[148:156])
	if !ok {
		return nil
	}
	unsigned, signed := int64(8*' '), int64(8*' ')
	for i, c := range b[:blockSize] {
		if i < 148 || i >= 156 {
			unsigned += int64(c)
			signed += int64(int8(c))
		}
	}
	if stated != unsigned && stated != signed {
		return nil
	}
	h := &header{kind: b[156], name: text(b[:100]), link: text(b[157:257])}
	copy(h.block[:], b)
	size, plain, ok := number(b[124:136])
	switch {
	case !ok || size < 0:
		h.odd = "size that is no number"
	case !plain:
		h.odd = "size that readers may read differently"
	}
	h.size = max(size, 0)
	if !ok {
		h.size = 0
	}
	// GNU's own header has other fields where POSIX has the name's beginning.
	if prefix := text(b[345:500]); prefix != "" && string(b[257:263]) == "ustar\x00" {
		h.name = prefix + "/" + h.name
	}
	return h
}

// text is a field up to its first NUL.
func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// number reads a numeric field as Python's tarfile does: base 256, or octal. It
// is plain when every reader reads it so.
func number(b []byte) (n int64, plain, ok bool) {
	if b[0] == 0x80 || b[0] == 0xff {
		var v [8]byte
		rest := b[1:]
		if len(rest) > 8 {
			for _, c := range rest[:len(rest)-8] {
				if c != 0 && b[0] == 0x80 {
					return 0, false, false
				}
			}
			rest = rest[len(rest)-8:]
		}
		copy(v[8-len(rest):], rest)
		n = int64(binary.BigEndian.Uint64(v[:]))
		return n, b[0] == 0x80 && n >= 0, b[0] == 0x80 && n >= 0
	}
	s := strings.TrimSpace(text(b))
	if s == "" {
		return 0, true, true
	}
	plain = strings.Trim(s, "01234567") == "" && b[len(b)-1] <= ' '
	s = strings.ReplaceAll(strings.TrimPrefix(strings.ToLower(s), "0o"), "_", "")
	n, err := strconv.ParseInt(s, 8, 64)
	return n, plain, err == nil
}

// data is how many bytes follow the header as the entry's own.
func (h *header) data() int64 {
	switch h.kind {
	case typeHardLink, typeLink, typeChar, typeBlock, typeFolder, typePipe:
		return 0
	}
	return h.size
}

func (h *header) isFile() bool {
	switch h.kind {
	case typeHardLink, typeLink, typeChar, typeBlock, typeFolder, typePipe:
		return false
	}
	return true
}

// segment is a piece of a sparse file: n bytes at offset off of the file.
type segment struct{ off, n int64 }

// maxSegments bounds the pieces of a sparse file.
const maxSegments = 100_000

// sparseFields reads count pairs of numbers as GNU's old sparse header has them.
func sparseFields(b []byte, count int) ([]segment, bool) {
	var out []segment
	for range count {
		off, _, ok := number(b[:12])
		n, _, fine := number(b[12:24])
		if !ok || !fine {
			return out, false
		}
		if off > 0 || n > 0 {
			out = append(out, segment{off, n})
		}
		b = b[24:]
	}
	return out, true
}

// pax is what extended headers say: the last value of each key, and the pairs of
// sparse pieces, which come several times.
type pax struct {
	values map[string]string
	pieces []segment
}

// parsePax reads records of the form "length key=value\n". It reports false when
// a record is broken, which is where readers differ.
func parsePax(b []byte, into *pax) bool {
	off := int64(-1)
	for len(b) > 0 {
		if b[0] == 0 {
			return len(bytes.Trim(b, "\x00")) == 0
		}
		digits, _, ok := bytes.Cut(b[:min(len(b), 20)], []byte(" "))
		n, err := strconv.ParseInt(string(digits), 10, 32)
		if !ok || err != nil || n <= int64(len(digits))+1 || n > int64(len(b)) || b[n-1] != '\n' {
			return false
		}
		key, value, ok := strings.Cut(string(b[len(digits)+1:n-1]), "=")
		if !ok {
			return false
		}
		b = b[n:]
		if into.values == nil {
			into.values = make(map[string]string)
		}
		into.values[key] = value
		switch v, err := strconv.ParseInt(value, 10, 64); key {
		case "GNU.sparse.offset":
			off = v
		case "GNU.sparse.numbytes":
			if err != nil || off < 0 || len(into.pieces) >= maxSegments {
				return false
			}
			into.pieces = append(into.pieces, segment{off, v})
		}
	}
	return true
}

// apply puts what the extended headers say in the header's place.
func (h *header) apply(p *pax) {
	if v, ok := p.values["path"]; ok {
		h.name = v
	}
	if v, ok := p.values["GNU.sparse.name"]; ok {
		h.name = v
	}
	if v, ok := p.values["linkpath"]; ok {
		h.link = v
	}
	if v, ok := p.values["size"]; ok {
		n, err := strconv.ParseInt(v, 10, 64)
		switch {
		case err != nil || n < 0:
			h.odd = "extended size that is no number"
		case n != h.size:
			// Ordinary writers do this only when the field has no room.
			if h.size != 0 && n < 1<<33 || n < 1<<33 && h.data() == h.size {
				h.odd = "two sizes"
			}
			h.size = n
		}
	}
	if strings.ContainsRune(h.name, 0) {
		h.odd = "name with NUL"
	}
	h.name = content.Clip(h.name, 4096)
}
