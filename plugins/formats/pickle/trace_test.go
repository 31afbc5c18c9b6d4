package pickle

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats/content"
)

// word pushes a short string, get an import by two of them.
func word(s string) string           { return "\x8c" + string([]byte{byte(len(s))}) + s }
func get(module, name string) string { return word(module) + word(name) + "\x93" }

// traces are all that a stream would do, in the order in which it is recorded.
func traces(r *Resolution) []string {
	var all []string
	for _, i := range r.Imports {
		all = append(all, i.Trace...)
	}
	for _, e := range r.Events {
		if e.Trace != "" {
			all = append(all, e.Trace)
		}
	}
	return all
}

func TestTrace(t *testing.T) {
	tests := []struct {
		name, stream string
		want         []string
	}{
		{"a call", get("os", "system") + word("echo x") + "\x85R", []string{`os.system("echo x")`}},
		{"an instance and its state", get("m", "C") + ")\x81}(" + word("a") + "K\x01ub", []string{"m.C.__new__()", `m.C().__setstate__({"a", 1})`}},
		{"numbers and constants", get("m", "f") + "(K\x05NJ\xfe\xff\xff\xff\x88\x8a\x01\xfftR", []string{"m.f(5, None, -2, 1, -1)"}},
		{"bytes are counted", get("m", "f") + "C\x03abc\x85R", []string{"m.f(<3 bytes>)"}},
		{"a chain", get("builtins", "getattr") + get("importlib", "import_module") + word("os") + "\x85R" + word("system") + "\x86R" + word("x") + "\x85R",
			[]string{`builtins.getattr(os, "system")`, `importlib.import_module("os")`, `os.system("x")`}},
		{"a partial", get("functools", "partial") + get("os", "system") + word("x") + "\x86R)R",
			[]string{`functools.partial(os.system, "x")`, `os.system("x")`, `functools.partial(os.system, "x")()`}},
		{"BUILD on a class", get("m", "C") + "}(" + word("a") + "K\x01ub", []string{`m.C ← {"a", 1}`}},
		{"items for an import", get("os", "environ") + word("PATH") + word("x") + "s", []string{`os.environ ← ["PATH", "x"]`}},
		{"a list within itself", get("m", "f") + "]\x94h\x00a\x85R", []string{"m.f([[[[[[[…]]]]]]])"}},
		{"a computed name", get("builtins", "str.join") + word("") + "](" + word("o") + word("s") + "e\x86R" + word("system") + "\x93",
			[]string{`builtins.str.join("", ["o", "s"])`, `os.system = builtins.str.join("", ["o", "s"]) . "system"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, traces(resolve(t, "\x80\x04"+tt.stream+"."))); diff != "" {
				t.Errorf("traces (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTraceIsBounded spells calls that are too long or too deep to be written.
func TestTraceIsBounded(t *testing.T) {
	for name, stream := range map[string]string{
		"long":  get("m", "f") + "(" + strings.Repeat(word(strings.Repeat("é", 50)), 100) + "tR",
		"deep":  get("m", "f") + strings.Repeat("]\x85", 5000) + "R",
		"wide":  get("m", "f") + "]" + strings.Repeat("2\x86", 40) + "R",
		"bytes": get("m", "f") + "U\x06\xff\xfe\xff\x00\x1b[\x85R",
	} {
		for _, s := range traces(resolve(t, "\x80\x04"+stream+".")) {
			if len(s) > maxTrace || len(s) > finding.MaxEvidenceBytes || !utf8.ValidString(s) {
				t.Errorf("%s: %d bytes: %q", name, len(s), s)
			}
		}
	}
}

func TestConstants(t *testing.T) {
	tests := []struct{ name, value, want string }{
		{"text of a number", get("builtins", "str") + "K\x07\x85R", "7"},
		{"negative step", get("operator", "getitem") + word("abcdef") + get("builtins", "slice") + "(K\x04K\x00J\xfe\xff\xff\xfftR\x86R", "ec"},
		{"item from the end", get("operator", "getitem") + word("abc") + "J\xff\xff\xff\xff\x86R", "c"},
		{"bound method", get("builtins", "getattr") + word("-") + word("join") + "\x86R](" + word("a") + word("b") + "e\x85R", "a-b"},
		{"methodcaller", get("operator", "methodcaller") + word("upper") + "\x85R" + word("os") + "\x85R", "OS"},
		{"partial", get("functools", "partial") + get("builtins", "str.replace") + word("axb") + "\x86R" + word("x") + word("-") + "\x86R", "a-b"},
		{"percent", get("operator", "mod") + word("%s.%s") + word("a") + word("b") + "\x86\x86R", "a.b"},
		{"rot13", get("codecs", "encode") + word("bf") + word("ROT-13") + "\x86R", "os"},
		{"bytes of numbers", get("builtins", "bytes.decode") + get("builtins", "bytes") + "](KoKse\x85R\x85R", "os"},
		{"nested", get("builtins", "str.lower") + get("builtins", "str.strip") + word(" OS ") + "\x85R\x85R", "os"},
		{"not a constant", get("builtins", "str.lower") + "Pid\n\x85R", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := resolve(t, "\x80\x04"+tt.value+word("name")+"\x93.")
			got := ""
			for _, i := range r.Imports {
				if i.Name == "name" {
					got = i.Module
				}
			}
			if got != tt.want || r.Broken != nil {
				t.Errorf("module %q, want %q (%q)", got, tt.want, brief(r))
			}
		})
	}
}

// opener scans nested content as a pickle.
type opener struct{}

func (opener) Open(ctx context.Context, v *content.Visit) error { return Format{}.Scan(ctx, v) }

func scan(t testing.TB, b []byte) scanner.Report {
	t.Helper()
	l := content.DefaultLimits()
	l.Opcodes, l.Memo, l.Stack = 1_000_000, 64*pageSize, 1<<16
	return scanWithin(t, b, l)
}

func scanWithin(t testing.TB, b []byte, l content.Limits) scanner.Report {
	t.Helper()
	var report scanner.Report
	v, err := content.NewVisit(bytes.NewReader(b), int64(len(b)), &report, content.NewBudget(l), opener{})
	if err != nil {
		t.Fatal(err)
	}
	if err := (Format{}).Scan(context.Background(), v); err != nil {
		t.Fatalf("scan: %v", err)
	}
	return report
}

// FuzzScan scans whole pickles with all that is nested in them.
func FuzzScan(f *testing.F) {
	inner := "\x80\x02cos\nsystem\nU\x01x\x85R."
	for _, s := range []string{
		"\x80\x04" + get("pickle", "loads") + "B" + le32(uint32(len(inner))) + inner + "\x85R.",
		"\x80\x04" + get("pickle", "loads") + get("base64", "b64decode") + word("Y29zCnN5c3RlbQop") + "\x85R\x85R.",
		"\x80\x02N.\x00\x00" + inner, "\x80\x04\x95" + le64(5) + "cos\nsystem\n.", "\x80\x04" + get("joblib.numpy_pickle", "NumpyArrayWrapper") + ")\x81}(" + word("shape") + "K\x01\x85" +
			word("dtype") + get("numpy", "dtype") + word("O8") + "\x89\x88\x87Rub\x80\x02N..",
		"\x80\x02\x8a\x0a" + legacyMagic + ".\x80\x02M\xe9\x03.\x80\x02}.\x80\x02N.\x80\x02].",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := scan(t, b)
		for _, found := range r.Findings {
			if err := found.Validate(); err != nil {
				t.Error(err)
			}
		}
		if diff := cmp.Diff(r, scan(t, b)); diff != "" {
			t.Errorf("two scans of the same bytes differ:\n%s", diff)
		}
	})
}

// shaped is a pickle like that of a model: instances with states, tuples, calls.
func shaped(n int) []byte {
	var b bytes.Buffer
	b.WriteString("\x80\x02](")
	b.WriteString("csklearn.tree._classes\nDecisionTreeClassifier\nq\x000ccollections\nOrderedDict\nq\x010X\x05\x00\x00\x00valueq\x020X\x04\x00\x00\x00sizeq\x030")
	for range n {
		b.WriteString("h\x00)\x81}(h\x02K\x01K\x02\x86h\x03h\x01)Rub")
	}
	b.WriteString("e.")
	return b.Bytes()
}

func BenchmarkResolveInstances(b *testing.B) {
	stream := shaped(100_000)
	b.SetBytes(int64(len(stream)))
	var ops int64
	for b.Loop() {
		r, err := Resolve(context.Background(), bytes.NewReader(stream), int64(len(stream)), content.DefaultLimits())
		if err != nil || r.Broken != nil || len(r.Events) > 0 {
			b.Fatal(err, r.Broken, r.Events)
		}
		ops = r.Opcodes
	}
	b.ReportMetric(float64(ops)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mops/s")
	b.ReportAllocs()
}

// BenchmarkHunt looks for pickles in what is none.
func BenchmarkHunt(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	stream := append([]byte("\x80\x02N."), make([]byte, 32<<20)...)
	for i := 4; i < len(stream); i++ {
		stream[i] = byte(rng.Uint32())
	}
	b.SetBytes(int64(len(stream)))
	for b.Loop() {
		if _, err := Resolve(context.Background(), bytes.NewReader(stream), int64(len(stream)), content.DefaultLimits()); err != nil {
			b.Fatal(err)
		}
	}
}

// TestHostileWork holds that content which is made to be tried again and again
// ends in time, and never in silence.
func TestHostileWork(t *testing.T) {
	const n = 4 << 20
	straddles := "\x80\x04"
	for range 200 {
		straddles += "\x95" + le64(2) + "X" + le32(3) + "abc0"
	}
	for name, b := range map[string]string{
		"candidates that run long":  "\x80\x02N." + "\xff" + strings.Repeat("\x80\x02N0", n/4),
		"names that are looked at":  "\x80\x02N.\xff" + strings.Repeat(strings.Repeat("c", 120)+"\nab\n", n/124),
		"many streams":              strings.Repeat("N.", n/2),
		"frames within frames":      "\x80\x04" + strings.Repeat("\x95"+le64(30), n/9),
		"opcodes across frames":     straddles + strings.Repeat("N0", n/2) + "N.",
		"a constant computed again": "\x80\x04" + "X" + le32(1<<20) + strings.Repeat("a", 1<<20) + "\x94" + strings.Repeat(get("builtins", "str.lower")+"h\x00\x85Rh\x00\x930", 20_000),
		"marks":                     strings.Repeat("(", n),
		"bytes that begin pickles":  "\x80\x02" + strings.Repeat("C\x04\x80\x02N.0", n/7),
		"calls of what is unknown":  "\x80\x04" + strings.Repeat("Pa\n)R0", n/6),
	} {
		begin := time.Now()
		r := scanWithin(t, []byte(b), content.DefaultLimits())
		if len(r.Findings) == 0 {
			t.Errorf("%s: nothing is said", name)
		}
		t.Logf("%s: %v", name, time.Since(begin).Round(time.Millisecond))
	}
}
