package ingest

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/cavra/cavra/aggregator/internal/embedded/clickhouse/enginetest"
	"github.com/cavra/cavra/schemas/predicate"
)

// tally is the rollup that a statement counts in by its type.
func tally(e entry) string { return "type " + predicate.Short(e.statement.PredicateType()) }

// add counts a statement's rows in the other rollups.
func add(want map[string]int, e entry) {
	switch p := e.statement.(type) {
	case *predicate.Scan:
		want["verdict "+string(p.Verdict)]++
		for _, f := range p.Findings {
			want["severity "+string(f.Severity)]++
		}
		for _, i := range p.Imports {
			want["import "+i.Judged]++
		}
	case *predicate.Inventory:
		want["inventory"]++
		for _, r := range p.References {
			want["reference "+string(r.Problem)]++
		}
	default:
		want["report "+predicate.Short(p.PredicateType())]++
	}
}

// fleet publishes n messages of two agents a partition.
func fleet(w *world, seed uint64, n int) {
	w.tb.Helper()
	rnd := rand.New(rand.NewPCG(seed, seed))
	for p := range w.place.Partitions {
		agents := []*agent{newAgent(w.tb, "one", string(rune('a'+p))), newAgent(w.tb, "two", string(rune('a'+p)))}
		w.enrol(agents...)
		for sent := 0; sent < n/w.place.Partitions; {
			k := min(1+rnd.IntN(60), n/w.place.Partitions-sent)
			w.send(p, agents[rnd.IntN(2)].publish(w.ledger, p, rnd, k)...)
			sent += k
		}
	}
}

func TestEverythingOnceInEffect(t *testing.T) {
	w := newWorld(t, enginetest.Library(t), 2)
	fleet(w, 1, 600)
	a := w.open()
	w.run(a)
	w.judge(a)
	for _, h := range a.ingest.Health() {
		if h.Lag() != 0 || h.LastError != "" || h.LastCommitAt.IsZero() {
			t.Errorf("health: %+v", h)
		}
	}
	want, got := map[Outcome]uint64{}, a.ingest.Outcomes()
	for _, p := range w.ledger.messages {
		for _, m := range p {
			want[Outcome{m.Outcome, m.Reason}]++
		}
	}
	if len(want) < 6 {
		t.Errorf("the fleet made only %v", want)
	}
	for o, n := range want {
		if got[o] != n {
			t.Errorf("%v: %d counted, want %d", o, got[o], n)
		}
	}
}

// mustJSON is for the arguments of child processes.
func mustJSON(tb testing.TB, v any) string {
	tb.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}
