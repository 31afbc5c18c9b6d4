package unpack

import (
	"bufio"
	"cmp"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"hash"
	"hash/adler32"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

func newSum() hash.Hash32 { return crc32.NewIEEE() }

// Codec is one compression. The zero value is none.
type Codec struct {
	id string
	// cost is what a decompressed byte costs, deflate's being 1.
	cost int64
	// is reports whether a stream begins with the head.
	is func(head []byte) bool
	// begin reads the header of one stream, and returns a reader of its content.
	// The reader ends with the stream, and leaves the source behind its last byte.
	begin func(s *Stream) (io.Reader, error)
	// skips is set when streams may lie between bytes that are passed over.
	skips bool
	// alone is set when no second stream may follow the first.
	alone bool
}

// ID is the codec's name, an identifier.
func (c Codec) ID() string { return c.id }

// Is reports whether content that begins with the head is of this compression.
func (c Codec) Is(head []byte) bool { return c.is != nil && c.is(head) }

// Deflate is raw deflate (RFC 1951), as in zip archives.
func Deflate() Codec { return Codec{id: "deflate", cost: 1, begin: deflate, alone: true} }

// Plain is no compression.
func Plain() Codec {
	return Codec{id: "plain", cost: 1, alone: true, begin: func(s *Stream) (io.Reader, error) { return s.src, nil }}
}

// Gzip is RFC 1952, with any number of members.
func Gzip() Codec {
	return Codec{id: "gzip", cost: 1, begin: gzip, is: func(h []byte) bool {
		return len(h) >= 3 && h[0] == 0x1f && h[1] == 0x8b && h[2] == 8
	}}
}

// Zlib is RFC 1950. Its mark is two bytes with a check of five bits, so that the
// beginning is decompressed too before content is taken for it.
func Zlib() Codec {
	return Codec{id: "zlib", cost: 1, begin: zlib, is: func(h []byte) bool {
		return isZlib(h) && trial(h[2:])
	}}
}

// Bzip2 is bzip2, with any number of streams.
func Bzip2() Codec {
	return Codec{id: "bzip2", cost: 6, begin: beginBzip2, alone: true, is: func(h []byte) bool {
		if len(h) < 10 || string(h[:3]) != "BZh" || h[3] < '1' || h[3] > '9' {
			return false
		}
		return string(h[4:10]) == "\x31\x41\x59\x26\x53\x59" || string(h[4:10]) == "\x17\x72\x45\x38\x50\x90"
	}}
}

// Stream decompresses the streams that lie one behind the other from the start
// of packed bytes.
type Stream struct {
	codec  Codec
	budget *content.Budget
	src    *bufio.Reader
	under  *counted
	n      int64
	cur    io.Reader
	begun  bool
	end    int64
	err    error
	asked  int64
	close  []func()
	// over is how far the source stands behind the end of the stream.
	over int64
	// skipped are the extents that were passed over.
	skipped []Extent
	zstd    *zstd.Decoder
	flate   io.Reader
	lzma    *decoder
}

// Extent is a part of the packed bytes.
type Extent struct{ Start, End int64 }

// counted counts what is read, and keeps the first error that is none of the
// content's.
type counted struct {
	r   *io.SectionReader
	n   int64
	err error
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) && c.err == nil {
		c.err = err
	}
	return n, err
}

func newStream(codec Codec, packed io.ReaderAt, n int64, b *content.Budget) *Stream {
	under := &counted{r: io.NewSectionReader(packed, 0, n)}
	return &Stream{codec: codec, budget: b, under: under, n: n, src: bufio.NewReaderSize(under, int(min(max(n, 64), 64<<10)))}
}

// offset is where the source stands.
func (s *Stream) offset() int64 { return s.under.n - int64(s.src.Buffered()) }

// End is where the last stream ended that ended well.
func (s *Stream) End() int64 { return s.end }

// Read implements io.Reader. Its errors are io.EOF, a *Fault, or an error of
// reading the packed bytes.
func (s *Stream) Read(p []byte) (int, error) {
	for s.err == nil {
		if s.cur == nil {
			if s.err = s.advance(); s.err != nil {
				break
			}
		}
		n, err := s.cur.Read(p)
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			s.cur, err = nil, nil
			s.end = s.offset() - s.over
		}
		s.err = err
		if n > 0 {
			return n, nil
		}
	}
	return 0, s.blame()
}

// blame tells what is wrong with the content from what is wrong with its source.
func (s *Stream) blame() error {
	var fault *Fault
	switch {
	case s.under.err != nil:
		return s.under.err
	case errors.Is(s.err, io.ErrUnexpectedEOF):
		return &Fault{predicate.Truncated, "cut short"}
	case errors.Is(s.err, io.EOF):
		return io.EOF
	case errors.As(s.err, &fault):
		return fault
	}
	return malformed("compressed data is broken")
}

// advance begins the next stream, or returns io.EOF when there is none.
func (s *Stream) advance() error {
	if s.begun && (s.codec.alone || s.offset() >= s.n) {
		return io.EOF
	}
	if s.codec.skips {
		if err := s.pass(); err != nil || s.offset() >= s.n {
			return cmp.Or(err, io.EOF)
		}
	}
	if s.begun {
		head, err := s.src.Peek(min(4096, s.src.Size()))
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if !s.codec.Is(head) {
			return io.EOF
		}
	}
	// Each stream costs something, though it may be empty.
	if !s.budget.Inflate(256) {
		return &Fault{predicate.LimitBytes, "more than may be decompressed"}
	}
	if s.begun && !s.budget.Stream() {
		return &Fault{predicate.LimitMembers, "too many streams in a row"}
	}
	s.begun = true
	cur, err := s.codec.begin(s)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	s.cur = cur
	return err
}

// hold asks for working memory, which Close gives back.
func (s *Stream) hold(n int64) error {
	if n > s.asked {
		if !s.budget.Hold(n - s.asked) {
			return &Fault{predicate.LimitBytes, "more working memory than the scan has"}
		}
		s.asked = n
	}
	// Memory that is cleared costs time.
	if !s.budget.Inflate(n / 16) {
		return &Fault{predicate.LimitBytes, "more than may be decompressed"}
	}
	return nil
}

// Close gives back the decoder's memory.
func (s *Stream) Close() error {
	for _, f := range s.close {
		f()
	}
	s.budget.Release(s.asked)
	s.asked, s.close, s.cur, s.err = 0, nil, nil, io.EOF
	return nil
}

func deflate(s *Stream) (io.Reader, error) { return s.inflater() }

// inflater is one reader of deflate for all streams in a row.
func (s *Stream) inflater() (io.Reader, error) {
	if s.flate == nil {
		s.flate = flate.NewReader(s.src)
		return s.flate, nil
	}
	return s.flate, s.flate.(flate.Resetter).Reset(s.src, nil)
}

// summed compares a checksum behind the content.
type summed struct {
	r     io.Reader
	sum   hash.Hash32
	check func() error
}

func (r *summed) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.sum.Write(p[:n]) //nolint:errcheck // a hash's Write returns no error
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		if bad := r.check(); bad != nil {
			err = bad
		}
	}
	return n, err
}

// full reads exactly what it is given to read.
func (s *Stream) full(p []byte) error {
	_, err := io.ReadFull(s.src, p)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func gzip(s *Stream) (io.Reader, error) {
	const hasSum, hasExtra, hasName, hasComment = 2, 4, 8, 16
	var h [10]byte
	if err := s.full(h[:]); err != nil {
		return nil, err
	}
	if h[0] != 0x1f || h[1] != 0x8b || h[2] != 8 {
		return nil, malformed("no gzip header")
	}
	if h[3]&hasExtra != 0 {
		var b [2]byte
		if err := s.full(b[:]); err != nil {
			return nil, err
		}
		if _, err := s.src.Discard(int(binary.LittleEndian.Uint16(b[:]))); err != nil {
			return nil, err
		}
	}
	for _, flag := range []byte{hasName, hasComment} {
		if h[3]&flag == 0 {
			continue
		}
		for {
			c, err := s.src.ReadByte()
			if err != nil {
				return nil, err
			}
			if c == 0 {
				break
			}
		}
	}
	if h[3]&hasSum != 0 {
		if _, err := s.src.Discard(2); err != nil {
			return nil, err
		}
	}
	r, err := s.inflater()
	sum := crc32.NewIEEE()
	return &summed{r, sum, func() error {
		var t [8]byte
		if err := s.full(t[:]); err != nil {
			return err
		}
		if binary.LittleEndian.Uint32(t[:]) != sum.Sum32() {
			return malformed("wrong checksum")
		}
		return nil
	}}, err
}

func isZlib(h []byte) bool {
	return len(h) > 2 && h[0]&15 == 8 && h[0]>>4 <= 7 && (int(h[0])<<8|int(h[1]))%31 == 0 && h[1]&0x20 == 0
}

// trial reports whether the head decompresses, as far as it goes.
func trial(h []byte) bool {
	r := flate.NewReader(&cut{h})
	var b [4096]byte
	n, err := io.ReadFull(r, b[:])
	var corrupt flate.CorruptInputError
	if errors.As(err, &corrupt) {
		return false
	}
	// Random bytes break soon; a stored block's length has a check of its own.
	return n > 0 || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// cut reads a slice whose end is not the end of what it was cut from.
type cut struct{ b []byte }

func (c *cut) Read(p []byte) (int, error) {
	n := copy(p, c.b)
	c.b = c.b[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func zlib(s *Stream) (io.Reader, error) {
	var h [2]byte
	if err := s.full(h[:]); err != nil {
		return nil, err
	}
	if h[1]&0x20 != 0 {
		return nil, &Fault{predicate.UnsupportedCompression, "needs a dictionary that is not in the file"}
	}
	if h[0]&15 != 8 {
		return nil, malformed("no zlib header")
	}
	r, err := s.inflater()
	sum := adler32.New()
	return &summed{r, sum, func() error {
		var t [4]byte
		if err := s.full(t[:]); err != nil {
			return err
		}
		if binary.BigEndian.Uint32(t[:]) != sum.Sum32() {
			return malformed("wrong checksum")
		}
		return nil
	}}, err
}

// errContinuation is what compress/bzip2 returns when a stream has ended and
// something else follows.
const errContinuation = bzip2.StructuralError("bad magic value in continuation file")

type bzip2Reader struct {
	r io.Reader
	s *Stream
}

// beginBzip2 reads all streams in a row: compress/bzip2 knows no other way.
func beginBzip2(s *Stream) (io.Reader, error) {
	if err := s.hold(4 << 20); err != nil {
		return nil, err
	}
	return &bzip2Reader{bzip2.NewReader(s.src), s}, nil
}

func (b *bzip2Reader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err == errContinuation { //nolint:errorlint // a typed constant, returned as it is
		b.s.over = 2
		return n, io.EOF
	}
	return n, err
}
