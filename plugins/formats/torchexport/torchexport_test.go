package torchexport

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTarget(t *testing.T) {
	for path, want := range map[string]string{
		"": "", "torch.ops.aten.add.Tensor": "", "torch.ops.aten.sym_size.int": "", "_operator.mul": "", "math.ceil": "", "torch.sym_max": "", "a name": "",
		"torch.ops.aten.save.default": "torch.op.file", "torch.ops.mine.op.default": "torch.op.custom", "torch.ops.c10d.broadcast_.default": "torch.op.network",
		"torch.ops.aten.add.Tensor.__globals__": ruleTarget, "torch.os.system": ruleTarget, "torchx.os.system": ruleTarget, "_operatorx.attrgetter": ruleTarget,
		"_operator.attrgetter": ruleTarget, "_operator.methodcaller": ruleTarget, "math": ruleTarget, "torch": ruleTarget, "#x:y": ruleTarget, "torch.ops": ruleTarget,
		"torch.load": ruleTarget, "torch.ops.load_library": ruleTarget, "torch.ops.aten.__class__.__mro__": ruleTarget,
	} {
		got, err := target(path)
		if err != nil || got != want {
			t.Errorf("%s: %q (%v), want %q", path, got, err, want)
		}
	}
}

func TestPlainExpression(t *testing.T) {
	for s, want := range map[string]bool{
		"": true, "s0": true, "-1 + s0*s12": true, "Max(1, u0//2)": true, "FloorDiv(s0, 2)": true, "Eq(s0, 4) & (s1 < 7)": true, "2**s3": true, "1e-3": true,
		"Symbol('s77', positive=True, integer=True)": true, "FloorDiv(Symbol('u1'), Integer(2))": true,
		"__import__('os')": false, "s0.func": false, "os": false, "exec": false, "Symbol('a', x=y)": false, "Symbol('a').func": false,
		"s0[0]": false, "s0; s1": false, "lambda: s0": false, "'a'": false, "s0 = 1": false, "Symbol(__import__)": false, "Lambda(s0, s0)": false,
		strings.Repeat("1+", 40_000) + "1": false,
	} {
		if plainExpression(s) != want {
			t.Errorf("%.60q: %v, want %v", s, !want, want)
		}
	}
}

func TestPlainGuard(t *testing.T) {
	for s, want := range map[string]bool{
		"L['x'].size()[0] >= 2": true, "L['args'][0].size()[0] == L['args'][1].size()[1]": true, "(L['x'].size()[0] % 2) == 0": true,
		"__import__('os').system('x')": false, "eval('1')": false, "L['x'].__class__": false, "import os": false, "open('f', 'w')": false, "os": false, "L['x'].data.tolist()": false, "L['x\\x27'].size()": false, "L[eval]": false,
	} {
		if plainGuard(s) != want {
			t.Errorf("%q: %v, want %v", s, !want, want)
		}
	}
}

func TestExtents(t *testing.T) {
	w := func(name, pickled, dtype, sizes string) string {
		return `"` + name + `": {"path_name": "` + name + `", "use_pickle": ` + pickled + `, "tensor_meta": {"dtype": ` + dtype + `, "sizes": [` + sizes + `]}}`
	}
	text := `{"config": {` + strings.Join([]string{
		w("scalar", "false", "7", ""), w("matrix", "false", "6", `{"as_int": 3}, {"as_int": 4}`), w("pickled", "true", "7", ""), w("type", "false", "99", ""),
		w("negative", "false", "7", `{"as_int": -1}`), w("huge", "false", "8", `{"as_int": 4611686018427387904}, {"as_int": 4}`), w("dynamic", "false", "7", `{"as_expr": {}}`),
		w("empty", "false", "7", `{"as_int": 0}, {"as_int": 9}`), w("twice", "false", "7", ""), w("twice", "false", "8", ""),
	}, ", ") + `}}`
	want := map[string]int64{"scalar": 4, "matrix": 24, "pickled": -1, "type": -1, "negative": -1, "huge": -1, "dynamic": -1, "empty": 0, "twice": -1}
	if d := cmp.Diff(want, Extents([]byte(text))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got := Extents([]byte("{")); len(got) != 0 {
		t.Errorf("from what is no JSON: %v", got)
	}
}

func FuzzExtents(f *testing.F) {
	f.Add([]byte(`{"config": {"w": {"path_name": "weight_0", "use_pickle": false, "tensor_meta": {"dtype": 7, "sizes": [{"as_int": 4}]}}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, n := range Extents(b) {
			if n < -1 {
				t.Errorf("%q: %d bytes", name, n)
			}
		}
	})
}

func FuzzPlainExpression(f *testing.F) {
	f.Add("FloorDiv(Symbol('s77', positive=True, integer=True), Integer(2)) + Max(s1, 4)")
	f.Fuzz(func(t *testing.T, s string) {
		if plainExpression(s) && (strings.Contains(s, "__") && !strings.Contains(s, "Symbol('") || strings.ContainsAny(s, "[]{};:\"@\\`$?!") && !strings.Contains(s, "!=")) {
			t.Errorf("%q is taken for arithmetic", s)
		}
	})
}
