// Package repository judges the settings of a model repository by the code that
// they lead to: a module beside them or in another repository (auto_map,
// custom_pipeline), and whatever a value names to be imported and called
// (_target_ of Hydra, loader_module of MLflow, object tags of YAML).
package repository

import (
	"slices"
	"strings"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/document"
	"github.com/cavra/cavra/plugins/formats/strictjson"
)

// ID is the class of the findings.
const ID = "repository"

// The rules of this package.
const (
	ruleCustom    = "repository.code.custom"
	ruleRemote    = "repository.code.remote"
	ruleTarget    = "repository.target.unknown"
	ruleDangerous = "repository.target.dangerous"
	ruleTag       = "repository.yaml.tag"
	ruleDuplicate = "repository.key.duplicate"
	ruleBase      = "repository.base.path"
	// Those of a bundle as a whole.
	ruleMissing = "repository.code.missing"
	ruleLeads   = "repository.code.dangerous"
	ruleBackend = "repository.backend.unknown"
	ruleOutside = "repository.path.outside"
	ruleAbsent  = "repository.weights.missing"
	rulePickle  = "repository.weights.pickle"
)

// Rules lists the rules that this package may name.
func Rules() []string {
	return []string{
		ruleCustom, ruleRemote, ruleDuplicate, ruleDangerous, ruleTarget, ruleTag, ruleBase,
		ruleMissing, ruleLeads, ruleBackend, ruleOutside, ruleAbsent, rulePickle,
	}
}

// Keys are the keys by which settings lead to code.
func Keys() []string {
	return []string{"auto_map", "auto_mapping", "custom_pipeline", "custom_pipelines", "_target_", "_class_name", "loader_module"}
}

// Judge says whether a module and name is known to be dangerous.
type Judge func(module, name string) bool

// Duplicate reports a key that an object has twice, where that decides what runs.
func Duplicate(v *content.Visit, key string, at int64) {
	if key == "chat_template" || slices.Contains(Keys(), key) {
		v.Found(ruleDuplicate, ID, at, key)
	}
}

// Check judges settings in JSON and all below them. The function maps offsets in
// the text to those in the content.
func Check(v *content.Visit, root *document.Node, dangerous Judge, place func(int) int64) {
	pipeline := root.Has("_class_name")
	root.Walk(func(n *document.Node) {
		for i, key := range n.Keys {
			setting(v, key, n.Items[i], dangerous, place(n.Items[i].At))
		}
	})
	for _, m := range classPaths(root) {
		if strings.Contains(m.Text, "--") {
			code(v, "type", m.Text, dangerous, place(m.At))
			continue
		}
		dotted(v, m.Text, dangerous, place(m.At))
	}
	if !pipeline {
		return
	}
	for i, key := range root.Keys { // diffusers' model_index.json: [library, class]
		if l := root.Items[i]; l.Kind == strictjson.Array && len(l.Items) == 2 && l.Items[0].Text != "" && l.Items[1].Text != "" {
			component(v, key, l, dangerous, place(l.At))
		}
	}
}

// setting judges one key and its value.
func setting(v *content.Visit, key string, value *document.Node, dangerous Judge, at int64) {
	switch key {
	case "auto_map", "custom_pipeline", "custom_pipelines":
		for _, t := range texts(value) {
			code(v, key, t, dangerous, at)
		}
	case "auto_mapping": // PEFT: the class and module of the base model
		for _, m := range value.Texts("parent_library") {
			target(v, m, strings.Join(value.Texts("base_model_class"), " "), dangerous, at)
		}
	case "base_model_name_or_path":
		for _, t := range texts(value) {
			if content.Leaves(t) || strings.Contains(t, "://") {
				v.Found(ruleBase, ID, at, clean(t))
			}
		}
	case "_target_", "loader_module":
		for _, t := range texts(value) {
			dotted(v, t, dangerous, at)
		}
	}
}

// texts are the strings in a value, at any depth.
func texts(n *document.Node) []string {
	var list []string
	n.Walk(func(n *document.Node) {
		if n.Kind == strictjson.String && n.Text != "" && len(list) < 256 {
			list = append(list, n.Text)
		}
	})
	return list
}

// code judges a reference to a Python file's class: "file.Class", or with a
// repository before it.
func code(v *content.Visit, key, ref string, dangerous Judge, at int64) {
	repo, rest, remote := strings.Cut(ref, "--")
	if !remote {
		rest = ref
	}
	if i := strings.LastIndexByte(rest, '.'); i > 0 && dangerous(rest[:i], rest[i+1:]) {
		v.Found(ruleDangerous, ID, at, key, clean(ref))
		return
	}
	if remote || strings.Contains(ref, "/") || strings.Contains(ref, "..") {
		v.Found(ruleRemote, ID, at, key, clean(ref), clean(repo))
		return
	}
	v.Found(ruleCustom, ID, at, key, clean(ref))
}

func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// libraries are those that diffusers and its kind load parts of pipelines from.
var libraries = []string{"diffusers", "transformers", "stable_diffusion", "onnxruntime", "optimum", "peft", "tokenizers"}

func component(v *content.Visit, key string, pair *document.Node, dangerous Judge, at int64) {
	library, class := pair.Items[0].Text, pair.Items[1].Text
	switch {
	case !isComponent(key, pair): // another list of two
	case dangerous(library, class):
		v.Found(ruleDangerous, ID, at, key, clean(library), clean(class))
	case ownModule(key, pair, dangerous):
		v.Found(ruleCustom, ID, at, key, clean(library), clean(class))
	}
}

// isComponent reports whether a list of two texts names a library and a class.
func isComponent(key string, pair *document.Node) bool {
	library, class := pair.Items[0].Text, pair.Items[1].Text
	lower, upper := library[0]|0x20 == library[0], class[0] >= 'A' && class[0] <= 'Z'
	return lower && (upper || key == "_class_name")
}

// ownModule reports whether a component is of a module beside the index.
func ownModule(key string, pair *document.Node, dangerous Judge) bool {
	library, class := pair.Items[0].Text, pair.Items[1].Text
	first, _, _ := strings.Cut(library, ".")
	return isComponent(key, pair) && !dangerous(library, class) && !slices.Contains(libraries, first) && !slices.Contains(pipelines, library)
}

// pipelines are modules of diffusers that are named without it.
var pipelines = []string{
	"latent_diffusion", "stable_diffusion_safe", "paint_by_example", "versatile_diffusion", "audioldm", "audioldm2", "deepfloyd_if", "kandinsky",
	"kandinsky2_2", "shap_e", "unclip", "unidiffuser", "wuerstchen", "stable_diffusion_xl", "stable_diffusion_3", "flux", "stable_audio", "hunyuandit", "pixart_alpha", "musicldm", "cogvideo", "lumina", "sana", "wan", "stable_cascade", "blip_diffusion", "ledits_pp", "qwenimage", "hidream_image", "aura_flow",
}

// dotted judges a name that is imported and called.
func dotted(v *content.Visit, ref string, dangerous Judge, at int64) {
	i := strings.LastIndexByte(ref, '.')
	if i < 0 {
		target(v, ref, "", dangerous, at)
		return
	}
	target(v, ref[:i], ref[i+1:], dangerous, at)
}

// maxParts is how many parts a path may have. Honest ones have a dozen; attributes
// lead in circles (os.path.os), so that a path may have any number.
const maxParts = 128

func target(v *content.Visit, module, name string, dangerous Judge, at int64) {
	whole := strings.TrimSuffix(module+"."+name, ".")
	said := []string{clean(module)}
	if name != "" {
		said = append(said, clean(name))
	}
	switch {
	case exactly(whole):
	case strings.Count(whole, ".") >= maxParts || dangerous(module, name) || reaches(strings.Split(whole, "."), dangerous):
		v.Found(ruleDangerous, ID, at, said...)
	case !vetted(whole):
		v.Found(ruleTarget, ID, at, said...)
	}
}

// homonyms are modules of the standard library whose names honest packages give
// to modules of their own.
var homonyms = []string{"build", "code", "inspect", "operator", "profile", "sched", "signal", "site", "socket", "test", "trace", "types", "unittest"}

// ownClass reports whether the rest of a path, with so many parts before it, is
// far more probably a class in a package's own module (net.code.Model) than one
// of the standard library's that the package imports. It is then a target like
// others that are not vetted.
func ownClass(rest []string, before int) bool {
	last := rest[len(rest)-1]
	return before > 0 && slices.Contains(homonyms, rest[0]) && len(last) > 0 && last[0] >= 'A' && last[0] <= 'Z'
}

// reaches reports whether a path leads to what is dangerous. Hydra imports the
// longest part that is a module and walks on by attributes, so that a dangerous
// function may be had through any module that imports it, and called by its own
// attributes (__call__).
func reaches(parts []string, dangerous Judge) bool {
	for end := len(parts); end > 1; end-- {
		if dangerous(strings.Join(parts[:end-1], "."), parts[end-1]) {
			return true
		}
	}
	for end := len(parts); end > 1; end-- {
		for from := range end - 1 {
			if !ownClass(parts[from:end], from) && dangerous(strings.Join(parts[from:end-1], "."), parts[end-1]) {
				return true
			}
		}
		if !strings.HasPrefix(parts[end-1], "__") {
			break
		}
	}
	return false
}
