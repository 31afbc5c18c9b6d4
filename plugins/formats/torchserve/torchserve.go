// Package torchserve judges the manifest of TorchServe's model archives (.mar):
// the handler that the server imports and calls for every request, the files that
// it opens, and the packages that it may install. The archive itself is a zip, and
// its members are scanned as what they are.
package torchserve

import (
	"strings"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/document"
	"github.com/cavra/cavra/plugins/formats/strictjson"
)

const class = "torchserve"

const (
	ruleHandler      = "torchserve.handler.custom"
	ruleDangerous    = "torchserve.handler.dangerous"
	rulePath         = "torchserve.path.outside"
	ruleRequirements = "torchserve.requirements"
)

// Rules lists the rules that Check may name.
func Rules() []string { return []string{ruleHandler, ruleDangerous, rulePath, ruleRequirements} }

// builtin are the handlers that the server has itself.
var builtin = map[string]bool{
	"image_classifier": true, "image_segmenter": true, "object_detector": true, "text_classifier": true, "text_handler": true, "base_handler": true,
	"vision_handler": true, "mnist_digit_classifier": true, "dali_image_classifier": true,
}

// Check judges a manifest. The dangerous function says of a module and a name
// whether they are known to run code.
func Check(v *content.Visit, root *document.Node, dangerous func(module, name string) bool, place func(int) int64) {
	if !root.Has("archiverVersion") && !root.Has("modelServerVersion") {
		return
	}
	for _, model := range root.All("model") {
		for _, h := range model.All("handler") {
			handler(v, h, dangerous, place(h.At))
		}
		for _, key := range []string{"handler", "modelFile", "serializedFile", "extensions", "requirementsFile", "envelope", "configFile"} {
			for _, f := range model.All(key) {
				name, _, _ := strings.Cut(f.Text, ":")
				if f.Kind == strictjson.String && content.Leaves(name) {
					v.Found(rulePath, class, place(f.At), key, cursor.Clean(f.Text))
				}
			}
		}
		for _, r := range model.All("requirementsFile") {
			if r.Kind == strictjson.String && r.Text != "" {
				v.Found(ruleRequirements, class, place(r.At), cursor.Clean(r.Text))
			}
		}
	}
}

// handler judges what the server imports: a module of the archive, or else any
// that is installed, and the function of it that is called.
func handler(v *content.Visit, n *document.Node, dangerous func(module, name string) bool, at int64) {
	module, function, _ := strings.Cut(n.Text, ":")
	module = strings.TrimSuffix(module[strings.LastIndexByte(module, '/')+1:], ".py")
	switch {
	case n.Kind != strictjson.String:
		v.Found(ruleDangerous, class, at, "a handler that is no name")
	case builtin[module] && function == "":
	case dangerous(module, function):
		v.Found(ruleDangerous, class, at, cursor.Clean(n.Text))
	default:
		v.Found(ruleHandler, class, at, cursor.Clean(n.Text))
	}
}
