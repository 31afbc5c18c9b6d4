package hidden

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
)

func entries(t testing.TB, name string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := Read(name, func(e Entry) error {
		if _, twice := out[e.Keyed]; twice {
			t.Errorf("%s is there twice", e.Keyed)
		}
		out[e.Keyed] = string(e.Plain)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func keyed(s string) string { return predicate.KeyedName([]byte("k"), s).Keyed }

func open(t testing.TB, name string) *Book {
	t.Helper()
	b, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func done(t testing.TB, b *Book) {
	t.Helper()
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestBook: each is there once, over ends and torn writes.
func TestBook(t *testing.T) {
	name := filepath.Join(t.TempDir(), "names.hidden")
	if got := entries(t, name); len(got) != 0 {
		t.Errorf("no book holds %v", got)
	}
	want := map[string]string{}
	for _, words := range [][]string{{"a", "b", "a"}, {"b", "c\xff\n"}} {
		b := open(t, name)
		for _, w := range words {
			b.Remember(keyed(w), w)
			want[keyed(w)] = w
		}
		b.Remember("none", "of these")
		done(t, b)
	}
	if diff := cmp.Diff(want, entries(t, name)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, whole[:len(whole)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	b := open(t, name)
	b.Remember(keyed("c\xff\n"), "c\xff\n")
	done(t, b)
	if diff := cmp.Diff(want, entries(t, name)); diff != "" {
		t.Errorf("after a torn write (-want +got):\n%s", diff)
	}
}

// FuzzRead reads books that nobody wrote.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"keyed":"hmac-sha256:00","plain":"YQ=="}` + "\n"))
	f.Add([]byte("{}\n{"))
	f.Add([]byte(strings.Repeat("x", 2<<20)))
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(t.TempDir(), "book")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		before := 0
		if Read(name, func(Entry) error { before++; return nil }) != nil {
			return
		}
		book := open(t, name)
		book.Remember(keyed("a"), "a")
		done(t, book)
		after := 0
		if err := Read(name, func(Entry) error { after++; return nil }); err != nil || after < before {
			t.Errorf("%d entries, then %d: %v", before, after, err)
		}
	})
}
