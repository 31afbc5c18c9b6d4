// Package numpy reads npy array files: the header by a strict parser of its
// literal, the data by the extent that shape and type fix, and the pickle that
// an array of objects holds.
package numpy

import (
	"context"
	"errors"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/pickle"
)

// ID is the format's id.
const ID = "npy"

// Rules lists the rules that Scan may name, besides those of pickles.
func Rules() []string { return []string{"numpy.malformed", "numpy.object.array"} }

// Format is npy as a format of the program.
type Format struct{}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return isMagic(v.Head), nil
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	h, err := readHeader(v)
	switch {
	case errors.Is(err, errHeader):
		v.Found("numpy.malformed", ID, 0, "header")
		v.Unread(0, v.Size, predicate.Malformed)
		return nil
	case err != nil:
		return err
	}
	v.Parsed(0, h.size)
	if h.dtype.object {
		v.Found("numpy.object.array", ID, h.size)
		_, err := pickle.ScanAt(ctx, v, h.size)
		v.Format = ID
		return err
	}
	scanData(v, h)
	return nil
}

// scanData claims the extent that the header fixes, when the content has it.
func scanData(v *content.Visit, h header) {
	bytes, err := times(h.dtype.size, h.items)
	have := v.Size - h.size
	switch {
	case err != nil || bytes > have:
		v.Found("numpy.malformed", ID, h.size, "the data is cut short")
		v.Unread(h.size, v.Size, predicate.Truncated)
		v.Unread(v.Size, v.Size, predicate.Truncated)
	case bytes < have:
		v.Inert(h.size, h.size+bytes)
		v.Found("numpy.malformed", ID, h.size+bytes, "bytes follow the data")
		v.Unread(h.size+bytes, v.Size, predicate.UnknownFormat)
	default:
		v.Inert(h.size, v.Size)
	}
}
