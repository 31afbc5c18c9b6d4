package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/testbed/forge"
	"github.com/cavra/cavra/testbed/stack"
)

// signed signs a statement, or fails the test.
func (w *world) signed(s forge.Signed, err error) forge.Signed {
	w.t.Helper()
	w.must(err)
	return s
}

// tenant makes a tenant on the control store itself, and gives its admin token.
func (w *world) tenant(id string) string {
	w.t.Helper()
	out, err := stack.Command(w.ctx, nil, w.programs.Aggregator(), "tenant", "create", id, "--embedded", w.aggregator.Dir())
	w.must(err)
	if out.Code != 0 {
		w.t.Fatalf("create tenant: exit code %d: %s", out.Code, out.Stderr)
	}
	return strings.TrimSpace(string(out.Stdout))
}

// eventually waits until the API shows something, and says what it showed.
func (w *world) eventually(what string, shown func(ctx context.Context) (bool, any, error)) {
	w.t.Helper()
	err := stack.Poll(w.within(30*time.Second), what, func(ctx context.Context) (bool, string, error) {
		ok, got, err := shown(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		return ok, fmt.Sprintf("%+v", got), nil
	})
	if err != nil {
		w.t.Error(err)
	}
}

// refused waits until a tenant's quarantine lists a message for a reason.
func (w *world) refused(token, reason, query string, message []byte) {
	w.t.Helper()
	w.eventually("quarantine for "+reason, func(ctx context.Context) (bool, any, error) {
		var list struct {
			Refused []stack.Refused `json:"refused"`
		}
		err := w.aggregator.GetAs(ctx, token, "/v1/quarantine", url.Values{"unattributed": {query}}, &list)
		return slices.ContainsFunc(list.Refused, func(r stack.Refused) bool {
			return r.Digest == predicate.DigestOf(message) && r.Reason == reason && r.Detail != ""
		}), list.Refused, err
	})
}

// chain waits until the API shows a chain as it must be.
func (w *world) chain(id stack.Identity, what string, want func(stack.Chain) bool) {
	w.t.Helper()
	w.eventually(what, func(ctx context.Context) (bool, any, error) {
		a, err := w.aggregator.Agent(ctx, id.Agent)
		for _, c := range a.Chains {
			if c.Epoch == id.Epoch {
				return want(c), c, err
			}
		}
		return false, a, err
	})
}

// token reads the administrator's token.
func (w *world) token() string {
	w.t.Helper()
	b, err := os.ReadFile(w.aggregator.TokenFile())
	w.must(err)
	return strings.TrimSpace(string(b))
}

// enrolAs enrols an agent with another tenant's token.
func (w *world) enrolAs(tokenFile, name string) *stack.Agent {
	w.t.Helper()
	a, err := stack.NewAgent(w.programs, filepath.Join(w.dir, name))
	w.must(err)
	out, err := stack.Command(w.ctx, nil, w.programs.Aggregator(), "join-token", "create", "--name", name, "--server", w.aggregator.URL(), "--token-file", tokenFile)
	w.must(err)
	if out.Code != 0 {
		w.t.Fatalf("make join token: exit code %d: %s", out.Code, out.Stderr)
	}
	join := filepath.Join(w.dir, name+".token")
	w.must(os.WriteFile(join, out.Stdout, 0o600))
	w.must(a.Enrol(w.ctx, w.aggregator.URL(), join, "--scan", w.tree))
	w.know(a)
	return a
}

// TestHostileArrivals publishes what must not be believed, or not as it is said,
// and looks for the fixed outcome of each in the API.
func TestHostileArrivals(t *testing.T) {
	w := embedded(t, folder(t), programs(t))
	acme := w.tenant("acme")
	acmeFile := filepath.Join(w.dir, "acme.token")
	w.must(os.WriteFile(acmeFile, []byte(acme), 0o600))
	ours, theirs := w.author(w.enrol("ours")), w.author(w.enrolAs(acmeFile, "theirs"))
	publish := func(envelopes ...[]byte) { t.Helper(); w.must(ours.Publish(w.ctx, envelopes...)) }
	next := func(salt string) forge.Signed { t.Helper(); return w.signed(ours.Next(salt)) }

	one, two, three := next("epoch"), next("two"), next("three")
	publish(one.Envelope, two.Envelope, three.Envelope)
	w.chain(ours.ID, "three links", func(c stack.Chain) bool { return c.HeadSequence == 3 && c.HeadDigest == three.Digest })

	w.refusals(ours, theirs, acme, three)

	publish(two.Envelope)
	w.eventually("a replay is counted", func(ctx context.Context) (bool, any, error) {
		a, err := w.aggregator.Agent(ctx, ours.ID.Agent)
		return a.Replayed == 1 && a.Statements == 3, a, err
	})

	four, five := next("four"), next("five")
	publish(five.Envelope)
	w.chain(ours.ID, "a gap is flagged", func(c stack.Chain) bool {
		return c.HeadSequence == 3 && c.Highest == 5 && c.GapCount == 1 && len(c.Gaps) == 1 && c.Gaps[0].First == 4 && c.Gaps[0].Last == 4
	})
	publish(four.Envelope)
	w.chain(ours.ID, "the gap is filled", func(c stack.Chain) bool {
		return c.HeadSequence == 5 && c.GapCount == 0 && c.HeadDigest == five.Digest
	})

	fork := w.signed(ours.Sign(forge.Scan(ours.Link(4, three.Digest), "another four")))
	publish(fork.Envelope)
	w.chain(ours.ID, "a fork is flagged", func(c stack.Chain) bool {
		return c.ForkCount == 1 && len(c.Forks) == 1 && c.Forks[0].Sequence == 4 && slices.Contains(c.Forks[0].Digests, fork.Digest)
	})
	publish(next("six").Envelope)
	w.chain(ours.ID, "what follows is linked", func(c stack.Chain) bool { return c.HeadSequence == 6 && c.ForkCount == 1 })

	if kept := w.evidence(ours.ID.Agent); kept[four.Digest] == nil || kept[fork.Digest] == nil || len(kept) != 7 {
		t.Errorf("the export holds %d statements, want 7 with both sides of the fork", len(kept))
	}
	w.walls(acme, one.Digest)
	w.judgeTenant(map[string]uint64{"wrong_tenant": 1})
}

// refusals are the messages that nobody is believed for. What follows each is
// believed all the same.
func (w *world) refusals(ours, theirs *forge.Author, acme string, last forge.Signed) {
	w.t.Helper()
	admin := w.token()
	claim := func(change func(*predicate.Link)) predicate.Predicate {
		l := ours.Link(4, last.Digest)
		change(&l)
		return forge.Scan(l, "claim")
	}
	flipped, err := forge.Flip(last.Envelope)
	w.must(err)
	key, err := identity.Generate(predicate.ECDSAP256)
	w.must(err)
	payload, err := predicate.Marshal(claim(func(l *predicate.Link) { l.KeyID = key.Public().ID() }))
	w.must(err)
	unknown, err := attest.Sign(payload, key)
	w.must(err)
	for _, c := range []struct {
		reason, token string
		message       []byte
	}{
		{"bad_signature", admin, flipped},
		{"unknown_key", admin, unknown},
		{"malformed_envelope", admin, []byte("\x80\x04 no envelope")},
		{"wrong_tenant", acme, w.signed(theirs.Sign(claim(func(l *predicate.Link) { l.KeyID = theirs.Key.Public().ID() }))).Envelope},
		{"wrong_agent", admin, w.signed(ours.Sign(claim(func(l *predicate.Link) { l.Agent = "somebody" }))).Envelope},
		{"wrong_epoch", admin, w.signed(ours.Sign(claim(func(l *predicate.Link) { l.Epoch = 9 }))).Envelope},
		{"malformed_statement", admin, w.signed(ours.Sign(claim(func(l *predicate.Link) { l.KeyID = key.Public().ID() }))).Envelope},
	} {
		// Whatever is wrong with it, an enrolled agent has sent it.
		w.must(ours.Publish(w.ctx, c.message))
		nobodys := c.reason == "unknown_key" || c.reason == "malformed_envelope"
		w.refused(c.token, c.reason, strconv.FormatBool(nobodys), c.message)
	}
}

// walls checks what a tenant's token shows of another tenant: nothing.
func (w *world) walls(acme string, digest predicate.Digest) {
	w.t.Helper()
	var list struct {
		Agents []stack.AgentState `json:"agents"`
	}
	w.must(w.aggregator.GetAs(w.ctx, acme, "/v1/agents", nil, &list))
	var names []string
	for _, a := range list.Agents {
		names = append(names, a.Name)
	}
	if diff := cmp.Diff([]string{"theirs"}, names); diff != "" {
		w.t.Errorf("agents that acme sees (-want +got):\n%s", diff)
	}
	err := w.aggregator.GetAs(w.ctx, acme, "/v1/quarantine", url.Values{"unattributed": {"true"}}, &list)
	var forbidden *stack.StatusError
	if !errors.As(err, &forbidden) || forbidden.Code != 403 {
		w.t.Errorf("what belongs to no tenant, for an admin of a tenant: %v, want status 403", err)
	}
	for token, code := range map[string]int{acme: 404, "": 401, "cavra_api_nonsense": 401} {
		var any any
		err := w.aggregator.GetAs(w.ctx, token, "/v1/statements/"+string(digest), nil, &any)
		var status *stack.StatusError
		if !errors.As(err, &status) || status.Code != code {
			w.t.Errorf("a statement of another tenant: %v, want status %d", err, code)
		}
	}
	var ours any
	w.must(w.aggregator.Get(w.ctx, "/v1/statements/"+string(digest), nil, &ours))
}

// TestRestoredSpool restores an agent's folder from an old copy: what it then
// signs is a fork, which is flagged, and a new enrolment opens a new epoch.
func TestRestoredSpool(t *testing.T) {
	w := embedded(t, folder(t), programs(t))
	agent := w.enrol("agent")
	round := func() { t.Helper(); w.must(agent.RunOnce(w.within(time.Minute))) }
	w.feed(20)
	round()
	copied := filepath.Join(w.dir, "snapshot")
	w.must(os.CopyFS(copied, os.DirFS(agent.Dir())))
	w.feed(20)
	round()
	before, err := agent.Status(w.ctx)
	w.must(err)
	id, err := agent.Identity()
	w.must(err)
	w.must(w.aggregator.AwaitHead(w.within(time.Minute), id.Agent, before))

	w.must(os.RemoveAll(agent.Dir()))
	w.must(os.Rename(copied, agent.Dir()))
	w.feed(20)
	round()
	w.chain(id, "the restored spool's fork is flagged", func(c stack.Chain) bool { return c.ForkCount > 0 && len(c.Forks) > 0 })

	token := filepath.Join(w.dir, "again.token")
	w.must(w.aggregator.JoinToken(w.ctx, token, "--agent", id.Agent))
	w.must(agent.Enrol(w.ctx, w.aggregator.URL(), token, "--reenroll"))
	w.know(agent)
	round()
	after, err := agent.Status(w.ctx)
	w.must(err)
	if after.Epoch != id.Epoch+1 {
		t.Errorf("enrolled anew, the agent is in epoch %d, want %d", after.Epoch, id.Epoch+1)
	}
	w.must(w.aggregator.AwaitHead(w.within(time.Minute), id.Agent, after))
	w.chain(id, "the old epoch's fork stays flagged", func(c stack.Chain) bool { return c.ForkCount > 0 })
	w.judge(agent)
}
