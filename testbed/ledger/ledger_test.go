package ledger

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/testbed/corpus"
	"github.com/cavra/cavra/testbed/forge"
	"github.com/cavra/cavra/testbed/stack"
)

// author signs without a server.
func author(t *testing.T, seed byte) *forge.Author {
	t.Helper()
	key, err := identity.FromSeed([32]byte{seed})
	if err != nil {
		t.Fatal(err)
	}
	return &forge.Author{ID: stack.Identity{Tenant: "t", Agent: "a", Epoch: 1}, Key: key}
}

func next(t *testing.T, a *forge.Author, salt string) forge.Signed {
	t.Helper()
	s, err := a.Next(salt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestBook holds the book's own rules to the words of the design.
func TestBook(t *testing.T) {
	a, stranger := author(t, 1), author(t, 2)
	one, two, three, four := next(t, a, ""), next(t, a, "2"), next(t, a, "3"), next(t, a, "4")
	fork, err := a.Sign(forge.Scan(a.Link(3, two.Digest), "another"))
	if err != nil {
		t.Fatal(err)
	}
	flipped, err := forge.Flip(two.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	foreign := a.Link(5, four.Digest)
	foreign.Tenant = "other"
	claimed, err := a.Sign(forge.Scan(foreign, ""))
	if err != nil {
		t.Fatal(err)
	}
	var messages []Message
	for i, v := range [][]byte{
		one.Envelope, two.Envelope, two.Envelope, four.Envelope, three.Envelope, fork.Envelope, fork.Envelope,
		flipped, next(t, stranger, "").Envelope, []byte("garbage"), claimed.Envelope,
	} {
		messages = append(messages, Message{Offset: int64(i), Value: v})
	}
	id := ChainID{"t", "a", 1}
	b := Read(messages, []Key{{a.Key.Public(), id}})
	if diff := cmp.Diff(map[string]uint64{"linked": 3, "replayed": 2, "early": 1, "forked": 1, "refused": 4}, b.Outcomes); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]uint64{"bad_signature": 1, "unknown_key": 1, "malformed_envelope": 1, "wrong_tenant": 1}, b.Refused); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	if err := b.Chains[id].Unbroken(4, four.Digest); err == nil {
		t.Error("a chain with a fork is called unbroken")
	}
	whole := Read(messages[:5], []Key{{a.Key.Public(), id}})
	if err := whole.Chains[id].Unbroken(4, four.Digest); err != nil {
		t.Error(err)
	}
	if err := whole.Chains[id].Unbroken(3, three.Digest); err == nil {
		t.Error("a chain that goes on is called unbroken at an earlier head")
	}
	if got := whole.Chains[id].Digests(); len(got) != 4 || !slices.Contains(got, attest.Digest(payload(t, a, one))) {
		t.Errorf("digests %v", got)
	}
}

func payload(t *testing.T, a *forge.Author, s forge.Signed) []byte {
	t.Helper()
	e, err := attest.Open(s.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.Verify(a.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFigures shows that every figure that is not as implied is named.
func TestFigures(t *testing.T) {
	manifest, err := corpus.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	rules, err := finding.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	files, err := FromManifest(manifest, rules)
	if err != nil {
		t.Fatal(err)
	}
	figures := Of(files)
	good := stack.Posture{Artifacts: figures.Artifacts, References: figures.References, Exposures: figures.Exposures}
	if got := figures.Differences(good); len(got) != 0 {
		t.Errorf("differences of the same: %v", got)
	}
	for _, part := range []map[string]uint64{figures.Artifacts, figures.References, figures.Exposures} {
		for word := range part {
			part[word]++
			other := Of(files)
			if got := other.Differences(good); len(got) != 1 {
				t.Errorf("%s is wrong by one: %v", word, got)
			}
			part[word]--
		}
	}
	if figures.Artifacts["fail"] == 0 || figures.Exposures["critical"] == 0 {
		t.Errorf("the generated tree implies nothing bad: %+v", figures)
	}
}

// TestDiffering shows that an artifact or exposure that is missing, wrong, there
// twice or made up is named.
func TestDiffering(t *testing.T) {
	d := predicate.DigestOf([]byte("x"))
	files := []File{{Path: "a", Digest: d, Verdict: predicate.Fail, Rules: map[string]predicate.Severity{"r": predicate.High}}, {Path: "b"}}
	artifacts := []stack.Artifact{{Digest: d, Kind: "file", Verdict: "fail"}, {Digest: "sha256:bundle", Kind: "bundle", Verdict: "fail"}}
	exposures := []stack.Exposure{{Path: "a", Rule: "r"}, {Path: "a", Rule: "artifact.incomplete"}, {Path: "b", Rule: "reference.unreadable"}}
	if got := Differing(files, artifacts, exposures); len(got) != 0 {
		t.Errorf("differences of the same: %v", got)
	}
	for name, got := range map[string][]string{
		"missing artifact":  Differing(files, nil, exposures),
		"missing exposure":  Differing(files, artifacts, exposures[1:]),
		"doubled exposure":  Differing(files, artifacts, append(slices.Clone(exposures), exposures[0])),
		"invented exposure": Differing(files, artifacts, append(slices.Clone(exposures), stack.Exposure{Path: "c", Rule: "r"})),
	} {
		if len(got) != 1 {
			t.Errorf("%s: %v, want one line", name, got)
		}
	}
	if got := Differing(files, []stack.Artifact{{Digest: d, Kind: "file", Verdict: "pass"}}, exposures); len(got) != 2 {
		t.Errorf("wrong verdict: %v, want the one that is missing and the one that is too many", got)
	}
}
