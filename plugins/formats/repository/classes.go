package repository

import (
	"regexp"

	"github.com/cavra/cavra/plugins/formats/document"
	"github.com/cavra/cavra/plugins/formats/strictjson"
)

// classKeys are keys whose value is a word that the library knows, or the path of
// a class that it imports and makes: activations and tokenizers of
// sentence-transformers.
var classKeys = []string{"activation_function", "activation_fn", "sbert_ce_default_activation_function", "tokenizer_class"}

// classPath is the path of a class or function, which may be in another
// repository.
var classPath = regexp.MustCompile(`^([\w./-]+--)?[\pL_][\pL\pN_]*(\.[\pL_][\pL\pN_]*)+$`)

// classPaths are the paths of classes that settings name by keys which mean other
// things elsewhere. Those of sentence-transformers: each type in its list of
// modules (modules.json), which is made from a path; the types of a router's
// structure; the values of classKeys. Those of CompVis and Stability: a target that
// is called with params.
func classPaths(root *document.Node) []*document.Node {
	var list []*document.Node
	take := func(nodes ...*document.Node) {
		for _, n := range nodes {
			if n.Kind == strictjson.String && classPath.MatchString(n.Text) {
				list = append(list, n)
			}
		}
	}
	if root.Kind == strictjson.Array {
		for _, m := range root.Items {
			if m.Has("path") {
				take(m.All("type")...)
			}
		}
	}
	root.Walk(func(n *document.Node) {
		for _, key := range classKeys {
			take(n.All(key)...)
		}
		if n.Has("params") {
			take(n.All("target")...)
		}
		if n.Has("structure") {
			for _, types := range n.All("types") {
				take(types.Items...)
			}
		}
	})
	return list
}
