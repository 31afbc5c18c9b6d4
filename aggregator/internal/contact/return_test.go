package contact

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/aggregator/internal/challenge"
	"github.com/cavra/cavra/aggregator/internal/control"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

func (w *world) challenge() string {
	w.t.Helper()
	res, err := w.desk.Challenge(w.t.Context(), connect.NewRequest(&enrolv1.ChallengeRequest{Purpose: "return"}))
	must(w.t, err)
	return res.Msg.GetChallenge()
}

// back asks to come back, by a key, with a challenge.
func (a *agent) back(by *identity.Key, challenge string, key *identity.Key) *enrolv1.ReturnRequest {
	a.w.t.Helper()
	der, err := key.Public().DER()
	must(a.w.t, err)
	bound := identity.Binding(identity.AtReturn, identity.ReturnContext(challenge, a.generation, nil, a.instance), by.Public().ID(), key.Public())
	proof, err := key.Sign(bound)
	must(a.w.t, err)
	consent, err := by.Sign(bound)
	must(a.w.t, err)
	return &enrolv1.ReturnRequest{
		Challenge: challenge, KeyId: string(by.Public().ID()), Generation: a.generation, Instance: a.instance,
		TlsKey: &enrolv1.TLSKey{PublicKey: der, Proof: proof, Consent: consent},
	}
}

func (w *world) send(r *enrolv1.ReturnRequest) (*enrolv1.AgentAccess, error) {
	res, err := w.desk.Return(w.t.Context(), connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetService(), nil
}

// comeBack comes back by the enrolled key, and calls with what it got.
func (a *agent) comeBack() error {
	a.w.t.Helper()
	key := newKey(a.w.t)
	way, err := a.w.send(a.back(a.enrolled, a.w.challenge(), key))
	if err != nil {
		return err
	}
	a.key, a.certificate = key, way.GetCertificate()
	a.dial(a.key, a.certificate)
	return a.confirm()
}

// events lists what is odd, without times and addresses.
func (w *world) events(tenant string) []string {
	w.t.Helper()
	list, _, err := w.store.AgentEvents(w.t.Context(), tenant, "")
	must(w.t, err)
	out := []string{}
	for _, e := range list {
		out = append(out, fmt.Sprintf("%s ×%d", e.Kind, e.Count))
	}
	return out
}

func (w *world) odd(what, tenant string, want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), w.events(tenant)); diff != "" {
		w.t.Errorf("%s: events (-want +got):\n%s", what, diff)
	}
}

// TestAwayForAMonth: an agent whose certificate ended long ago comes back by its
// enrolled key, and nothing is odd about it; a revoked one does not.
func TestAwayForAMonth(t *testing.T) {
	w := newWorld(t)
	a, gone := w.enrol("acme"), w.enrol("acme")
	w.clock.move(31 * 24 * time.Hour)
	a.dial(a.key, a.certificate)
	if _, err := a.checkIn(); err == nil {
		t.Fatal("its certificate is still taken")
	}
	must(t, a.comeBack())
	if _, err := a.checkIn(); err != nil || a.generation != 2 {
		t.Errorf("back with generation %d: %v", a.generation, err)
	}
	// An answer that was lost: the same key again, with another challenge.
	key := newKey(t)
	one, err := w.send(a.back(a.enrolled, w.challenge(), key))
	must(t, err)
	two, err := w.send(a.back(a.enrolled, w.challenge(), key))
	must(t, err)
	if string(one.GetCertificate()) != string(two.GetCertificate()) {
		t.Error("asked again with the same key: another certificate")
	}
	w.odd("a month away", "acme")

	must(t, w.store.RevokeAgent(t.Context(), gone.tenant, gone.id))
	wants(t, "a revoked agent", gone.comeBack(), connect.CodePermissionDenied)
	if keys, err := w.store.ClientCertificates(t.Context(), gone.tenant, gone.id); err != nil || len(keys) != 1 {
		t.Errorf("%d certificates of the revoked agent, %v", len(keys), err)
	}
}

func TestReturnRefuses(t *testing.T) {
	w := newWorld(t)
	a, b := w.enrol("acme"), w.enrol("rival")
	stranger, err := identity.Generate(predicate.Ed25519)
	must(t, err)
	elsewhere, err := challenge.New(make([]byte, 32), w.store, w.clock.now)
	must(t, err)
	foreign, err := elsewhere.Make("return")
	must(t, err)
	secret, err := w.authority.Secret("challenge")
	must(t, err)
	ours, err := challenge.New(secret, w.store, w.clock.now)
	must(t, err)
	otherwise, err := ours.Make("aws-sts")
	must(t, err)
	key := newKey(t)
	used := w.challenge()
	if _, err := w.send(a.back(a.enrolled, used, key)); err != nil {
		t.Fatal(err)
	}
	change := func(f func(*enrolv1.ReturnRequest)) *enrolv1.ReturnRequest {
		r := a.back(a.enrolled, w.challenge(), key)
		f(r)
		return r
	}
	for name, tt := range map[string]struct {
		r    *enrolv1.ReturnRequest
		code connect.Code
	}{
		"a challenge again":            {a.back(a.enrolled, used, key), connect.CodeUnauthenticated},
		"a challenge again by another": {b.back(b.enrolled, used, newKey(t)), connect.CodeUnauthenticated},
		"a challenge of another":       {a.back(a.enrolled, foreign, key), connect.CodeUnauthenticated},
		"a challenge for other things": {a.back(a.enrolled, otherwise, key), connect.CodeUnauthenticated},
		"no challenge":                 {a.back(a.enrolled, "", key), connect.CodeUnauthenticated},
		"a key that nobody knows":      {a.back(stranger, w.challenge(), key), connect.CodeUnauthenticated},
		"another agent's consent":      {change(func(r *enrolv1.ReturnRequest) { r.KeyId = string(b.enrolled.Public().ID()) }), connect.CodeInvalidArgument},
		"another generation":           {change(func(r *enrolv1.ReturnRequest) { r.Generation = 9 }), connect.CodeInvalidArgument},
		"another instance":             {change(func(r *enrolv1.ReturnRequest) { r.Instance = "other" }), connect.CodeInvalidArgument},
		"a challenge that was not signed": {change(func(r *enrolv1.ReturnRequest) {
			r.Challenge = w.challenge()
		}), connect.CodeInvalidArgument},
		"no consent": {change(func(r *enrolv1.ReturnRequest) { r.TlsKey.Consent = nil }), connect.CodeInvalidArgument},
		"no key":     {change(func(r *enrolv1.ReturnRequest) { r.TlsKey = nil }), connect.CodeInvalidArgument},
		"no instance": {change(func(r *enrolv1.ReturnRequest) {
			r.Instance = ""
		}), connect.CodeInvalidArgument},
		"a key that is in use": {b.back(b.enrolled, w.challenge(), a.key), connect.CodeAlreadyExists},
	} {
		_, err := w.send(tt.r)
		wants(t, name, err, tt.code)
	}
	late := w.challenge()
	w.clock.move(challenge.Life)
	_, err = w.send(a.back(a.enrolled, late, key))
	wants(t, "a challenge that is over", err, connect.CodeUnauthenticated)
	if _, err := w.desk.Challenge(t.Context(), connect.NewRequest(&enrolv1.ChallengeRequest{Purpose: "anything"})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a challenge for anything: %v", err)
	}
	// Followed by another key, the former one is nobody's way back.
	must(t, w.reenrol(a))
	_, err = w.send(a.back(a.enrolled, w.challenge(), newKey(t)))
	wants(t, "a key that another has followed", err, connect.CodeUnauthenticated)
}

// reenrol gives an agent another enrolled key, which it does not use.
func (w *world) reenrol(a *agent) error {
	key, err := identity.Generate(predicate.Ed25519)
	must(w.t, err)
	h := control.Hash{1}
	err = w.store.CreateJoinToken(w.t.Context(), control.JoinToken{Hash: h, Tenant: a.tenant, Agent: a.id, CreatedBy: "test", ExpiresAt: w.clock.now().Add(time.Hour)})
	must(w.t, err)
	_, err = w.store.RedeemJoinToken(w.t.Context(), h, key.Public())
	return err
}

// copyOf is a clone: all that the agent had, in a process of its own.
func (a *agent) copyOf(instance string) *agent {
	c := *a
	c.instance = instance
	c.dial(c.key, c.certificate)
	return &c
}

func (a *agent) rotate() error {
	key := newKey(a.w.t)
	der, err := a.renew(key)
	if err != nil {
		return err
	}
	a.key, a.certificate = key, der
	a.dial(key, der)
	return a.confirm()
}

// TestClonesAndSnapshots: what each looks like from the aggregator.
func TestClonesAndSnapshots(t *testing.T) {
	t.Run("a restart is not odd", func(t *testing.T) {
		w := newWorld(t)
		a := w.enrol("acme")
		for i := range 20 {
			a.instance = fmt.Sprintf("run%d", i)
			for range 2 {
				w.clock.move(time.Minute)
				_, err := a.checkIn()
				must(t, err)
			}
			if i%7 == 6 {
				must(t, a.rotate())
			}
		}
		w.odd("restarts", "acme")
	})
	t.Run("two that take turns", func(t *testing.T) {
		w := newWorld(t)
		a := w.enrol("acme")
		_, err := a.checkIn()
		must(t, err)
		c := a.copyOf("clone")
		w.clock.move(time.Minute)
		_, err = c.checkIn()
		must(t, err)
		w.odd("a second process alone", "acme")
		w.clock.move(time.Minute)
		res, err := a.checkIn()
		must(t, err)
		if len(res.GetProblems()) != 1 || res.GetProblems()[0].GetKind() != "cloned" {
			t.Errorf("the agent is told %v", res.GetProblems())
		}
		w.clock.move(time.Minute)
		_, err = c.checkIn()
		must(t, err)
		w.odd("both by turns", "acme", "cloned ×2")
		list, _, err := w.store.AgentEvents(t.Context(), "acme", a.id)
		must(t, err)
		if e := list[0]; !strings.Contains(e.Presented, "process clone") || !strings.Contains(e.Known, "process "+short(a.instance)) {
			t.Errorf("it does not show both sides: %+v", e)
		}
	})
	t.Run("two that go on from one generation", func(t *testing.T) {
		w := newWorld(t)
		a := w.enrol("acme")
		c := a.copyOf("clone")
		mine, theirs := newKey(t), newKey(t)
		der, err := a.renew(mine)
		must(t, err)
		cloned, err := c.renew(theirs)
		must(t, err)
		a.dial(mine, der)
		must(t, a.confirm())
		c.dial(theirs, cloned)
		wants(t, "the second to confirm", c.confirm(), connect.CodeAborted)
		if got := w.events("acme"); len(got) == 0 || !strings.HasPrefix(strings.Join(got, " "), "cloned") {
			t.Errorf("events: %v", got)
		}
		// The agent itself goes on.
		_, err = a.checkIn()
		must(t, err)
	})
	t.Run("a snapshot that is restored", func(t *testing.T) {
		w := newWorld(t)
		a := w.enrol("acme")
		_, err := a.checkIn()
		must(t, err)
		snapshot := a.copyOf("restored")
		must(t, a.rotate())
		must(t, a.rotate())
		w.clock.move(time.Hour)
		_, err = snapshot.checkIn()
		wants(t, "with its old certificate", err, connect.CodeUnauthenticated)
		must(t, snapshot.comeBack())
		w.odd("a restored snapshot", "acme", "restored ×1", "retired_certificate ×1")
		if snapshot.generation != 4 {
			t.Errorf("generation %d", snapshot.generation)
		}
		_, err = snapshot.checkIn()
		must(t, err)
		// The one that it was taken of is still there: two hold the identity.
		w.clock.move(Overlap)
		_, err = a.checkIn()
		wants(t, "the one that it was taken of", err, connect.CodeUnauthenticated)
		must(t, a.comeBack())
		if got := strings.Join(w.events("acme"), ", "); !strings.Contains(got, "cloned") {
			t.Errorf("events: %s", got)
		}
	})
	t.Run("a certificate of a revoked agent", func(t *testing.T) {
		w := newWorld(t)
		a := w.enrol("acme")
		must(t, w.store.RevokeAgent(t.Context(), a.tenant, a.id))
		for range 3 {
			_, err := a.checkIn()
			wants(t, "revoked", err, connect.CodePermissionDenied)
		}
		w.odd("calls of a revoked agent", "acme", "revoked_call ×3")
		w.odd("another tenant", "rival")
	})
}

// TestCandidateThatMayBeConfirmed: the answer to a confirmation was lost, and then
// the agent was away for long: that is no restored snapshot.
func TestCandidateThatMayBeConfirmed(t *testing.T) {
	w := newWorld(t)
	a := w.enrol("acme")
	before := a.generation
	must(t, a.rotate())
	leaf, err := identity.ParseCertificate(a.certificate)
	must(t, err)
	a.generation = before // the answer never came
	w.clock.move(31 * 24 * time.Hour)
	key, c := newKey(t), w.challenge()
	der, err := key.Public().DER()
	must(t, err)
	serial := leaf.SerialNumber.Bytes()
	bound := identity.Binding(identity.AtReturn, identity.ReturnContext(c, a.generation, serial, a.instance), a.enrolled.Public().ID(), key.Public())
	proof, err := key.Sign(bound)
	must(t, err)
	consent, err := a.enrolled.Sign(bound)
	must(t, err)
	_, err = w.send(&enrolv1.ReturnRequest{
		Challenge: c, KeyId: string(a.enrolled.Public().ID()), Generation: a.generation, Candidate: serial, Instance: a.instance,
		TlsKey: &enrolv1.TLSKey{PublicKey: der, Proof: proof, Consent: consent},
	})
	must(t, err)
	w.odd("back", "acme")
}

// TestClockSkewIsShown: with its figure, and once however often it is said.
func TestClockSkewIsShown(t *testing.T) {
	w := newWorld(t)
	a := w.enrol("acme")
	off := time.Hour
	for range 30 {
		w.clock.move(time.Minute)
		_, err := a.checkInAt(w.clock.now().Add(off))
		must(t, err)
	}
	list, _, err := w.store.AgentEvents(t.Context(), "acme", a.id)
	must(t, err)
	if len(list) != 1 || list[0].Kind != control.ClockSkew || list[0].Presented != "the agent's clock is 1h0m0s ahead" || list[0].Count > 7 {
		t.Errorf("events: %+v", list)
	}
	contacts, err := w.store.Contacts(t.Context(), "acme")
	must(t, err)
	if c := contacts[a.id]; c.Skew != off || c.Version != "0.1.0" || w.clock.now().Sub(c.At) > sayEvery {
		t.Errorf("contact: %+v", c)
	}
	_, err = a.checkInAt(w.clock.now())
	must(t, err)
	if contacts, err = w.store.Contacts(t.Context(), "acme"); err != nil || contacts[a.id].Skew != 0 {
		t.Errorf("after the clock was set: %+v, %v", contacts[a.id], err)
	}
}
