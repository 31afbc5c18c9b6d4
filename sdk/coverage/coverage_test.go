package coverage

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
)

func parsed(a, b int64) Range { return Range{Kind: predicate.Parsed, Start: a, End: b} }
func inert(a, b int64) Range  { return Range{Kind: predicate.Inert, Start: a, End: b} }
func unread(a, b int64, why predicate.Reason) Range {
	return Range{Kind: predicate.Unread, Start: a, End: b, Reason: why}
}

func TestAccount(t *testing.T) {
	tests := map[string]struct {
		claims []Range
		size   int64
		want   []Range
	}{
		"nothing claimed":         {nil, 10, []Range{unread(0, 10, predicate.Unclaimed)}},
		"empty artifact":          {nil, 0, []Range{}},
		"all parsed, in pieces":   {[]Range{parsed(5, 10), parsed(0, 5)}, 10, []Range{parsed(0, 10)}},
		"a hole":                  {[]Range{parsed(0, 3), inert(6, 10)}, 10, []Range{parsed(0, 3), unread(3, 6, predicate.Unclaimed), inert(6, 10)}},
		"unread wins over parsed": {[]Range{parsed(0, 10), unread(4, 6, predicate.Encrypted)}, 10, []Range{parsed(0, 4), unread(4, 6, predicate.Encrypted), parsed(6, 10)}},
		"parsed wins over inert":  {[]Range{inert(0, 10), parsed(2, 3)}, 10, []Range{inert(0, 2), parsed(2, 3), inert(3, 10)}},
		"a place without bytes":   {[]Range{parsed(0, 10), unread(10, 10, predicate.Truncated)}, 10, []Range{parsed(0, 10), unread(10, 10, predicate.Truncated)}},
		"a place amid parsed":     {[]Range{parsed(0, 10), unread(4, 4, predicate.Truncated)}, 10, []Range{parsed(0, 4), unread(4, 4, predicate.Truncated), parsed(4, 10)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Account(tt.claims, tt.size)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if sum := Sum(got); sum.Bytes != tt.size || sum.Parsed+sum.Inert+sum.Unread != tt.size {
				t.Errorf("%+v does not add up to %d", sum, tt.size)
			}
		})
	}
}

func TestAccountRefuses(t *testing.T) {
	for name, claim := range map[string]Range{
		"past the end":          parsed(0, 11),
		"negative":              parsed(-1, 4),
		"backwards":             parsed(4, 3),
		"unread without reason": unread(0, 1, ""),
		"parsed with a reason":  {Kind: predicate.Parsed, Start: 0, End: 1, Reason: predicate.Encrypted},
		"unknown kind":          {Kind: "seen", Start: 0, End: 1},
	} {
		if got, err := Account([]Range{claim}, 10); err == nil {
			t.Errorf("%s: accounted as %v", name, got)
		}
	}
}

func TestCombine(t *testing.T) {
	first := []Range{parsed(0, 4), unread(4, 10, predicate.UnknownFormat)}
	second := []Range{unread(0, 6, predicate.UnsupportedFormat), inert(6, 8), parsed(8, 10)}
	got, err := Combine([][]Range{first, second}, 10)
	if err != nil {
		t.Fatal(err)
	}
	want := []Range{parsed(0, 4), unread(4, 6, predicate.UnknownFormat), inert(6, 8), parsed(8, 10)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzAccount(f *testing.F) {
	f.Add([]byte{0, 5, 0, 3, 9, 1}, uint8(12))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		var claims []Range
		for ; len(b) >= 3; b = b[3:] {
			r := Range{Kind: []predicate.RangeKind{predicate.Parsed, predicate.Inert, predicate.Unread}[b[2]%3], Start: int64(b[0]), End: int64(b[1])}
			if r.Kind == predicate.Unread {
				r.Reason = predicate.Encrypted
			}
			claims = append(claims, r)
		}
		got, err := Account(claims, int64(size))
		if err != nil {
			return
		}
		var end int64
		for _, r := range got {
			if r.Start != end && r.Start != r.End {
				t.Fatalf("%v is not contiguous", got)
			}
			end = r.End
		}
		if end != int64(size) {
			t.Fatalf("%v ends at %d, not %d", got, end, size)
		}
	})
}
