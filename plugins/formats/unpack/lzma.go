package unpack

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/cavra/cavra/schemas/predicate"
)

// maxWindow is the largest dictionary that is given to a stream, in bytes: that
// of xz -9, and half of what Python's zstandard accepts.
const maxWindow = 64 << 20

// LZMA is the format of lzma_alone, as joblib and old tools write it. It has no
// mark of its own: a head is taken for one when its fields are as encoders write
// them and its beginning decompresses.
func LZMA() Codec {
	return Codec{id: "lzma", cost: 3, begin: beginLZMA, is: isLZMA}
}

// LZMAHeadless is LZMA as in zip archives: properties, dictionary and then the
// stream, with the length of the properties before it.
func LZMAHeadless(size int64) Codec {
	return Codec{id: "lzma", cost: 3, alone: true, begin: func(s *Stream) (io.Reader, error) {
		var h [9]byte
		if err := s.full(h[:]); err != nil {
			return nil, err
		}
		if binary.LittleEndian.Uint16(h[2:]) != 5 {
			return nil, malformed("properties of another length than 5")
		}
		return s.newDecoder(h[4:], size)
	}}
}

// LZMARaw is LZMA as in 7z archives, whose headers hold its five bytes of
// properties and its size.
func LZMARaw(props []byte, size int64) Codec {
	return Codec{id: "lzma", cost: 3, alone: true, begin: func(s *Stream) (io.Reader, error) {
		if len(props) != 5 {
			return nil, malformed("properties of another length than 5")
		}
		return s.newDecoder(props, size)
	}}
}

// LZMA2Raw is LZMA2 as in 7z archives, whose headers hold the dictionary's size.
func LZMA2Raw(dictionary byte) Codec {
	return Codec{id: "lzma2", cost: 3, alone: true, begin: func(s *Stream) (io.Reader, error) {
		return s.newLZMA2(dictionary)
	}}
}

func isLZMA(h []byte) bool {
	if len(h) < 18 || h[0] >= 9*5*5 || h[13] != 0 {
		return false
	}
	dict, size := binary.LittleEndian.Uint32(h[1:]), binary.LittleEndian.Uint64(h[5:])
	if size != ^uint64(0) && size > 1<<40 || dict < 4096 || !roundDictionary(dict) {
		return false
	}
	d := &decoder{src: bufio.NewReader(&cut{h[13:]}), grow: func(int64) error { return nil }, in: -1, out: int64(size), most: 1 << 16}
	err := d.properties(h[0])
	if err == nil {
		err = d.start()
	}
	for range 256 {
		var b [1]byte
		if err == nil {
			_, err = d.Read(b[:])
		}
	}
	return err == nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

// roundDictionary reports whether the size is one that encoders write: 2^n or
// 2^n + 2^(n-1), or the largest.
func roundDictionary(d uint32) bool {
	if d == ^uint32(0) {
		return true
	}
	low := d & -d
	return d == low || d == low|low<<1
}

func beginLZMA(s *Stream) (io.Reader, error) {
	var h [13]byte
	if err := s.full(h[:]); err != nil {
		return nil, err
	}
	return s.newDecoder(h[:5], int64(binary.LittleEndian.Uint64(h[5:])))
}

const xzMagic = "\xfd7zXZ\x00"

// XZ is the .xz format (1.2.1), with any number of streams and blocks. Of the
// filters there are LZMA2 and delta.
func XZ() Codec {
	return Codec{id: "xz", cost: 3, begin: beginXZ, is: func(h []byte) bool {
		return len(h) >= 6 && string(h[:6]) == xzMagic
	}}
}

// xzReader reads one stream's blocks.
type xzReader struct {
	s     *Stream
	check byte
	block io.Reader
	sum   hash.Hash
	start int64
}

func beginXZ(s *Stream) (io.Reader, error) {
	var h [12]byte
	if err := s.full(h[:]); err != nil {
		return nil, err
	}
	if string(h[:6]) != xzMagic || h[6] != 0 || h[7] > 15 || crc32.ChecksumIEEE(h[6:8]) != binary.LittleEndian.Uint32(h[8:]) {
		return nil, malformed("no xz header")
	}
	return &xzReader{s: s, check: h[7]}, nil
}

func (x *xzReader) Read(p []byte) (int, error) {
	for {
		if x.block == nil {
			if err := x.next(); err != nil {
				return 0, err
			}
		}
		n, err := x.block.Read(p)
		x.sum.Write(p[:n]) //nolint:errcheck // a hash's Write returns no error
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			x.block, err = nil, x.endBlock()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// next begins the next block, or reads the index and returns io.EOF.
func (x *xzReader) next() error {
	first, err := x.s.src.ReadByte()
	if err != nil {
		return noEnd(err)
	}
	if first == 0 {
		return x.index()
	}
	b := make([]byte, (int(first)+1)*4)
	b[0] = first
	if err := x.s.full(b[1:]); err != nil {
		return err
	}
	body := b[:len(b)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(b[len(body):]) {
		return malformed("block header's checksum")
	}
	if !x.s.budget.Inflate(256) {
		return &Fault{predicate.LimitBytes, "more than may be decompressed"}
	}
	x.start, x.sum = x.s.offset(), sumOf(x.check)
	return x.filters(body)
}

func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

type noSum struct{ hash.Hash }

func (noSum) Write(p []byte) (int, error) { return len(p), nil }
func (noSum) Sum(b []byte) []byte         { return b }

// sumOf is the check of the type, where it is one that is compared.
func sumOf(check byte) hash.Hash {
	switch check {
	case 1:
		return crc32.NewIEEE()
	case 4:
		return crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		return sha256.New()
	}
	return noSum{}
}

func (x *xzReader) filters(b []byte) error {
	flags, at := b[1], 2
	number := func() uint64 {
		n, used := binary.Uvarint(b[min(at, len(b)):])
		at += max(used, 0)
		if used <= 0 {
			at = len(b) + 1
		}
		return n
	}
	for _, has := range []byte{0x40, 0x80} {
		if flags&has != 0 {
			number()
		}
	}
	var delta []byte
	for i := int(flags & 3); i >= 0; i-- {
		id, n := number(), number()
		if at > len(b) || n > uint64(len(b)-at) {
			return malformed("block header")
		}
		props := b[at : at+int(n)]
		at += int(n)
		switch {
		case id == 0x21 && i == 0 && len(props) == 1:
			chunks, err := x.s.newLZMA2(props[0])
			if err != nil {
				return err
			}
			var r io.Reader = chunks
			for _, d := range delta {
				r = &deltaReader{r: r, distance: int(d) + 1}
			}
			x.block = r
			return nil
		case id == 3 && len(props) == 1 && i > 0:
			delta = append([]byte{props[0]}, delta...)
		default:
			return &Fault{predicate.UnsupportedCompression, "a filter that is not supported"}
		}
	}
	return malformed("block without LZMA2")
}

// deltaReader undoes xz's delta filter.
type deltaReader struct {
	r        io.Reader
	distance int
	past     [256]byte
	at       byte
}

func (d *deltaReader) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	for i := range p[:n] {
		p[i] += d.past[byte(d.distance)+d.at]
		d.past[d.at] = p[i]
		d.at--
	}
	return n, err
}

// endBlock reads the padding and the check.
func (x *xzReader) endBlock() error {
	if _, err := x.s.src.Discard(int(-(x.s.offset() - x.start) & 3)); err != nil {
		return noEnd(err)
	}
	size := [...]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[x.check]
	stated := make([]byte, size)
	if err := x.s.full(stated); err != nil {
		return err
	}
	got := x.sum.Sum(nil)
	switch x.check {
	case 1:
		got = binary.LittleEndian.AppendUint32(nil, binary.BigEndian.Uint32(got))
	case 4:
		got = binary.LittleEndian.AppendUint64(nil, binary.BigEndian.Uint64(got))
	case 10:
	default:
		return nil
	}
	if string(got) != string(stated) {
		return malformed("wrong checksum")
	}
	return nil
}

// index reads over the index, the footer and the padding behind them.
func (x *xzReader) index() error {
	start := x.s.offset() - 1
	records, err := binary.ReadUvarint(x.s.src)
	if err != nil {
		return noEnd(err)
	}
	if records > uint64(x.s.n) {
		return malformed("index")
	}
	for range 2 * records {
		if _, err := binary.ReadUvarint(x.s.src); err != nil {
			return noEnd(err)
		}
	}
	if _, err := x.s.src.Discard(int(-(x.s.offset() - start) & 3)); err != nil {
		return noEnd(err)
	}
	var b [16]byte
	if err := x.s.full(b[:]); err != nil {
		return err
	}
	if string(b[14:]) != "YZ" {
		return malformed("no xz footer")
	}
	for {
		if pad, err := x.s.src.Peek(4); err != nil || string(pad) != "\x00\x00\x00\x00" {
			return io.EOF
		}
		if _, err := x.s.src.Discard(4); err != nil {
			return err
		}
	}
}
