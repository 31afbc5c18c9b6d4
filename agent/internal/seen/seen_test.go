package seen

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
)

func TestSaveAndLoad(t *testing.T) {
	name := filepath.Join(t.TempDir(), "seen")
	rules, other := predicate.DigestOf([]byte("1")), predicate.DigestOf([]byte("2"))
	want := Scope{
		Marks: map[string]Mark{
			"a":       {Revision: "1", Digest: predicate.DigestOf(nil), Size: 3, Verdict: predicate.Pass, Complete: true},
			"b\xff\n": {Revision: "2", Problem: predicate.PermissionDenied, Verdict: predicate.Error},
		},
		Inventory: predicate.DigestOf([]byte("i")), ToldAt: 7,
	}
	if err := want.Save(name, rules); err != nil {
		t.Fatal(err)
	}
	got, err := Load(name, rules)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, err := Load(name, other); err != nil || len(got.Marks) != 0 || got.ToldAt != 0 {
		t.Errorf("under another ruleset: %+v, %v", got, err)
	}
	if got, err := Load(name+".missing", rules); err != nil || len(got.Marks) != 0 {
		t.Errorf("without a file: %+v, %v", got, err)
	}
}

func TestLoadADamagedFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "seen")
	rules := predicate.DigestOf(nil)
	for _, text := range []string{"", "x\n", `{"version":9}` + "\n", `{"version":1,"ruleset":"` + string(rules) + `"}` + "\n{\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Load(name, rules); err == nil || len(got.Marks) != 0 || got.Marks == nil {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}
