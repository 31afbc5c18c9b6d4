package corpus

import "github.com/cavra/cavra/schemas/predicate"

// KerasConfigs are configurations of Keras models that run code when they are
// loaded, and some that do not, as JSON. The code in them is no valid bytecode.
func KerasConfigs() []Setting {
	model := func(layer string) string {
		return `{"module": "keras", "class_name": "Sequential", "config": {"layers": [{"module": "keras.layers", "class_name": "Dense", "config": {"units": 4}}, {` +
			layer + `}]}, "registered_name": null}`
	}
	const code = `"class_name": "__lambda__", "config": {"code": "4wEAAAA="}`
	fail := func(rule, name, layer string) Setting { return set(predicate.Fail, "json", name, model(layer), rule) }
	warn := func(rule, name, layer string) Setting { return set(predicate.Warn, "json", name, model(layer), rule) }
	return []Setting{
		set(predicate.Pass, "json", "plain", model(`"module": "keras.layers", "class_name": "Dropout", "config": {"rate": 0.5}`)),
		set(predicate.Pass, "json", "activation", model(`"module": "keras.activations", "class_name": "function", "config": "relu"`)),
		fail("keras.code.embedded", "lambda", `"module": "keras.layers", "class_name": "Lambda", "config": {"function": {`+code+`}}`),
		fail("keras.code.embedded", "code deep below", `"class_name": "Dense", "config": {"a": [[{"b": {`+code+`}}]]}`),
		fail("keras.code.embedded", "wrapped pickle", `"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "gAJOLg=="}`),
		fail("keras.reference.dangerous", "any function", `"module": "os", "class_name": "function", "config": "system"`),
		fail("keras.reference.dangerous", "download", `"module": "keras.utils", "class_name": "function", "config": "get_file"`),
		fail("keras.reference.dangerous", "switch", `"module": "keras.config", "class_name": "function", "config": "enable_unsafe_deserialization"`),
		fail("keras.reference.dangerous", "operation on files", `"class_name": "TFOpLambda", "config": {"function": "io.write_file"}`),
		warn("keras.reference.unknown", "own class", `"module": "my.layers", "class_name": "Attention", "config": {}`),
		warn("keras.file.reference", "vocabulary", `"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/hostname"}`),
		set(predicate.Fail, "json", "decoy", `{"class_name": "Lambda", "class_name": "Dense", "config": {}}`, "keras.code.embedded", "keras.key.duplicate"),
	}
}
