package control

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAgentEventsAreCounted(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx := t.Context()
		first := c.now()
		for i := range 3 {
			must(t, s.RecordAgentEvent(ctx, AgentEvent{Tenant: "acme", Agent: "a1", Kind: Cloned, Subject: "x", Presented: fmt.Sprintf("call %d", i), Known: "k"}))
			c.move(time.Minute)
		}
		must(t, s.RecordAgentEvent(ctx, AgentEvent{Tenant: "acme", Kind: TokenReused, Subject: "y", Presented: strings.Repeat("é", 2000)}))
		must(t, s.RecordAgentEvent(ctx, AgentEvent{Tenant: "rival", Agent: "a1", Kind: Cloned, Subject: "x"}))
		list, dropped, err := s.AgentEvents(ctx, "acme", "")
		must(t, err)
		if len(list) != 2 || dropped != 0 || list[0].Kind != TokenReused || len(list[0].Presented) > maxEventText {
			t.Fatalf("%d dropped of %+v", dropped, list)
		}
		want := AgentEvent{Tenant: "acme", Agent: "a1", Kind: Cloned, Subject: "x", Presented: "call 2", Known: "k", Count: 3, FirstAt: first, LastAt: first.Add(2 * time.Minute)}
		if diff := cmp.Diff(want, list[1]); diff != "" {
			t.Errorf("counted (-want +got):\n%s", diff)
		}
		if of, _, err := s.AgentEvents(ctx, "acme", "a1"); err != nil || len(of) != 1 {
			t.Errorf("of one agent: %+v, %v", of, err)
		}
	})
}

func TestAgentEventsAreBounded(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		for i := range MaxAgentEvents + 20 {
			if i%2 == 0 { // many at a time, too
				c.move(time.Second)
			}
			must(t, s.RecordAgentEvent(t.Context(), AgentEvent{Tenant: "acme", Agent: "a1", Kind: Cloned, Subject: fmt.Sprintf("%04d", i)}))
		}
		list, dropped, err := s.AgentEvents(t.Context(), "acme", "")
		must(t, err)
		if len(list) != MaxAgentEvents || dropped != 20 {
			t.Errorf("%d events, %d dropped", len(list), dropped)
		}
		for _, e := range list {
			if e.Subject < "0020" {
				t.Errorf("%s is there, and newer ones were dropped", e.Subject)
			}
		}
	})
}

func TestRecordContact(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx, id := t.Context(), enrol(t, s, "acme")
		call := func(instance, version string) *Instance {
			t.Helper()
			c.move(time.Minute)
			other, err := s.RecordContact(ctx, Contact{Tenant: id.Tenant, Agent: id.Agent, Instance: instance, Address: "10.0.0.7", Version: version, Skew: time.Second})
			must(t, err)
			return other
		}
		// Restarts are not odd, however many there are.
		for i := range 3 * maxInstances {
			if other := call(fmt.Sprintf("run%d", i), "0.1.0"); other != nil {
				t.Fatalf("restart %d: %+v", i, other)
			}
		}
		call("a", "0.1.0")
		call("b", "")
		if other := call("a", "0.1.0"); other == nil || other.ID != "b" {
			t.Errorf("one that came back: %+v", other)
		}
		contacts, err := s.Contacts(ctx, "acme")
		must(t, err)
		want := Contact{Tenant: "acme", Agent: id.Agent, Address: "10.0.0.7", Version: "0.1.0", Skew: time.Second, At: c.now()}
		if diff := cmp.Diff(want, contacts[id.Agent]); diff != "" {
			t.Errorf("contact (-want +got):\n%s", diff)
		}
		if last, err := s.LastInstance(ctx, id.Tenant, id.Agent); err != nil || last.ID != "a" {
			t.Errorf("last: %+v, %v", last, err)
		}
	})
}

func TestSpendChallenge(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		must(t, s.SpendChallenge(t.Context(), hash("one"), c.now().Add(time.Minute)))
		if err := s.SpendChallenge(t.Context(), hash("one"), c.now().Add(time.Minute)); !errors.Is(err, ErrExists) {
			t.Errorf("twice: %v", err)
		}
		c.move(2 * time.Minute)
		must(t, s.SpendChallenge(t.Context(), hash("two"), c.now().Add(time.Minute)))
		n, err := queryOne(t.Context(), s.read, func(scan scanner, n *int) error { return scan(n) }, `SELECT COUNT(*) FROM spent_challenges`)
		if err != nil || n != 1 {
			t.Errorf("%d are remembered, %v", n, err)
		}
	})
}

func TestTokenUse(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		token, key := join(t, s, "acme", "one", ""), newKey(t)
		e, err := s.RedeemJoinToken(t.Context(), token, key)
		must(t, err)
		got, err := s.TokenUse(t.Context(), token)
		must(t, err)
		want := TokenUse{Tenant: "acme", Agent: e.Agent, AgentName: "an agent", KeyID: string(key.ID()), UsedAt: c.now(), ExpiresAt: c.now().Add(time.Hour)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if _, err := s.TokenUse(t.Context(), hash("never")); !errors.Is(err, ErrNotFound) {
			t.Errorf("never made: %v", err)
		}
		must(t, s.CountUnknownToken(t.Context()))
		must(t, s.CountUnknownToken(t.Context()))
		if n, err := s.UnknownTokens(t.Context()); err != nil || n != 2 {
			t.Errorf("%d unknown, %v", n, err)
		}
	})
}
