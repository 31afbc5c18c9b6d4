package sevenzip

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"unicode/utf16"
)

// The ids of a header's properties (7-Zip's 7zFormat.txt).
const (
	idEnd            = 0x00
	idHeader         = 0x01
	idArchive        = 0x02
	idAdditional     = 0x03
	idMain           = 0x04
	idFiles          = 0x05
	idPack           = 0x06
	idUnpack         = 0x07
	idSubStreams     = 0x08
	idSize           = 0x09
	idSum            = 0x0a
	idFolder         = 0x0b
	idUnpackSize     = 0x0c
	idNumUnpack      = 0x0d
	idEmptyStream    = 0x0e
	idEmptyFile      = 0x0f
	idNames          = 0x11
	idEncodedHeader  = 0x17
	maxCoders        = 32
	maxStreamsFolder = 32
	// maxThings bounds files, folders and streams each.
	maxThings = 1 << 17
)

var errHeader = errors.New("7z header is broken")

// coder is one step of a folder's compression.
type coder struct {
	id      string
	props   []byte
	in, out uint64
}

// folder is what is compressed as one.
type folder struct {
	coders []coder
	packed int      // streams that it takes
	sizes  []uint64 // of each coder's output
	main   int      // the output that is the content
	sum    *uint32
	parts  []uint64
}

// streams say where packed bytes lie and how to decompress them.
type streams struct {
	at      uint64
	packed  []uint64
	folders []*folder
}

// reader takes values from a header. After its first error all are zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() { r.err, r.b = errHeader, nil }

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	b := r.bytes(1)
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func (r *reader) uint32() uint32 {
	b := r.bytes(4)
	if len(b) < 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(b)
}

// number reads a number whose first byte's leading ones say how many follow.
func (r *reader) number() uint64 {
	first := r.byte()
	n := bits.LeadingZeros8(^first)
	rest := r.bytes(uint64(n))
	if r.err != nil {
		return 0
	}
	var v uint64
	for i, b := range rest {
		v |= uint64(b) << (8 * i)
	}
	if n < 7 {
		v |= uint64(first&(1<<(7-n)-1)) << (8 * n)
	}
	if v > 1<<62 {
		r.fail()
		return 0
	}
	return v
}

// count reads a number of things that take a bit at least.
func (r *reader) count() int {
	n := r.number()
	if n > 8*uint64(len(r.b))+8 || n > maxThings {
		r.fail()
		return 0
	}
	return int(n)
}

// flags reads n bits, highest first.
func (r *reader) flags(n int) []bool {
	b := r.bytes(uint64(n+7) / 8)
	out := make([]bool, n)
	for i := range out {
		out[i] = len(b) > 0 && b[i/8]>>(7-i%8)&1 == 1
	}
	return out
}

// sums reads n checksums, of which some may be missing.
func (r *reader) sums(n int) []*uint32 {
	defined := make([]bool, n)
	if r.byte() == 0 {
		defined = r.flags(n)
	} else {
		for i := range defined {
			defined[i] = true
		}
	}
	out := make([]*uint32, n)
	for i := range out {
		if defined[i] && r.err == nil {
			v := r.uint32()
			out[i] = &v
		}
	}
	return out
}

func (r *reader) streams() *streams {
	s := &streams{}
	for r.err == nil {
		switch id := r.number(); id {
		case idEnd:
			return s
		case idPack:
			r.pack(s)
		case idUnpack:
			r.unpack(s)
		case idSubStreams:
			r.subStreams(s)
		default:
			r.fail()
		}
	}
	return s
}

func (r *reader) pack(s *streams) {
	s.at = r.number()
	n := r.count()
	for r.err == nil {
		switch r.number() {
		case idEnd:
			if len(s.packed) != n {
				r.fail()
			}
			return
		case idSize:
			for range n {
				s.packed = append(s.packed, r.number())
				if r.err != nil {
					return
				}
			}
		case idSum:
			r.sums(n)
		default:
			r.fail()
		}
	}
}

func (r *reader) unpack(s *streams) {
	if r.number() != idFolder {
		r.fail()
		return
	}
	n := r.count()
	if r.byte() != 0 {
		r.fail() // folders that lie elsewhere
	}
	for i := 0; i < n && r.err == nil; i++ {
		s.folders = append(s.folders, r.folder())
	}
	if r.number() != idUnpackSize {
		r.fail()
		return
	}
	for _, f := range s.folders {
		for range f.coders {
			f.sizes = append(f.sizes, r.number())
		}
	}
	for r.err == nil {
		switch r.number() {
		case idEnd:
			return
		case idSum:
			for i, sum := range r.sums(len(s.folders)) {
				s.folders[i].sum = sum
			}
		default:
			r.fail()
		}
	}
}

func (r *reader) folder() *folder {
	f := &folder{}
	n := r.number()
	if n == 0 || n > maxCoders {
		r.fail()
		return f
	}
	var ins uint64
	for range n {
		flags := r.byte()
		c := coder{id: string(r.bytes(uint64(flags & 15))), in: 1, out: 1}
		if flags&0x10 != 0 {
			c.in, c.out = r.number(), r.number()
		}
		if flags&0x20 != 0 {
			c.props = r.bytes(r.number())
		}
		if flags&0xc0 != 0 || c.in > maxStreamsFolder || c.out != 1 {
			r.fail()
			return f
		}
		ins += c.in
		f.coders = append(f.coders, c)
	}
	bound := make(map[uint64]bool)
	for range n - 1 {
		r.number()
		bound[r.number()] = true
	}
	for i := range f.coders {
		if !bound[uint64(i)] {
			f.main = i
		}
	}
	if ins < n-1 {
		r.fail()
		return f
	}
	f.packed = int(ins - (n - 1))
	if f.packed > 1 {
		for range f.packed {
			r.number()
		}
	}
	return f
}

func (r *reader) subStreams(s *streams) {
	for _, f := range s.folders {
		f.parts = make([]uint64, 1)
	}
	id := r.number()
	if id == idNumUnpack {
		total := 0
		for _, f := range s.folders {
			n := r.count()
			if total += n; total > maxThings || r.err != nil {
				r.fail()
				return
			}
			f.parts = make([]uint64, n)
		}
		id = r.number()
	}
	for _, f := range s.folders {
		left := f.size()
		for i := range f.parts {
			size := left
			if i < len(f.parts)-1 {
				if id != idSize {
					r.fail()
					return
				}
				size = r.number()
			}
			if size > left {
				r.fail()
				return
			}
			f.parts[i] = size
			left -= size
		}
	}
	if id == idSize {
		id = r.number()
	}
	for ; id != idEnd && r.err == nil; id = r.number() {
		if id != idSum {
			r.fail()
			return
		}
		n := 0
		for _, f := range s.folders {
			if len(f.parts) != 1 || f.sum == nil {
				n += len(f.parts)
			}
		}
		r.sums(n)
	}
}

func (f *folder) size() uint64 {
	if f.main < len(f.sizes) {
		return f.sizes[f.main]
	}
	return 0
}

// header is what the end of the archive says.
type header struct {
	streams *streams
	names   []string
	empty   []bool
}

// parseHeader reads a header that is not encoded, or returns nil.
func parseHeader(b []byte) *header {
	r := &reader{b: b}
	h := &header{streams: &streams{}}
	if r.number() != idHeader {
		return nil
	}
	for r.err == nil {
		switch r.number() {
		case idEnd:
			return h
		case idArchive:
			for r.err == nil && r.number() != idEnd {
				r.bytes(r.number())
			}
		case idMain:
			h.streams = r.streams()
		case idFiles:
			r.files(h)
		default: // additional streams are used by no writer
			r.fail()
		}
	}
	return nil
}

func (r *reader) files(h *header) {
	n := r.count()
	h.empty = make([]bool, n)
	for r.err == nil {
		id := r.number()
		if id == idEnd {
			return
		}
		p := &reader{b: r.bytes(r.number())}
		switch id {
		case idEmptyStream:
			h.empty = p.flags(n)
		case idNames:
			if p.byte() != 0 {
				p.fail() // names that lie elsewhere
			}
			h.names = p.names(n)
		}
		if p.err != nil {
			r.fail()
		}
	}
}

// names reads n names in UTF-16, each with a zero behind it.
func (r *reader) names(n int) []string {
	var out []string
	for range n {
		var units []uint16
		for {
			b := r.bytes(2)
			if len(b) < 2 {
				return out
			}
			u := binary.LittleEndian.Uint16(b)
			if u == 0 {
				break
			}
			units = append(units, u)
		}
		out = append(out, string(utf16.Decode(units)))
	}
	return out
}
