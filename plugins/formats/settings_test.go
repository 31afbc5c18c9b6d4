package formats_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cavra/cavra/plugins/formats"
)

const (
	chatml = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
	walks  = "{{ ''.__class__.__mro__ }}"
)

// quoted is a JSON string.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

func TestTemplates(t *testing.T) {
	tests := []struct{ name, content, want string }{
		{"template file", chatml, "jinja"},
		{"template of expressions", "Hello {{ name }}\n", "text"},
		{"template of expressions that walks", walks + "\n", "jinja template.injection"},
		{"template that walks", "{% if x %}" + walks + "{% endif %}", "jinja template.injection"},
		{"python with a template in a string", "import os\nx = '{% if x %}{% endif %}'\nos.system('x')\n", "python python.call.dangerous"},
		{"python that is a template that walks", "import x\ny = \"{% if x %}" + walks + "{% endif %}\"\n", "python template.injection"},
		{"tokenizer", `{"bos_token": "<s>", "chat_template": ` + quoted(chatml) + `}`, "json"},
		{"tokenizer that walks", `{"chat_template": ` + quoted(walks) + `}`, "json template.injection"},
		{"tokenizer with several", `{"chat_template": [{"name": "default", "template": ` + quoted(chatml) + `}, {"name": "tool_use", "template": ` + quoted(walks) + `}]}`, "json template.injection"},
		{"tokenizer, twice", `{"chat_template": ` + quoted(walks) + `, "chat_template": ` + quoted(chatml) + `}`, "json repository.key.duplicate template.injection"},
		{"tokenizer that cannot be read", `{"chat_template": "{% x %}"}`, "json incomplete template.unparsed"},
		{"broken JSON with a template", `{"chat_template": ` + quoted(chatml), "jinja incomplete"},
		{"page with a template", "<html>{% if x %}{% endif %}</html>", "jinja incomplete"},
		{"settings in a template", "{% if x %}a{% endif %}\n_target_: os.system\n", "jinja repository.target.dangerous"},
	}
	for _, tt := range tests {
		if got := brief(scanWith(t, formats.New(), []byte(tt.content))); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestKeras(t *testing.T) {
	layer := func(fields string) string {
		return `{"module": "keras", "class_name": "Functional", "config": {"name": "m", "layers": [` +
			`{"module": "keras.layers", "class_name": "Dense", "config": {"units": 4, "activation": "relu", "kernel_initializer": {"module": "keras.initializers", "class_name": "GlorotUniform", "config": {"seed": null}, "registered_name": null}}, "registered_name": null}, {` +
			fields + `}]}, "registered_name": "Functional"}`
	}
	const code = `"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": null, "closure": null}`
	tests := []struct{ name, content, want string }{
		{"plain", layer(`"module": "keras.layers", "class_name": "Dropout", "config": {"rate": 0.5}, "registered_name": null`), "json"},
		{"activation", layer(`"module": "keras.src.activations.activations", "class_name": "function", "config": "relu", "registered_name": "function"`), "json"},
		{"type", layer(`"module": "builtins", "class_name": "dtype", "config": "float32"`), "json"},
		{"older reader's", `{"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {"units": 1}}]}}`, "json"},
		{"lambda", layer(`"module": "keras.layers", "class_name": "Lambda", "config": {"function": {` + code + `}}`), "json keras.code.embedded"},
		{"lambda of an older reader", `{"class_name": "Model", "config": {"layers": [{"class_name": "Lambda", "config": {"function": ["4wEAAAA=", null, null], "function_type": "lambda"}}]}}`, "json keras.code.embedded"},
		{"code deep below", layer(`"module": "keras.layers", "class_name": "Dense", "config": {"a": [[{"b": {` + code + `}}]]}`), "json keras.code.embedded"},
		{"any function", layer(`"module": "os", "class_name": "function", "config": "system", "registered_name": "system"`), "json keras.reference.dangerous"},
		{"class of a module", layer(`"module": "subprocess", "class_name": "Popen", "config": {}`), "json keras.reference.dangerous"},
		{"function of keras", layer(`"module": "keras.utils", "class_name": "function", "config": "get_file", "registered_name": "get_file"`), "json keras.reference.dangerous"},
		{"switch of keras", layer(`"module": "keras.config", "class_name": "function", "config": "enable_unsafe_deserialization"`), "json keras.reference.dangerous"},
		{"own class", layer(`"module": "my.layers", "class_name": "Attention", "config": {}, "registered_name": "my>Attention"`), "json keras.reference.unknown"},
		{"wrapped pickle", layer(`"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "gAJ9"}`), "json keras.code.embedded"},
		{"operation", `{"class_name": "TFOpLambda", "config": {"function": "math.multiply"}}`, "json"},
		{"operation on files", `{"class_name": "TFOpLambda", "config": {"function": "io.write_file"}}`, "json keras.reference.dangerous"},
		{"file", layer(`"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}`), "json keras.file.reference"},
		{"address", layer(`"module": "keras.layers", "class_name": "Dense", "config": {"origin": "https://example.invalid/x"}`), "json keras.file.reference"},
		{"decoy", `{"class_name": "Lambda", "class_name": "Dense", "config": {}}`, "json keras.code.embedded keras.key.duplicate"},
		{"in an archive", string(archive(t, 8, "metadata.json", `{"keras_version": "3.9.0"}`, "config.json", layer(code))), "zip keras.code.embedded"},
	}
	for _, tt := range tests {
		if got := brief(scanWith(t, formats.New(), []byte(tt.content))); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func anchors(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "a%d: &a%d b\n", i, i)
	}
	return b.String()
}

func handles(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%%TAG !h%d! tag:example.com,2020:\n", i)
	}
	return b.String()
}

func TestRepository(t *testing.T) {
	tests := []struct{ name, content, want string }{
		{"code beside", `{"auto_map": {"AutoModel": "modeling.Model", "AutoTokenizer": ["tok.Slow", null]}}`, "json repository.code.custom"},
		{"code elsewhere", `{"auto_map": {"AutoModel": "someone/model--modeling.Model"}}`, "json repository.code.remote"},
		{"pipeline", `{"custom_pipelines": {"x": {"impl": "pipe.Pipe"}}}`, "json repository.code.custom"},
		{"diffusers", `{"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.30", "unet": ["diffusers", "UNet2DConditionModel"], "tokenizer": ["transformers", "CLIPTokenizer"], "safety_checker": [null, null]}`, "json"},
		{"diffusers model", `{"_class_name": "UNet2DConditionModel", "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "act": ["silu", "gelu"]}`, "json"},
		{"diffusers with code", `{"_class_name": ["pipe", "Pipe"], "unet": ["my_unet", "Unet"]}`, "json repository.code.custom"},
		{"diffusers with a function", `{"_class_name": "P", "unet": ["subprocess", "Popen"]}`, "json repository.target.dangerous"},
		{"hydra", `{"model": {"_target_": "my.Model", "x": 1}}`, "json repository.target.unknown"},
		{"hydra, dangerous", `{"a": [{"b": {"_target_": "os.system", "command": "x"}}]}`, "json repository.target.dangerous"},
		{"hydra, through a module", `{"_target_": "torch.os.system"}`, "json repository.target.dangerous"},
		{"hydra, builtin", `{"_target_": "builtins.eval"}`, "json repository.target.dangerous"},
		{"yaml", "model:\n  _target_: my.Model\n", "config repository.target.unknown"},
		{"yaml, dangerous", "a:\n- b: {_target_: subprocess.run, args: [x]}\n", "config repository.target.dangerous"},
		{"yaml, quoted", "'_target_': \"os.\\x73ystem\"\n_target_: a.b\n", "config repository.target.dangerous repository.target.unknown"},
		{"yaml, alias", "x: &a os.system\ny:\n  _target_: *a\n", "config repository.target.dangerous"},
		{"yaml, folded", "_target_: >-\n  os.system\n", "config repository.target.dangerous"},
		{"yaml, a blank before the colon", "_target_ : os.system\n", "text repository.target.dangerous"},
		{"yaml, single quotes", "'_target_': os.system\n", "text repository.target.dangerous"},
		{"yaml, a key with escapes", "\"_t\\x61rget_\": os.system\n", "text repository.target.dangerous"},
		{"yaml, a key over two lines", "\"_tar\\\n  get_\" : os.system\n", "text repository.target.dangerous"},
		{"yaml, a key that is asked for", "? _target_\n: os.system\n", "text repository.target.dangerous"},
		{"yaml, a key that is a block", "? |-\n  _target_\n: os.system\n", "text repository.target.dangerous"},
		{"yaml, a key that is an alias", "a: &k _target_\n*k : os.system\n", "text repository.target.dangerous"},
		{"yaml, a key with a tag and an anchor", "!!str &a _target_ : os.system\n", "text repository.target.dangerous"},
		{"yaml, a key far into the text", strings.Repeat("a: b\n", 30_000) + "\"_t\\u0061rget_\": os.system\n", "text repository.target.dangerous"},
		{"prose on a key", "The _target_ key, and auto_map, are looked up; a \\ is no \"escape\".\n", "text"},
		{"yaml, a tag written out", "a: !<tag:yaml.org,2002:python/object/apply:os.system> [echo]\n", "yaml repository.yaml.tag"},
		{"yaml, a tag with escapes", "a: !!pyth%6Fn/object/apply:os.system [echo]\n", "text repository.yaml.tag"},
		{"yaml, a tag written out with escapes", "a: !<tag:yaml.org,2002:%70ython/object/apply:os.system> [echo]\n", "text repository.yaml.tag"},
		{"yaml, a handle of its own", "%TAG !p! tag:yaml.org,2002:pyth\n---\na: !p!on/object/apply:os.system [echo]\n", "text repository.yaml.tag"},
		{"yaml, the first handle", "%TAG ! tag:yaml.org,2002:\n---\na: !python/object/apply:os.system [echo]\n", "yaml repository.yaml.tag"},
		{"yaml, the second handle", "%TAG !! tag:yaml.org,2002:pyth\n---\na: !!on/object/apply:os.system [echo]\n", "text repository.yaml.tag"},
		{"yaml, a handle and plain tags", "%TAG !e! tag:example.com,2020:\n---\na: !e!thing [1]\nb: !!python/tuple [1]\n", "yaml"},
		{"yaml, a byte order mark", "\ufeff_target_: os.system\n", "config repository.target.dangerous"},
		{"yaml, a key behind the document's mark", "--- _target_: os.system\n", "config repository.target.dangerous"},
		{"yaml, a comment that ends with a return", "a: b # c\r_target_: os.system\r", "config repository.target.dangerous"},
		{"yaml, a line that ends as in Unicode", "a: b\u2028_target_: os.system\n# c\u2029x: y\n", "config repository.target.dangerous"},
		{"yaml, a comment that ends as in Unicode", "# c\u2028_target_: os.system\n", "config repository.target.dangerous"},
		{"yaml, a block with an anchor", "a: &k |-\n  _target_\n*k : os.system\n", "text repository.target.dangerous"},
		{"yaml, a folded block with an anchor", "a: &k \u2028>-\n  _target_\n*k : os.system\n", "text repository.target.dangerous"},
		{"yaml, a key that ends as in Unicode", "? |-\n  _target_\u2029\n: os.system\n", "text repository.target.dangerous"},
		{"yaml, a tag before a key that is a block", "a: !!python/name:os.system \n? |-\n  b\n: c\n", "yaml repository.yaml.tag"},
		{"yaml, a mark within a word", ":# ca: {b: [c, {_target_: os.system}]}\n", "config repository.target.dangerous"},
		{"yaml, too many anchors", "a: &k _target_\n" + anchors(1100) + "*k : os.system\n", "text repository.target.dangerous"},
		{"yaml, an anchor anew behind too many", "a: &k torch.nn.Linear\n" + anchors(1100) + "b: &k os.system\n_target_: *k\n", "config repository.target.unknown"},
		{"yaml, too many handles", handles(1100) + "%TAG !p! tag:yaml.org,2002:pyth\n---\na: !p!on/object/apply:os.system [echo]\n", "text repository.yaml.tag"},
		{"latent diffusion", "model:\n  base_learning_rate: 1.0e-04\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n  params:\n    unet_config:\n      target: ldm.modules.diffusionmodules.openaimodel.UNetModel\n      params:\n        use_fp16: True\n    first_stage_config:\n      target: ldm.models.autoencoder.AutoencoderKL\n      params:\n        lossconfig:\n          target: torch.nn.Identity\n", "text"},
		{"latent diffusion, dangerous", "model:\n  target: os.system\n  params:\n    command: echo\n", "text repository.target.dangerous"},
		{"latent diffusion, of its own", "model:\n  params: {}\n  target: mine.Model\n", "text repository.target.unknown"},
		{"latent diffusion, far apart", "model:\n  target: os.system\n" + strings.Repeat("  # more\n", 30_000) + "  params: {}\n", "text repository.target.dangerous"},
		{"latent diffusion in JSON", `{"model": {"target": "os.system", "params": {"command": "echo"}}}`, "json repository.target.dangerous"},
		{"a target that nothing calls", "target: www.example.com\n", "text"},
		{"a target that is no path", `{"input": "a", "target": "It is 4.5 km.", "params": 2}`, "json"},
		{"yaml with plain tags", "a: !!python/tuple [1, 2]\n", "yaml"},
		{"mlflow", "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n    model_path: model.pkl\n", "config"},
		{"mlflow with a loader of its own", "flavors:\n  python_function:\n    loader_module: mine\n", "config repository.target.unknown"},
		{"hydra, vetted", `{"a": {"_target_": "torch.nn.Linear"}, "b": {"_target_": "torch.optim.AdamW"}, "c": {"_target_": "pytorch_lightning.Trainer"}}`, "json"},
		{"hydra, a function of a vetted module", `{"_target_": "torch.nn.modules.linear.os.system"}`, "json repository.target.dangerous"},
		{"hydra, a function's own attribute", `{"_target_": "torch.os.system.__call__"}`, "json repository.target.dangerous"},
		{"hydra, in circles", `{"_target_": "` + strings.Repeat("os.path.", 2_000_000) + `x"}`, "json repository.target.dangerous"},
		{"hydra, below a vetted class", `{"_target_": "torch.nn.Module.load_state_dict"}`, "json repository.target.unknown"},
		{"hydra, the list's own mark", `{"_target_": "torch.nn.*"}`, "json repository.target.unknown"},
		{"modules", `[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}, {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]`, "json"},
		{"modules, one of its own", `[{"path": "", "type": "mine.Module"}]`, "json repository.target.unknown"},
		{"modules, one of another repository", `[{"path": "", "type": "a/b--mine.Module"}]`, "json repository.code.remote"},
		{"modules, dangerous", `[{"type": "sentence_transformers.models.Transformer", "path": ""}, {"path": "", "ty\u0070e": "os.system"}]`, "json repository.target.dangerous"},
		{"activation", `{"in_features": 4, "activation_function": "torch.nn.modules.activation.Tanh"}`, "json"},
		{"activation by name", `{"activation_function": "gelu_new", "tokenizer_class": "GPT2Tokenizer"}`, "json"},
		{"activation, dangerous", `{"sentence_transformers": {"activation_fn": "torch.os.abort"}}`, "json repository.target.dangerous"},
		{"activation of its own", `{"sbert_ce_default_activation_function": "mine.Act"}`, "json repository.target.unknown"},
		{"activation in words", `{"activation_fn": "<class 'torch.nn.ReLU'>, v1.0"}`, "json"},
		{"router", `{"types": {"a": "sentence_transformers.models.Dense", "b": "mine.Module"}, "structure": {"q": ["a"]}, "parameters": {}}`, "json repository.target.unknown"},
		{"no router", `{"types": "index.d.ts"}`, "json"},
		{"no modules but a list of types", `[{"type": "com.example.Event"}]`, "json"},
		{"no modules but objects below", `{"a": [{"type": "com.example.Event", "path": "x"}]}`, "json"},
		{"peft with a base by a path", `{"base_model_name_or_path": "../../model", "peft_type": "LORA"}`, "json repository.base.path"},
		{"peft with a base in a registry", `{"base_model_name_or_path": "org/model", "peft_type": "LORA"}`, "json"},
		{"peft with a class of its own", `{"auto_mapping": {"base_model_class": "M", "parent_library": "transformers_modules.x.modeling_x"}}`, "json repository.target.unknown"},
		{"peft", `{"auto_mapping": {"base_model_class": "BertModel", "parent_library": "transformers.models.bert.modeling_bert"}, "peft_type": "LORA"}`, "json"},
	}
	for _, tt := range tests {
		if got := brief(scanWith(t, formats.New(), []byte(tt.content))); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzSettings(f *testing.F) {
	f.Add([]byte(`{"class_name":"Lambda","config":{"function":"x"},"module":"a.b","registered_name":"c>d","auto_map":["a.b"],"chat_template":"{{ x }}"}`))
	f.Add([]byte("a: &b !!python/name:x 'y'\n_target_: *b\nc: {\"_target_\": \"\\x41\"}\n{% if x %}{% endif %}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, x := range scanWith(t, formats.New(), b).Findings {
			if err := x.Validate(); err != nil {
				t.Error(err)
			}
		}
	})
}
