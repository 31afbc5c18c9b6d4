// Package window reads small pieces of content of any size through a buffer
// that stays small: what follows the last piece is read ahead, and a jump reads
// little, so that a walk over structure costs neither a system call for each
// field nor the reading of what the structure steps over.
package window

import (
	"errors"
	"fmt"
	"io"

	"github.com/cavra/cavra/plugins/formats/content"
)

// MaxPiece is the most that Bytes gives at once.
const MaxPiece = 64 << 10

const smallest = 4 << 10

// ErrBeyond says that a piece does not lie within the content.
var ErrBeyond = errors.New("beyond the content")

// Reader gives pieces of one content. It is used by one goroutine.
type Reader struct {
	src   io.ReaderAt
	size  int64
	buf   []byte
	start int64
	chunk int
}

// New reads from src, which has size bytes.
func New(src io.ReaderAt, size int64) *Reader { return &Reader{src: src, size: size, chunk: smallest} }

// Size of the content in bytes.
func (r *Reader) Size() int64 { return r.size }

// Bytes gives [at, at+n) until the next call, or ErrBeyond when n is more than
// MaxPiece or the content ends before.
func (r *Reader) Bytes(at int64, n int) ([]byte, error) {
	if n < 0 || n > MaxPiece || at < 0 || at > r.size || int64(n) > r.size-at {
		return nil, fmt.Errorf("%w: %d bytes at %d of %d", ErrBeyond, n, at, r.size)
	}
	if from := at - r.start; from >= 0 && from+int64(n) <= int64(len(r.buf)) {
		return r.buf[from : from+int64(n)], nil
	}
	if at >= r.start && at <= r.start+int64(len(r.buf)) && len(r.buf) > 0 {
		r.chunk = min(2*r.chunk, MaxPiece)
	} else {
		r.chunk = smallest
	}
	length := int(min(int64(max(n, r.chunk)), r.size-at))
	if cap(r.buf) < length {
		r.buf = make([]byte, 0, max(length, r.chunk))
	}
	r.buf, r.start = r.buf[:length], at
	if err := content.ReadFull(r.src, r.buf, at); err != nil {
		r.buf = r.buf[:0]
		return nil, err
	}
	return r.buf[:n], nil
}
