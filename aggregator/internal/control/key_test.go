package control

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/sdk/logproof"
)

// changes are what the log is told of a key, in order.
func changes(t *testing.T, s *Store) (out []string) {
	t.Helper()
	pending, err := s.PendingKeyEvents(t.Context(), "log", 0)
	must(t, err)
	for _, p := range pending {
		e, err := logproof.ParseKeyEvent(p.Entry)
		must(t, err)
		out = append(out, string(e.Change)+" "+string(e.KeyID))
	}
	return out
}

func TestRotateKey(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx := t.Context()
		first, second, third := newKey(t), newKey(t), newKey(t)
		e, err := s.RedeemJoinToken(ctx, join(t, s, "acme", "one", ""), first)
		must(t, err)
		r := Rotation{Tenant: "acme", Agent: e.Agent, Epoch: 2, Authority: first.ID(), Key: second, NotBefore: c.now()}
		for name, edit := range map[string]struct {
			edit func(*Rotation)
			want error
		}{
			"another tenant's":   {func(r *Rotation) { r.Tenant = "rival" }, ErrNotFound},
			"an epoch too far":   {func(r *Rotation) { r.Epoch = 3 }, ErrEpoch},
			"its own epoch":      {func(r *Rotation) { r.Epoch = 1 }, ErrEpoch},
			"by a stranger":      {func(r *Rotation) { r.Authority = third.ID() }, ErrAuthority},
			"to the present key": {func(r *Rotation) { r.Key = first }, ErrKeyKnown},
		} {
			bad := r
			edit.edit(&bad)
			if _, err := s.RotateKey(ctx, bad); !errors.Is(err, edit.want) {
				t.Errorf("%s: %v, want %v", name, err, edit.want)
			}
		}
		ends, err := s.RotateKey(ctx, r)
		must(t, err)
		if want := c.now().Add(MinOverlap); !ends.Equal(want.Truncate(time.Millisecond)) {
			t.Errorf("the former key ends at %s, want %s", ends, want)
		}
		c.move(time.Hour)
		again, err := s.RotateKey(ctx, r)
		must(t, err)
		if !again.Equal(ends) {
			t.Errorf("asked again, the former key ends at %s, want %s", again, ends)
		}
		if fleet, err := s.Fleet(ctx, "acme"); err != nil || len(fleet) != 1 || fleet[0].Epoch != 2 || fleet[0].Enrolments != 1 || fleet[0].Authority != first.ID() {
			t.Errorf("a rotated key counts as an enrolment: %+v, %v", fleet, err)
		}
		old, err := s.KeyByID(ctx, first.ID())
		must(t, err)
		if old.Status != Retired || old.Ended(ends.Add(-time.Millisecond)) || !old.Ended(ends) {
			t.Errorf("the former key: %+v", old)
		}
		if n, err := s.SettleKeys(ctx); err != nil || n != 0 {
			t.Errorf("%d keys ended at once, %v", n, err)
		}
		// The former key is no authority any more, and its own follower is.
		if _, err := s.RotateKey(ctx, Rotation{Tenant: "acme", Agent: e.Agent, Epoch: 3, Authority: first.ID(), Key: third, NotBefore: c.now()}); !errors.Is(err, ErrAuthority) {
			t.Errorf("by a retired key: %v", err)
		}
		c.move(MinOverlap)
		if n, err := s.SettleKeys(ctx); err != nil || n != 1 {
			t.Errorf("%d keys ended, %v", n, err)
		}
		if n, err := s.SettleKeys(ctx); err != nil || n != 0 {
			t.Errorf("%d keys ended again, %v", n, err)
		}
		must(t, s.RevokeAgent(ctx, "acme", e.Agent))
		if _, err := s.RotateKey(ctx, Rotation{Tenant: "acme", Agent: e.Agent, Epoch: 3, Authority: second.ID(), Key: third, NotBefore: c.now()}); !errors.Is(err, ErrNotFound) {
			t.Errorf("of a revoked agent: %v", err)
		}
		want := []string{
			"enrolled " + string(first.ID()), "retired " + string(first.ID()), "certified " + string(second.ID()), "ended " + string(first.ID()),
		}
		got := changes(t, s)
		if d := cmp.Diff(want, got[:min(len(got), 4)]); d != "" || len(got) != 6 {
			t.Errorf("events: %q %s", got, d)
		}
	})
}

// TestCertified: a key that is held elsewhere certifies the keys of one agent,
// and alone may follow them up.
func TestCertified(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx := t.Context()
		held, err := identity.Generate(predicate.ECDSAP256)
		must(t, err)
		cert := Certificate{held.Public(), c.now(), c.now().Add(30 * 24 * time.Hour)}
		local, token := newKey(t), join(t, s, "acme", "one", "")
		e, err := s.RedeemCertified(ctx, token, local, cert)
		must(t, err)
		if again, err := s.RedeemCertified(ctx, token, local, cert); err != nil || again != e {
			t.Errorf("asked again: %+v, %v", again, err)
		}
		if _, err := s.RedeemJoinToken(ctx, token, local); !errors.Is(err, ErrTokenUsed) {
			t.Errorf("the same token for the key alone: %v", err)
		}
		if _, err := s.RedeemCertified(ctx, join(t, s, "acme", "two", ""), newKey(t), cert); !errors.Is(err, ErrKeyKnown) {
			t.Errorf("it certifies for a second agent: %v", err)
		}
		if _, err := s.RedeemJoinToken(ctx, join(t, s, "acme", "three", ""), held.Public()); !errors.Is(err, ErrKeyKnown) {
			t.Errorf("it enrols itself: %v", err)
		}
		authority, err := s.KeyByID(ctx, held.Public().ID())
		must(t, err)
		k, err := s.KeyByID(ctx, local.ID())
		must(t, err)
		if !authority.Certifies || k.Certifies || k.Authority != authority.ID || !k.EndsAt.Equal(k.NotAfter.Add(MinOverlap)) {
			t.Errorf("authority %+v, key %+v", authority, k)
		}
		next := Rotation{Tenant: "acme", Agent: e.Agent, Epoch: 2, Authority: local.ID(), Key: newKey(t), NotBefore: c.now(), NotAfter: cert.NotAfter}
		if _, err := s.RotateKey(ctx, next); !errors.Is(err, ErrAuthority) {
			t.Errorf("the local key follows itself up: %v", err)
		}
		next.Authority = held.Public().ID()
		if _, err := s.RotateKey(ctx, next); err != nil {
			t.Error(err)
		}
		re, err := s.RedeemCertified(ctx, join(t, s, "acme", "four", e.Agent), newKey(t), cert)
		if err != nil || re.Epoch != 3 {
			t.Errorf("enrolled anew: %+v, %v", re, err)
		}
		must(t, s.RevokeAgent(ctx, "acme", e.Agent))
		if _, err := s.RedeemCertified(ctx, join(t, s, "acme", "five", e.Agent), newKey(t), cert); !errors.Is(err, ErrKeyKnown) {
			t.Errorf("a revoked key certifies: %v", err)
		}
	})
}

// TestKeyEntries: what a log has is not pending for it, and is for another.
func TestKeyEntries(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, _ *clock) {
		ctx := t.Context()
		key := newKey(t)
		_, err := s.RedeemJoinToken(ctx, join(t, s, "acme", "one", ""), key)
		must(t, err)
		pending, err := s.PendingKeyEvents(ctx, "a", 0)
		must(t, err)
		if len(pending) != 1 {
			t.Fatalf("%d events", len(pending))
		}
		pending[0].LogIndex = 7
		must(t, s.RecordKeyEntries(ctx, "a", pending))
		pending[0].LogIndex = 9
		must(t, s.RecordKeyEntries(ctx, "a", pending))
		if left, err := s.PendingKeyEvents(ctx, "a", 0); err != nil || len(left) != 0 {
			t.Errorf("%d events left, %v", len(left), err)
		}
		if left, err := s.PendingKeyEvents(ctx, "b", 0); err != nil || len(left) != 1 {
			t.Errorf("%d events for another log, %v", len(left), err)
		}
		got, err := s.KeyEvents(ctx, "a", key.ID())
		if err != nil || len(got) != 1 || got[0].LogIndex != 7 {
			t.Errorf("events of the key: %+v, %v", got, err)
		}
	})
}
