package strictjson

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStrings(t *testing.T) {
	for text, want := range map[string]string{
		`"plain"`: "plain", `"a\"\\\/\b\f\n\r\tb"`: "a\"\\/\b\f\n\r\tb", `"\u00e9\ud83d\ude00x"`: "é😀x", `""`: "",
	} {
		if got, err := New([]byte(text)).String(); err != nil || got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{``, `"`, `"a`, `"\x"`, `"\u12"`, `"\ud83d"`, `"\ud83d\u0041"`, "\"a\nb\"", "\"\xff\"", `"\`} {
		if got, err := New([]byte(text)).String(); !errors.Is(err, ErrSyntax) {
			t.Errorf("%q: read as %q, %v", text, got, err)
		}
	}
}

func TestUint(t *testing.T) {
	if n, err := New([]byte(" 9223372036854775807 ")).Uint(); n != 1<<63-1 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	for _, text := range []string{"-1", "01", "1.0", "1e3", "9223372036854775808", "", "x"} {
		if n, err := New([]byte(text)).Uint(); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: read as %d, %v", text, n, err)
		}
	}
}

func TestDuplicates(t *testing.T) {
	type place struct {
		Key string
		At  int
	}
	var got []place
	r := New([]byte(`{"a":1,"b":{"a":2,"\u0061":[]},"a":{"b":NaN}}`))
	r.Duplicate = func(key string, at int) { got = append(got, place{key, at}) }
	if err := r.Skip(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]place{{"a", 18}, {"a", 31}}, got); diff != "" {
		t.Error(diff)
	}
}

// FuzzSkip holds that whatever the standard library accepts is read to its end,
// and that no text makes the reader panic.
func FuzzSkip(f *testing.F) {
	for _, s := range []string{`{"a":[1,-2.5e+3,"x\u00e9",{},null,true]}`, `[[[]]]`, `"\ud83d\ude00"`, `-Infinity`, `{"a":1,"a":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := New(b)
		r.Duplicate = func(string, int) {}
		err := r.Skip()
		r.Space()
		if r.At() > len(b) {
			t.Fatalf("read to %d of %d", r.At(), len(b))
		}
		if json.Valid(b) && (err != nil || r.At() != len(b)) && !strings.Contains(string(b), `\u`) && strings.ToValidUTF8(string(b), "") == string(b) &&
			strings.Count(string(b), "[")+strings.Count(string(b), "{") < MaxDepth {
			t.Errorf("valid JSON was not read: %v at %d", err, r.At())
		}
	})
}
