package scenario

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/testbed/forge"
)

// The marks at which the programs are killed.
var (
	agentMarks      = []string{"sequence-allocated", "signed", "spool-written", "spool-synced", "broker-acked", "cursor-synced"}
	aggregatorMarks = []string{"plan-recorded", "admitted", "inserted", "committed", "offset-committed"}
)

// crashPlan is how much a crash run does.
type crashPlan struct {
	// passes are the passings of each mark at which to die.
	passes []int
	// random is how many kills there are at random times.
	random int
	// files is how many the tree has in the end, one report each at least.
	files int
	// step is how many files are added for each kill.
	step int
}

var (
	bounded = crashPlan{passes: []int{1, 2}, random: 4, files: 600, step: 15}
	long    = crashPlan{passes: []int{1, 2, 3, 5}, random: 30, files: 2000, step: 20}
)

// planFor is the bounded plan, unless the long one is asked for.
func planFor() crashPlan {
	if os.Getenv("CAVRA_SCENARIO_LONG") != "" {
		return long
	}
	return bounded
}

// TestKilledAnywhere kills the agent and the aggregator at every mark and at
// random, while a hostile neighbour publishes replays, forks, gaps and garbage,
// and judges what is there in the end by the topic and the tree.
func TestKilledAnywhere(t *testing.T) {
	dir := folder(t)
	w := embedded(t, dir, armed(t, dir))
	crashes(w, planFor())
}

// crashes does the plan, and whatever more there is, before it judges.
func crashes(w *world, plan crashPlan, more ...func(began time.Time)) {
	w.t.Helper()
	w.agent = w.enrol("agent")
	w.hurry(w.agent)
	stop := w.neighbour()
	began := time.Now()
	deaths := w.killAgent(plan, began) + w.killAggregator(plan, began) + w.killAtRandom(plan, began)
	for _, do := range more {
		do(began)
	}
	w.t.Logf("%s: killed %d times, %d files so far", time.Since(began).Round(time.Second), deaths, len(w.files))
	w.calm(plan)
	stop()
	book := w.judge(w.agent)
	id, err := w.agent.Identity()
	w.must(err)
	w.verdicts(w.t, book, chainOf(id))
	if book.Outcomes["forked"] == 0 || book.Outcomes["replayed"] == 0 || book.Outcomes["early"] == 0 {
		w.t.Errorf("the neighbour's forks, replays and gaps are not on the topic: %v", book.Outcomes)
	}
	w.t.Logf("%s: judged", time.Since(began).Round(time.Second))
}

// deathTimeout is how long a program may live after it was given something to
// do that leads it to its mark.
const deathTimeout = time.Minute

func (w *world) killAgent(plan crashPlan, began time.Time) (deaths int) {
	for _, n := range plan.passes {
		for _, mark := range agentMarks {
			w.feed(plan.step)
			w.must(w.agent.Launch([]string{fmt.Sprintf("CAVRA_FAULTPOINT=%s:%d", mark, n)}))
			w.feedUntil(w.agent.Ended(), plan, mark, n)
			if died, err := w.agent.Killed(w.ctx); err != nil || !died {
				w.t.Fatalf("armed at %s:%d, the agent did not die of it: %v", mark, n, err)
			}
			deaths++
			w.t.Logf("%6.1fs: the agent died at %s:%d", time.Since(began).Seconds(), mark, n)
		}
	}
	return deaths
}

func (w *world) killAggregator(plan crashPlan, began time.Time) (deaths int) {
	w.must(w.agent.Launch(nil))
	w.aggregator.Kill()
	for _, n := range plan.passes {
		for _, mark := range aggregatorMarks {
			w.feed(plan.step)
			w.must(w.aggregator.Launch(fmt.Sprintf("CAVRA_FAULTPOINT=%s:%d", mark, n)))
			w.feedUntil(w.aggregator.Ended(), plan, mark, n)
			w.must(w.aggregator.Died(w.ctx))
			deaths++
			w.t.Logf("%6.1fs: the aggregator died at %s:%d", time.Since(began).Seconds(), mark, n)
		}
	}
	return deaths
}

// feedUntil goes on adding files until a program has ended, so that it comes to
// its mark.
func (w *world) feedUntil(ended <-chan struct{}, plan crashPlan, mark string, n int) {
	w.t.Helper()
	ctx := w.within(deathTimeout)
	more := time.NewTicker(5 * time.Second)
	defer more.Stop()
	for {
		select {
		case <-ended:
			return
		case <-more.C:
			w.feed(plan.step)
		case <-ctx.Done():
			w.t.Fatalf("armed at %s:%d, nothing died: %v", mark, n, context.Cause(ctx))
		}
	}
}

func (w *world) killAtRandom(plan crashPlan, began time.Time) int {
	rnd := rand.New(rand.NewPCG(7, 7))
	for i := range plan.random {
		if !w.agent.Running() {
			w.must(w.agent.Launch(nil))
		}
		if !w.aggregator.Running() {
			w.must(w.aggregator.Launch())
		}
		w.feed(plan.step)
		w.pause(time.Duration(100+rnd.IntN(2900)) * time.Millisecond)
		victim := []string{"agent", "aggregator", "both"}[i%3]
		if victim != "aggregator" {
			w.agent.Kill()
		}
		if victim != "agent" {
			w.aggregator.Kill()
		}
		w.t.Logf("%6.1fs: random kill %d: %s", time.Since(began).Seconds(), i+1, victim)
	}
	return plan.random
}

// pause lets the programs work for a while: what is waited for is a moment that
// nobody chose.
func (w *world) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.ctx.Done():
	}
}

// calm starts what was killed, adds the files that are still to come, and lets
// the agent do its last round.
func (w *world) calm(plan crashPlan) {
	w.t.Helper()
	w.must(w.agent.Stop())
	w.aggregator.Kill()
	w.must(w.aggregator.Start(w.ctx))
	if left := plan.files - len(w.files); left > 0 {
		w.feed(left)
	}
	w.must(w.agent.RunOnce(w.within(5 * time.Minute)))
}

// neighbour is an agent that misbehaves: it publishes on and on, and sends again
// what failed. The returned function ends it.
func (w *world) neighbour() (stop func()) {
	w.t.Helper()
	author := w.author(w.enrol("neighbour"))
	ctx, cancel := context.WithCancel(w.ctx)
	group, ctx := errgroup.WithContext(ctx)
	var sent atomic.Int64
	group.Go(func() error {
		n := &mischief{author: author, rnd: rand.New(rand.NewPCG(5, 5))}
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		for {
			set, err := n.set()
			if err != nil {
				return err
			}
			for author.Publish(ctx, set...) != nil && ctx.Err() == nil {
				// The broker is away: the same again, so that nothing is lost.
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
			sent.Add(int64(len(set)))
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
		}
	})
	return func() {
		cancel()
		w.must(group.Wait())
		w.t.Logf("the neighbour sent %d messages", sent.Load())
	}
}

// mischief makes messages as an unruly network and a hostile agent would.
type mischief struct {
	author *forge.Author
	rnd    *rand.Rand
	sent   []forge.Signed
	held   [][]byte
	count  int
	sets   int
}

func (m *mischief) set() ([][]byte, error) {
	var out [][]byte
	var errs []error
	next := func() forge.Signed {
		m.count++
		s, err := m.author.Next(fmt.Sprintf("neighbour %d", m.count))
		errs = append(errs, err)
		return s
	}
	for range 4 {
		s := next()
		m.sent = append(m.sent, s)
		out = append(out, s.Envelope)
	}
	old := m.sent[m.rnd.IntN(len(m.sent))]
	m.sets++
	switch m.sets % 5 {
	case 0: // a replay
		out = append(out, old.Envelope)
	case 1: // one that the next ones overtake, and that arrives a set later
		m.held = append(m.held, next().Envelope)
	case 2:
		out = append(out, m.held...)
		m.held = nil
	case 3: // a flipped bit
		flipped, err := forge.Flip(old.Envelope)
		errs = append(errs, err)
		out = append(out, flipped)
	case 4:
		fork, stranger, err := m.contradictions()
		errs = append(errs, err)
		out = append(out, fork, stranger)
	}
	return out, errors.Join(errs...)
}

// contradictions are another statement at a place that is taken, and one signed
// by a key that nobody enrolled.
func (m *mischief) contradictions() (fork, stranger []byte, err error) {
	at := 2 + uint64(m.rnd.IntN(max(1, m.count-2)))
	s, err := m.author.Sign(forge.Scan(m.author.Link(at, predicate.DigestOf([]byte("elsewhere"))), fmt.Sprintf("fork %d", m.count)))
	if err != nil {
		return nil, nil, err
	}
	key, err := identity.Generate(predicate.Ed25519)
	if err != nil {
		return nil, nil, err
	}
	l := m.author.Link(2, predicate.DigestOf([]byte("elsewhere")))
	l.KeyID = key.Public().ID()
	payload, err := predicate.Marshal(forge.Scan(l, "stranger"))
	if err != nil {
		return nil, nil, err
	}
	stranger, err = attest.Sign(payload, key)
	return s.Envelope, stranger, err
}
