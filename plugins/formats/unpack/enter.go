package unpack

import (
	"context"
	"errors"
	"io"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// Member is a compressed part of content that is being visited.
type Member struct {
	// Name is the name of what it decompresses to.
	Name  string
	Codec Codec
	// Start and End are the extent of the packed bytes in the visited content.
	Start, End int64
	// Most is the size that is stated for the content, or below 0.
	Most int64
	// Class is the location class of what is found.
	Class string
	// Parts are the members that the content consists of, one behind the other;
	// without any, it is one member with the name Name.
	Parts []Part
	// Scan scans the content; without it, the content decides. Parts have none.
	Scan func(context.Context, *content.Visit) error
}

// Part is a member of a solid block.
type Part struct {
	Name string
	Size int64
}

// Result is what became of a member.
type Result struct {
	content.Outcome
	// Size of the content; End of the packed bytes, in the visited content.
	Size, End int64
	// Sum is the CRC-32 of the content.
	Sum   uint32
	Fault *Fault
	// Skipped are extents in the visited content.
	Skipped []Extent
}

// Enter decompresses a member and scans what comes out, up to where it breaks or
// meets a limit; that is then a finding and a gap.
func Enter(ctx context.Context, v *content.Visit, m Member) (Result, error) {
	c, err := Read(ctx, v.Budget, m.Codec, io.NewSectionReader(v.Bytes, m.Start, m.End-m.Start), m.End-m.Start, m.Most)
	if err != nil {
		return Result{}, err
	}
	r := Result{Size: c.Size, End: m.Start + c.End, Sum: c.Sum, Fault: c.Fault}
	for _, s := range c.Skipped {
		r.Skipped = append(r.Skipped, Extent{m.Start + s.Start, m.Start + s.End})
	}
	end := m.End
	if c.Fault == nil {
		end = r.End
	}
	if f := c.Fault; f != nil {
		switch {
		case f.Limit():
			v.Found("archive.limit", m.Class, m.Start, m.Name, f.What)
		case f.Reason != predicate.UnsupportedCompression:
			v.Found("archive.malformed", m.Class, m.Start, m.Name, f.What)
		}
		v.Unread(m.Start, end, f.Reason)
		v.Unread(m.Start, m.Start, f.Reason)
	}
	if c.Fault == nil || c.Size > 0 {
		r.Outcome, err = m.enter(ctx, v, c, end)
	}
	if errors.Is(err, ErrSpent) {
		v.Found("archive.limit", m.Class, m.Start, m.Name, "more than may be decompressed")
		v.Unread(m.Start, end, predicate.LimitBytes)
		v.Unread(m.Start, m.Start, predicate.LimitBytes)
		r.Outcome, err = content.Outcome{}, nil
	}
	return r, errors.Join(err, c.Close())
}

// enter scans the content, whole or part by part.
func (m Member) enter(ctx context.Context, v *content.Visit, c *Content, end int64) (content.Outcome, error) {
	if len(m.Parts) == 0 {
		return v.EnterBy(ctx, content.Span{Name: m.Name, Bytes: c, Size: c.Size, Start: m.Start, End: end}, m.Scan)
	}
	all, at := content.Outcome{Complete: true}, int64(0)
	parts := m.Parts
	for at < c.Size || len(parts) > 0 {
		p := Part{Size: c.Size - at}
		if len(parts) > 0 {
			p, parts = parts[0], parts[1:]
		} else {
			v.Found("archive.entry.hidden", m.Class, m.Start, "content of no member")
		}
		n := max(0, min(p.Size, c.Size-at))
		if n < p.Size && c.Fault == nil {
			v.Found("archive.malformed", m.Class, m.Start, p.Name, "content is cut short")
			v.Unread(m.Start, m.Start, predicate.Truncated)
		}
		out, err := v.Enter(ctx, content.Span{Name: p.Name, Bytes: io.NewSectionReader(c, at, n), Size: n, Start: m.Start, End: end})
		if err != nil {
			return content.Outcome{}, err
		}
		all.Complete = all.Complete && out.Complete
		at += n
	}
	return all, nil
}
