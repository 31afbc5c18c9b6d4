package predicate

import (
	"fmt"
	"time"
)

// timeLayout is RFC 3339 in UTC with milliseconds, always of the same length,
// so that a moment has one spelling.
const timeLayout = "2006-01-02T15:04:05.000Z"

// Time is a moment in UTC, in whole milliseconds.
type Time struct{ t time.Time }

// At rounds t down to a statement's resolution.
func At(t time.Time) Time { return Time{t.UTC().Truncate(time.Millisecond)} }

// Time returns the moment in UTC.
func (t Time) Time() time.Time { return t.t }

// IsZero reports whether the moment is absent.
func (t Time) IsZero() bool { return t.t.IsZero() }

// String returns the wire form.
func (t Time) String() string { return t.t.Format(timeLayout) }

// Equal reports whether both are the same moment.
func (t Time) Equal(u Time) bool { return t.t.Equal(u.t) }

// MarshalText implements encoding.TextMarshaler.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText accepts the one spelling that MarshalText writes.
func (t *Time) UnmarshalText(b []byte) error {
	parsed, err := time.Parse(timeLayout, string(b))
	if err != nil {
		return fmt.Errorf("time %q: want %s", clip(string(b)), timeLayout)
	}
	if parsed.Year() < 1970 || parsed.Year() > 9999 {
		return fmt.Errorf("time %q: out of range", clip(string(b)))
	}
	t.t = parsed
	return nil
}
