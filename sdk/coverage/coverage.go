// Package coverage accounts for every byte of an artifact: parsed, inert by
// structure, or unread with a reason. What nobody claimed is unread.
package coverage

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"
)

// Range is [Start, End) of an artifact's bytes.
type Range struct {
	Kind       predicate.RangeKind
	Start, End int64
	// Reason is set exactly for an unread range.
	Reason predicate.Reason
	// Member is the container's member that an unread range belongs to. It is
	// for the person at this machine.
	Member string
}

// Validate reports whether the range is well-formed within an artifact of size
// bytes.
func (r Range) Validate(size int64) error {
	if r.Start < 0 || r.End < r.Start || r.End > size {
		return fmt.Errorf("range [%d, %d) is not within 0 and %d", r.Start, r.End, size)
	}
	switch r.Kind {
	case predicate.Parsed, predicate.Inert:
		if r.Reason != "" {
			return fmt.Errorf("range [%d, %d): %s, with a reason", r.Start, r.End, r.Kind)
		}
		return nil
	case predicate.Unread:
		return r.Reason.Validate()
	}
	return fmt.Errorf("range [%d, %d): kind %q is not known", r.Start, r.End, r.Kind)
}

// rank orders the kinds by how much is known of a byte: where claims overlap,
// the least that is known wins, so that no claim hides a gap.
func rank(k predicate.RangeKind) int {
	switch k {
	case predicate.Unread:
		return 2
	case predicate.Parsed:
		return 1
	}
	return 0
}

// Account makes one scanner's claims disjoint and ascending, and fills what is
// not claimed with unread. Where claims overlap, unread wins over parsed, and
// parsed over inert. Empty unread ranges are kept: they mark something without
// a byte of its own. Every claim must be valid within size.
func Account(claims []Range, size int64) ([]Range, error) {
	var edges []int64
	var marks []Range
	solid := make([]Range, 0, len(claims))
	for _, c := range claims {
		if err := c.Validate(size); err != nil {
			return nil, fmt.Errorf("account coverage: %w", err)
		}
		if c.Start == c.End {
			if c.Kind == predicate.Unread {
				marks = append(marks, c)
			}
			continue
		}
		solid = append(solid, c)
		edges = append(edges, c.Start, c.End)
	}
	edges = append(edges, 0, size)
	slices.Sort(edges)
	edges = slices.Compact(edges)
	slices.SortStableFunc(solid, func(a, b Range) int { return cmp.Compare(a.Start, b.Start) })
	return merge(sweep(solid, edges), marks), nil
}

// sweep walks the elementary intervals between edges and gives each the claim
// with the highest rank.
func sweep(solid []Range, edges []int64) []Range {
	var out []Range
	var open []Range
	next := 0
	for i := 0; i+1 < len(edges); i++ {
		start, end := edges[i], edges[i+1]
		open = slices.DeleteFunc(open, func(r Range) bool { return r.End <= start })
		for next < len(solid) && solid[next].Start <= start {
			open = append(open, solid[next])
			next++
		}
		won := Range{Kind: predicate.Unread, Reason: predicate.Unclaimed}
		for j, r := range open {
			if j == 0 || rank(r.Kind) > rank(won.Kind) {
				won = r
			}
		}
		won.Start, won.End = start, end
		if n := len(out); n > 0 && joins(out[n-1], won) {
			out[n-1].End = end
			continue
		}
		out = append(out, won)
	}
	return out
}

func joins(a, b Range) bool {
	return a.End == b.Start && a.Kind == b.Kind && a.Reason == b.Reason && a.Member == b.Member
}

// merge puts the marks in their places: a range that a mark falls into is split
// there, so that the account stays disjoint and ascending.
func merge(ranges, marks []Range) []Range {
	slices.SortFunc(marks, compare)
	marks = slices.Compact(marks)
	out := make([]Range, 0, len(ranges)+2*len(marks))
	for _, r := range ranges {
		for len(marks) > 0 && marks[0].Start < r.End {
			m := marks[0]
			marks = marks[1:]
			if m.Start > r.Start {
				left := r
				left.End = m.Start
				out = append(out, left)
				r.Start = m.Start
			}
			out = append(out, m)
		}
		out = append(out, r)
	}
	return append(out, marks...)
}

func compare(a, b Range) int {
	return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Member, b.Member))
}

// Combine merges the accounts that several scanners gave of the same artifact:
// a byte that any of them parsed is parsed, one that any calls inert is inert,
// and what is left keeps the first account's reason.
func Combine(accounts [][]Range, size int64) ([]Range, error) {
	switch len(accounts) {
	case 0:
		return Account(nil, size)
	case 1:
		return accounts[0], nil
	}
	out := accounts[0]
	for _, next := range accounts[1:] {
		known := slices.DeleteFunc(slices.Clone(next), func(r Range) bool { return r.Kind == predicate.Unread })
		left := subtract(out, known)
		both, err := Account(append(left, known...), size)
		if err != nil {
			return nil, err
		}
		out = both
	}
	return out, nil
}

// subtract cuts from the unread ranges what known covers, and from the inert
// ones what known parsed; the rest stays.
func subtract(ranges, known []Range) []Range {
	var out []Range
	for _, r := range ranges {
		rest := []Range{r}
		for _, k := range known {
			if r.Kind == predicate.Parsed || r.Kind == predicate.Inert && k.Kind == predicate.Inert {
				continue
			}
			var cut []Range
			for _, p := range rest {
				cut = append(cut, p.without(k)...)
			}
			rest = cut
		}
		out = append(out, rest...)
	}
	return out
}

func (r Range) without(k Range) []Range {
	if k.End <= r.Start || k.Start >= r.End {
		return []Range{r}
	}
	var out []Range
	if k.Start > r.Start {
		left := r
		left.End = k.Start
		out = append(out, left)
	}
	if k.End < r.End {
		right := r
		right.Start = k.End
		out = append(out, right)
	}
	return out
}

// Total is the account in numbers. An artifact is complete when nothing is
// unread, not even a place without bytes.
type Total struct {
	Complete                     bool
	Bytes, Parsed, Inert, Unread int64
}

// Sum adds up an account.
func Sum(account []Range) Total {
	t := Total{Complete: true}
	for _, r := range account {
		n := r.End - r.Start
		t.Bytes += n
		switch r.Kind {
		case predicate.Parsed:
			t.Parsed += n
		case predicate.Inert:
			t.Inert += n
		default:
			t.Unread += n
			t.Complete = false
		}
	}
	return t
}
