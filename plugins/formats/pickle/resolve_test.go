package pickle

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/plugins/formats/content"
)

func resolve(t *testing.T, stream string) *Resolution {
	t.Helper()
	r, err := Resolve(context.Background(), strings.NewReader(stream), int64(len(stream)), content.DefaultLimits())
	if err != nil {
		t.Fatalf("resolve: %v", err)
	}
	return r
}

// brief is a resolution in words: the imports, the events, and the break.
func brief(r *Resolution) []string {
	var out []string
	for _, i := range r.Imports {
		out = append(out, string(i.How)+" "+i.Module+" "+i.Name)
	}
	for _, e := range r.Events {
		out = append(out, e.Kind+": "+e.What)
	}
	if r.Broken != nil {
		out = append(out, "break: "+r.Broken.What)
	}
	return out
}

func le32(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }
func le64(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }
func su(s string) string   { return "\x8c" + string(rune(len(s))) + s }

func TestResolve(t *testing.T) {
	tests := []struct {
		name, stream string
		want         []string
	}{
		{"global and reduce", "\x80\x02cos\nsystem\nU\x01x\x85R.", []string{"global os system"}},
		{"python 2 names give both pairs", "\x80\x02c__builtin__\neval\n.", []string{"global __builtin__ eval", "global builtins eval"}},
		{"no mapping from protocol 3 on", "\x80\x03ccommands\ngetoutput\n.", []string{"global commands getoutput"}},
		{"torch maps in every protocol", "\x80\x03c__builtin__\neval\n.", []string{"global __builtin__ eval", "global builtins eval"}},
		{"torch has no STACK_GLOBAL", "\x80\x04" + su("__builtin__") + su("eval") + "\x93.", []string{"stack_global __builtin__ eval"}},
		{"stack global", "\x80\x04" + su("os") + su("system") + "\x93.", []string{"stack_global os system"}},
		{"stack global through the memo", "\x80\x04" + su("system") + "\x940" + su("os") + "h\x00\x93.", []string{"stack_global os system"}},
		{"stack global through a far memo key", "\x80\x04" + su("system") + "r" + le32(1<<31) + "0" + su("os") + "j" + le32(1<<31) + "\x93.", []string{"stack_global os system"}},
		{"stack global through DUP", "\x80\x04" + su("code") + "2\x93.", []string{"stack_global code code"}},
		{"stack global of an escaped STRING", "S'o\\x73'\nS'sys\\164em'\n\x93.", []string{"stack_global os system"}},
		{"stack global of a UNICODE", "Vo\\u0073\nVsystem\n\x93.", []string{"stack_global os system"}},
		{"stack global of a BINSTRING", "U\x02osT" + le32(6) + "system\x93.", []string{"stack_global os system"}},
		{"stack global of what a call returned", "\x80\x04cbuiltins\nstr\n)R" + su("x") + "\x93.", []string{"global builtins str", "computed  x", "import: a name that is computed"}},
		{"stack global of persistent_load", "\x80\x04Pos\n" + su("x") + "\x93.", []string{"import: a name that is no plain string"}},
		{"stack global of bytes", "\x80\x04C\x02os" + su("x") + "\x93.", []string{"import: a name that is no plain string"}},
		{"name too long", "\x80\x04X" + le32(5000) + strings.Repeat("a", 5000) + su("x") + "\x93.", []string{"import: a name that is too long or not text"}},
		{"inst", "(S'x'\nios\nsystem\n.", []string{"inst os system"}},
		{"inst without a mark", "ios\nsystem\n.", []string{"inst os system", "break: no mark"}},
		{"obj", "(cos\nsystem\nS'x'\no.", []string{"global os system"}},
		{"obj of a call's result", "(cos\nsystem\n)RS'x'\no.", []string{"global os system", "call: a call's result is called"}},
		{"call of a call's result", "cfunctools\npartial\n)R)R.", []string{"global functools partial", "call: a call's result is called"}},
		{"call of an instance", "cm\nC\n)\x81)R.", []string{"global m C", "call: a call's result is called"}},
		{"call of data", "])R.", []string{"call: a plain value is called"}},
		{"call of what persistent_load gave", "P1\n)R.", []string{"call: a value of unknown origin is called"}},
		{"newobj_ex", "\x80\x04cm\nC\n)}\x92.", []string{"global m C"}},
		{"build on an instance is ordinary", "cm\nC\n)\x81}b.", []string{"global m C"}},
		{"build on a class", "cm\nC\n}b.", []string{"global m C", "state: BUILD on an import"}},
		{"extension", "\x82\x05.", []string{"extension: extension 5"}},
		{"extension zero", "\x82\x00.", []string{"break: extension code"}},
		{"dotted", "\x80\x04" + su("collections") + su("abc.sys.modules") + "\x93.", []string{"stack_global collections abc.sys.modules"}},
		{"same import twice", "cm\nC\ncm\nC\n\x86.", []string{"global m C"}},
		{"two streams", "\x80\x02N.\x80\x02cos\nsystem\n.", []string{"global os system"}},
		{"streams without a mark of their own", "N.N.cos\nsystem\n.", []string{"global os system"}},
		{"later stream has the first one's memo", "\x80\x04" + su("os") + "\x94.\x80\x04h\x05" + su("system") + "\x93.", []string{"import: a name that is no plain string"}},
		{"later stream has a name of the first one's", "\x80\x04" + su("os") + "\x94.\x80\x04h\x00" + su("system") + "\x93.", []string{"stack_global os system"}},
		{"memo that goes on counting", "\x80\x04" + su("os") + "\x94.\x80\x04" + su("a") + "\x94h\x00" + su("system") + "\x93.", []string{"stack_global os system", "stack_global a system"}},
		{"copies of what goes on counting", "\x80\x04" + su("os") + "\x94.\x80\x04" + su("a") + "\x94h\x0020q\x070h\x07h\x07\x93.", []string{"stack_global os os", "stack_global a a"}},
		{"payload before the break", "cos\nsystem\nS'x'\n\x85R\xff", []string{"global os system", "break: opcode 0xff"}},
		{"empty", "", []string{"break: truncated"}},
		{"stop on nothing", "\x80\x02.", []string{"break: stack underflow"}},
		{"pop takes a mark", "(0N.", nil},
		{"reduce across a mark", "cos\nsystem\n()R.", []string{"global os system", "break: stack underflow"}},
		{"memo entry that is not set", "h\x07.", []string{"break: memo entry is not set"}},
		{"odd items", "}(Nu.", []string{"break: odd number of items"}},
		{"protocol 6", "\x80\x06N.", []string{"malformed: protocol 6"}},
		{"frame beyond the end goes on", "\x80\x04\x95" + le64(1<<40) + su("os") + su("system") + "\x93.", []string{"stack_global os system", "malformed: frame beyond the end"}},
		{"opcodes straddle a frame", "\x80\x04\x95" + le64(3) + su("os") + su("system") + "\x93.", []string{"stack_global os system", "malformed: an opcode lies across a frame's end"}},
		{"negative BINSTRING", "T\xff\xff\xff\xff.", []string{"break: negative length"}},
		{"payload beyond the end", "\x80\x04\x8e" + le64(1<<62) + "x.", []string{"break: truncated"}},
		{"name not UTF-8", "c\xff\nx\n.", []string{"break: name is not UTF-8"}},
		{"bool as INT", "I01\n.", nil},
		{"INT that is none", "Ihello\n.", []string{"malformed: number"}},
		{"LONG", "L123L\n.", nil},
		{"FLOAT", "F1.5e3\n.", nil},
		{"STRING without quotes", "Sos\n.", []string{"break: string without quotes"}},
		{"line without an end", "cos\nsystemX", []string{"global os system", "break: truncated"}},
		{"buffers", "\x80\x05\x97\x98.", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, brief(resolve(t, tt.stream))); diff != "" {
				t.Errorf("resolution (-want +got):\n%s", diff)
			}
		})
	}
}

// TestResolveAcrossWindows puts an import at every offset around the sizes at
// which the walker reads on.
func TestResolveAcrossWindows(t *testing.T) {
	want := []string{"global os system"}
	for _, edge := range []int{firstRead, 4 * firstRead, window, skipFrom} {
		for shift := -24; shift <= 4; shift++ {
			pad := edge + shift
			stream := "\x80\x02X" + le32(uint32(pad)) + strings.Repeat("p", pad) + "0cos\nsystem\nU\x01x\x85R."
			if diff := cmp.Diff(want, brief(resolve(t, stream))); diff != "" {
				t.Fatalf("pad %d (-want +got):\n%s", pad, diff)
			}
		}
	}
}

func TestLongLines(t *testing.T) {
	for _, n := range []int{maxLine - 1, maxLine, maxLine + 1, window - 5, window, 3 * window} {
		stream := "V" + strings.Repeat("u", n) + "\n0cos\nsystem\n."
		if diff := cmp.Diff([]string{"global os system"}, brief(resolve(t, stream))); diff != "" {
			t.Errorf("line of %d (-want +got):\n%s", n, diff)
		}
	}
	got := brief(resolve(t, "c"+strings.Repeat("m", maxLine+1)+"\nx\n)R."))
	want := []string{"import: a name of more than 4096 bytes", "call: a value of unknown origin is called"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("long module (-want +got):\n%s", diff)
	}
}

func TestLimits(t *testing.T) {
	l := content.DefaultLimits()
	l.Stack, l.Memo = 100, 3*pageSize
	for name, tt := range map[string]struct{ stream, want string }{
		"stack":   {strings.Repeat("N", 101) + ".", "stack"},
		"marks":   {strings.Repeat("(", 101) + ".", "marks"},
		"memo":    {"Nq\x00r" + le32(1<<20) + "r" + le32(1<<30) + "r" + le32(1<<31) + ".", "memo"},
		"far":     {"N" + strings.Repeat("p99999999999\n", 1) + ".", ""},
		"streams": {strings.Repeat("N.", maxStreams+1), "streams"},
		"opcodes": {strings.Repeat("N0", 50_001) + "N.", "opcodes"},
	} {
		t.Run(name, func(t *testing.T) {
			l := l
			if name == "opcodes" {
				l.Opcodes = 100_000
			}
			r, err := Resolve(context.Background(), strings.NewReader(tt.stream), int64(len(tt.stream)), l)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if r.Broken != nil {
				got = r.Broken.What
			}
			if got != tt.want {
				t.Errorf("break = %q, want %q", got, tt.want)
			}
		})
	}
}

func opDense(n int) []byte {
	var b bytes.Buffer
	b.WriteString("\x80\x04](")
	for i := 0; i < n/4; i++ {
		b.WriteString("K\x01\x8c\x03abc\x94h\x00")
		b.WriteString("0")
	}
	b.WriteString("e.")
	return b.Bytes()
}

func BenchmarkResolve(b *testing.B) {
	stream := opDense(4_000_000)
	b.SetBytes(int64(len(stream)))
	var ops int64
	for b.Loop() {
		r, err := Resolve(context.Background(), bytes.NewReader(stream), int64(len(stream)), content.DefaultLimits())
		if err != nil || r.Broken != nil {
			b.Fatal(err, r.Broken)
		}
		ops = r.Opcodes
	}
	b.ReportMetric(float64(ops)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mops/s")
	b.ReportAllocs()
}

func BenchmarkResolveLargePayload(b *testing.B) {
	const n = 64 << 20
	stream := append([]byte("\x80\x04B"+le32(n)), make([]byte, n)...)
	stream = append(stream, '.')
	b.SetBytes(int64(len(stream)))
	for b.Loop() {
		if _, err := Resolve(context.Background(), bytes.NewReader(stream), int64(len(stream)), content.DefaultLimits()); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzWalk(f *testing.F) {
	for _, s := range []string{
		"\x80\x02cos\nsystem\nU\x01x\x85R.", "(S'x'\nios\nsystem\n.", "\x80\x04" + su("os") + su("system") + "\x93.",
		"\x80\x04\x95" + le64(1<<40) + "N.", "I01\n.", "F1\n.", "}(Nu.", "V\\u0041\n.", "\x82\x01.", "Nr" + le32(1<<31) + ".",
	} {
		f.Add([]byte(s))
	}
	l := content.DefaultLimits()
	l.Opcodes, l.Memo, l.Stack = 100_000, 64*pageSize, 1<<16
	f.Fuzz(func(t *testing.T, stream []byte) {
		r, err := Resolve(context.Background(), bytes.NewReader(stream), int64(len(stream)), l)
		if err != nil {
			t.Fatalf("resolve: %v", err)
		}
		again, err := Resolve(context.Background(), bytes.NewReader(stream), int64(len(stream)), l)
		if err != nil {
			t.Fatalf("resolve again: %v", err)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Fatalf("two walks of the same bytes differ:\n%s", diff)
		}
		last := int64(0)
		for _, end := range r.Ends {
			if end <= last || end > int64(len(stream)) {
				t.Fatalf("ends %v of %d bytes", r.Ends, len(stream))
			}
			last = end
		}
		if r.Broken != nil && (r.Broken.At < last || r.Broken.At > int64(len(stream))) {
			t.Fatalf("break at %d of %d bytes, after %d", r.Broken.At, len(stream), last)
		}
	})
}
