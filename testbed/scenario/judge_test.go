package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/testbed/ledger"
	"github.com/cavra/cavra/testbed/stack"
)

// judge holds what the API says against the topic's messages and the tree.
func (w *world) judge(unbroken ...*stack.Agent) *ledger.Book {
	w.t.Helper()
	return w.judgeTenant(nil, unbroken...)
}

// judgeTenant is judge where messages of another tenant's keys were refused.
func (w *world) judgeTenant(elsewhere map[string]uint64, unbroken ...*stack.Agent) *ledger.Book {
	w.t.Helper()
	messages, err := w.tail.Whole(w.within(time.Minute))
	w.must(err)
	book := ledger.Read(messages, w.keys)
	w.t.Logf("the topic holds %d messages: %v, refused %v", len(messages), book.Outcomes, book.Refused)
	w.settled(book, elsewhere)
	for _, a := range unbroken {
		w.judgeHead(a, book)
	}
	w.judgeChains(book)
	w.judgeEvidence(book)
	w.judgeQuarantine(book, elsewhere)
	w.judgePosture(book)
	return book
}

// settled waits until the API has a receipt for every message that is the
// tenant's or nobody's.
func (w *world) settled(book *ledger.Book, elsewhere map[string]uint64) {
	w.t.Helper()
	var want uint64
	for _, n := range book.Outcomes {
		want += n
	}
	for _, n := range elsewhere {
		want -= n
	}
	w.must(stack.Poll(w.within(2*time.Minute), "a receipt for every message", func(ctx context.Context) (bool, string, error) {
		p, err := w.aggregator.Posture(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		list, err := w.aggregator.Quarantine(ctx, true)
		if err != nil {
			return false, err.Error(), nil
		}
		got := uint64(len(list))
		for _, n := range p.Statements {
			got += n
		}
		return got == want, fmt.Sprintf("%d of %d", got, want), nil
	}))
}

func (w *world) judgeHead(a *stack.Agent, book *ledger.Book) {
	w.t.Helper()
	head, err := a.Status(w.ctx)
	w.must(err)
	if head.Waiting != 0 {
		w.t.Errorf("%d statements of the agent still wait", head.Waiting)
	}
	id, err := a.Identity()
	w.must(err)
	c := book.Chains[chainOf(id)]
	if c == nil {
		w.t.Fatalf("nothing of agent %s is on the topic", id.Agent)
	}
	if err := c.Unbroken(head.Sequence, head.Digest); err != nil {
		w.t.Errorf("the agent's chain on the topic: %v", err)
	}
	w.t.Logf("the agent's chain is whole: %d statements, %d replays", head.Sequence, c.Replays)
}

// chainState is what the API says of a chain, and what the ledger implies.
type chainState struct {
	Head, Highest, Gaps, Forks uint64
}

func (w *world) judgeChains(book *ledger.Book) {
	w.t.Helper()
	want, got := map[string]chainState{}, map[string]chainState{}
	replays, told := map[string]uint64{}, map[string]uint64{}
	name := func(agent string, epoch uint64) string { return agent + " epoch " + strconv.FormatUint(epoch, 10) }
	for id, c := range book.Chains {
		want[name(id.Agent, id.Epoch)] = implied(c)
		replays[id.Agent] += c.Replays
	}
	agents, err := w.aggregator.Agents(w.ctx)
	w.must(err)
	for _, a := range agents {
		for _, c := range a.Chains {
			got[name(a.ID, c.Epoch)] = chainState{c.HeadSequence, c.Highest, c.GapCount, c.ForkCount}
		}
		if _, ours := replays[a.ID]; ours {
			told[a.ID] = a.Replayed
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("chains (-ledger +API):\n%s", diff)
	}
	if diff := cmp.Diff(replays, told); diff != "" {
		w.t.Errorf("replays by agent (-ledger +API):\n%s", diff)
	}
}

func implied(c *ledger.Chain) chainState {
	s := chainState{Forks: c.Forks}
	for n := range c.At {
		s.Highest = max(s.Highest, n)
	}
	s.Head = s.Highest
	for n := s.Highest; n >= 1; n-- {
		if len(c.At[n]) > 0 {
			continue
		}
		s.Head = n - 1
		if len(c.At[n+1]) > 0 {
			s.Gaps++
		}
	}
	return s
}

// judgeEvidence exports every chain and compares it, envelope for envelope, with
// what the topic held.
func (w *world) judgeEvidence(book *ledger.Book) {
	w.t.Helper()
	byAgent := map[string]map[predicate.Digest][]byte{}
	for id, c := range book.Chains {
		if byAgent[id.Agent] == nil {
			byAgent[id.Agent] = map[predicate.Digest][]byte{}
		}
		for _, es := range c.At {
			for _, e := range es {
				byAgent[id.Agent][e.Digest] = e.Envelope
			}
		}
	}
	for agent, want := range byAgent {
		got := w.evidence(agent)
		var wrong []string
		for d, envelope := range want {
			switch other, ok := got[d]; {
			case !ok:
				wrong = append(wrong, "lost: "+string(d))
			case !bytes.Equal(other, envelope):
				wrong = append(wrong, "another envelope: "+string(d))
			}
		}
		for d := range got {
			if want[d] == nil {
				wrong = append(wrong, "never published: "+string(d))
			}
		}
		slices.Sort(wrong)
		if len(wrong) > 0 {
			w.t.Errorf("evidence of agent %s: %d of %d wrong:\n%s", agent, len(wrong), len(want), strings.Join(wrong[:min(len(wrong), 20)], "\n"))
		}
	}
}

// evidence is what exported gives; a statement that is there twice is an error.
func (w *world) evidence(agent string) map[predicate.Digest][]byte {
	w.t.Helper()
	out, twice := w.exported(agent)
	if twice > 0 {
		w.t.Errorf("the export of agent %s holds %d statements twice", agent, twice)
	}
	return out
}

// exported exports an agent's statements, page by page, verifies each with the key
// that comes along, and counts those that are there again.
func (w *world) exported(agent string) (out map[predicate.Digest][]byte, twice uint64) {
	w.t.Helper()
	out = map[predicate.Digest][]byte{}
	for after := ""; ; {
		var page stack.Evidence
		w.must(w.aggregator.Get(w.ctx, "/v1/agents/"+agent+"/evidence", url.Values{
			"after": {after}, "limit": {"1000"},
		}, &page))
		keys := map[predicate.Digest]identity.PublicKey{}
		for _, k := range page.Keys {
			public, err := identity.ParsePublicKey(k.Algorithm, k.PublicKey)
			w.must(err)
			keys[k.KeyID] = public
		}
		for _, raw := range page.Envelopes {
			_, digest := w.open(raw, keys)
			if out[digest] != nil {
				twice++
			}
			out[digest] = raw
		}
		if after = page.Next; after == "" {
			return out, twice
		}
	}
}

func (w *world) open(raw json.RawMessage, keys map[predicate.Digest]identity.PublicKey) (predicate.Predicate, predicate.Digest) {
	w.t.Helper()
	envelope, err := attest.Open(raw)
	w.must(err)
	payload, err := envelope.Verify(keys[envelope.KeyID()])
	w.must(err)
	p, err := predicate.Parse(payload)
	w.must(err)
	return p, attest.Digest(payload)
}

// judgeQuarantine counts what is listed by reason. Of another tenant's refusals
// the administrator of this one sees nothing.
func (w *world) judgeQuarantine(book *ledger.Book, elsewhere map[string]uint64) {
	w.t.Helper()
	got := map[string]uint64{}
	for _, unattributed := range []bool{false, true} {
		list, err := w.aggregator.Quarantine(w.ctx, unattributed)
		w.must(err)
		for _, r := range list {
			got[r.Reason]++
			if named := r.Reason != "malformed_envelope" && r.Reason != "unknown_key"; named == unattributed {
				w.t.Errorf("a message refused for %s is listed as unattributed=%t", r.Reason, unattributed)
			}
		}
	}
	want := maps.Clone(book.Refused)
	for reason, n := range elsewhere {
		if want[reason] -= n; want[reason] == 0 {
			delete(want, reason)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("quarantine by reason (-ledger +API):\n%s", diff)
	}
}

func (w *world) judgePosture(book *ledger.Book) {
	w.t.Helper()
	p, err := w.aggregator.Posture(w.ctx)
	w.must(err)
	artifacts, err := w.aggregator.Artifacts(w.ctx)
	w.must(err)
	exposures, err := w.aggregator.Exposures(w.ctx, "open")
	w.must(err)
	wrong := append(ledger.Of(w.files).Differences(p), ledger.Differing(w.files, artifacts, exposures)...)
	for _, word := range []string{"linked", "early", "forked", "replayed"} {
		if want, got := book.Outcomes[word], p.Statements[word]; want != got {
			wrong = append(wrong, fmt.Sprintf("statements %s: the topic implies %d, the posture says %d", word, want, got))
		}
	}
	if len(wrong) > 0 {
		w.t.Errorf("%d figures are wrong:\n%s", len(wrong), strings.Join(wrong[:min(len(wrong), 30)], "\n"))
	}
}

// verdicts checks that the ledger's own reading of the statements agrees with
// the tree: the last scan of each digest says what the manifest implies.
func (w *world) verdicts(t *testing.T, book *ledger.Book, id ledger.ChainID) {
	t.Helper()
	last := map[predicate.Digest]predicate.Verdict{}
	c := book.Chains[id]
	for n := range uint64(len(c.At)) {
		for _, e := range c.At[n+1] {
			if s, ok := e.Statement.(*predicate.Scan); ok && s.Artifact.Kind == predicate.File {
				last[s.Artifact.Digest] = s.Verdict
			}
		}
	}
	for _, f := range w.files {
		if last[f.Digest] != f.Verdict {
			t.Errorf("%s: its last statement says %q, the tree implies %q", f.Path, last[f.Digest], f.Verdict)
		}
	}
}
