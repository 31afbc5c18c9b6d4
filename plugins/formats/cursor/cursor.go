// Package cursor reads binary content forward, from one field to the next, and
// remembers the first thing that went wrong, so that a decoder reads as the
// format is written and checks once for each record. After a fault every read
// gives zeros and moves nothing: a loop must look at Ok. What a format cannot
// hold ends the reading; it never panics, and never keeps more than one piece.
package cursor

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/window"
)

// Fault is what ends the reading of content.
type Fault struct {
	// Rule names the finding; the format's own rule for broken content when empty.
	Rule string
	What string
	Why  predicate.Reason
	At   int64
}

// Error implements error.
func (f *Fault) Error() string { return f.What }

// Reader reads [at, end) of one content. It is used by one goroutine.
type Reader struct {
	// Order is that of the bytes in numbers; little-endian at first.
	Order binary.ByteOrder

	w       *window.Reader
	at, end int64
	err     error
}

// New reads size bytes of src from their start.
func New(src io.ReaderAt, size int64) *Reader {
	return &Reader{Order: binary.LittleEndian, w: window.New(src, size), end: size}
}

// Ok reports whether nothing has gone wrong so far.
func (r *Reader) Ok() bool { return r.err == nil }

// Err is what went wrong first: a *Fault, or an error of reading.
func (r *Reader) Err() error { return r.err }

// At is the offset of the next byte; Left is how many there are.
func (r *Reader) At() int64   { return r.at }
func (r *Reader) Left() int64 { return r.end - r.at }

// Goto goes on at an offset, which must lie within the content.
func (r *Reader) Goto(at int64) {
	if at < 0 || at > r.end {
		r.Fail("an offset leads out of the content")
		return
	}
	r.at = at
}

// Fail ends the reading: the content is not what its format says.
func (r *Reader) Fail(what string) { r.Stop(&Fault{What: what, Why: predicate.Malformed, At: r.at}) }

// Limit ends the reading at a limit.
func (r *Reader) Limit(what string, why predicate.Reason) {
	r.Stop(&Fault{Rule: "model.limit", What: what, Why: why, At: r.at})
}

// Unknown ends the reading at what may well be valid, but is not known here.
func (r *Reader) Unknown(what string) {
	r.Stop(&Fault{What: what, Why: predicate.UnsupportedFormat, At: r.at})
}

// Stop ends the reading with an error, unless there is one.
func (r *Reader) Stop(err error) {
	if r.err == nil {
		r.err = err
	}
}

// has reports whether n more bytes are there.
func (r *Reader) has(n int64) bool {
	if r.err == nil && (n < 0 || n > r.end-r.at) {
		r.Stop(&Fault{What: "the content is cut short, or a length lies", Why: predicate.Truncated, At: r.at})
	}
	return r.err == nil
}

// Bytes takes the next n bytes, at most window.MaxPiece, until the next call.
func (r *Reader) Bytes(n int) []byte {
	if !r.has(int64(n)) {
		return nil
	}
	b, err := r.w.Bytes(r.at, n)
	if err != nil {
		if errors.Is(err, window.ErrBeyond) {
			r.Limit("a piece is too long", predicate.LimitBytes)
			return nil
		}
		r.Stop(err)
		return nil
	}
	r.at += int64(n)
	return b
}

// Skip steps over n bytes.
func (r *Reader) Skip(n int64) {
	if r.has(n) {
		r.at += n
	}
}

// Items steps over n items of width bytes each.
func (r *Reader) Items(n, width int64) {
	if r.err == nil && (n < 0 || width > 0 && n > r.Left()/width) {
		r.has(r.Left() + 1)
		return
	}
	r.Skip(n * width)
}

// Text takes n bytes as text, of which it keeps the first most.
func (r *Reader) Text(n int64, most int) string {
	if !r.has(n) {
		return ""
	}
	end := r.at + n
	s := string(r.Bytes(int(min(n, int64(most)))))
	if r.err == nil {
		r.at = end
	}
	return s
}

// U8 takes a byte.
func (r *Reader) U8() byte {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// U16 takes a number of two bytes.
func (r *Reader) U16() uint16 {
	if b := r.Bytes(2); b != nil {
		return r.Order.Uint16(b)
	}
	return 0
}

// U32 takes a number of four bytes.
func (r *Reader) U32() uint32 {
	if b := r.Bytes(4); b != nil {
		return r.Order.Uint32(b)
	}
	return 0
}

// U64 takes a number of eight bytes.
func (r *Reader) U64() uint64 {
	if b := r.Bytes(8); b != nil {
		return r.Order.Uint64(b)
	}
	return 0
}

// Settle reports a fault by the format's rule for broken content, and claims what
// lies before it as parsed and the rest as unread. It returns errors of reading.
func Settle(v *content.Visit, err error, class, malformed string, from int64) error {
	if err == nil {
		return nil
	}
	var f *Fault
	if !errors.As(err, &f) {
		return err
	}
	rule := f.Rule
	if rule == "" {
		rule = malformed
	}
	at := min(max(f.At, from), v.Size)
	if f.Why != predicate.UnsupportedFormat {
		v.Found(rule, class, at, Clean(f.What))
	}
	v.Parsed(from, at)
	v.Unread(at, v.Size, f.Why)
	v.Unread(v.Size, v.Size, f.Why)
	return nil
}

// Clean makes text of a file fit to be evidence.
func Clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
