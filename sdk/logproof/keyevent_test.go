package logproof

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
)

func certified() KeyEvent {
	at := predicate.At(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	end := predicate.At(at.Time().AddDate(0, 0, 30))
	return KeyEvent{
		Change: KeyCertified, Tenant: "acme", Agent: "a-1", Epoch: 2, KeyID: statement(1), Algorithm: predicate.Ed25519,
		Authority: statement(2), At: at, NotBefore: &at, NotAfter: &end,
	}
}

// TestKeyEvent: an event reads as it was written, in one spelling only, and is
// proven in the tree that has it.
func TestKeyEvent(t *testing.T) {
	want := certified()
	entry, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseKeyEvent(entry)
	if err != nil || cmp.Diff(want, got, cmp.AllowUnexported(predicate.Time{})) != "" {
		t.Errorf("it reads as %+v, %v", got, err)
	}
	for name, edit := range map[string][2]string{
		"a statement":            {keyEventPrefix, "cavra-statement "},
		"white space":            {`,"agent"`, `, "agent"`},
		"an unknown member":      {`{"change"`, `{"why":"x","change"`},
		"another change":         {`"certified"`, `"renewed"`},
		"enrolled by another":    {`"certified"`, `"enrolled"`},
		"epoch 0":                {`"epoch":2`, `"epoch":0`},
		"a tenant of two":        {`"acme"`, `"acme/b"`},
		"what stands behind":     {`}`, `}}`},
		"an authority of no key": {string(statement(2)), "sha256:0"},
	} {
		if e, err := ParseKeyEvent([]byte(strings.Replace(string(entry), edit[0], edit[1], 1))); err == nil {
			t.Errorf("%s: it reads as %+v", name, e)
		}
	}
	tree := newTree(t, "log.test/a")
	tree.add(statement(7))
	tree.addEntry(entry)
	tree.add(statement(8))
	c := tree.open()
	if _, err := c.IncludesKeyEvent(entry, 1, tree.prove(1)); err != nil {
		t.Error(err)
	}
	if _, err := c.IncludesKeyEvent(entry, 2, tree.prove(2)); !errors.Is(err, ErrProof) {
		t.Errorf("proven at the place of a statement: %v", err)
	}
}

func FuzzKeyEvent(f *testing.F) {
	e := certified()
	entry, err := e.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(entry)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseKeyEvent(b)
		if err != nil {
			return
		}
		again, err := e.Marshal()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q reads, and is written as %q, %v", b, again, err)
		}
	})
}
