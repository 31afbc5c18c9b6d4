package logproof

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func cosigner(t testing.TB, name string, seed byte) *Cosigner {
	t.Helper()
	c, err := NewCosigner(name, bytes.Repeat([]byte{seed}, 32), func() time.Time { return time.Unix(1_800_000_000, 0) })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWitnessed(t *testing.T) {
	r := newTree(t, "log.test/a")
	r.add(statement(1))
	one, two := cosigner(t, "one.test", 1), cosigner(t, "two.test", 2)
	plain := r.checkpoint()
	line, err := one.Cosign(plain, r.key)
	if err != nil {
		t.Fatal(err)
	}
	signed := append(bytes.Clone(plain), line...)
	if c, err := Open(signed, r.key); err != nil || c != r.open() {
		t.Errorf("with a witness's signature it opens as %+v, %v", c, err)
	}
	both := []Witness{one.Witness, two.Witness}
	if names, err := Witnessed(signed, both, 1); err != nil || strings.Join(names, " ") != "one.test" {
		t.Errorf("one of two: %q, %v", names, err)
	}
	for what, b := range map[string][]byte{
		"one, and two are wanted":   signed,
		"none":                      plain,
		"the same twice":            append(bytes.Clone(signed), line...),
		"the other's name":          append(bytes.Clone(plain), bytes.Replace(line, []byte("one.test"), []byte("two.test"), 1)...),
		"one's word for two":        append(bytes.Clone(signed), bytes.Replace(line, []byte("one.test"), []byte("two.test"), 1)...),
		"of another tree":           bytes.Replace(signed, []byte("\n1\n"), []byte("\n2\n"), 1),
		"what is no note":           []byte("x"),
		"a signature that is short": append(bytes.Clone(plain), []byte("— one.test AAAAAAAA\n")...),
	} {
		if names, err := Witnessed(b, both, 2); err == nil {
			t.Errorf("%s: %q", what, names)
		}
	}
	if _, err := Witnessed(plain, both, 1); !errors.Is(err, ErrNotWitnessed) {
		t.Errorf("none: %v", err)
	}
	if again, err := ParseWitness(one.String()); err != nil || again.String() != one.String() || again.KeyHash() != one.KeyHash() {
		t.Errorf("%s reads as %s, %v", one, again, err)
	}
	for _, bad := range []string{"", "a+b", r.key, strings.Replace(one.String(), "one", "eno", 1), one.String() + "AA"} {
		if w, err := ParseWitness(bad); err == nil {
			t.Errorf("%q reads as %s", bad, w)
		}
	}
}

func FuzzParseWitness(f *testing.F) {
	f.Add(cosigner(f, "one.test", 1).String())
	f.Fuzz(func(t *testing.T, s string) {
		w, err := ParseWitness(s)
		if err == nil && w.String() != strings.TrimSpace(s) {
			t.Errorf("%q reads as %q", s, w)
		}
	})
}
