package document

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRead(t *testing.T) {
	var twice []string
	roots, err := Read([]byte(`{"a":"x","b":[1,{"a":null,"a":"y\u00e9"}]} [true]`), func(k string, _ int) { twice = append(twice, k) })
	if err != nil || len(roots) != 2 {
		t.Fatal(len(roots), err)
	}
	var texts []string
	for _, r := range roots {
		r.Walk(func(n *Node) { texts = append(texts, n.Texts("a")...) })
	}
	if d := cmp.Diff([]string{"x", "yé"}, texts); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"a"}, twice); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"", "{", `{"a":1} x`, `{"a" 1}`, strings.Repeat("[", 5000)} {
		if _, err := Read([]byte(bad), nil); err == nil {
			t.Errorf("%.20q was read", bad)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"a":[1,-2.5e3,"x\u00e9",{}],"a":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		roots, err := Read(b, nil)
		for _, r := range roots {
			if r == nil && err == nil {
				t.Error("a root is missing")
			}
		}
	})
}
