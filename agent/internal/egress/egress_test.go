package egress

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/vectors"
	"github.com/cavra/cavra/sdk/finding"
)

func reducer(t testing.TB, below int64) *Reducer {
	t.Helper()
	r, err := NewReducer(make([]byte, 32), below)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func gate(t testing.TB, privacy predicate.Privacy, below int64) *Gate {
	t.Helper()
	rules, err := finding.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	g, err := NewGate(GateConfig{Privacy: privacy, Vocabulary: Shipped(), Rules: rules, Reducer: reducer(t, below)})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func marshal(t testing.TB, p predicate.Predicate) []byte {
	t.Helper()
	b, err := predicate.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func link() predicate.Link {
	return predicate.Link{Tenant: "t", Agent: "a", KeyID: predicate.DigestOf(nil), Epoch: 1, Sequence: 2, Previous: predicate.DigestOf(nil), SignedAt: predicate.At(time.Unix(1_700_000_000, 0))}
}

func inventory(namer Namer, path string) *predicate.Inventory {
	return &predicate.Inventory{
		Link: link(), Scope: predicate.Scope{Registry: "fs", Root: namer.Name("/srv/secret")}, Round: "r", Part: 1, Parts: 1, Privacy: namer.Privacy,
		ListedAt:   predicate.At(time.Unix(1_700_000_000, 0)),
		References: []predicate.Reference{{Path: namer.Name(path), Digest: predicate.DigestOf(nil), Size: 5000}},
	}
}

func TestStrictLetsNoNameOut(t *testing.T) {
	gate := gate(t, predicate.Strict, 4096)
	strict := Namer{Privacy: predicate.Strict, Key: []byte("k"), Vocabulary: Shipped()}
	payload := marshal(t, inventory(strict, "merger-target.pkl"))
	if err := gate.Check(payload); err != nil {
		t.Errorf("a keyed inventory was refused: %v", err)
	}
	if strings.Contains(string(payload), "merger") || strings.Contains(string(payload), "secret") {
		t.Errorf("a name is in the clear: %s", payload)
	}
	// A builder that forgets to key a name is stopped here, even if it is a word
	// that everybody knows.
	for _, path := range []string{"merger-target.pkl", "os"} {
		v := inventory(strict, "x")
		v.References[0].Path = predicate.Name{Plain: path}
		if gate.Check(marshal(t, v)) == nil {
			t.Errorf("the plain name %s went out at privacy strict", path)
		}
	}
	named := inventory(Namer{Privacy: predicate.Names, Vocabulary: Shipped()}, "m.pkl")
	if gate.Check(marshal(t, named)) == nil {
		t.Error("an inventory of privacy names went out of an agent of privacy strict")
	}
}

func TestFullLocalLetsNoReportOut(t *testing.T) {
	gate := gate(t, predicate.FullLocal, 4096)
	v := inventory(Namer{Privacy: predicate.FullLocal, Vocabulary: Shipped()}, "m.pkl")
	payload := marshal(t, v)
	if err := gate.Check(payload); !errors.Is(err, errStays) {
		t.Errorf("%v, want %v", err, errStays)
	}
	if err := (KeepGate{}).Check(payload); err != nil {
		t.Errorf("it may not be kept either: %v", err)
	}
	v.Privacy = predicate.Strict
	if (KeepGate{}).Check(marshal(t, v)) == nil {
		t.Error("a statement that was made to leave is kept as one that stays")
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
		got := tt.namer.Word(tt.in)
		if (got.Plain != "") != tt.plain || got.Validate() != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestGateOverTheGoldenPayloads(t *testing.T) {
	gate := gate(t, predicate.Names, 0)
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
