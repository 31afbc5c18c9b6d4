package control

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/chain"
)

// ledger is a chain that forgets nothing: what the store is held against, and
// what stands in for the statements table.
type ledger struct {
	links                  map[uint64][]Link
	highest, replays, fork uint64
}

func (l *ledger) At(n uint64) (out []predicate.Digest, err error) {
	for _, x := range l.links[n] {
		out = append(out, x.Digest)
	}
	return out, nil
}

func (l *ledger) Before(n uint64) (out []predicate.Digest, err error) {
	for _, x := range l.links[n] {
		out = append(out, x.Previous)
	}
	return out, nil
}

func (l *ledger) status(id ChainID) ChainStatus {
	c := ChainStatus{ID: id, Highest: l.highest, Replays: l.replays, Forks: l.fork}
	for n := uint64(1); n <= l.highest; n++ {
		if len(l.links[n]) > 0 {
			if len(c.Gaps) == 0 {
				c.Head.Sequence = n
			}
			continue
		}
		if k := len(c.Gaps); k > 0 && c.Gaps[k-1].Last == n-1 {
			c.Gaps[k-1].Last = n
		} else {
			c.Gaps = append(c.Gaps, Span{n, n})
		}
	}
	if n := c.Head.Sequence; n > 0 {
		c.Head.Digest = l.links[n][0].Digest
	}
	c.GapCount = uint64(len(c.Gaps))
	for _, there := range l.links {
		c.Statements += uint64(len(there))
	}
	return c
}

// fallback asks the ledger where the store has forgotten.
type fallback struct {
	chain     *Chain
	ledger    *ledger
	forgotten int
}

func (f *fallback) At(n uint64) ([]predicate.Digest, error) {
	out, err := f.chain.At(n)
	if errors.Is(err, ErrForgotten) {
		f.forgotten++
		return f.ledger.At(n)
	}
	return out, err
}

func (f *fallback) Before(n uint64) ([]predicate.Digest, error) {
	out, err := f.chain.Before(n)
	if errors.Is(err, ErrForgotten) {
		f.forgotten++
		return f.ledger.Before(n)
	}
	return out, err
}

func link(n uint64) Link {
	if n == 1 {
		return Link{1, digest("1"), predicate.ZeroDigest}
	}
	return Link{n, digest(strconv.FormatUint(n, 10)), digest(strconv.FormatUint(n-1, 10))}
}

// arrivals is a chain of n as a bad network, a restored snapshot and a curious
// neighbour would deliver it.
func arrivals(r *rand.Rand, n uint64) []Link {
	var out []Link
	for i := uint64(1); i <= n; i++ {
		out = append(out, link(i))
	}
	for range n / 20 { // out of order, near and far
		i := r.IntN(len(out))
		j := min(len(out)-1, i+r.IntN(8)*r.IntN(60))
		out[i], out[j] = out[j], out[i]
	}
	for range n / 20 { // again
		out = append(out, out[r.IntN(len(out))])
	}
	for range n / 40 { // another at its place
		l := out[r.IntN(len(out))]
		l.Digest = digest(fmt.Sprint("fork", r.Int()))
		i := r.IntN(len(out))
		out = append(out[:i], append([]Link{l}, out[i:]...)...)
	}
	for range n / 100 { // lost
		i := r.IntN(len(out))
		out = append(out[:i], out[i+1:]...)
	}
	return out
}

// Whatever arrives, in batches of whatever size: the store's verdicts are those
// of a ledger that forgets nothing, and so is what it says of the chain.
func TestChainAgainstLedger(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, _ *clock) {
		for seed := range uint64(4) {
			r := rand.New(rand.NewPCG(seed, 7))
			id := enrol(t, s, "acme")
			l := &ledger{links: map[uint64][]Link{}}
			forgotten, offset := 0, int64(0)
			for rest := arrivals(r, 3*Window); len(rest) > 0; {
				n := min(len(rest), 1+r.IntN(700))
				u, f := judge(t, s, id, l, rest[:n])
				forgotten += f
				p := &Plan{Topic: id.Agent, From: offset, Next: offset + int64(n)}
				must(t, s.RecordPlan(t.Context(), p))
				must(t, s.CommitPlan(t.Context(), p, []ChainUpdate{u}))
				rest, offset = rest[n:], offset+int64(n)
			}
			check(t, s, l, id)
			if forgotten == 0 {
				t.Error("nothing was forgotten, so that forgetting was not tested")
			}
		}
	})
}

// judge places a batch and holds each verdict against the ledger's.
func judge(t *testing.T, s *Store, id ChainID, l *ledger, batch []Link) (ChainUpdate, int) {
	t.Helper()
	span := Span{batch[0].Sequence, batch[0].Sequence}
	for _, b := range batch {
		span = Span{min(span.First, b.Sequence), max(span.Last, b.Sequence)}
	}
	chains, err := s.LoadChains(t.Context(), map[ChainID]Span{id: span})
	must(t, err)
	known := &fallback{chain: chains[id], ledger: l}
	u := ChainUpdate{ID: id}
	for _, b := range batch {
		place := &predicate.Link{Sequence: b.Sequence, Previous: b.Previous}
		got, err := chain.Place(known, place, b.Digest)
		must(t, err)
		want, err := chain.Place(l, place, b.Digest)
		must(t, err)
		if got != want {
			t.Fatalf("statement %d: %s, want %s", b.Sequence, got, want)
		}
		u.Statements = append(u.Statements, Placed{Link: b, Outcome: got})
		switch got {
		case chain.Replayed:
			l.replays++
			continue
		case chain.Forked:
			l.fork++
		}
		l.links[b.Sequence] = append(l.links[b.Sequence], b)
		l.highest = max(l.highest, b.Sequence)
		known.chain.Add(b)
	}
	return u, known.forgotten
}

func check(t *testing.T, s *Store, l *ledger, id ChainID) {
	t.Helper()
	all, err := s.Chains(t.Context(), id.Tenant)
	must(t, err)
	for _, got := range all {
		if got.ID != id {
			continue
		}
		want := l.status(id)
		want.Gaps = want.Gaps[:min(len(want.Gaps), MaxListed)]
		ignore := cmpopts.IgnoreFields(ChainStatus{}, "LastSeenAt", "Forked", "Head.Digest")
		if diff := cmp.Diff(want, got, ignore); diff != "" {
			t.Errorf("chain (-want +got):\n%s", diff)
		}
		there, err := l.At(got.Head.Sequence)
		must(t, err)
		if !cmp.Equal(there[:1], []predicate.Digest{got.Head.Digest}) && len(there) < 2 {
			t.Errorf("head %v, want %v", got.Head, there)
		}
		if len(got.Forked) != int(min(got.Forks, MaxListed)) {
			t.Errorf("%d forks listed of %d", len(got.Forked), got.Forks)
		}
		var links int
		must(t, s.read.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM chain_links WHERE agent = $1`, id.Agent).Scan(&links))
		if most := 2*Window + 2*int(got.GapCount) + int(got.Forks); links > most {
			t.Errorf("%d links are remembered, want at most %d", links, most)
		}
		return
	}
	t.Errorf("chain %s is not listed", id)
}

// Two aggregators judged against the same state that a statement is linked, and
// both commit: the second one is flagged all the same.
func TestStaleVerdictIsFlagged(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, _ *clock) {
		ctx := t.Context()
		id := enrol(t, s, "acme")
		for i, name := range []string{"a", "b", "a"} {
			p := &Plan{Topic: "statements", Partition: i, Next: 1, Count: 1}
			must(t, s.RecordPlan(ctx, p))
			u := ChainUpdate{ID: id, Statements: []Placed{{Link: Link{1, digest(name), predicate.ZeroDigest}, Outcome: chain.Linked}}}
			must(t, s.CommitPlan(ctx, p, []ChainUpdate{u}))
		}
		got, err := s.Chains(ctx, "acme")
		must(t, err)
		want := []ChainStatus{{
			ID: id, Head: chain.Head{Sequence: 1, Digest: digest("a")}, Highest: 1, Statements: 2, Forks: 1,
			Forked: []Fork{{Sequence: 1, First: digest("a"), Second: digest("b")}},
		}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("chains (-want +got):\n%s", diff)
		}
	})
}

// A sequence as great as can be makes one gap, and costs no more than another.
func TestGreatestSequence(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, _ *clock) {
		id := enrol(t, s, "acme")
		l := &ledger{links: map[uint64][]Link{}}
		const far = 1<<53 - 1
		u, _ := judge(t, s, id, l, []Link{link(1), {far, digest("far"), digest("before")}, link(2), link(3), {far, digest("fork"), digest("before")}})
		p := plan("a", 0, 5)
		must(t, s.RecordPlan(t.Context(), p))
		must(t, s.CommitPlan(t.Context(), p, []ChainUpdate{u}))
		got, err := s.Chains(t.Context(), "acme")
		must(t, err)
		want := []ChainStatus{{
			ID: id, Head: chain.Head{Sequence: 3, Digest: digest("3")}, Highest: far, Statements: 5, Forks: 1, GapCount: 1, Gaps: []Span{{4, far - 1}},
			Forked: []Fork{{Sequence: far, First: digest("far"), Second: digest("fork")}},
		}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("chains (-want +got):\n%s", diff)
		}
	})
}
