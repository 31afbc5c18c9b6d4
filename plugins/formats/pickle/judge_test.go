package pickle

import (
	"testing"

	"github.com/cavra/cavra/schemas/predicate"
)

func TestJudge(t *testing.T) {
	table, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	const harmless, unknown, dangerous = predicate.JudgedHarmless, predicate.JudgedUnknown, predicate.JudgedDangerous
	tests := []struct{ module, name, want string }{
		{"collections", "OrderedDict", harmless},
		{"torch._utils", "_rebuild_tensor_v2", harmless},
		{"torch", "FloatStorage", harmless},
		{"numpy._core.multiarray", "_reconstruct", harmless},
		{"_codecs", "encode", harmless},
		{"types", "SimpleNamespace", harmless},
		{"os", "system", dangerous},
		{"os.path", "join", dangerous},
		{"posix", "system", dangerous},
		{"nt", "system", dangerous},
		{"builtins", "eval", dangerous},
		{"builtins", "getattr", dangerous},
		{"__builtin__", "execfile", dangerous},
		{"torch", "load", dangerous},
		{"torch.storage", "_load_from_bytes", dangerous},
		{"importlib.util", "spec_from_file_location", dangerous},
		{"asyncio.unix_events", "_UnixSubprocessTransport._start", dangerous},
		{"torch.serialization", "os.system", dangerous},
		{"torch.serialization", "os", dangerous},
		{"some.package", "deep.subprocess.Popen", dangerous},
		{"collections", "abc.sys.modules", dangerous},
		{"collections", "OrderedDict.update", unknown},
		{"mymodel.layers", "Attention", unknown},
		{"mymodel.layers", "code", unknown},
		{"osmium", "system", unknown},
		{"", "", unknown},
		{"x", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q", dangerous},
		{"builtins", "type", unknown},
	}
	for _, tt := range tests {
		if got := table.Judge(tt.module, tt.name); got.Judged != tt.want || got.Reason == "" {
			t.Errorf("Judge(%q, %q) = %+v, want %s", tt.module, tt.name, got, tt.want)
		}
	}
}

func TestParseTableRefuses(t *testing.T) {
	for name, doc := range map[string]string{
		"no reason":          `{"version":"1","dangerous":[{"module":"os"}]}`,
		"harmless package":   `{"version":"1","harmless":[{"module":"os","reason":"x"}]}`,
		"both":               `{"version":"1","harmless":[{"module":"a","names":["b"],"reason":"x"}],"dangerous":[{"module":"a","names":["b"],"reason":"x"}]}`,
		"module twice":       `{"version":"1","dangerous":[{"module":"a","reason":"x"},{"module":"a","reason":"y"}]}`,
		"unknown member":     `{"version":"1","safe":[]}`,
		"no document":        ``,
		"entry of no module": `{"version":"1","dangerous":[{"module":"","reason":"x"}]}`,
	} {
		if _, err := ParseTable([]byte(doc)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
