package agent

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
)

// kept reads the chain of what stays.
func (r *rounds) kept() (types []string, payloads [][]byte, head predicate.ChainHead) {
	r.t.Helper()
	err := Kept(r.cfg.Dir, func(o Outbound) error {
		types, payloads = append(types, predicate.Short(o.Type)), append(payloads, bytes.Clone(o.Payload))
		head = predicate.ChainHead{Epoch: o.Epoch, Sequence: o.Sequence, Digest: o.Digest}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return types, payloads, head
}

// signs runs an agent for one round, and returns what waits to be published.
func (r *rounds) signs() (types []string, last *predicate.Heartbeat) {
	r.t.Helper()
	a := r.open()
	defer r.close(a)
	if err := a.round(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	if err := a.beat(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	entries, err := a.spool.Next(r.t.Context(), 1000, 1<<20)
	if err != nil {
		r.t.Fatal(err)
	}
	r.payloads = nil
	for _, e := range entries {
		r.read(e, &told{})
		types = append(types, predicate.Short(e.PredicateType))
	}
	p, err := predicate.Parse(r.payloads[len(r.payloads)-1])
	if err != nil {
		r.t.Fatal(err)
	}
	if err := a.spool.Ack(entries[len(entries)-1].Place); err != nil {
		r.t.Fatal(err)
	}
	return types, p.(*predicate.Heartbeat)
}

// TestFullLocalKeepsItsReports: what is published are signs of life that name the
// head of what stays, and a change of the level tells everything anew.
func TestFullLocalKeepsItsReports(t *testing.T) {
	r := newRounds(t)
	r.cfg.Settings.Privacy = predicate.FullLocal
	r.put("acme-codename/model.pkl", "cposix\nsystem\n(S'x'\ntR.")
	r.put("a.txt", "a text\n")
	types, beat := r.signs()
	if diff := cmp.Diff([]string{"epoch", "heartbeat"}, types); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	kinds, payloads, head := r.kept()
	slices.Sort(kinds)
	if diff := cmp.Diff([]string{"epoch", "inventory", "scan", "scan"}, kinds); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	if beat.Kept == nil || *beat.Kept != head || beat.Privacy != predicate.FullLocal {
		t.Errorf("the heartbeat says %+v of what is kept, %q; its head is %+v", beat.Kept, beat.Privacy, head)
	}
	if all := bytes.Join(payloads, nil); !bytes.Contains(all, []byte("acme-codename")) {
		t.Error("what stays does not say where things are")
	}
	published := string(bytes.Join(r.payloads, nil))
	if strings.Contains(published, string(predicate.DigestOf([]byte("a text\n")))) {
		t.Error("a digest of an artifact is published")
	}
	if types, again := r.signs(); len(types) != 1 || *again.Kept != head {
		t.Errorf("a round without news: %v, %+v", types, again.Kept)
	}

	r.cfg.Settings.Privacy = predicate.Strict
	if got := r.once(); len(got.Scanned) != 2 || len(got.Listed) != 2 {
		t.Errorf("at the level strict it tells of %v and %v", got.Scanned, got.Listed)
	}
}

// TestFullLocalPreview shows that no report would leave, and leaves none behind.
func TestFullLocalPreview(t *testing.T) {
	r := newRounds(t)
	r.cfg.Settings.Privacy = predicate.FullLocal
	r.put("a.txt", "a text\n")
	types, _ := r.preview()
	if diff := cmp.Diff([]string{"epoch", "heartbeat"}, types); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if kinds, _, _ := r.kept(); kinds != nil {
		t.Errorf("a preview keeps %v", kinds)
	}
}
