package flatbuffer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/plugins/formats/window"
)

const schemaText = "table A\n 0 n 4\n 1 s s\n 2 a t A\n 3 list v2\n 4 kind 1\n 5 other u U\n 6 words vs\n 7 many vt A\nunion U\n 1 A\n"

// recorder writes down what a walk says.
type recorder struct{ lines []string }

func (r *recorder) Begin(t *Table, at int64) error {
	r.lines = append(r.lines, fmt.Sprintf("begin %s %d", t.Name, at))
	return nil
}

func (r *recorder) End(t *Table) error {
	r.lines = append(r.lines, "end "+t.Name)
	return nil
}

func (r *recorder) Number(_ *Table, f *Field, n uint64) error {
	r.lines = append(r.lines, fmt.Sprintf("%s = %d", f.Name, n))
	return nil
}

func (r *recorder) Bytes(_ *Table, f *Field, start, end int64) error {
	r.lines = append(r.lines, fmt.Sprintf("%s [%d, %d)", f.Name, start, end))
	return nil
}

func walk(t testing.TB, b []byte) (*recorder, *Walk, error) {
	t.Helper()
	s, err := ParseSchema(schemaText)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	k := NewWalk(window.New(bytes.NewReader(b), int64(len(b))), r)
	return r, k, k.Run(context.Background(), s["A"])
}

// small has a number, a text, and itself as a table within.
const small = "\x14\x00\x00\x00MARK" + // the root is at 20
	"\x0a\x00\x10\x00\x04\x00\x08\x00\x0c\x00\x00\x00" + // its layout, at 8
	"\x0c\x00\x00\x00\x2a\x00\x00\x00\x0c\x00\x00\x00\x04\x00\x00\x00" + // the table
	"\x00\x00\x00\x00\x02\x00\x00\x00hi\x00"

func TestWalk(t *testing.T) {
	b := []byte(small)
	// The table within lies where the root's own layout would make no sense.
	b[32] = 0
	if _, _, err := walk(t, b); !errors.Is(err, ErrMalformed) {
		t.Errorf("an offset of zero: %v", err)
	}
	b = []byte(small)
	b[12+4] = 0 // no table within
	r, k, err := walk(t, b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"begin A 20", "n = 42", "s [44, 46)", "end A"}, r.lines); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Extent{{0, 18}, {20, 36}, {40, 47}}, k.Extents()); diff != "" {
		t.Error(diff)
	}
}

func TestEveryByteMayLie(t *testing.T) {
	for i := range len(small) {
		for _, to := range []byte{0, 1, 0x7f, 0x80, 0xff} {
			b := []byte(small)
			b[i] = to
			if _, _, err := walk(t, b); err != nil && !errors.Is(err, ErrMalformed) {
				t.Errorf("byte %d as %d: %v", i, to, err)
			}
		}
	}
}

func TestParseSchemaRefuses(t *testing.T) {
	for _, text := range []string{" 0 a 4\n", "table A\n x a 4\n", "table A\n 0 a\n", "table A\n 0 a t\n", "table A\n 0 a t B\n", "table A\n 0 a z B\n", "union U\n 300 A\n"} {
		if s, err := ParseSchema(text); err == nil {
			t.Errorf("%q: read as %v", strings.TrimSpace(text), s)
		}
	}
}

func FuzzWalk(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte("\x04\x00\x00\x00MAR"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, k, err := walk(t, b)
		if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrDepth) && !errors.Is(err, ErrObjects) {
			t.Error(err)
		}
		for _, e := range k.Extents() {
			if e.Start < 0 || e.End > int64(len(b)) || e.Start > e.End {
				t.Errorf("extent %+v of %d bytes", e, len(b))
			}
		}
	})
}
