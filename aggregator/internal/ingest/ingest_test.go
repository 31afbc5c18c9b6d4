package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/aggregator/internal/clickhouse"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/embedded/clickhouse/enginetest"
	"github.com/cavra/cavra/aggregator/internal/row"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/topic"
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

// rowsFunc is a Rows around another one.
type rowsFunc func(context.Context, *row.Batch, string) error

func (f rowsFunc) Insert(ctx context.Context, b *row.Batch, token string) error {
	return f(ctx, b, token)
}

// TestAPlanThatRunsAgainIsDecidedAlike: the rows are there, the commit is not, and
// in between the key is revoked. What the plan held is decided as of the plan's
// time; what comes after is refused.
func TestAPlanThatRunsAgainIsDecidedAlike(t *testing.T) {
	w := newWorld(t, enginetest.Library(t), 1)
	one := newAgent(t, "one", "a")
	w.enrol(one)
	rnd := rand.New(rand.NewPCG(4, 4))
	w.send(0, one.publish(w.ledger, 0, rnd, 50)...)
	a := w.open()
	var batches []*row.Batch
	a.change(t, func(c *Config) {
		c.Rows = rowsFunc(func(ctx context.Context, b *row.Batch, token string) error {
			err := a.db.Insert(ctx, b, fmt.Sprint(token, len(batches)))
			batches = append(batches, b)
			if len(batches) > 1 || err != nil {
				return err
			}
			if err := a.store.RevokeAgent(ctx, "one", one.id.Agent); err != nil {
				return err
			}
			return io.ErrUnexpectedEOF
		})
	})
	w.run(a)
	if len(batches) < 2 {
		t.Fatalf("%d inserts", len(batches))
	}
	// The second run enters the statements in the transparency log again.
	sameEntry := cmpopts.IgnoreFields(row.Statement{}, "LogIndex")
	if diff := cmp.Diff(batches[0], batches[1], sameEntry); diff != "" {
		t.Errorf("decided otherwise (-first +second):\n%s", diff)
	}
	late := one.next()
	w.send(0, late.value)
	w.ledger.refused(0, late.value, "revoked_key")
	w.run(a)
	w.judge(a)
}

// TestLinksThatTheControlStoreHasForgotten: a replay and a fork far behind the
// window are told apart by the archive.
func TestLinksThatTheControlStoreHasForgotten(t *testing.T) {
	w := newWorld(t, enginetest.Library(t), 1)
	one := newAgent(t, "one", "a")
	w.enrol(one)
	send := func(s signed) {
		w.ledger.verified(0, one.id, s.entry)
		w.send(0, s.value)
	}
	var all []signed
	var values [][]byte
	for range control.Window + 400 {
		s := one.next()
		w.ledger.verified(0, one.id, s.entry)
		all, values = append(all, s), append(values, s.value)
	}
	w.send(0, values...)
	a := w.open()
	w.run(a)
	send(all[4])
	send(one.sign(one.statement(one.link(8, all[6].entry.digest), "another")))
	w.run(a)
	send(one.sign(one.statement(one.link(9, all[7].entry.digest), "another")))
	send(one.next())
	w.run(a)
	w.judge(a)
}

// TestTwoThatBelieveTheyHaveThePartition run over the same partitions side by
// side, each outside of any group.
func TestTwoThatBelieveTheyHaveThePartition(t *testing.T) {
	w := newWorld(t, enginetest.Library(t), 2)
	fleet(w, 5, 600)
	a := w.open()
	a.change(t, func(c *Config) { c.MaxMessages = 30 })
	other, err := New(a.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	group, ctx := errgroup.WithContext(ctx)
	for _, i := range []*Ingest{other, a.ingest} {
		for p := range w.place.Partitions {
			group.Go(func() error {
				if err := i.Run(ctx, p, a.consumer.Partition(p)); !errors.Is(err, context.Canceled) {
					return err
				}
				return nil
			})
		}
	}
	w.wait(a, func() bool { done, err := a.reached(w.place.Ends); return done || err != nil })
	cancel()
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	w.judge(a)
}

// TestALogThatWasRewrittenStopsItsPartition and no other.
func TestALogThatWasRewrittenStopsItsPartition(t *testing.T) {
	w := newWorld(t, enginetest.Library(t), 2)
	fleet(w, 6, 100)
	a := w.open()
	plan := &control.Plan{Topic: topic.Statements, Partition: 1, From: 0, Next: 10, Count: 10, SHA256: [32]byte{1}, Owner: "before"}
	if err := a.store.RecordPlan(context.Background(), plan); err != nil {
		t.Fatal(err)
	}
	state := w.runUntil(a, func(h []Health) bool { return len(h) == 2 && h[0].Lag() == 0 && h[0].Next > 0 && h[1].State == Stopped })
	if want := "offsets [0, 10): other messages than there were"; !strings.Contains(state[1].LastError, want) || state[1].Next != 0 {
		t.Errorf("partition 1: %+v", state[1])
	}
	if n := len(w.lines(a, "SELECT digest FROM receipts FINAL WHERE partition = 1")); n != 0 {
		t.Errorf("%d receipts of the stopped partition", n)
	}
}

// TestALogThatWasMadeAnewStopsItsPartition: a log that has other messages where some
// were taken in is not gone on with behind them.
func TestALogThatWasMadeAnewStopsItsPartition(t *testing.T) {
	w := newWorld(t, enginetest.Library(t), 1)
	fleet(w, 6, 100)
	a := w.open()
	before := &control.Plan{Topic: topic.Statements, From: 0, Next: 10, Count: 10, SHA256: [32]byte{1}, Owner: "before"}
	ctx := context.Background()
	if err := a.store.RecordPlan(ctx, before); err != nil {
		t.Fatal(err)
	}
	if err := a.store.CommitPlan(ctx, before, nil); err != nil {
		t.Fatal(err)
	}
	state := w.runUntil(a, func(h []Health) bool { return len(h) == 1 && h[0].State == Stopped })
	if e := state[0].LastError; !strings.Contains(e, "not the log that was taken in before") || !strings.Contains(e, "other messages than there were") {
		t.Errorf("health: %+v", state[0])
	}
	if n := len(w.lines(a, "SELECT digest FROM receipts FINAL")); n != 0 {
		t.Errorf("%d receipts of a log of which the beginning is passed over", n)
	}
}

// TestAPlanThatCannotBeReadIsGivenUp by name, and the partition goes on behind
// it: the range has a receipt, and the decision a record.
func TestAPlanThatCannotBeReadIsGivenUp(t *testing.T) {
	for name, tc := range map[string]struct{ trim, lost int64 }{
		"rewritten": {0, 20}, "dropped in part": {15, 15}, "dropped whole": {30, 20},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, enginetest.Library(t), 1)
			fleet(w, 6, 100)
			ctx := context.Background()
			a := w.open()
			plan := &control.Plan{Topic: topic.Statements, From: 0, Next: 20, Count: 20, SHA256: [32]byte{1}, Owner: "before"}
			if err := a.store.RecordPlan(ctx, plan); err != nil {
				t.Fatal(err)
			}
			if tc.trim > 0 {
				if err := w.broker.TrimBefore(topic.Statements, 0, tc.trim); err != nil {
					t.Fatal(err)
				}
			}
			given := false
			w.runUntil(a, func(h []Health) bool {
				if len(h) != 1 {
					return false
				}
				if h[0].State == Stopped && !given {
					given = true
					if u := h[0].Unreadable; u == nil || u.Plan.From != 0 || u.Plan.Next != 20 || u.LostBefore != tc.lost {
						t.Errorf("unreadable: %+v", u)
					}
					for _, next := range []int64{19, 21} {
						if err := a.ingest.GiveUp(ctx, 0, 0, next, "ops", "a typo"); !errors.Is(err, ErrNotUnreadable) {
							t.Errorf("give up [0, %d): %v", next, err)
						}
					}
					if err := a.ingest.GiveUp(ctx, 1, 0, 20, "ops", "a typo"); !errors.Is(err, ErrNotUnreadable) {
						t.Errorf("another partition: %v", err)
					}
					if err := a.ingest.GiveUp(ctx, 0, 0, 20, "ops", "the broker's disk was replaced"); err != nil {
						t.Error(err)
					}
				}
				return given && h[0].State == Running && h[0].Next == 100 && h[0].LastError == "" && h[0].Unreadable == nil
			})
			if err := a.ingest.GiveUp(ctx, 0, 0, 20, "ops", "again"); !errors.Is(err, ErrNotUnreadable) {
				t.Errorf("again: %v", err)
			}
			lost := w.lines(a, "SELECT concat(toString(offset), ' ', toString(last_offset)) FROM receipts FINAL WHERE outcome = 'lost' ORDER BY offset")
			want := []string{fmt.Sprintf("0 %d", tc.lost-1)}
			if tc.trim > 20 {
				want = append(want, fmt.Sprintf("20 %d", tc.trim-1))
			}
			if diff := cmp.Diff(want, lost); diff != "" {
				t.Errorf("lost (-want +got):\n%s", diff)
			}
			if n := w.lines(a, "SELECT toString(count()) FROM receipts FINAL WHERE outcome != 'lost'"); n[0] != fmt.Sprint(100-max(tc.trim, tc.lost)) {
				t.Errorf("%s receipts of what was left", n[0])
			}
			record, err := a.store.GivenUpPlans(ctx, 10)
			if err != nil || len(record) != 1 || record[0].SHA256 != plan.SHA256 || record[0].LostBefore != tc.lost || record[0].By != "ops" {
				t.Errorf("record: %+v, %v", record, err)
			}
		})
	}
}

func TestWhatDoesNotPassStopsThePartition(t *testing.T) {
	w := newWorld(t, enginetest.Library(t), 1)
	fleet(w, 7, 20)
	a := w.open()
	tries := 0
	a.change(t, func(c *Config) {
		c.Rows = rowsFunc(func(context.Context, *row.Batch, string) error {
			tries++
			return &clickhouse.SchemaError{What: "table scans", Problem: "it is missing"}
		})
	})
	state := w.runUntil(a, func(h []Health) bool { return len(h) == 1 && h[0].State == Stopped })
	if tries != 1 || !strings.Contains(state[0].LastError, "it is missing") {
		t.Errorf("%d tries, %+v", tries, state[0])
	}
}

// TestWhatTheLogDroppedIsShown: what is left is taken in, and what is gone has a
// receipt as a range.
func TestWhatTheLogDroppedIsShown(t *testing.T) {
	w := newWorld(t, enginetest.Library(t), 1)
	fleet(w, 8, 100)
	if err := w.broker.TrimBefore(topic.Statements, 0, 40); err != nil {
		t.Fatal(err)
	}
	a := w.open()
	w.run(a)
	got := w.lines(a, "SELECT concat(outcome, ' ', toString(offset), ' ', toString(last_offset)) FROM receipts FINAL WHERE offset <= 40 ORDER BY offset")
	if len(got) != 2 || got[0] != "lost 0 39" || !strings.HasSuffix(got[1], " 40 40") {
		t.Errorf("receipts %v", got)
	}
	if h := a.ingest.Health()[0]; h.Lost != 40 || h.Lag() != 0 {
		t.Errorf("health %+v", h)
	}
}

func TestHealthShowsAStall(t *testing.T) {
	w := newWorld(t, enginetest.Library(t), 1)
	fleet(w, 9, 20)
	a := w.open()
	var shift atomic.Int64
	a.change(t, func(c *Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
		c.Rows = rowsFunc(func(ctx context.Context, _ *row.Batch, _ string) error {
			shift.Store(int64(c.StallAfter) + int64(time.Minute))
			return io.ErrUnexpectedEOF
		})
	})
	state := w.runUntil(a, func(h []Health) bool { return len(h) == 1 && h[0].State == Stalled })
	if state[0].Lag() != 20 || state[0].LastError == "" {
		t.Errorf("%+v", state[0])
	}
	if h := a.ingest.Health()[0]; h.State != Away {
		t.Errorf("after the end: %+v", h)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := New(Default()); err == nil || !strings.Contains(err.Error(), "topic and owner") {
		t.Errorf("%v", err)
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
