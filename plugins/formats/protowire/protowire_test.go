package protowire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/window"
)

const schemaText = "A\n 1 n v\n 2 s s\n 3 a m A\n 4 list v*\n 5 f 4\n 6 d 8\n 7 b b\n"

// recorder writes down what a walk says.
type recorder struct {
	w     *window.Reader
	lines []string
}

func (r *recorder) Begin(m *Message, _ *Field, at int64) error {
	r.lines = append(r.lines, fmt.Sprintf("begin %s %d", m.Name, at))
	return nil
}

func (r *recorder) End(m *Message) error {
	r.lines = append(r.lines, "end "+m.Name)
	return nil
}

func (r *recorder) Number(_ *Message, f *Field, n uint64) error {
	r.lines = append(r.lines, fmt.Sprintf("%s = %d", f.Name, n))
	return nil
}

func (r *recorder) Bytes(_ *Message, f *Field, start, end int64) error {
	text, err := ReadText(r.w, start, end, 100)
	r.lines = append(r.lines, fmt.Sprintf("%s %q", f.Name, text))
	return err
}

func walk(t testing.TB, b []byte) (*recorder, coverage.Total, error) {
	t.Helper()
	s, err := ParseSchema(schemaText)
	if err != nil {
		t.Fatal(err)
	}
	var report scanner.Report
	v, err := content.NewVisit(bytes.NewReader(b), int64(len(b)), &report, content.NewBudget(content.DefaultLimits()), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{w: window.New(v.Bytes, v.Size)}
	err = NewWalk(v, r.w, r).Run(context.Background(), s["A"], 0, v.Size)
	account, accountErr := coverage.Account(v.Claims(), v.Size)
	if accountErr != nil {
		t.Fatal(accountErr)
	}
	return r, coverage.Sum(account), err
}

func TestWalk(t *testing.T) {
	r, total, err := walk(t, []byte("\x08\x96\x01\x12\x02hi\x1a\x04\x08\x01\x1a\x00\x22\x02\x01\x02"+
		"\x2d\x01\x00\x00\x00\x31\x02\x00\x00\x00\x00\x00\x00\x00\x3a\x01x\x20\x07"))
	if err != nil || !total.Complete {
		t.Fatalf("%v, %+v", err, total)
	}
	want := []string{
		"begin A 0", "n = 150", `s "hi"`, "begin A 9", "n = 1", "begin A 13", "end A", "end A",
		`list "\x01\x02"`, "f = 1", "d = 2", `b "x"`, "list = 7", "end A",
	}
	if diff := cmp.Diff(want, r.lines); diff != "" {
		t.Error(diff)
	}
}

func TestWalkEnds(t *testing.T) {
	deep := ""
	for range 200 {
		deep = "\x1a" + string(uvarint(len(deep))) + deep
	}
	tests := []struct {
		name, content string
		want          error
	}{
		{"field 0", "\x00\x01", ErrMalformed},
		{"group", "\x0b\x0c", ErrMalformed},
		{"long integer", "\x08" + strings.Repeat("\xff", 11), ErrMalformed},
		{"cut integer", "\x08\x80", ErrTruncated},
		{"cut text", "\x12\x05ab", ErrTruncated},
		{"length that overflows", "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01ab", ErrTruncated},
		{"cut number", "\x2d\x00", ErrTruncated},
		{"inner beyond outer", "\x1a\x02\x12\x05abcdefgh", ErrTruncated},
		{"deep", deep, ErrDepth},
	}
	for _, tt := range tests {
		if _, _, err := walk(t, []byte(tt.content)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func uvarint(n int) []byte {
	var b []byte
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func TestWhatIsNotKnownIsUnread(t *testing.T) {
	for name, b := range map[string]string{"unknown field": "\x08\x01\x7a\x03abc\x08\x02", "another wire type": "\x08\x01\x0a\x03abc\x08\x02"} {
		r, total, err := walk(t, []byte(b))
		if err != nil || total.Unread != 5 || total.Parsed != 4 {
			t.Errorf("%s: %v, %+v", name, err, total)
		}
		if diff := cmp.Diff([]string{"begin A 0", "n = 1", "n = 2", "end A"}, r.lines); diff != "" {
			t.Error(diff)
		}
	}
}

func TestBulkIsInert(t *testing.T) {
	b := "\x3a" + string(uvarint(9000)) + strings.Repeat("x", 9000) + "\x08\x01"
	_, total, err := walk(t, []byte(b))
	if err != nil || total.Inert != 9000 || total.Parsed != 5 || !total.Complete {
		t.Errorf("%v, %+v", err, total)
	}
}

func TestParseSchemaRefuses(t *testing.T) {
	for _, text := range []string{" 1 a v\n", "A\n x a v\n", "A\n 1 a\n", "A\n 1 a m\n", "A\n 1 a m B\n"} {
		if s, err := ParseSchema(text); err == nil {
			t.Errorf("%q: read as %v", text, s)
		}
	}
}

func FuzzWalk(f *testing.F) {
	f.Add([]byte("\x08\x96\x01\x12\x02hi\x1a\x02\x08\x01\x22\x02\x01\x02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, total, err := walk(t, b)
		if total.Bytes != int64(len(b)) {
			t.Errorf("%+v of %d bytes", total, len(b))
		}
		s, schemaErr := ParseSchema(schemaText)
		if schemaErr != nil {
			t.Fatal(schemaErr)
		}
		o, outlineErr := ReadOutline(window.New(bytes.NewReader(b), int64(len(b))), s["A"], 0, int64(len(b)))
		if outlineErr != nil {
			t.Fatal(outlineErr)
		}
		if err == nil && total.Complete && !o.Whole {
			t.Error("a complete walk over what is not whole")
		}
	})
}
