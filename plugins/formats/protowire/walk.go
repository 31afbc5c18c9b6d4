package protowire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/window"
)

// What ends a walk before the message does.
var (
	ErrMalformed = errors.New("not a protobuf message")
	ErrTruncated = errors.New("the message is cut short")
	ErrDepth     = errors.New("messages are nested too deep")
	ErrFields    = errors.New("too many fields")
)

const (
	// maxDepth is the depth that protobuf's own readers allow.
	maxDepth = 100
	// maxFields bounds the work: two seconds or so. A graph of a hundred thousand
	// nodes has some million.
	maxFields = 20_000_000
	// maxNumber is the largest number that a field may have.
	maxNumber = 1<<29 - 1
	// bulk is the size in bytes from which data is claimed as inert for itself.
	bulk = 4096
)

// Visitor is told of what a message holds, in order.
type Visitor interface {
	// Begin is called before the fields of a message of type m, at an offset.
	Begin(m *Message, f *Field, at int64) error
	End(m *Message) error
	// Number gives a field of an integer, or the bits of a number of fixed size.
	// Packed ones are not told of one by one, but by their extent.
	Number(m *Message, f *Field, n uint64) error
	// Bytes gives the extent of text, of data, or of packed numbers.
	Bytes(m *Message, f *Field, start, end int64) error
}

// Walk walks messages of one content, and claims what it has walked.
type Walk struct {
	v       *content.Visit
	w       *window.Reader
	visitor Visitor
	fields  int
	claimed int64
	at      int64
}

// NewWalk prepares a walk over v by a window that the visitor may share.
func NewWalk(v *content.Visit, w *window.Reader, visitor Visitor) *Walk {
	return &Walk{v: v, w: w, visitor: visitor}
}

// Run walks. After an error the bytes before At are claimed, and no others.
func (k *Walk) Run(ctx context.Context, root *Message, start, end int64) error {
	k.claimed, k.at = start, start
	err := k.message(ctx, root, nil, start, end, 0)
	k.v.Parsed(k.claimed, k.at)
	return err
}

// At is where the walk is.
func (k *Walk) At() int64 { return k.at }

func (k *Walk) message(ctx context.Context, m *Message, by *Field, start, end int64, depth int) error {
	if depth > maxDepth {
		return ErrDepth
	}
	if err := k.visitor.Begin(m, by, start); err != nil {
		return err
	}
	for k.at < end {
		if k.fields++; k.fields > maxFields {
			return ErrFields
		}
		if k.fields%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := k.field(ctx, m, end, depth); err != nil {
			return err
		}
	}
	return k.visitor.End(m)
}

func (k *Walk) field(ctx context.Context, m *Message, end int64, depth int) error {
	t, err := readField(k.w, k.at, end)
	if err != nil {
		return err
	}
	f := m.fields[t.number]
	if f == nil || !t.fits(f) {
		// A reader keeps such a field without looking at it.
		k.unread(k.at, t.end)
		return nil
	}
	if t.wire != wireBytes {
		k.at = t.end
		return k.visitor.Number(m, f, t.value)
	}
	if f.Kind == Sub {
		k.at = t.start
		return k.message(ctx, f.Of, f, t.start, t.end, depth+1)
	}
	k.at = t.end
	if f.Kind != Text && t.end-t.start >= bulk {
		k.v.Parsed(k.claimed, t.start)
		k.v.Inert(t.start, t.end)
		k.claimed = t.end
	}
	return k.visitor.Bytes(m, f, t.start, t.end)
}

func (k *Walk) unread(start, end int64) {
	k.v.Parsed(k.claimed, start)
	k.v.Unread(start, end, predicate.UnknownFormat)
	k.claimed, k.at = end, end
}

// The types of the wire.
const (
	wireVarint = 0
	wireFixed8 = 1
	wireBytes  = 2
	wireFixed4 = 5
)

// token is one field as it lies on the wire.
type token struct {
	number int32
	wire   byte
	value  uint64
	// start and end of the payload.
	start, end int64
}

// fits reports whether a field of the schema may lie so.
func (t token) fits(f *Field) bool {
	switch f.Kind {
	case Varint:
		return t.wire == wireVarint || t.wire == wireBytes && f.Repeated
	case Fixed32:
		return t.wire == wireFixed4 || t.wire == wireBytes && f.Repeated
	case Fixed64:
		return t.wire == wireFixed8 || t.wire == wireBytes && f.Repeated
	}
	return t.wire == wireBytes
}

// readField reads the field at an offset; its payload ends before end.
func readField(w *window.Reader, at, end int64) (token, error) {
	key, at, err := readVarint(w, at, end)
	if err != nil {
		return token{}, err
	}
	if key>>3 == 0 || key>>3 > maxNumber {
		return token{}, fmt.Errorf("%w: field number", ErrMalformed)
	}
	t := token{number: int32(key >> 3), wire: byte(key & 7), start: at}
	switch t.wire {
	case wireVarint:
		t.value, t.end, err = readVarint(w, at, end)
		return t, err
	case wireBytes:
		n, at, err := readVarint(w, at, end)
		if err != nil {
			return token{}, err
		}
		if n > uint64(end-at) {
			return token{number: t.number}, fmt.Errorf("%w: field %d of %d bytes", ErrTruncated, t.number, n)
		}
		t.start, t.end = at, at+int64(n)
		return t, nil
	case wireFixed4, wireFixed8:
		size := int64(4)
		if t.wire == wireFixed8 {
			size = 8
		}
		if size > end-at {
			return token{}, ErrTruncated
		}
		b, err := w.Bytes(at, int(size))
		if err != nil {
			return token{}, err
		}
		var whole [8]byte
		copy(whole[:], b)
		t.value, t.end = binary.LittleEndian.Uint64(whole[:]), at+size
		return t, nil
	}
	return token{}, fmt.Errorf("%w: wire type %d", ErrMalformed, t.wire)
}

func readVarint(w *window.Reader, at, end int64) (uint64, int64, error) {
	b, err := w.Bytes(at, int(min(end-at, binary.MaxVarintLen64)))
	if err != nil {
		return 0, at, err
	}
	n, size := binary.Uvarint(b)
	switch {
	case size > 0:
		return n, at + int64(size), nil
	case size < 0 || len(b) == binary.MaxVarintLen64:
		return 0, at, fmt.Errorf("%w: integer too long", ErrMalformed)
	}
	return 0, at, ErrTruncated
}

// Packed calls each with the integers that lie packed in [start, end), at most
// most of them.
func Packed(w *window.Reader, start, end int64, most int, each func(uint64)) error {
	for i := 0; start < end; i++ {
		if i >= most {
			return ErrFields
		}
		n, next, err := readVarint(w, start, end)
		if err != nil {
			return err
		}
		each(n)
		start = next
	}
	return nil
}

// ReadText reads [start, end), cut to most bytes.
func ReadText(w *window.Reader, start, end int64, most int) (string, error) {
	b, err := w.Bytes(start, int(min(end-start, int64(most), window.MaxPiece)))
	return string(b), err
}
