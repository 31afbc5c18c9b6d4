package chain

import (
	"strconv"
	"testing"

	"github.com/cavra/cavra/schemas/predicate"
)

type seen struct{ at, before map[uint64][]predicate.Digest }

func newSeen() seen {
	return seen{map[uint64][]predicate.Digest{}, map[uint64][]predicate.Digest{}}
}

func (s seen) At(n uint64) ([]predicate.Digest, error)     { return s.at[n], nil }
func (s seen) Before(n uint64) ([]predicate.Digest, error) { return s.before[n], nil }

func digest(name string) predicate.Digest { return predicate.DigestOf([]byte(name)) }

// arrival is a statement: its sequence, its name, and its predecessor's name.
type arrival struct {
	sequence       uint64
	name, previous string
	want           Outcome
}

func TestPlace(t *testing.T) {
	tests := map[string][]arrival{
		"in order":                  {{1, "a", "", Linked}, {2, "b", "a", Linked}, {3, "c", "b", Linked}},
		"replay":                    {{1, "a", "", Linked}, {2, "b", "a", Linked}, {1, "a", "", Replayed}, {2, "b", "a", Replayed}},
		"gap, then filled":          {{1, "a", "", Linked}, {3, "c", "b", Early}, {2, "b", "a", Linked}, {3, "c", "b", Replayed}},
		"first one late":            {{2, "b", "a", Early}, {1, "a", "", Linked}},
		"another at a sequence":     {{1, "a", "", Linked}, {2, "b", "a", Linked}, {2, "x", "a", Forked}, {3, "c", "b", Linked}},
		"restored old spool":        {{1, "a", "", Linked}, {2, "b", "a", Linked}, {3, "c", "b", Linked}, {2, "b2", "a", Forked}, {3, "c2", "b2", Forked}, {4, "d2", "c2", Linked}},
		"predecessor is another":    {{1, "a", "", Linked}, {2, "b", "x", Forked}},
		"filled by another":         {{1, "a", "", Linked}, {3, "c", "b", Early}, {2, "x", "a", Forked}},
		"a replay of a fork's side": {{1, "a", "", Linked}, {1, "x", "", Forked}, {1, "x", "", Replayed}},
	}
	for name, arrivals := range tests {
		t.Run(name, func(t *testing.T) {
			known := newSeen()
			for i, a := range arrivals {
				l := &predicate.Link{Sequence: a.sequence, Previous: predicate.ZeroDigest}
				if a.previous != "" {
					l.Previous = digest(a.previous)
				}
				got, err := Place(known, l, digest(a.name))
				if err != nil || got != a.want {
					t.Fatalf("arrival %d (%d %s): %s, %v, want %s", i, a.sequence, a.name, got, err, a.want)
				}
				known.at[a.sequence] = append(known.at[a.sequence], digest(a.name))
				known.before[a.sequence] = append(known.before[a.sequence], l.Previous)
			}
		})
	}
}

func TestNext(t *testing.T) {
	var h Head
	for want := uint64(1); want < 4; want++ {
		sequence, previous := h.Next()
		if sequence != want || (want == 1) != (previous == predicate.ZeroDigest) || want > 1 && previous != h.Digest {
			t.Fatalf("after %+v: %d, %s", h, sequence, previous)
		}
		h = Head{Sequence: sequence, Digest: digest(strconv.FormatUint(sequence, 10))}
	}
}
