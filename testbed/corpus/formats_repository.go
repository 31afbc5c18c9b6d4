package corpus

import "github.com/cavra/cavra/schemas/predicate"

// RepositorySettings are settings of model repositories that lead to code.
func RepositorySettings() []Setting {
	warn := func(rule, format, name, content string) Setting {
		return set(predicate.Warn, format, name, content, rule)
	}
	fail := func(format, name, content string) Setting {
		return set(predicate.Fail, format, name, content, "repository.target.dangerous")
	}
	return []Setting{
		set(predicate.Pass, "json", "pipeline of the library", `{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}`),
		warn("repository.code.custom", "json", "auto_map", `{"auto_map": {"AutoModel": "modeling.Model"}}`),
		warn("repository.code.remote", "json", "auto_map of another repository", `{"auto_map": {"AutoModel": "someone/model--modeling.Model"}}`),
		warn("repository.code.custom", "json", "custom_pipelines", `{"custom_pipelines": {"x": {"impl": "pipe.Pipe"}}}`),
		warn("repository.code.custom", "json", "pipeline of its own", `{"_class_name": ["pipe", "Pipe"]}`),
		warn("repository.target.unknown", "json", "Hydra", `{"model": {"_target_": "my.Model"}}`),
		fail("json", "Hydra, dangerous", `{"a": [{"_target_": "os.system", "command": "echo"}]}`),
		fail("json", "Hydra, through a module", `{"_target_": "torch.os.system"}`),
		fail("config", "YAML", "model:\n  _target_: subprocess.run\n"),
		fail("config", "YAML, escaped", "model: {\"_target_\": \"os.\\x73ystem\"}\n"),
		fail("config", "YAML, alias", "x: &a os.system\nmodel:\n  _target_: *a\n"),
		warn("repository.target.unknown", "config", "MLflow", "flavors:\n  python_function:\n    loader_module: mymodule\n"),
		set(predicate.Fail, "yaml", "YAML tag", "a: !!python/object/apply:os.system [echo]\n", "repository.yaml.tag"),
	}
}
