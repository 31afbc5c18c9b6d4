package corpus

import (
	"maps"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
)

// Repository is a model repository as a whole: what is found in it beyond what
// is found in its files.
type Repository struct {
	Name string
	// Files are contents by path.
	Files map[string]string
	// Verdict is of the findings that only the whole has, whose rules are in
	// ascending order, each once.
	Verdict predicate.Verdict
	Rules   []string
}

// List lists the files in ascending order of path.
func (r Repository) List() []artifact.File {
	var list []artifact.File
	for _, p := range slices.Sorted(maps.Keys(r.Files)) {
		list = append(list, artifact.File{Path: p, Digest: predicate.DigestOf([]byte(r.Files[p])), Size: int64(len(r.Files[p]))})
	}
	return list
}

// Repositories are model repositories that are honest, and such that lead to code
// which is dangerous, elsewhere or not there.
func Repositories() []Repository {
	const (
		good   = "import torch\n\n\nclass Model(torch.nn.Module):\n    def forward(self, x):\n        return x\n"
		bad    = "import os\n\nos.system('" + inertWord + "')\n"
		custom = `{"auto_map": {"AutoModel": "modeling.Model"}}`
		python = "name: \"m\"\nbackend: \"python\"\n"
		mlflow = "flavors:\n  python_function:\n    loader_module: loader\n    code: code\n"
	)
	repo := func(v predicate.Verdict, name string, files map[string]string, rules ...string) Repository {
		return Repository{Name: name, Files: files, Verdict: v, Rules: rules}
	}
	const leads, missing, outside = "repository.code.dangerous", "repository.code.missing", "repository.path.outside"
	return []Repository{
		repo(predicate.Pass, "a class of its own", map[string]string{"config.json": custom, "modeling.py": good}),
		repo(predicate.Fail, "a class of its own that runs a command", map[string]string{"config.json": custom, "modeling.py": bad}, leads),
		repo(predicate.Fail, "a class of its own that imports one that does", map[string]string{
			"config.json": custom, "modeling.py": "from . import layers\n" + good, "layers.py": "from .deep.er import x\n", "deep/er.py": bad,
		}, leads),
		repo(predicate.Pass, "a program that nothing leads to", map[string]string{"config.json": "{}", "train.py": bad}),
		repo(predicate.Warn, "a class that is not there", map[string]string{"config.json": custom}, missing),
		repo(predicate.Fail, "a pipeline of its own", map[string]string{
			"model_index.json": `{"_class_name": ["pipe", "Pipe"], "unet": ["my_unet", "Unet"]}`, "pipe.py": good, "unet/my_unet.py": bad,
		}, leads),
		repo(predicate.Fail, "torch.hub", map[string]string{"hubconf.py": bad}, leads),
		repo(predicate.Fail, "a handler", map[string]string{"config.json": "{}", "handler.py": bad}, leads),
		repo(predicate.Pass, "TorchServe's own handler", map[string]string{"MAR-INF/MANIFEST.json": `{"model": {"handler": "image_classifier"}}`}),
		repo(predicate.Fail, "TorchServe with a handler of its own", map[string]string{"MAR-INF/MANIFEST.json": `{"model": {"handler": "h.py:go"}}`, "h.py": bad}, leads),
		repo(predicate.Fail, "MLflow with a loader in its code", map[string]string{"MLmodel": mlflow, "code/loader.py": bad}, leads),
		repo(predicate.Pass, "MLflow's loader", map[string]string{"MLmodel": "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n"}),
		repo(predicate.Fail, "MLflow with code outside", map[string]string{"MLmodel": "flavors:\n  python_function:\n    code: ../elsewhere\n"}, outside),
		repo(predicate.Fail, "Triton's Python backend", map[string]string{"config.pbtxt": python, "1/model.py": good, "2/model.py": bad}, leads),
		repo(predicate.Warn, "Triton's Python backend without a model", map[string]string{"config.pbtxt": python}, missing),
		repo(predicate.Pass, "Triton's own backend", map[string]string{"config.pbtxt": "backend: 'onnx' # in two\n  \"runtime\"\n"}),
		repo(predicate.Warn, "Triton with a backend of its own", map[string]string{"config.pbtxt": "backend: \"m\\x79\"\n"}, "repository.backend.unknown"),
		repo(predicate.Fail, "Triton with an environment from outside", map[string]string{"config.pbtxt": python +
			"parameters: { key: \"EXECUTION_ENV_PATH\", value: { string_value: \"/tmp/env.tar.gz\" } }\n", "1/model.py": good}, outside),
		repo(predicate.Warn, "Triton with a library of operators", map[string]string{"config.pbtxt": "backend: 'tensorflow'\nmodel_operations { op_library_filename: ['ops.so'] }\n"}, "repository.backend.unknown"),
		repo(predicate.Pass, "Triton's runtime", map[string]string{"config.pbtxt": "backend: 'pytorch'\nruntime: 'libtriton_pytorch.so'\n"}),
		repo(predicate.Fail, "Triton's Python backend, spelt otherwise", map[string]string{
			"m/config.pbtxt": "default_model_filename: \"go.py\"\nbackend: \"py\" # in two\n 't\\150\\x6fn'\n", "m/3/go.py": bad,
		}, leads),
		repo(predicate.Fail, "Hydra's target in the repository", map[string]string{"config.json": "{}", "conf/model.yaml": "net:\n  _target_: src.net.Net\n", "src/net.py": bad}, leads),
		repo(predicate.Pass, "Hydra's target in the repository, honest", map[string]string{"config.json": "{}", "conf/model.yaml": "net:\n  _target_: src.net.Net\n", "src/net.py": good}),
		repo(predicate.Fail, "a module of sentence-transformers", map[string]string{"modules.json": `[{"idx": 0, "name": "0", "path": "", "type": "mine.Module"}]`, "mine.py": bad}, leads),
		repo(predicate.Fail, "MLflow's model from code", map[string]string{
			"MLmodel": "flavors:\n  python_function:\n    loader_module: mlflow.pyfunc.loaders.code_model\n    model_code_path: /home/someone/agent.py\n", "agent.py": bad,
		}, leads),
		repo(predicate.Fail, "a package around a class of its own", map[string]string{
			"config.json": custom, "modeling.py": "import parts.layers\n" + good, "parts/__init__.py": bad, "parts/layers.py": good,
		}, leads),
		repo(predicate.Pass, "a task of its own", map[string]string{
			"config.json": `{"custom_pipelines": {"x": {"impl": "pipe.Pipe", "pt": ["AutoModel"], "type": "text", "default": {"model": {"pt": ["org/model", "main"]}}}}}`, "pipe.py": good,
		}),
		repo(predicate.Warn, "a task of its own that is not there", map[string]string{"config.json": `{"custom_pipelines": {"x": {"impl": "pipe.Pipe", "pt": ["AutoModel"]}}}`}, missing),
		repo(predicate.Warn, "a class of another folder", map[string]string{"a/config.json": custom, "modeling.py": good}, missing),
		repo(predicate.Fail, "weights outside", map[string]string{"model.safetensors.index.json": `{"weight_map": {"a": "../../w.safetensors"}}`}, outside),
		repo(predicate.Pass, "weights that are not there", map[string]string{"model.safetensors.index.json": `{"weight_map": {"a": "w.safetensors"}}`}, "repository.weights.missing"),
		repo(predicate.Pass, "pickled weights beside safe ones", map[string]string{"model.safetensors": "x", "pytorch_model.bin": "y"}, "repository.weights.pickle"),
	}
}
