package egress

import (
	"strings"
	"testing"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/vectors"
)

func inventory(namer Namer, path string) *predicate.Inventory {
	at := predicate.At(time.Unix(1_700_000_000, 0))
	return &predicate.Inventory{
		Link:  predicate.Link{Tenant: "t", Agent: "a", KeyID: predicate.DigestOf(nil), Epoch: 1, Sequence: 1, Previous: predicate.ZeroDigest, SignedAt: at},
		Scope: predicate.Scope{Registry: "fs", Root: namer.Name("/srv/secret")}, Round: "r", Part: 1, Parts: 1, Privacy: namer.Privacy, ListedAt: at,
		References: []predicate.Reference{{Path: namer.Name(path), Digest: predicate.DigestOf(nil)}},
	}
}

func TestStrictLetsNoNameOut(t *testing.T) {
	gate, err := NewGate(predicate.Strict, Shipped())
	if err != nil {
		t.Fatal(err)
	}
	strict := Namer{Privacy: predicate.Strict, Key: []byte("k"), Vocabulary: Shipped()}
	payload, err := predicate.Marshal(inventory(strict, "merger-target.pkl"))
	if err != nil {
		t.Fatal(err)
	}
	if err := gate.Check(payload); err != nil {
		t.Errorf("a keyed inventory was refused: %v", err)
	}
	if strings.Contains(string(payload), "merger") || strings.Contains(string(payload), "secret") {
		t.Errorf("a name is in the clear: %s", payload)
	}
	// A builder that forgets to key a name is stopped here.
	v := inventory(strict, "x")
	v.References[0].Path = predicate.Name{Plain: "merger-target.pkl"}
	leaky, err := predicate.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if gate.Check(leaky) == nil {
		t.Error("a plain name went out at privacy strict")
	}
	named, err := predicate.Marshal(inventory(Namer{Privacy: predicate.Names, Vocabulary: Shipped()}, "m.pkl"))
	if err != nil {
		t.Fatal(err)
	}
	if gate.Check(named) == nil {
		t.Error("an inventory of privacy names went out of an agent of privacy strict")
	}
}

func TestNamer(t *testing.T) {
	long := strings.Repeat("x", predicate.MaxPlainName+1)
	for name, tt := range map[string]struct {
		namer Namer
		in    string
		plain bool
	}{
		"strict, in the vocabulary": {Namer{Privacy: predicate.Strict}, "os", true},
		"strict, not in it":         {Namer{Privacy: predicate.Strict}, "acme_internal", false},
		"names":                     {Namer{Privacy: predicate.Names}, "acme_internal", true},
		"names, too long":           {Namer{Privacy: predicate.Names}, long, false},
		"names, not printable":      {Namer{Privacy: predicate.Names}, "a\x1b[2Jb", false},
		"names, empty":              {Namer{Privacy: predicate.Names}, "", false},
	} {
		tt.namer.Vocabulary, tt.namer.Key = Shipped(), []byte("k")
		got := tt.namer.Name(tt.in)
		if (got.Plain != "") != tt.plain || got.Validate() != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestGateOverTheGoldenPayloads(t *testing.T) {
	gate, err := NewGate(predicate.Names, Shipped())
	if err != nil {
		t.Fatal(err)
	}
	refused, err := vectors.RefusedPayloads()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range refused {
		if gate.Check(v.Data) == nil {
			t.Errorf("%s went out", v.Name)
		}
	}
}
