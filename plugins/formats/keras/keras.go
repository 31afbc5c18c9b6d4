// Package keras judges the configuration that a Keras model is rebuilt from: a
// tree of objects, each named by a class and a module, at any depth. A layer may
// hold code, and a reference may name any function of any module; both run when
// the model is loaded (CVE-2024-3660, CVE-2025-1550, CVE-2025-8747, CVE-2025-9905,
// CVE-2025-9906, CVE-2025-49655).
package keras

import (
	"slices"
	"strings"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/document"
	"github.com/cavra/cavra/plugins/formats/strictjson"
)

// ID is the class of the findings.
const ID = "keras"

// The rules of this package.
const (
	ruleCode      = "keras.code.embedded"
	ruleDangerous = "keras.reference.dangerous"
	ruleOutside   = "keras.reference.unknown"
	ruleFile      = "keras.file.reference"
	ruleDuplicate = "keras.key.duplicate"
)

// Rules lists the rules that Check may name.
func Rules() []string {
	return []string{ruleCode, ruleDangerous, ruleDuplicate, ruleFile, ruleOutside}
}

// Keys are keys by which a JSON text is recognised as a configuration.
func Keys() []string { return []string{"class_name", "registered_name"} }

// Judge says whether a module and name is known to be dangerous.
type Judge func(module, name string) bool

// Check judges a configuration and all below it. The function maps offsets in the
// text to those in the content.
func Check(v *content.Visit, root *document.Node, dangerous Judge, place func(int) int64) {
	root.Walk(func(n *document.Node) {
		if n.Has("class_name") || n.Has("registered_name") {
			c := checker{v, n, dangerous, place(n.At)}
			c.check()
		}
	})
}

// Duplicate reports a key that an object has twice, where that decides what is
// loaded.
func Duplicate(v *content.Visit, key string, at int64) {
	switch key {
	case "class_name", "registered_name", "module", "config", "build_config", "compile_config", "function", "layers":
		v.Found(ruleDuplicate, ID, at, key)
	}
}

type checker struct {
	v         *content.Visit
	n         *document.Node
	dangerous Judge
	at        int64
}

func (c checker) found(rule string, evidence ...string) {
	for i, e := range evidence {
		evidence[i] = strings.ToValidUTF8(e, "\uFFFD")
	}
	c.v.Found(rule, ID, c.at, evidence...)
}

func (c checker) check() {
	for _, class := range c.n.Texts("class_name") {
		c.class(class)
	}
	modules := c.n.Texts("module")
	names := slices.Concat(c.n.Texts("class_name"), c.n.Texts("config"))
	for _, m := range modules {
		c.module(m, names)
	}
	for _, r := range c.n.Texts("registered_name") {
		c.registered(r)
	}
	for _, config := range c.n.All("config") {
		c.arguments(config)
	}
}

// class judges by the class alone, as older readers do.
func (c checker) class(class string) {
	short := class[strings.LastIndexAny(class, ">.")+1:]
	switch short {
	case "Lambda", "__lambda__":
		c.found(ruleCode, class)
	case "TorchModuleWrapper": // its module is a pickle (CVE-2025-49655)
		c.found(ruleCode, class)
	case "TFSMLayer":
		c.found(ruleFile, class)
	case "TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod":
		for _, config := range c.n.All("config") {
			for _, f := range slices.Concat(config.Texts("function"), config.Texts("cls_symbol"), config.Texts("cls_ref")) {
				c.operation(f)
			}
		}
	}
	if before, _, custom := strings.Cut(class, ">"); custom && !own(before) {
		c.found(ruleOutside, class)
	}
}

// operations are parts of TensorFlow's names that reach files or the interpreter.
var operations = []string{
	"io.", "raw_ops", "py_function", "numpy_function", "py_func", "load_", "autograph", "saved_model", "compat", "print", "config.", "debugging", "experimental", "__",
}

func (c checker) operation(f string) {
	for _, o := range operations {
		if strings.Contains("."+f, "."+o) || strings.Contains(f, "__") {
			c.found(ruleDangerous, f)
			return
		}
	}
}

// own reports whether a module or package is one of Keras' or TensorFlow's own.
func own(module string) bool {
	first, rest, _ := strings.Cut(module, ".")
	switch strings.ToLower(first) {
	case "keras", "tf_keras", "keras_hub", "keras_nlp", "keras_cv", "keras_core":
		return first == strings.ToLower(first)
	case "tensorflow":
		return strings.HasPrefix(rest, "keras") || strings.HasPrefix(rest, "python.keras")
	}
	return false
}

// functions are parts of Keras whose functions compute with arrays and nothing
// else. All others (utils, config, saving, models) can do more.
var functions = []string{"activations", "losses", "metrics", "initializers", "regularizers", "constraints", "ops", "legacy"}

// models are the classes of a model itself, by where Keras says they are. Their
// modules hold loaders as well.
var models = map[string]bool{
	"keras.src.models.functional.Functional": true, "keras.src.models.sequential.Sequential": true, "keras.src.models.model.Model": true,
	"keras.models.Functional": true, "keras.models.Sequential": true, "keras.models.Model": true,
	"keras.src.engine.functional.Functional": true, "keras.src.engine.sequential.Sequential": true, "keras.src.engine.training.Model": true,
}

// module judges a reference by module and name.
func (c checker) module(module string, names []string) {
	isFunction := slices.Contains(names, "function")
	for _, n := range names {
		if c.dangerous(module, n) && !models[module+"."+n] {
			c.found(ruleDangerous, module, n)
			return
		}
	}
	switch {
	case own(module):
		parts := strings.Split(module, ".")
		if isFunction && !slices.ContainsFunc(parts[1:], func(p string) bool { return slices.Contains(functions, p) }) {
			c.found(ruleDangerous, append([]string{module}, names...)...)
		}
	case module == "builtins":
		// How Keras writes a plain value's type, or a function that the reader has
		// to register.
		if isFunction {
			c.found(ruleOutside, append([]string{module}, names...)...)
		}
	default:
		c.found(ruleOutside, append([]string{module}, names...)...)
	}
}

func (c checker) registered(name string) {
	before, _, custom := strings.Cut(name, ">")
	if custom && !own(before) && !strings.EqualFold(before, "keras") {
		c.found(ruleOutside, name)
	}
}

// arguments looks for files and addresses that a layer reads when it is made
// (CVE-2025-12058), and for functions that are given by name.
func (c checker) arguments(config *document.Node) {
	if config.Kind != strictjson.Object {
		return
	}
	for i, key := range config.Keys {
		value := config.Items[i].Text
		switch key {
		case "vocabulary", "filepath", "fname", "origin", "path", "url", "filename", "weights":
			if strings.Contains(value, "/") || strings.Contains(value, `\`) {
				c.found(ruleFile, key, value)
			}
		case "function_type", "output_shape_type", "mask_type", "arguments_type":
			if value == "lambda" {
				c.found(ruleCode, key)
			}
		default:
			if strings.Contains(value, "://") {
				c.found(ruleFile, key, value)
			}
		}
	}
}
