package control

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

func TestRedeem(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx := t.Context()
		token, key := join(t, s, "acme", "one", ""), newKey(t)
		first, err := s.RedeemJoinToken(ctx, token, key)
		must(t, err)
		if first.Tenant != "acme" || first.Epoch != 1 || first.Cause != predicate.Enrolled || predicate.ValidateID(first.Agent) != nil {
			t.Fatalf("enrolment: %+v", first)
		}
		c.move(2 * time.Hour)
		again, err := s.RedeemJoinToken(ctx, token, key)
		must(t, err)
		if diff := cmp.Diff(first, again); diff != "" {
			t.Errorf("a second try with the same key (-first +again):\n%s", diff)
		}
		k, err := s.KeyByID(ctx, key.ID())
		must(t, err)
		der, err := key.DER()
		must(t, err)
		kder, err := k.Public.DER()
		must(t, err)
		if diff := cmp.Diff(der, kder); diff != "" || k.Status != Active || k.Chain() != (ChainID{"acme", first.Agent, 1}) {
			t.Errorf("key: %+v %s", k, diff)
		}

		second := newKey(t)
		re, err := s.RedeemJoinToken(ctx, join(t, s, "acme", "two", first.Agent), second)
		must(t, err)
		if diff := cmp.Diff(Enrolment{"acme", first.Agent, 2, predicate.Reenrolled}, re); diff != "" {
			t.Errorf("enrolled anew (-want +got):\n%s", diff)
		}
		if k, err = s.KeyByID(ctx, key.ID()); err != nil || k.Status != Retired {
			t.Errorf("old key: %v, %v, want retired", k.Status, err)
		}
		if _, err := s.RedeemJoinToken(ctx, token, key); !errors.Is(err, ErrTokenUsed) {
			t.Errorf("old token with its retired key: %v, want ErrTokenUsed", err)
		}
		agents, err := s.Fleet(ctx, "acme")
		must(t, err)
		if len(agents) != 1 || agents[0].Epoch != 2 || agents[0].KeyID != second.ID() || agents[0].Name != "an agent" {
			t.Errorf("agents: %+v", agents)
		}
		if others, err := s.Fleet(ctx, "rival"); err != nil || len(others) != 0 {
			t.Errorf("another tenant's agents: %+v, %v", others, err)
		}
	})
}

func TestRedeemRefuses(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx := t.Context()
		used, key := join(t, s, "acme", "used", ""), newKey(t)
		if _, err := s.RedeemJoinToken(ctx, used, key); err != nil {
			t.Fatal(err)
		}
		expired := join(t, s, "acme", "expired", "")
		c.move(time.Hour)
		fresh := join(t, s, "acme", "fresh", "")
		for name, tc := range map[string]struct {
			token Hash
			key   identity.PublicKey
			want  error
		}{
			"unknown":     {hash("never"), newKey(t), ErrTokenUnknown},
			"expired":     {expired, newKey(t), ErrTokenExpired},
			"used":        {used, newKey(t), ErrTokenUsed},
			"a known key": {fresh, key, ErrKeyKnown},
		} {
			if _, err := s.RedeemJoinToken(ctx, tc.token, tc.key); !errors.Is(err, tc.want) {
				t.Errorf("%s: %v, want %v", name, err, tc.want)
			}
		}
		if _, err := s.RedeemJoinToken(ctx, fresh, newKey(t)); err != nil {
			t.Errorf("a token that was refused for its key is still good: %v", err)
		}
		err := s.CreateJoinToken(ctx, JoinToken{Hash: hash("x"), Tenant: "rival", Agent: enrol(t, s, "acme").Agent, CreatedBy: "test", ExpiresAt: c.now().Add(time.Hour)})
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("a token for another tenant's agent: %v, want ErrNotFound", err)
		}
	})
}

func TestRevokeAgent(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx := t.Context()
		key := newKey(t)
		e, err := s.RedeemJoinToken(ctx, join(t, s, "acme", "one", ""), key)
		must(t, err)
		before := join(t, s, "acme", "before", e.Agent)
		if err := s.RevokeAgent(ctx, "rival", e.Agent); !errors.Is(err, ErrNotFound) {
			t.Fatalf("revoked by another tenant: %v, want ErrNotFound", err)
		}
		c.move(time.Minute)
		must(t, s.RevokeAgent(ctx, "acme", e.Agent))
		k, err := s.KeyByID(ctx, key.ID())
		must(t, err)
		if k.Status != Revoked || !k.RevokedAt.Equal(c.now()) {
			t.Errorf("key: %s at %s", k.Status, k.RevokedAt)
		}
		if _, err := s.RedeemJoinToken(ctx, before, newKey(t)); !errors.Is(err, ErrTokenExpired) {
			t.Errorf("a token from before: %v, want ErrTokenExpired", err)
		}
		revoked, err := s.RevokedAgents(ctx)
		must(t, err)
		if len(revoked) != 1 || revoked[0].ID != e.Agent || revoked[0].Tenant != "acme" {
			t.Errorf("revoked agents: %+v", revoked)
		}
		back, err := s.RedeemJoinToken(ctx, join(t, s, "acme", "after", e.Agent), newKey(t))
		must(t, err)
		a, err := s.Agent(ctx, "acme", e.Agent)
		must(t, err)
		if back.Epoch != 2 || a.Status != Active {
			t.Errorf("back with a new token: %+v, %+v", back, a)
		}
		if k, err = s.KeyByID(ctx, key.ID()); err != nil || k.Status != Revoked {
			t.Errorf("the revoked key is %s, %v", k.Status, err)
		}
	})
}

// One token and fifty who want it: one gets it, whichever keys they bring.
func TestRedeemRace(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, _ *clock) {
		token := join(t, s, "acme", "one", "")
		var wg sync.WaitGroup
		errs := make([]error, 50)
		for i := range errs {
			key := newKey(t)
			wg.Go(func() { _, errs[i] = s.RedeemJoinToken(t.Context(), token, key) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else if !errors.Is(err, ErrTokenUsed) {
				t.Errorf("lost with %v, want ErrTokenUsed", err)
			}
		}
		agents, err := s.Fleet(t.Context(), "acme")
		if won != 1 || err != nil || len(agents) != 1 {
			t.Errorf("%d won, %d agents, %v", won, len(agents), err)
		}
	})
}

// Many tokens for one agent at a time: each opens an epoch of its own, and one
// key is active in the end.
func TestEpochRace(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, _ *clock) {
		id := enrol(t, s, "acme")
		const n = 20
		var wg sync.WaitGroup
		errs := make([]error, n)
		for i := range n {
			token, key := join(t, s, "acme", strconv.Itoa(i), id.Agent), newKey(t)
			wg.Go(func() { _, errs[i] = s.RedeemJoinToken(t.Context(), token, key) })
		}
		wg.Wait()
		must(t, errors.Join(errs...))
		keys, err := s.AgentKeys(t.Context(), "acme", id.Agent)
		must(t, err)
		for i, k := range keys {
			if want := i < n; k.Epoch != uint64(i)+1 || (k.Status == Retired) != want {
				t.Errorf("key %d: epoch %d, %s", i, k.Epoch, k.Status)
			}
		}
		if len(keys) != n+1 {
			t.Errorf("%d keys, want %d", len(keys), n+1)
		}
	})
}
