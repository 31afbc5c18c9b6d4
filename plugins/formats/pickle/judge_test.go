package pickle

import (
	"strings"
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

// TestTableReplay uses every vetted name in each way: those that its shape
// allows meet no rule, those that it does not are said to be unusual.
func TestTableReplay(t *testing.T) {
	table, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	arguments := map[string]string{
		"any": "c__builtin__\ndict\n", "data": "K\x01", "text": "U\x01a", "bytes": "C\x01b", "int": "K\x01", "none": "N", "class": "c__builtin__\ndict\n", "tuple": ")",
	}
	for pair, j := range table.pairs {
		if j.Judged != predicate.JudgedHarmless {
			continue
		}
		name := "c" + pair[0] + "\n" + pair[1] + "\n"
		args := "("
		for _, kind := range j.Shape.Args {
			args += arguments[kind]
		}
		args += "t"
		streams := map[string]string{"": "\x80\x03" + name + ".", "call": "\x80\x03" + name + args + "R.", "new": "\x80\x03" + name + args + "\x81.", "state": "\x80\x03" + name + args + "R}b."}
		for use, stream := range streams {
			r := resolve(t, stream)
			want := use == "" || j.Harmless(use) && (use != "state" || j.Harmless("call"))
			if pair == [2]string{"joblib.numpy_pickle", "NumpyArrayWrapper"} || makers[pair[0]+"."+pair[1]] && use != "" {
				continue
			}
			misused := false
			for _, i := range r.Imports {
				misused = misused || i.Misused != ""
			}
			if misused == want || r.Broken != nil || len(r.Events) > 0 && use != "call" {
				t.Errorf("%s.%s used by %q: misused %t, want %t: %q", pair[0], pair[1], use, misused, !want, brief(r))
			}
		}
	}
}

// TestShapes holds uses of vetted names against what they are vetted for.
func TestShapes(t *testing.T) {
	text := func(s string) string { return "\x8c" + string([]byte{byte(len(s))}) + s }
	get := func(module, name string) string { return text(module) + text(name) + "\x93" }
	tests := []struct {
		name, stream string
		misused      string
	}{
		{"an array is rebuilt", get("numpy.core.multiarray", "_reconstruct") + get("numpy", "ndarray") + "K\x00\x85C\x01b\x87R", ""},
		{"an array is rebuilt of an instance", get("numpy.core.multiarray", "_reconstruct") + get("collections", "OrderedDict") + ")R" + "K\x00\x85C\x01b\x87R", `numpy.core.multiarray._reconstruct(collections.OrderedDict(), (0), <1 bytes>)`},
		{"a layer is restored", get("torch.nn.modules.linear", "Linear") + ")\x81}b", ""},
		{"a layer is constructed", get("torch.nn.modules.linear", "Linear") + "K\x01K\x02\x86R", "torch.nn.modules.linear.Linear(1, 2)"},
		{"a type is named", get("torch", "float32"), ""},
		{"a type is called", get("torch", "float32") + ")R", "torch.float32()"},
		{"a function is named", get("numpy", "mean"), ""},
		{"a function is called", get("numpy", "mean") + "](K\x01K\x02e\x85R", "numpy.mean([1, 2])"},
		{"a default factory is a type", get("collections", "defaultdict") + get("builtins", "list") + "\x85R", ""},
		{"a default factory is a layer", get("collections", "defaultdict") + get("torch.nn.modules.linear", "Linear") + "\x85R", "torch.nn.modules.linear.Linear(…)"},
		{"a reconstructor makes an estimator", get("copyreg", "_reconstructor") + get("sklearn.cluster._dbscan", "DBSCAN") + get("builtins", "object") + "N\x87R}b", ""},
		{"a reconstructor calls a base", get("copyreg", "_reconstructor") + get("sklearn.cluster._dbscan", "DBSCAN") + get("numpy", "mean") + "N\x87R", "numpy.mean(…)"},
		{"a model's data without a formula", get("statsmodels.base.data", "ModelData") + ")\x81}(" + text("endog") + "Nub", ""},
		{"a model's data with a formula", get("statsmodels.base.data", "ModelData") + ")\x81}(" + text("restore_design_info") + "\x88ub", `statsmodels.base.data.ModelData().__setstate__({"restore_design_info", 1})`},
		{"an instance is made of a forgotten class", get("statsmodels.base.data", "ModelData") + "\x85\x94" + strings.Repeat("]0", chunk*chunks) + "0" + get("pandas.core.indexes.base", "_new_Index") + "h\x00R}(" + text("restore_design_info") + "\x88ub",
			"pandas.core.indexes.base._new_Index(…)"},
		{"a generator is made of a class", get("numpy.random._pickle", "__bit_generator_ctor") + get("numpy.random._mt19937", "MT19937") + "\x85R", ""},
		{"a generator is made of a function", get("numpy.random._pickle", "__bit_generator_ctor") + get("numpy", "mean") + "\x85R", "numpy.mean(…)"},
	}
	for _, tt := range tests {
		r := resolve(t, "\x80\x04"+tt.stream+".")
		got := ""
		for _, i := range r.Imports {
			if i.Misused != "" {
				got = i.Misused
			}
		}
		if got != tt.misused || r.Broken != nil {
			t.Errorf("%s: misused %q, want %q (%q)", tt.name, got, tt.misused, brief(r))
		}
	}
}

func TestParseShapeRefuses(t *testing.T) {
	for name, doc := range map[string]string{
		"no use":              `{"version":"1","harmless":[{"module":"a","names":["b"],"reason":"x"}]}`,
		"unknown use":         `{"version":"1","harmless":[{"module":"a","names":["b"],"use":["run"],"reason":"x"}]}`,
		"arguments of none":   `{"version":"1","harmless":[{"module":"a","names":["b"],"use":["state"],"args":["any"],"reason":"x"}]}`,
		"unknown argument":    `{"version":"1","harmless":[{"module":"a","names":["b"],"use":["call"],"args":["float"],"reason":"x"}]}`,
		"more of nothing":     `{"version":"1","harmless":[{"module":"a","names":["b"],"use":["call"],"args":["…"],"reason":"x"}]}`,
		"keys of no state":    `{"version":"1","harmless":[{"module":"a","names":["b"],"use":["call"],"lacks":["k"],"reason":"x"}]}`,
		"shape of the danger": `{"version":"1","dangerous":[{"module":"a","use":["call"],"reason":"x"}]}`,
	} {
		if _, err := ParseTable([]byte(doc)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
