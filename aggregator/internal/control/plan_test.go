package control

import (
	"crypto/sha256"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/chain"
)

func plan(owner string, from, next int64) *Plan {
	return &Plan{Topic: "statements", Partition: 3, From: from, Next: next, Count: next - from, SHA256: sha256.Sum256([]byte(owner)), Owner: owner}
}

// run is n linked statements of a chain from sequence 1.
func run(id ChainID, n uint64) ChainUpdate {
	u := ChainUpdate{ID: id, SeenAt: time.UnixMilli(1_700_000_000_000)}
	previous := predicate.ZeroDigest
	for i := uint64(1); i <= n; i++ {
		d := digest(strconv.FormatUint(i, 10))
		u.Statements = append(u.Statements, Placed{Link: Link{i, d, previous}, Outcome: chain.Linked})
		previous = d
	}
	return u
}

func TestPlan(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx := t.Context()
		id := enrol(t, s, "acme")
		if open, next, err := s.OpenPlan(ctx, "statements", 3); open != nil || next != 0 || err != nil {
			t.Fatalf("new partition: %v, %d, %v", open, next, err)
		}
		p := plan("a", 0, 10)
		must(t, s.RecordPlan(ctx, p))
		open, next, err := s.OpenPlan(ctx, "statements", 3)
		must(t, err)
		want := *p
		want.CreatedAt = c.now()
		if diff := cmp.Diff(&want, open); diff != "" || next != 0 {
			t.Errorf("open plan, next %d (-want +got):\n%s", next, diff)
		}
		if open, _, err := s.OpenPlan(ctx, "statements", 4); open != nil || err != nil {
			t.Errorf("another partition: %v, %v", open, err)
		}
		for name, other := range map[string]*Plan{"the same": plan("a", 0, 10), "another": plan("b", 0, 5), "the next": plan("b", 10, 20)} {
			if err := s.RecordPlan(ctx, other); !errors.Is(err, ErrPlanTaken) {
				t.Errorf("record %s: %v, want ErrPlanTaken", name, err)
			}
		}
		for name, other := range map[string]*Plan{"another digest": plan("b", 0, 10), "another end": plan("a", 0, 11), "one never made": plan("a", 10, 11)} {
			if err := s.CommitPlan(ctx, other, nil); !errors.Is(err, ErrPlanLost) {
				t.Errorf("commit %s: %v, want ErrPlanLost", name, err)
			}
		}
		for range 2 {
			must(t, s.CommitPlan(ctx, p, []ChainUpdate{run(id, 10)}))
		}
		chains, err := s.Chains(ctx, "acme")
		must(t, err)
		head := chain.Head{Sequence: 10, Digest: digest("10")}
		if diff := cmp.Diff([]ChainStatus{{ID: id, Head: head, Highest: 10, Statements: 10, LastSeenAt: run(id, 0).SeenAt.UTC()}}, chains); diff != "" {
			t.Errorf("chains (-want +got):\n%s", diff)
		}
		if others, err := s.Chains(ctx, "rival"); err != nil || len(others) != 0 {
			t.Errorf("another tenant's chains: %v, %v", others, err)
		}
		for i := int64(10); i < 10+2*committedPlans; i++ {
			p := plan("a", i, i+1)
			must(t, errors.Join(s.RecordPlan(ctx, p), s.CommitPlan(ctx, p, nil)))
		}
		if err := s.CommitPlan(ctx, p, nil); !errors.Is(err, ErrPlanLost) {
			t.Errorf("commit of a plan long gone: %v, want ErrPlanLost", err)
		}
		parts, err := s.Partitions(ctx)
		must(t, err)
		if diff := cmp.Diff([]Partition{{"statements", 3, 10 + 2*committedPlans}}, parts); diff != "" {
			t.Errorf("partitions (-want +got):\n%s", diff)
		}
	})
}

// A commit that fails for a chain leaves the plan open and the rest undone.
func TestCommitIsWhole(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, _ *clock) {
		ctx := t.Context()
		id := enrol(t, s, "acme")
		p := plan("a", 0, 10)
		must(t, s.RecordPlan(ctx, p))
		nobody := ChainID{"acme", "zz-not-enrolled", 1}
		if err := s.CommitPlan(ctx, p, []ChainUpdate{run(id, 5), run(nobody, 5)}); err == nil {
			t.Fatal("a chain of no agent was committed")
		}
		if err := s.CommitPlan(ctx, p, []ChainUpdate{run(id, 5), run(id, 5)}); err == nil {
			t.Fatal("two updates of a chain were committed")
		}
		open, next, err := s.OpenPlan(ctx, "statements", 3)
		must(t, err)
		chains, err := s.Chains(ctx, "acme")
		must(t, err)
		if open == nil || next != 0 || len(chains) != 0 {
			t.Errorf("after it failed: plan %v, next %d, chains %v", open, next, chains)
		}
		must(t, s.CommitPlan(ctx, p, []ChainUpdate{run(id, 5)}))
	})
}

// Two aggregators that both believe to have the partition: every offset is in
// exactly one committed plan, and every statement is counted once.
func TestPlanRace(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, _ *clock) {
		const end = 60
		id := enrol(t, s, "acme")
		statements := run(id, end).Statements
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			wg.Go(func() { errs[i] = take(t, s, id, statements, strconv.Itoa(i), int64(i%3)+1, end) })
		}
		wg.Wait()
		must(t, errors.Join(errs...))
		chains, err := s.Chains(t.Context(), "acme")
		must(t, err)
		if len(chains) != 1 || chains[0].Head.Sequence != end || chains[0].Replays != 0 || chains[0].Forks != 0 || chains[0].GapCount != 0 {
			t.Errorf("chains: %+v", chains)
		}
	})
}

// take works as an aggregator does, statement i at offset i-1, until all is in.
func take(t *testing.T, s *Store, id ChainID, statements []Placed, owner string, step, end int64) error {
	ctx := t.Context()
	for {
		p, next, err := s.OpenPlan(ctx, "statements", 3)
		if err != nil || next == end {
			return err
		}
		if p == nil {
			p = plan(owner, next, min(next+step, end))
			if err := s.RecordPlan(ctx, p); errors.Is(err, ErrPlanTaken) {
				continue
			} else if err != nil {
				return err
			}
		}
		u := ChainUpdate{ID: id, Statements: statements[p.From:p.Next]}
		if err := s.CommitPlan(ctx, p, []ChainUpdate{u}); err != nil && !errors.Is(err, ErrPlanLost) {
			return err
		}
	}
}

// TestARevocationIsInEffectWhateverTheClock revokes an agent while the clock is a
// day ahead, as that of another aggregator may be, and sets it right: the next plan
// has its key revoked. One that was recorded before stays as it was decided.
func TestARevocationIsInEffectWhateverTheClock(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx := t.Context()
		key := newKey(t)
		id, err := s.RedeemJoinToken(ctx, join(t, s, "acme", "one", ""), key)
		must(t, err)
		c.move(24 * time.Hour)
		ahead := plan("a", 0, 10)
		must(t, s.RecordPlan(ctx, ahead))
		c.move(time.Second)
		must(t, s.RevokeAgent(ctx, id.Tenant, id.Agent))
		c.move(-25 * time.Hour)
		revokedBy := func(at time.Time) bool {
			t.Helper()
			k, err := s.KeyByID(ctx, key.ID())
			must(t, err)
			return k.Status == Revoked && !k.RevokedAt.After(at)
		}
		other := plan("b", 0, 10)
		other.Partition = 4
		must(t, s.RecordPlan(ctx, other))
		open, _, err := s.OpenPlan(ctx, "statements", 3)
		must(t, err)
		if revokedBy(open.CreatedAt) {
			t.Error("a plan that was recorded before the revocation is decided on otherwise now")
		}
		must(t, s.CommitPlan(ctx, ahead, nil))
		must(t, s.CommitPlan(ctx, other, nil))
		next := plan("a", 10, 20)
		must(t, s.RecordPlan(ctx, next))
		if open, _, err = s.OpenPlan(ctx, "statements", 3); err != nil || !revokedBy(open.CreatedAt) {
			t.Errorf("a plan after the revocation, of %s: the key counts as good, %v", open.CreatedAt, err)
		}
	})
}

// TestAClockThatIsFarBehindIsWaitedFor: rows of a machine that has lost its time
// would be dropped as old once it has it again.
func TestAClockThatIsFarBehindIsWaitedFor(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx := t.Context()
		s.retention = 400 * 24 * time.Hour
		first := plan("a", 0, 10)
		must(t, s.RecordPlan(ctx, first))
		must(t, s.CommitPlan(ctx, first, nil))
		c.move(-199 * 24 * time.Hour)
		second := plan("a", 10, 20)
		must(t, s.RecordPlan(ctx, second))
		must(t, s.CommitPlan(ctx, second, nil))
		c.move(-2 * 24 * time.Hour)
		third := plan("a", 20, 30)
		for range 2 {
			if err := s.RecordPlan(ctx, third); !errors.Is(err, ErrClockBehind) || !Retryable(err) {
				t.Fatalf("201 days behind, of 400 that are kept: %v", err)
			}
		}
		s.clockWait.since = time.Now().Add(-clockPatience)
		must(t, s.RecordPlan(ctx, third))
		must(t, s.CommitPlan(ctx, third, nil))
		c.move(201 * 24 * time.Hour)
		must(t, s.RecordPlan(ctx, plan("a", 30, 40)))
		if !s.clockWait.since.IsZero() {
			t.Error("it still waits for a clock that is right")
		}
	})
}
