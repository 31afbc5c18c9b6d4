// Package unpack decompresses: deflate, gzip, zlib, bzip2, xz, LZMA, LZ4 and
// Zstandard. What comes out is read like a file, at any offset, in bounded
// memory: it is kept in memory while it is small, and else decompressed again
// from the start when a read goes back. Every byte that is decompressed is drawn
// from the artifact's budget, each time.
package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// ErrSpent says that reading content again would exceed the artifact's budget.
// Whoever entered the content marks it as unread.
var ErrSpent = errors.New("decompression exceeds the scan's limits")

// Fault says why compressed bytes give no more content than they did.
type Fault struct {
	// Reason is one of Malformed, Truncated, UnsupportedCompression and the limits.
	Reason predicate.Reason
	What   string
}

func (f *Fault) Error() string { return "decompress: " + f.What }

func malformed(what string) error { return &Fault{predicate.Malformed, what} }

// Limit reports whether the fault is a limit of the scan.
func (f *Fault) Limit() bool {
	switch f.Reason {
	case predicate.LimitBytes, predicate.LimitRatio, predicate.LimitMembers:
		return true
	}
	return false
}

// chunk is how much is kept in memory in one piece; window is how much of what
// was read last is kept when the content is not.
const (
	chunk  = 256 << 10
	window = 1 << 20
)

// Content is decompressed content. One goroutine at a time may use it.
type Content struct {
	// Size is what decompression gave, and End where the compressed bytes end.
	Size, End int64
	// Fault is why there is no more, when there should be; nil when all is there.
	Fault *Fault
	// Skipped are the extents of the packed bytes that the compression passes over.
	Skipped []Extent
	// Sum is the CRC-32 of the content.
	Sum uint32

	budget *content.Budget
	codec  Codec
	packed io.ReaderAt
	n      int64

	chunks [][]byte
	held   int64 // bytes in chunks, from the start of the content
	asked  int64 // bytes that the budget has granted

	stream *Stream
	at     int64
	recent []byte // what was read last, up to at
	// tail is the end of content that is not held: archives are read from there.
	tail []byte
}

// Read decompresses the n packed bytes once, to learn what they hold and whether
// they are whole. Content of more than most bytes is a fault; most below 0
// stands for no bound. The error is one of reading, or ctx's.
func Read(ctx context.Context, b *content.Budget, codec Codec, packed io.ReaderAt, n, most int64) (*Content, error) {
	c := &Content{budget: b, codec: codec, packed: packed, n: n}
	c.restart()
	first := int64(64 << 10)
	if most >= 0 {
		first = min(first, most+1)
	}
	buf, holding := make([]byte, max(first, 512)), true
	sum := newSum()
	for {
		if err := ctx.Err(); err != nil {
			return nil, errors.Join(fmt.Errorf("decompress: %w", err), c.Close())
		}
		got, err := c.stream.Read(buf)
		sum.Write(buf[:got]) //nolint:errcheck // a hash's Write returns no error
		c.Size += int64(got)
		if holding = holding && c.keep(buf[:got]); !holding {
			c.remember(buf[:got])
		}
		if fault := c.beyond(int64(got), most); fault != nil {
			c.Fault = fault
			break
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.As(err, &c.Fault) {
			return nil, errors.Join(err, c.Close())
		}
		if err != nil {
			break
		}
	}
	c.Sum, c.End, c.Skipped = sum.Sum32(), c.stream.End(), c.stream.skipped
	if !holding {
		c.forget()
		c.tail, c.recent = c.recent, nil
	}
	return c, c.stop()
}

// beyond reports the limit that the content exceeds with its last n bytes.
func (c *Content) beyond(n, most int64) *Fault {
	switch {
	case !c.budget.Inflate(n * c.codec.cost):
		return &Fault{predicate.LimitBytes, "more than may be decompressed"}
	case c.Size > c.budget.RatioFrom && c.Size/max(1, c.n) > c.budget.Ratio:
		return &Fault{predicate.LimitRatio, "ratio"}
	case most >= 0 && c.Size > most:
		return &Fault{predicate.Malformed, "decompresses to more than it says"}
	}
	return nil
}

// keep adds to what is held in memory, and reports whether the budget let it.
func (c *Content) keep(b []byte) bool {
	for len(b) > 0 {
		last := len(c.chunks) - 1
		if last < 0 || len(c.chunks[last]) == chunk {
			if c.asked+chunk > c.budget.Held/3 || !c.budget.Hold(chunk) {
				return false
			}
			c.asked += chunk
			c.chunks = append(c.chunks, nil)
			last++
			if last > 0 {
				c.chunks[last] = make([]byte, 0, chunk)
			}
		}
		n := min(len(b), chunk-len(c.chunks[last]))
		c.chunks[last] = append(c.chunks[last], b[:n]...)
		c.held += int64(n)
		b = b[n:]
	}
	return true
}

// forget gives back all but the beginning, which is looked at most often.
func (c *Content) forget() {
	if len(c.chunks) > 4 {
		c.budget.Release(int64(len(c.chunks)-4) * chunk)
		c.asked = 4 * chunk
		c.chunks = c.chunks[:4:4]
		c.held = min(c.held, 4*chunk)
	}
}

// Close gives back the memory that is held.
func (c *Content) Close() error {
	c.budget.Release(c.asked)
	c.asked, c.chunks, c.held, c.recent, c.tail = 0, nil, 0, nil, nil
	return c.stop()
}

func (c *Content) restart() {
	c.stream = newStream(c.codec, c.packed, c.n, c.budget)
	c.at, c.recent = 0, c.recent[:0]
}

func (c *Content) stop() error {
	if c.stream == nil {
		return nil
	}
	s := c.stream
	c.stream = nil
	return s.Close()
}

// ReadAt implements io.ReaderAt.
func (c *Content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= c.Size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), c.Size-off)]
	n := 0
	for n < len(want) && off+int64(n) < c.held {
		at := off + int64(n)
		n += copy(want[n:], c.chunks[at/chunk][at%chunk:])
	}
	if n < len(want) {
		if err := c.seek(want[n:], off+int64(n)); err != nil {
			return n, err
		}
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}

// seek reads what is not in memory from the content's start.
func (c *Content) seek(p []byte, off int64) error {
	if from := c.Size - int64(len(c.tail)); off >= from {
		copy(p, c.tail[off-from:])
		return nil
	}
	if from := c.at - int64(len(c.recent)); off >= from && off < c.at {
		n := copy(p, c.recent[off-from:])
		p, off = p[n:], off+int64(n)
		if len(p) == 0 {
			return nil
		}
	}
	if c.stream == nil || off < c.at {
		if err := c.stop(); err != nil {
			return err
		}
		c.restart()
	}
	buf := make([]byte, min(64<<10, off-c.at))
	for c.at < off {
		if err := c.next(buf[:min(int64(len(buf)), off-c.at)]); err != nil {
			return err
		}
	}
	return c.next(p)
}

// next reads the bytes after those that were read last.
func (c *Content) next(p []byte) error {
	if !c.budget.Inflate(int64(len(p)) * c.codec.cost) {
		return ErrSpent
	}
	n, err := io.ReadFull(c.stream, p)
	c.at += int64(n)
	c.remember(p[:n])
	var fault *Fault
	if errors.As(err, &fault) && fault.Limit() {
		return ErrSpent
	}
	if err != nil {
		return fmt.Errorf("decompress again: %w", err)
	}
	return nil
}

func (c *Content) remember(b []byte) {
	if len(b) >= window {
		c.recent = append(c.recent[:0], b[len(b)-window:]...)
		return
	}
	if len(c.recent)+len(b) > 2*window {
		keep := window - len(b)
		c.recent = append(c.recent[:0], c.recent[len(c.recent)-keep:]...)
	}
	c.recent = append(c.recent, b...)
}
