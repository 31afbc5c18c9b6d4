package protowire

import (
	"errors"

	"github.com/cavra/cavra/plugins/formats/window"
)

// maxOutline is how many fields an outline looks at.
const maxOutline = 20_000

// Outline is what a message holds at its top.
type Outline struct {
	// First has the extent of the first field of each name; that of an integer
	// is empty, and its value is in Values.
	First map[string][2]int64
	// Last has that of the last one, which counts where only one is allowed.
	Last   map[string][2]int64
	Values map[string]uint64
	// Known is set when every field is one of the type, as the type has it.
	Known bool
	// Whole is set when the last field ends where the message does.
	Whole bool
	// Cut is the name of a field that would reach beyond the end.
	Cut string
}

// ReadOutline reads the top of [start, end) as a message of type m. It stops at
// the first field that is not of the type.
func ReadOutline(w *window.Reader, m *Message, start, end int64) (Outline, error) {
	o := Outline{First: make(map[string][2]int64), Last: make(map[string][2]int64), Values: make(map[string]uint64)}
	for range maxOutline {
		if start >= end {
			o.Known, o.Whole = true, true
			return o, nil
		}
		t, err := readField(w, start, end)
		f := m.fields[t.number]
		switch {
		case errors.Is(err, ErrTruncated):
			if f != nil {
				o.Known, o.Cut = true, f.Name
			}
			return o, nil
		case errors.Is(err, ErrMalformed):
			return o, nil
		case err != nil:
			return o, err
		case f == nil || !t.fits(f):
			return o, nil
		}
		if _, twice := o.First[f.Name]; !twice {
			o.First[f.Name] = [2]int64{t.start, t.end}
			o.Values[f.Name] = t.value
		}
		o.Last[f.Name] = [2]int64{t.start, t.end}
		start = t.end
	}
	o.Known, o.Whole = true, true
	return o, nil
}

// Broken reports whether err says that the bytes are no message, and not that
// they could not be read.
func Broken(err error) bool {
	return errors.Is(err, ErrMalformed) || errors.Is(err, ErrTruncated) || errors.Is(err, ErrDepth) || errors.Is(err, ErrFields)
}
