package agent

import (
	"bytes"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
)

var keyedHash = regexp.MustCompile(`hmac-sha256:[0-9a-f]{64}`)

// TestWhatIsHiddenCanBeTurnedBack where it was hidden: every keyed hash that a
// round sends, of names, files and bundles.
func TestWhatIsHiddenCanBeTurnedBack(t *testing.T) {
	r := newRounds(t)
	r.cfg.Settings.Privacy = predicate.Strict
	const code = "cacme_internal\nlaunch\n(tR."
	r.put("acme-codename/config.json", "{}")
	r.put("acme-codename/odd name.pkl", code)
	r.once()
	hidden := map[string]string{}
	if err := Hidden(r.cfg.Dir, func(keyed string, plain []byte) error { hidden[keyed] = string(plain); return nil }); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, keyed := range keyedHash.FindAll(bytes.Join(r.payloads, nil), -1) {
		plain, ok := hidden[string(keyed)]
		if !ok {
			t.Errorf("%s was sent, and nobody knows what it hides", keyed)
		}
		known[plain] = true
	}
	for _, want := range []string{
		filepath.ToSlash(r.tree), "acme-codename/config.json", "acme-codename/odd name.pkl", "acme_internal", "launch",
		string(predicate.DigestOf([]byte(code))), string(predicate.DigestOf([]byte("{}"))),
	} {
		if !known[want] {
			t.Errorf("no hash that was sent hides %q", want)
		}
	}
	bundles := 0
	for _, payload := range r.payloads {
		if p, err := predicate.Parse(payload); err == nil {
			if s, ok := p.(*predicate.Scan); ok && s.Artifact.Kind == predicate.Bundle {
				bundles++
				if !s.Artifact.Digest.Keyed() {
					t.Errorf("a bundle of small files is named by %s", s.Artifact.Digest)
				}
			}
		}
	}
	if bundles != 1 {
		t.Errorf("%d bundles", bundles)
	}
}

// TestAnotherBoundTellsAnew: a file that has another name now is told of under
// it.
func TestAnotherBoundTellsAnew(t *testing.T) {
	r := newRounds(t)
	r.put("a.txt", "a text\n")
	if got := r.once(); len(got.Scanned) != 1 {
		t.Fatalf("%+v", got)
	}
	if got := r.once(); len(got.Scanned) != 0 {
		t.Errorf("nothing has changed, and it was scanned again: %+v", got)
	}
	r.cfg.Settings.KeyedBelow = 0
	if got := r.once(); len(got.Scanned) != 1 || len(got.Listed) != 1 {
		t.Errorf("under its plain digest it tells of %+v", got)
	}
}

// TestStatementsLeaveByTheirDigests, which say nothing of paths, nor a keyed one
// of what it hides.
func TestStatementsLeaveByTheirDigests(t *testing.T) {
	scan := func(d predicate.Digest) predicate.Predicate {
		return &predicate.Scan{Artifact: predicate.Artifact{Digest: d}}
	}
	plain, keyed := predicate.DigestOf([]byte("x")), predicate.KeyedDigest([]byte("k"), predicate.DigestOf([]byte("y")))
	first, second := &predicate.Inventory{Part: 1}, &predicate.Inventory{Part: 2}
	got := []predicate.Predicate{scan(plain), first, scan(keyed), second}
	byDigest(got)
	if diff := cmp.Diff([]predicate.Predicate{scan(keyed), scan(plain), first, second}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
