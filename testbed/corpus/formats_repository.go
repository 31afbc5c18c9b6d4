package corpus

import (
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

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
		set(predicate.Pass, "json", "Hydra, vetted", `{"layer": {"_target_": "torch.nn.Linear", "in_features": 4}, "optim": {"_target_": "torch.optim.AdamW"}, "m": {"_target_": "nemo.collections.asr.modules.ConvASREncoder"}}`),
		set(predicate.Pass, "config", "Hydra in YAML, vetted", "trainer:\n  _target_: pytorch_lightning.Trainer\nloss: {_target_: torch.nn.CrossEntropyLoss}\n"),
		set(predicate.Pass, "config", "Hydra's own", "hydra:\n  launcher:\n    _target_: hydra._internal.core_plugins.basic_launcher.BasicLauncher\n  sweeper:\n    _target_: hydra._internal.core_plugins.basic_sweeper.BasicSweeper\n    max_batch_size: null\n"),
		fail("config", "Hydra that calls Hydra", "_target_: hydra.utils.get_method\npath: os.system\n"),
		warn("repository.target.unknown", "json", "Hydra, below a vetted class", `{"_target_": "torch.nn.Module.load_state_dict"}`),
		warn("repository.target.unknown", "json", "Hydra, a look-alike", `{"_target_": "torch.nn.functional2.Linear"}`),
		fail("json", "Hydra, a function's own attribute", `{"_target_": "os.system.__call__"}`),
		fail("json", "Hydra, in circles", `{"_target_": "`+strings.Repeat("os.path.", 1000)+`exists"}`),
		set(predicate.Pass, "config", "MLflow's own loader", "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n    model_path: model.pkl\n"),
		fail("config", "MLflow, dangerous", "flavors:\n  python_function:\n    loader_module: subprocess.run\n"),
		set(predicate.Pass, "json", "PEFT", `{"peft_type": "LORA", "base_model_name_or_path": "org/model", "auto_mapping": {"base_model_class": "BertModel", "parent_library": "transformers.models.bert.modeling_bert"}}`),
		warn("repository.target.unknown", "json", "PEFT with a class of its own", `{"peft_type": "LORA", "auto_mapping": {"base_model_class": "M", "parent_library": "transformers_modules.x.modeling_x"}}`),
		fail("json", "PEFT, dangerous", `{"auto_mapping": {"base_model_class": "system", "parent_library": "os"}}`),
		set(predicate.Pass, "json", "PEFT with a base by a path", `{"peft_type": "LORA", "base_model_name_or_path": "../../base"}`, "repository.base.path"),
		warn("repository.code.remote", "json", "pipeline of another repository", `{"custom_pipeline": "someone/pipeline"}`),
		warn("repository.key.duplicate", "json", "Hydra, twice", `{"_target_": "torch.nn.Linear", "_target_": "torch.nn.ReLU"}`),
		fail("text", "YAML, a blank before the colon", "_target_ : os.system\n"),
		fail("text", "YAML, a key with escapes", "model:\n  \"_t\\x61rget_\": os.system\n"),
		fail("text", "YAML, a key over two lines", "\"_tar\\\n  get_\" : os.system\n"),
		fail("config", "YAML, a byte order mark", "\ufeff_target_: os.system\n"),
		fail("config", "YAML, behind the document's mark", "--- _target_: os.system\n"),
		fail("config", "YAML, a comment that ends with a return", "a: b # c\r_target_: os.system\r"),
		fail("config", "YAML, a comment that ends as in Unicode", "# c\u2028_target_: os.system\n"),
		fail("text", "YAML, a key that is asked for", "? _target_\n: os.system\n"),
		fail("text", "YAML, a key that is an alias", "a: &k _target_\n*k : os.system\n"),
		set(predicate.Pass, "text", "latent diffusion", "model:\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n  params:\n    first_stage_config:\n      target: ldm.models.autoencoder.AutoencoderKL\n      params:\n        lossconfig:\n          target: torch.nn.Identity\n"),
		fail("text", "latent diffusion, dangerous", "model:\n  target: os.system\n  params:\n    command: echo\n"),
		warn("repository.target.unknown", "text", "latent diffusion, of its own", "model:\n  target: mine.Model\n  params: {}\n"),
		fail("json", "latent diffusion in JSON, dangerous", `{"model": {"target": "os.system", "params": {"command": "echo"}}}`),
		fail("tar", "NeMo's archive", tarEntry("./model_config.yaml", "preprocessor:\n  _target_: os.system\n")+tarEntry("./model_weights.ckpt", "")+strings.Repeat("\x00", 1024)),
		set(predicate.Pass, "tar", "NeMo's archive, honest", tarEntry("./model_config.yaml", "preprocessor:\n  _target_: nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor\n")+tarEntry("./model_weights.ckpt", "")+strings.Repeat("\x00", 1024)),
		set(predicate.Pass, "json", "modules of sentence-transformers", `[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}, {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"}]`),
		warn("repository.target.unknown", "json", "a module of its own", `[{"idx": 0, "name": "0", "path": "", "type": "mine.Module"}]`),
		fail("json", "a module that is dangerous", `[{"idx": 0, "name": "0", "path": "", "type": "os.system"}]`),
		set(predicate.Pass, "json", "an activation", `{"activation_function": "torch.nn.modules.activation.Tanh"}`),
		fail("json", "an activation that is dangerous", `{"sentence_transformers": {"activation_fn": "torch.os.abort"}}`),
		fail("json", "a tokenizer that is dangerous", `{"tokenizer_class": "builtins.exec"}`),
		warn("repository.target.unknown", "json", "a router's class of its own", `{"types": {"a": "mine.Module"}, "structure": {"query": ["a"]}, "parameters": {}}`),
		set(predicate.Fail, "yaml", "YAML tag", "a: !!python/object/apply:os.system [echo]\n", "repository.yaml.tag"),
		set(predicate.Fail, "yaml", "YAML tag, written out", "a: !<tag:yaml.org,2002:python/object/apply:os.system> [echo]\n", "repository.yaml.tag"),
		set(predicate.Fail, "text", "YAML tag with escapes", "a: !!pyth%6Fn/object/apply:os.system [echo]\n", "repository.yaml.tag"),
		set(predicate.Fail, "text", "YAML tag by a handle of its own", "%TAG !p! tag:yaml.org,2002:pyth\n---\na: !p!on/object/apply:os.system [echo]\n", "repository.yaml.tag"),
		set(predicate.Pass, "text", "YAML with a handle that is honest", "%TAG !e! tag:example.com,2020:\n---\na: !e!thing [1]\n"),
	}
}
