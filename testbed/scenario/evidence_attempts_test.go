package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/testbed/forge"
	"github.com/cavra/cavra/testbed/stack"
)

// evidenceFile is an export, to be edited.
type evidenceFile struct {
	Envelopes []json.RawMessage `json:"envelopes"`
	Keys      []json.RawMessage `json:"keys"`
	Logs      []evidenceLog     `json:"logs,omitempty"`
}

type evidenceLog struct {
	Key        string          `json:"key"`
	Checkpoint string          `json:"checkpoint"`
	Entries    []evidenceEntry `json:"entries"`
	KeyEvents  []evidenceEvent `json:"key_events"`
}

type evidenceEntry struct {
	Statement predicate.Digest `json:"statement"`
	Index     uint64           `json:"index"`
	Proof     [][]byte         `json:"proof"`
}

type evidenceEvent struct {
	Entry string   `json:"entry"`
	Index uint64   `json:"index"`
	Proof [][]byte `json:"proof"`
}

func readEvidence(t *testing.T, file string) (out evidenceFile) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// entry takes the proof of a statement along to another one.
func (l evidenceLog) entry(d predicate.Digest) evidenceEntry {
	for _, e := range l.Entries {
		if e.Statement == d {
			return e
		}
	}
	return evidenceEntry{}
}

func digestIn(t *testing.T, envelope []byte) predicate.Digest {
	t.Helper()
	e, err := attest.Open(envelope)
	if err != nil {
		t.Fatal(err)
	}
	return e.Digest()
}

// swap exchanges the signatures of two envelopes.
func swap(t *testing.T, a, b json.RawMessage) (json.RawMessage, json.RawMessage) {
	t.Helper()
	sig := func(e json.RawMessage) string {
		_, rest, _ := strings.Cut(string(e), `"sig":"`)
		s, _, _ := strings.Cut(rest, `"`)
		return s
	}
	return json.RawMessage(strings.Replace(string(a), sig(a), sig(b), 1)), json.RawMessage(strings.Replace(string(b), sig(b), sig(a), 1))
}

// payloadOf replaces an envelope's payload by another's.
func payloadOf(a, b json.RawMessage) json.RawMessage {
	cut := func(e json.RawMessage) string {
		_, rest, _ := strings.Cut(string(e), `"payload":"`)
		s, _, _ := strings.Cut(rest, `"`)
		return s
	}
	return json.RawMessage(strings.Replace(string(a), cut(a), cut(b), 1))
}

// forgery is an edit of an honest export, and what becomes of it.
type forgery struct {
	name string
	edit func(e *evidenceFile)
	// want is a part of what verify says; empty for an export that is believed.
	want string
	args []string
}

// keyThief is what somebody has who took an agent's folder before its key was
// followed by another.
type keyThief struct {
	key    *identity.Key
	id     stack.Identity
	public string
}

func (w *world) takeKey(a *stack.Agent) keyThief {
	w.t.Helper()
	author := w.author(a)
	return keyThief{author.Key, author.ID, publicPEM(w.t, filepath.Join(w.dir, author.ID.Agent+".pem"), author.Key.Public())}
}

// scan signs, as the agent would have, a statement at a place of the old epoch.
func (s keyThief) scan(t *testing.T, sequence uint64, previous predicate.Digest) json.RawMessage {
	t.Helper()
	author := forge.Author{ID: s.id, Key: s.key}
	signed, err := author.Sign(forge.Scan(author.Link(sequence, previous), "forged"))
	if err != nil {
		t.Fatal(err)
	}
	return json.RawMessage(signed.Envelope)
}

// TestEvidenceAttempts edits an honest export in every way that somebody who holds
// it, or a key, may want to, and prints what `cavra verify` says of each.
func TestEvidenceAttempts(t *testing.T) {
	dir := folder(t)
	w := embedded(t, dir, programs(t))
	a, b := w.enrol("agent"), w.enrol("other")
	w.feed(6)
	w.must(a.RunOnce(w.ctx))
	w.must(b.RunOnce(w.ctx))
	thief := w.takeKey(a)
	w.cavra(0, nil, "agent", "rotate", "--dir", a.Dir())
	w.feed(3)
	w.must(a.RunOnce(w.ctx))
	out, err := w.aggregator.CLI(w.ctx, "log", "--key")
	w.must(err)
	logKey := strings.TrimSpace(string(out.Stdout))
	honest, others := w.export(a), readEvidence(t, w.export(b))
	strangers := embedded(t, folder(t), w.programs)
	c := strangers.enrol("stranger")
	strangers.feed(20)
	strangers.must(c.RunOnce(strangers.ctx))
	foreign := readEvidence(t, strangers.export(c))

	base := readEvidence(t, honest)
	// The last statement of the first epoch, and where it stands.
	oldEnd, oldSequence := predicate.Digest(""), uint64(0)
	for _, raw := range base.Envelopes {
		e, err := attest.Open(raw)
		w.must(err)
		if payload, err := e.Verify(thief.key.Public()); err == nil {
			p, err := predicate.Parse(payload)
			w.must(err)
			if l := p.Place(); l.Epoch == 1 && l.Sequence > oldSequence {
				oldEnd, oldSequence = e.Digest(), l.Sequence
			}
		}
	}
	backdated := thief.scan(t, oldSequence+1, oldEnd)
	file := filepath.Join(dir, "edited.json")
	withLog := []string{"--log-key", logKey, "--complete"}
	attempts := []forgery{
		{"nothing (honest)", func(*evidenceFile) {}, "", withLog},
		{"white space between members", func(e *evidenceFile) {
			e.Envelopes[1] = json.RawMessage(strings.Replace(string(e.Envelopes[1]), `,"payload"`, ` , "payload"`, 1))
		}, "", withLog},
		{"delete one in the middle", func(e *evidenceFile) { e.Envelopes = append(e.Envelopes[:3:3], e.Envelopes[4:]...) }, "its predecessor is not in this file", withLog},
		{"delete the first", func(e *evidenceFile) { e.Envelopes = e.Envelopes[1:] }, "its predecessor is not in this file", withLog},
		{"delete the end of the epoch before", func(e *evidenceFile) {
			e.Envelopes = append(e.Envelopes[:oldSequence-1:oldSequence-1], e.Envelopes[oldSequence:]...)
		}, "where epoch 2 says that it stood", withLog},
		{"reorder (order is no claim)", func(e *evidenceFile) { e.Envelopes[1], e.Envelopes[3] = e.Envelopes[3], e.Envelopes[1] }, "", withLog},
		{"duplicate one (it is the same)", func(e *evidenceFile) { e.Envelopes = append(e.Envelopes, e.Envelopes[2]) }, "", withLog},
		{"replace a payload", func(e *evidenceFile) { e.Envelopes[2] = payloadOf(e.Envelopes[2], e.Envelopes[3]) }, "signature does not verify", withLog},
		{"flip a bit of a payload", func(e *evidenceFile) {
			flipped, err := forge.Flip(e.Envelopes[2])
			w.must(err)
			e.Envelopes[2] = flipped
		}, "signature does not verify", withLog},
		{"swap two signatures", func(e *evidenceFile) { e.Envelopes[2], e.Envelopes[3] = swap(t, e.Envelopes[2], e.Envelopes[3]) }, "signature does not verify", withLog},
		{"another agent's statement", func(e *evidenceFile) { e.Envelopes = append(e.Envelopes, others.Envelopes[2]) }, "none of those given", withLog},
		{"another tenant's, from elsewhere", func(e *evidenceFile) { e.Envelopes = append(e.Envelopes, foreign.Envelopes[2]) }, "none of those given", withLog},
		{"another log's proofs", func(e *evidenceFile) { e.Logs = foreign.Logs }, "open checkpoint", withLog},
		{"no proofs", func(e *evidenceFile) { e.Logs = nil }, "no proof of a transparency log", withLog},
		{"the proof of another statement", func(e *evidenceFile) {
			e.Logs[0].Entries[2].Index, e.Logs[0].Entries[2].Proof = e.Logs[0].Entries[3].Index, e.Logs[0].Entries[3].Proof
		}, "the proof does not hold", withLog},
		{"shrink the checkpoint", func(e *evidenceFile) {
			lines := strings.SplitN(e.Logs[0].Checkpoint, "\n", 3)
			e.Logs[0].Checkpoint = lines[0] + "\n2\n" + lines[2]
		}, "open checkpoint", withLog},
		{"hide what happened to the keys", func(e *evidenceFile) { e.Logs[0].KeyEvents = nil }, "nothing of its key's enrolment", withLog},
		{"change a key event", func(e *evidenceFile) {
			e.Logs[0].KeyEvents[0].Entry = strings.Replace(e.Logs[0].KeyEvents[0].Entry, `"epoch":1`, `"epoch":9`, 1)
		}, "the proof does not hold", withLog},
		{"fork: sign another at the same place", func(e *evidenceFile) {
			e.Envelopes = append(e.Envelopes, thief.scan(t, oldSequence, digestIn(t, e.Envelopes[oldSequence-2])))
		}, "FORK", nil},
		{"back-date with the retired key, no log asked for", func(e *evidenceFile) { e.Envelopes = append(e.Envelopes, backdated) }, "", []string{"--complete"}},
		{"back-date with the retired key", func(e *evidenceFile) { e.Envelopes = append(e.Envelopes, backdated) }, "not in the transparency log", withLog},
		{"back-date, with the proof of another", func(e *evidenceFile) {
			e.Envelopes = append(e.Envelopes, backdated)
			proof := e.Logs[0].entry(oldEnd)
			proof.Statement = digestIn(t, backdated)
			e.Logs[0].Entries = append(e.Logs[0].Entries, proof)
		}, "the proof does not hold", withLog},
	}
	var rows []string
	try := func(from string, all []forgery) {
		for _, at := range all {
			e := readEvidence(t, from)
			at.edit(&e)
			edited, err := json.Marshal(e)
			w.must(err)
			w.must(os.WriteFile(file, edited, 0o600))
			code := 0
			if at.want != "" {
				code = 1
			}
			said := w.cavra(code, nil, append([]string{"verify", file, "--key", thief.public}, at.args...)...)
			outcome := "believed"
			if at.want != "" {
				outcome = "refused: " + at.want
				if !strings.Contains(said, at.want) {
					t.Errorf("%s: it is refused, but not for %q:\n%s", at.name, at.want, said)
				}
			}
			rows = append(rows, at.name+"\t"+outcome)
		}
	}
	try(honest, attempts)

	// What somebody sends who signs with a key that is revoked by now.
	revoke, err := w.aggregator.CLI(w.ctx, "agents", "revoke", thief.id.Agent)
	w.must(err)
	if revoke.Code != 0 {
		t.Fatalf("revoke: %s", revoke.Stderr)
	}
	w.must(w.author(b).Publish(w.ctx, backdated))
	w.must(stack.Poll(w.within(time.Minute), "the refusal", func(ctx context.Context) (bool, string, error) {
		refused, err := w.aggregator.Quarantine(ctx, false)
		if err != nil || len(refused) == 0 {
			return false, "nothing is refused", err
		}
		return refused[0].Reason == "revoked_key", refused[0].Reason, nil
	}))
	rows = append(rows, "send what a revoked key signs\trefused by the aggregator: revoked_key")
	after := ""
	w.must(stack.Poll(w.within(time.Minute), "the revocation in the log", func(context.Context) (bool, string, error) {
		after = w.export(a)
		said := w.cavra(0, nil, append([]string{"verify", after, "--key", thief.public}, withLog...)...)
		return strings.Count(said, "revoked at ") == 2, said, nil
	}))
	try(after, []forgery{
		{"nothing, after the key was revoked", func(*evidenceFile) {}, "", withLog},
		{"sign with the revoked key", func(e *evidenceFile) { e.Envelopes = append(e.Envelopes, backdated) }, "not in the transparency log", withLog},
	})
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(table, r)
	}
	w.must(table.Flush())
	t.Logf("attempts on an export of %d statements, and what cavra verify says:\n%s", len(base.Envelopes), text.String())
}
