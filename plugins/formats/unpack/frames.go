package unpack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/cavra/cavra/schemas/predicate"
)

const (
	zstdMagic      = 0xfd2fb528
	lz4Magic       = 0x184d2204
	lz4LegacyMagic = 0x184c2102
	// Skippable frames, of LZ4 and Zstandard alike, have 16 magic numbers.
	skipMagic, skipMask = 0x184d2a50, 0xfffffff0
	maxSkipped          = 1000
)

// pass reads over skippable frames, and notes where they are.
func (s *Stream) pass() error {
	for {
		h, err := s.src.Peek(8)
		if err != nil || binary.LittleEndian.Uint32(h)&skipMask != skipMagic {
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		}
		start, size := s.offset(), int64(binary.LittleEndian.Uint32(h[4:]))
		if len(s.skipped) >= maxSkipped {
			return &Fault{predicate.LimitMembers, "too many frames to pass over"}
		}
		if _, err := s.src.Discard(int(8 + size)); err != nil {
			return noEnd(err)
		}
		s.end = s.offset()
		s.skipped = append(s.skipped, Extent{start, s.end})
	}
}

// isFramed looks for a magic number behind the skippable frames in the head.
func isFramed(h []byte, magics ...uint32) bool {
	for len(h) >= 4 {
		m := binary.LittleEndian.Uint32(h)
		for _, x := range magics {
			if m == x {
				return true
			}
		}
		if m&skipMask != skipMagic || len(h) < 8 {
			return false
		}
		size := uint64(binary.LittleEndian.Uint32(h[4:])) + 8
		if size > uint64(len(h)) {
			// What follows is out of sight; Zstandard is the usual one.
			return magics[0] == zstdMagic
		}
		h = h[size:]
	}
	return false
}

// Zstd is RFC 8878, with any number of frames. What lies in skippable frames is
// named in Content.Skipped.
func Zstd() Codec {
	return Codec{id: "zstd", cost: 1, begin: beginZstd, skips: true, is: func(h []byte) bool {
		return isFramed(h, zstdMagic)
	}}
}

// zstdFrame reads the compressed bytes of one frame, and ends with it.
type zstdFrame struct {
	src  *bufio.Reader
	head []byte // header bytes that were read and not yet handed on
	left int64  // bytes of the block, or of the checksum
	last bool
	done bool
	sum  bool
}

func (f *zstdFrame) Read(p []byte) (int, error) {
	for {
		if len(f.head) > 0 {
			n := copy(p, f.head)
			f.head = f.head[n:]
			return n, nil
		}
		if f.left > 0 {
			n, err := f.src.Read(p[:min(int64(len(p)), f.left)])
			f.left -= int64(n)
			return n, noEnd(err)
		}
		if f.done || f.last && !f.sum {
			return 0, io.EOF
		}
		if f.last {
			f.left, f.done = 4, true
			continue
		}
		if err := f.block(); err != nil {
			return 0, err
		}
	}
}

func (f *zstdFrame) block() error {
	var b [3]byte
	if _, err := io.ReadFull(f.src, b[:]); err != nil {
		return noEnd(err)
	}
	h := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	f.last, f.left, f.head = h&1 != 0, int64(h>>3), b[:]
	if h>>1&3 == 1 {
		f.left = 1
	}
	return nil
}

func beginZstd(s *Stream) (io.Reader, error) {
	h, err := s.src.Peek(5)
	if err != nil {
		return nil, noEnd(err)
	}
	d := h[4]
	single := d>>5&1 == 1
	dictionary, size := [...]int{0, 1, 2, 4}[d&3], [...]int{0, 2, 4, 8}[d>>6]
	if single && size == 0 {
		size = 1
	}
	n := 5 + dictionary + size
	if !single {
		n++
	}
	head := make([]byte, n)
	if err := s.full(head); err != nil {
		return nil, err
	}
	window := zstdWindow(head, single, dictionary, size)
	switch {
	case binary.LittleEndian.Uint32(head) != zstdMagic:
		return nil, malformed("no zstd frame")
	case window > maxWindow:
		return nil, &Fault{predicate.LimitBytes, "larger window than the scan has"}
	}
	if err := s.hold(int64(window) + 1<<20); err != nil {
		return nil, err
	}
	frame := &zstdFrame{src: s.src, head: head, sum: d>>2&1 == 1}
	if s.zstd != nil {
		return s.zstd, s.zstd.Reset(frame)
	}
	s.zstd, err = zstd.NewReader(frame, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	s.close = append(s.close, s.zstd.Close)
	return s.zstd, nil
}

// zstdWindow is how far back a frame may refer, in bytes.
func zstdWindow(head []byte, single bool, dictionary, size int) uint64 {
	if !single {
		w := head[5]
		base := uint64(1) << (10 + w>>3)
		return base + base/8*uint64(w&7)
	}
	var b [8]byte
	copy(b[:], head[5+dictionary:])
	n := binary.LittleEndian.Uint64(b[:])
	if size == 2 {
		n += 256
	}
	return n
}

// LZ4 is the LZ4 frame format (1.6.4) and the legacy one. Its checksums are not
// compared.
func LZ4() Codec {
	return Codec{id: "lz4", cost: 1, begin: beginLZ4, skips: true, is: func(h []byte) bool {
		return isFramed(h, lz4Magic, lz4LegacyMagic)
	}}
}

// lz4Reader reads one frame's blocks.
type lz4Reader struct {
	s            *Stream
	legacy       bool
	linked       bool
	blockSum     bool
	sum          bool
	most         int
	packed, room []byte
	out          []byte // not yet read
}

// lz4Window is how far back a block may refer.
const lz4Window = 64 << 10

func beginLZ4(s *Stream) (io.Reader, error) {
	var h [7]byte
	if err := s.full(h[:4]); err != nil {
		return nil, err
	}
	l := &lz4Reader{s: s}
	switch binary.LittleEndian.Uint32(h[:]) {
	case lz4LegacyMagic:
		l.legacy, l.most = true, 8<<20
		return l, s.hold(20 << 20)
	case lz4Magic:
	default:
		return nil, malformed("no LZ4 frame")
	}
	if err := s.full(h[:2]); err != nil {
		return nil, err
	}
	flags, size := h[0], h[1]>>4&7
	if flags>>6 != 1 || size < 4 {
		return nil, malformed("LZ4 frame of another version")
	}
	if flags&1 != 0 {
		return nil, &Fault{predicate.UnsupportedCompression, "needs a dictionary that is not in the file"}
	}
	skip := 1
	if flags>>3&1 == 1 {
		skip += 8
	}
	if _, err := s.src.Discard(skip); err != nil {
		return nil, noEnd(err)
	}
	l.linked, l.blockSum, l.sum = flags>>5&1 == 0, flags>>4&1 == 1, flags>>2&1 == 1
	l.most = 1 << (8 + 2*size)
	return l, s.hold(int64(2*l.most + lz4Window))
}

func (l *lz4Reader) Read(p []byte) (int, error) {
	for len(l.out) == 0 {
		if err := l.block(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.out)
	l.out = l.out[n:]
	return n, nil
}

func (l *lz4Reader) block() error {
	b, err := l.s.src.Peek(4)
	if l.legacy && len(b) == 0 && errors.Is(err, io.EOF) {
		return io.EOF
	}
	if err != nil {
		return noEnd(err)
	}
	size := binary.LittleEndian.Uint32(b)
	if l.legacy && int64(size) > int64(l.most)+int64(l.most)/255+16 {
		return io.EOF
	}
	if _, err := l.s.src.Discard(4); err != nil {
		return err
	}
	if size == 0 && !l.legacy {
		return l.finish()
	}
	plain := size>>31 == 1 && !l.legacy
	size &= 1<<31 - 1
	if int64(size) > int64(l.most)+int64(l.most)/255+16 {
		return malformed("LZ4 block that is too large")
	}
	if err := l.load(int(size), plain); err != nil {
		return err
	}
	if l.blockSum {
		_, err = l.s.src.Discard(4)
	}
	return noEnd(err)
}

// load reads and decompresses a block behind what earlier ones left.
func (l *lz4Reader) load(size int, plain bool) error {
	if cap(l.packed) < size {
		l.packed = make([]byte, max(size, min(2*cap(l.packed), l.most)))
	}
	packed := l.packed[:size]
	if err := l.s.full(packed); err != nil {
		return err
	}
	// An empty block costs as much as a small one.
	if !l.s.budget.Inflate(16) {
		return &Fault{predicate.LimitBytes, "more than may be decompressed"}
	}
	if !l.linked {
		l.room = l.room[:0]
	} else if len(l.room) > lz4Window {
		l.room = append(l.room[:0], l.room[len(l.room)-lz4Window:]...)
	}
	from := len(l.room)
	var err error
	if plain {
		l.room = append(l.room, packed...)
	} else {
		l.room, err = lz4Block(l.room, packed, from+l.most)
	}
	l.out = l.room[from:]
	return err
}

func (l *lz4Reader) finish() error {
	if l.sum {
		if _, err := l.s.src.Discard(4); err != nil {
			return noEnd(err)
		}
	}
	return io.EOF
}

var errLZ4 = malformed("LZ4 block is broken")

// lz4Block appends what a block holds to dst, which begins with what it may
// refer to; dst grows to at most most bytes.
func lz4Block(dst, src []byte, most int) ([]byte, error) {
	length := func(n int) (int, bool) {
		if n != 15 {
			return n, true
		}
		for len(src) > 0 && n <= most {
			b := src[0]
			src = src[1:]
			n += int(b)
			if b != 255 {
				return n, true
			}
		}
		return n, false
	}
	for len(src) > 0 {
		token := src[0]
		src = src[1:]
		n, ok := length(int(token >> 4))
		if !ok || n > len(src) || n > most-len(dst) {
			return dst, errLZ4
		}
		dst = append(dst, src[:n]...)
		src = src[n:]
		if len(src) == 0 {
			return dst, nil
		}
		if len(src) < 2 {
			return dst, errLZ4
		}
		back := int(binary.LittleEndian.Uint16(src))
		src = src[2:]
		n, ok = length(int(token & 15))
		n += 4
		if !ok || back == 0 || back > len(dst) || n > most-len(dst) {
			return dst, errLZ4
		}
		for from := len(dst) - back; n > 0; {
			piece := dst[from:min(len(dst), from+n)]
			dst = append(dst, piece...)
			n -= len(piece)
		}
	}
	return dst, nil
}
