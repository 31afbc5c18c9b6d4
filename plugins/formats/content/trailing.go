package content

import (
	"context"
	"fmt"
	"io"

	"github.com/cavra/cavra/schemas/predicate"
)

// Part is [start, end) of the visited content as a span without a name.
func (v *Visit) Part(start, end int64) Span {
	return Span{Bytes: io.NewSectionReader(v.Bytes, start, end-start), Size: end - start, Start: start, End: end, Direct: true}
}

// Trailing looks at what lies from start to the end of the content, behind all
// that the format accounts for. Zeros are padding. Anything else is hidden from
// who reads by the format: it is a finding of the class, and scanned as content
// of its own.
func (v *Visit) Trailing(ctx context.Context, class string, start int64) error {
	zero, err := v.IsZero(ctx, start, v.Size)
	if err != nil || start >= v.Size {
		return err
	}
	if zero {
		v.Parsed(start, v.Size)
		return nil
	}
	v.Found("archive.entry.hidden", class, start, "bytes follow the end")
	_, err = v.Enter(ctx, v.Part(start, v.Size))
	return err
}

// IsZero reports whether [start, end) holds nothing but zeros.
func (v *Visit) IsZero(ctx context.Context, start, end int64) (bool, error) {
	buf := make([]byte, max(0, min(end-start, 64<<10)))
	for start < end {
		if err := ctx.Err(); err != nil {
			return false, fmt.Errorf("read padding: %w", err)
		}
		b := buf[:min(end-start, int64(len(buf)))]
		if err := ReadFull(v.Bytes, b, start); err != nil {
			return false, err
		}
		for _, c := range b {
			if c != 0 {
				return false, nil
			}
		}
		start += int64(len(b))
	}
	return true, nil
}

// Limited marks a part of the content as beyond a limit, with a finding.
func (v *Visit) Limited(class string, start, end int64, why predicate.Reason) {
	v.Found("archive.limit", class, start, string(why))
	v.Unread(start, end, why)
	v.Unread(start, start, why)
}
