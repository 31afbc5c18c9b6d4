package repository_test

import (
	"bytes"
	"context"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/plugins/formats"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/scanner"
)

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// tree is a bundle's files by path.
type tree map[string]string

func (f tree) open(_ context.Context, p string) (artifact.Reader, error) {
	text, ok := f[p]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return memory{bytes.NewReader([]byte(text))}, nil
}

func (f tree) manifest(t testing.TB) []byte {
	t.Helper()
	var files []artifact.File
	for _, p := range slices.Sorted(maps.Keys(f)) {
		files = append(files, artifact.File{Path: p, Digest: predicate.DigestOf([]byte(f[p])), Size: int64(len(f[p]))})
	}
	m, err := artifact.Manifest(files)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// brief is what a scan of a manifest says: whether it is incomplete, then each
// finding with its evidence.
func brief(t testing.TB, manifest []byte, open func(context.Context, string) (artifact.Reader, error)) []string {
	t.Helper()
	r, err := formats.New().Scan(t.Context(), scanner.Target{Path: "m", Content: memory{bytes.NewReader(manifest)}, Siblings: open})
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, c := range r.Coverage {
		if c.Kind == predicate.Unread {
			out = append(out, "unread: "+string(c.Reason))
		}
	}
	if coverage.Sum(r.Coverage).Complete != (len(out) == 0) {
		t.Errorf("complete does not agree with the ranges: %v", r.Coverage)
	}
	for _, f := range r.Findings {
		out = append(out, strings.TrimPrefix(f.Rule, "repository.")+": "+strings.Join(f.Evidence, " "))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

const (
	clean = "import torch\n\nclass Model(torch.nn.Module):\n    def forward(self, x):\n        return x\n"
	bad   = "import os\nos.system('echo')\n"
	later = "import os\n\ndef train():\n    os.system('echo')\n"
)

func TestBundle(t *testing.T) {
	const (
		auto   = `{"auto_map": {"AutoModel": "modeling.Model"}}`
		mlflow = "flavors:\n  python_function:\n    loader_module: "
	)
	for _, tt := range []struct {
		name  string
		files tree
		want  []string
	}{
		{"plain", tree{"config.json": `{"model_type": "bert"}`, "model.safetensors": "x"}, nil},
		{"auto_map", tree{"config.json": auto, "modeling.py": clean}, nil},
		{"auto_map to what runs", tree{"config.json": auto, "modeling.py": bad}, []string{"code.dangerous: auto_map modeling.py python.call.dangerous"}},
		{"auto_map to what is run by somebody else only", tree{"config.json": auto, "modeling.py": later}, nil},
		{"auto_map to nothing", tree{"config.json": auto}, []string{"code.missing: auto_map modeling"}},
		{"auto_map of another repository", tree{"config.json": `{"auto_map": {"AutoModel": "a/b--modeling.Model"}}`}, nil},
		{"auto_map, list with null", tree{"tokenizer_config.json": `{"auto_map": {"AutoTokenizer": ["tok.Tok", null]}}`, "tok.py": bad}, []string{"code.dangerous: auto_map tok.py python.call.dangerous"}},
		{"auto_map in a folder", tree{"a/config.json": auto, "modeling.py": clean}, []string{"code.missing: auto_map modeling"}},
		{"byte order mark", tree{"config.json": "\ufeff" + auto}, []string{"code.missing: auto_map modeling"}},
		{"through a relative import", tree{"config.json": auto, "modeling.py": "from .parts import x\n", "parts.py": "from . import deep\n", "deep/__init__.py": bad},
			[]string{"code.dangerous: auto_map deep/__init__.py python.call.dangerous"}},
		{"through the package around a module", tree{"config.json": auto, "modeling.py": "import a.b\n", "a/__init__.py": bad, "a/b.py": clean},
			[]string{"code.dangerous: auto_map a/__init__.py python.call.dangerous"}},
		{"through a name that is a module", tree{"config.json": auto, "modeling.py": "from .a import b\n", "a/__init__.py": "", "a/b.py": bad},
			[]string{"code.dangerous: auto_map a/b.py python.call.dangerous"}},
		{"imports in a ring", tree{"config.json": auto, "modeling.py": "from . import b\n", "b.py": "from . import modeling\n"}, nil},
		{"a program that is none", tree{"config.json": auto, "modeling.py": "def (:\n"}, []string{"unread: malformed"}},
		{"custom_pipelines", tree{"config.json": `{"custom_pipelines": {"x": {"impl": "pipe.Pipe", "pt": ["AutoModel"], "type": "text"}}}`, "pipe.py": bad},
			[]string{"code.dangerous: custom_pipelines pipe.py python.call.dangerous"}},
		{"custom_pipeline", tree{"model_index.json": `{"custom_pipeline": "pipe"}`}, []string{"code.missing: custom_pipeline pipe"}},
		{"pipeline of its own", tree{"model_index.json": `{"_class_name": ["pipe", "Pipe"], "unet": ["my_unet", "UNet"], "vae": ["diffusers", "AutoencoderKL"]}`, "pipe.py": clean, "unet/my_unet.py": bad},
			[]string{"code.dangerous: unet unet/my_unet.py python.call.dangerous"}},
		{"hubconf", tree{"hubconf.py": bad}, []string{"code.dangerous: hubconf.py hubconf.py python.call.dangerous"}},
		{"handler", tree{"handler.py": bad, "other.py": bad}, []string{"code.dangerous: handler.py handler.py python.call.dangerous"}},
		{"archive's handler", tree{"MAR-INF/MANIFEST.json": `{"model": {"handler": "h.py:go", "modelFile": "model.py"}}`, "h.py": bad},
			[]string{"code.dangerous: handler h.py python.call.dangerous", "code.missing: modelFile model"}},
		{"archive's handler of the server", tree{"MAR-INF/MANIFEST.json": `{"model": {"handler": "image_classifier"}}`}, nil},
		{"hydra", tree{"config.yaml": "model:\n  _target_: src.net.Net\n", "src/net.py": bad}, []string{"code.dangerous: _target_ src/net.py python.call.dangerous"}},
		{"hydra in JSON", tree{"conf.json": `{"_target_": "net.Net.make"}`, "net.py": bad}, []string{"code.dangerous: _target_ net.py python.call.dangerous"}},
		{"hydra, a module named like one of the standard library's", tree{"config.yaml": "_target_: src.code.Net\n"}, nil},
		{"hydra, installed", tree{"config.yaml": "_target_: torch.nn.Linear\n"}, nil},
		{"hydra, in circles", tree{"config.yaml": "_target_: " + strings.Repeat("os.path.", 200_000) + "x\n"}, nil},
		{"imports without end", tree{"handler.py": "import " + strings.Repeat("a.", 200_000) + "b\nfrom " + strings.Repeat(".", 200_000) + " import c\n"}, nil},
		{"modules of sentence-transformers", tree{"modules.json": `[{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}]`}, nil},
		{"module of its own", tree{"modules.json": `[{"idx": 0, "path": "", "type": "mine.Module"}]`, "mine.py": bad},
			[]string{"code.dangerous: _target_ mine.py python.call.dangerous"}},
		{"mlflow", tree{"MLmodel": mlflow + "mlflow.sklearn\n"}, nil},
		{"mlflow with code", tree{"MLmodel": mlflow + "mine\n    code: code\n", "code/mine.py": bad}, []string{"code.dangerous: loader_module code/mine.py python.call.dangerous"}},
		{"mlflow without its code", tree{"MLmodel": mlflow + "mine\n    code: code\n"}, []string{"code.missing: loader_module mine"}},
		{"mlflow with code outside", tree{"MLmodel": mlflow + "mlflow.sklearn\n    code: ../../x\n"}, []string{"path.outside: ../../x"}},
		{"mlflow's model from code", tree{"MLmodel": mlflow + "mlflow.pyfunc.model\n    model_code_path: /home/x/agent.py\n", "agent.py": bad}, []string{"code.dangerous: model_code_path agent.py python.call.dangerous"}},
		{"triton", tree{"config.pbtxt": "backend: \"onnxruntime\"\n"}, nil},
		{"triton's Python", tree{"config.pbtxt": "backend: \"python\"\n", "1/model.py": clean, "2/model.py": bad}, []string{"code.dangerous: backend 2/model.py python.call.dangerous"}},
		{"triton's Python below", tree{"m/config.pbtxt": "backend: \"py\" # c\n 'thon'\ndefault_model_filename: \"a.py\"\n", "m/1/a.py": bad, "n/1/a.py": clean}, []string{"code.dangerous: backend m/1/a.py python.call.dangerous"}},
		{"triton's Python, absent", tree{"config.pbtxt": "backend: \"python\"\n"}, []string{"code.missing: backend model.py"}},
		{"triton with a library", tree{"config.pbtxt": "backend: \"mine\" runtime: \"libtriton_x.so\" model_operations { op_library_filename: [\"a.so\"] }"}, []string{"backend.unknown: a.so", "backend.unknown: libtriton_x.so", "backend.unknown: mine"}},
		{"triton with an environment", tree{"config.pbtxt": `backend: "python" parameters: {value: {string_value: "$$TRITON_MODEL_DIRECTORY/../e.tgz"} key: "EXECUTION_ENV_PATH"}`, "1/model.py": clean}, []string{"path.outside: ../e.tgz"}},
		{"shards", tree{"model.safetensors.index.json": `{"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "/etc/x"}}`, "1.safetensors": ""},
			[]string{"path.outside: /etc/x", "weights.missing: 2.safetensors"}},
		{"pickles beside safe weights", tree{"model.safetensors": "", "pytorch_model.bin": "", "training_args.bin": ""}, []string{"weights.pickle: pytorch_model.bin"}},
		{"pickles only", tree{"pytorch_model.bin": ""}, nil},
		{"settings that are too large", tree{"config.json": `{"a": "` + strings.Repeat("x", 3<<20) + `"}`}, []string{"unread: limit_bytes"}},
		{"a long list of weights", tree{"model.safetensors.index.json": `{"weight_map": {"a": "w.safetensors"` + strings.Repeat(`, "model.layers.0.weight": "w.safetensors"`, 100_000) + `}}`, "w.safetensors": ""}, nil},
		{"transformers' generation", tree{"custom_generate/generate.py": bad, "generate.py": bad}, []string{"code.dangerous: generate.py custom_generate/generate.py python.call.dangerous"}},
		{"diffusers' pipeline", tree{"pipeline.py": bad, "a/pipeline.py": bad}, []string{"code.dangerous: pipeline.py pipeline.py python.call.dangerous"}},
		{"data", tree{"data/1.json": `{"auto_map": "a.B"}`}, nil},
		{"a vocabulary", tree{"tokenizer.json": `{"a": "` + strings.Repeat("x", 3<<20) + `"}`}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == nil {
				tt.want = []string{}
			}
			if diff := cmp.Diff(tt.want, brief(t, tt.files.manifest(t), tt.files.open)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestBundleThatChanges holds that what is opened is what the manifest says, and
// that what cannot be opened is a gap.
func TestBundleThatChanges(t *testing.T) {
	files := tree{"config.json": `{"auto_map": {"AutoModel": "modeling.Model"}}`, "modeling.py": clean}
	m := files.manifest(t)
	if diff := cmp.Diff([]string{"unread: changed"}, brief(t, m, tree{"config.json": files["config.json"], "modeling.py": bad}.open)); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"unread: not_found"}, brief(t, m, tree{"config.json": files["config.json"]}.open)); diff != "" {
		t.Errorf("gone (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{}, brief(t, m[:len(m)-1], files.open)); diff != "" {
		t.Errorf("no manifest but a text like one (-want +got):\n%s", diff)
	}
}

// FuzzBundle hands the loaders' settings any text: nothing that they say makes the
// scan fail, and what they lead to is found whatever else they say.
func FuzzBundle(f *testing.F) {
	names := []string{"config.json", "model_index.json", "model.safetensors.index.json", "modules.json", "config.yaml", "MLmodel", "config.pbtxt", "MAR-INF/MANIFEST.json", "hubconf.py"}
	for i, text := range []string{
		`{"auto_map": {"AutoModel": "modeling.Model"}}`, `{"_class_name": ["pipe", "Pipe"], "custom_pipeline": "x"}`, `{"weight_map": {"a": "../b"}}`, `[{"type": "mine.Module"}]`,
		"a: &x net.Net\n_target_: *x\n", "loader_module: mine\ncode: code\nmodel_code_path: 'C:\\a.py'\n", "backend: \"py\" 'thon' parameters { key: 'EXECUTION_ENV_PATH' value { string_value: '\\x2f' } }",
		`{"model": {"handler": "h.py:go"}}`, "from .. import a.b\nfrom ... import x\nimport a.b\n",
	} {
		f.Add(uint8(i), text)
	}
	f.Fuzz(func(t *testing.T, which uint8, text string) {
		files := tree{names[int(which)%len(names)]: text, "handler.py": bad, "modeling.py": clean, "1/model.py": clean}
		got := brief(t, files.manifest(t), files.open)
		if !slices.Contains(got, "code.dangerous: handler.py handler.py python.call.dangerous") {
			t.Errorf("what the handler runs is lost: %v", got)
		}
	})
}
