package repository

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/document"
	"github.com/cavra/cavra/plugins/formats/strictjson"
)

// loaded are the settings in which loaders look for code.
var loaded = map[string]bool{
	"config.json": true, "tokenizer_config.json": true, "model_index.json": true, "adapter_config.json": true, "preprocessor_config.json": true,
	"processor_config.json": true, "image_processor_config.json": true, "video_preprocessor_config.json": true, "modules.json": true, "MANIFEST.json": true,
}

// indexSuffix ends the names of lists of the files that weights are spread over.
const indexSuffix = ".index.json"

// settings follows what JSON settings lead to within the bundle.
func (b *bundle) settings(ctx context.Context, p, dir string) error {
	if b.files[p].Size > maxOpen && !strings.HasSuffix(p, indexSuffix) {
		if loaded[path.Base(p)] {
			b.v.Unread(0, 0, predicate.LimitBytes)
		}
		return nil // a vocabulary; its own entry judges the keys in it
	}
	text, err := b.open(ctx, p)
	if err != nil || text == nil {
		return err
	}
	roots, err := document.Read([]byte(strings.TrimPrefix(string(text), "\ufeff")), func(string, int) {})
	if err != nil {
		return nil //nolint:nilerr // its own entry says what is wrong with it
	}
	for _, root := range roots {
		if strings.HasSuffix(p, indexSuffix) {
			b.index(root, dir)
		}
		var refs [][2]string
		root.Walk(func(n *document.Node) {
			for _, key := range []string{"auto_map", "custom_pipeline"} {
				for _, v := range n.All(key) {
					refs = appendRefs(refs, key, texts(v))
				}
			}
			for _, v := range n.All("custom_pipelines") {
				v.Walk(func(n *document.Node) { refs = appendRefs(refs, "custom_pipelines", n.Texts("impl")) })
			}
			for _, v := range n.All("_target_") {
				refs = appendRefs(refs, "_target_", texts(v))
			}
		})
		for _, m := range classPaths(root) {
			refs = appendRefs(refs, "_target_", []string{m.Text})
		}
		for _, r := range refs {
			b.reference(r[0], r[1], dir)
		}
		b.pipeline(root, dir)
		if path.Base(p) == "MANIFEST.json" && path.Base(dir) == "MAR-INF" {
			b.archive(root, path.Dir(dir))
		}
	}
	return nil
}

// appendRefs adds what a key names.
func appendRefs(refs [][2]string, key string, names []string) [][2]string {
	for _, n := range names {
		if len(refs) < maxRefs {
			refs = append(refs, [2]string{key, n})
		}
	}
	return refs
}

// maxRefs is how many references of one file are followed.
const maxRefs = 10_000

// reference follows "file.Class" of auto_map, or a pipeline's file. What is in
// another repository has a finding already.
func (b *bundle) reference(key, ref, dir string) {
	if key == "_target_" {
		b.target(ref, dir)
		return
	}
	if strings.Contains(ref, "--") || strings.Contains(ref, "/") || strings.Contains(ref, "..") {
		return
	}
	module := ref
	if i := strings.LastIndexByte(ref, '.'); i > 0 && key != "custom_pipeline" {
		module = ref[:i]
	}
	b.module(key, strings.TrimSuffix(module, ".py"), dir)
}

// target follows what Hydra imports as far as it is in the repository: below its
// root, or beside the settings. Packages that are installed are judged by name.
func (b *bundle) target(ref, dir string) {
	if strings.Count(ref, ".") >= maxParts {
		return // a path of that length is a finding by itself
	}
	for module := ref; ; {
		i := strings.LastIndexByte(module, '.')
		if i <= 0 {
			return
		}
		module = module[:i]
		if at, ok := b.locate(module, ".", dir, "src"); ok {
			b.lead("_target_", at)
			return
		}
	}
}

// pipeline follows the modules of diffusers' components: beside the index, or in
// the component's folder.
func (b *bundle) pipeline(root *document.Node, dir string) {
	if root.Kind != strictjson.Object || !root.Has("_class_name") {
		return
	}
	for i, key := range root.Keys {
		l := root.Items[i]
		if l.Kind != strictjson.Array || len(l.Items) != 2 || l.Items[0].Text == "" || l.Items[1].Text == "" || !ownModule(key, l, b.dangerous) {
			continue
		}
		b.module(key, l.Items[0].Text, dir, path.Join(dir, key))
	}
}

// yaml follows the targets in settings in YAML.
func (b *bundle) yaml(ctx context.Context, p, dir string) error {
	if b.files[p].Size > maxOpen {
		return nil // its own entry judges the targets in it
	}
	text, err := b.open(ctx, p)
	if err != nil || text == nil {
		return err
	}
	s := newScalars(string(text))
	for followed := 0; s.next() && followed < maxRefs; {
		if key := s.resolved(); s.isKey && (key == "_target_" || key == "target") {
			followed++
			b.target(s.value(), dir)
		}
	}
	return nil
}

// archive follows the handler of TorchServe's model archive.
func (b *bundle) archive(root *document.Node, dir string) {
	for _, m := range root.All("model") {
		for _, key := range []string{"handler", "modelFile"} {
			for _, h := range m.Texts(key) {
				file, _, _ := strings.Cut(h, ":")
				module, isFile := strings.CutSuffix(file, ".py")
				if !isFile && builtinHandlers[file] {
					continue
				}
				b.module(key, module, dir)
			}
		}
	}
}

// builtinHandlers come with TorchServe.
var builtinHandlers = map[string]bool{"image_classifier": true, "image_segmenter": true, "object_detector": true, "text_classifier": true}

// index judges the list of files that weights are spread over.
func (b *bundle) index(root *document.Node, dir string) {
	seen := make(map[string]bool)
	for _, m := range root.All("weight_map") {
		for _, n := range m.Items {
			if n.Kind != strictjson.String || seen[n.Text] || len(seen) >= 100_000 {
				continue
			}
			seen[n.Text] = true
			if content.Leaves(n.Text) {
				b.v.Found(ruleOutside, BundleID, 0, clean(n.Text))
				continue
			}
			if _, ok := b.files[path.Join(dir, n.Text)]; !ok {
				b.v.Found(ruleAbsent, BundleID, 0, clean(n.Text))
			}
		}
	}
}

// mlmodel follows an MLflow model's loader into its code paths.
func (b *bundle) mlmodel(ctx context.Context, p, dir string) error {
	text, err := b.open(ctx, p)
	if err != nil || text == nil {
		return err
	}
	s := newScalars(string(text))
	var loaders, dirs []string
	for s.next() {
		if !s.isKey {
			continue
		}
		switch s.resolved() {
		case "loader_module":
			loaders = append(loaders, s.value())
		case "model_code_path":
			// The path where the model was made; MLflow takes its last part.
			if c := s.value(); c != "" && c != "null" {
				b.module("model_code_path", strings.TrimSuffix(path.Base(strings.ReplaceAll(c, `\`, "/")), ".py"), dir)
			}
		case "code":
			c := s.value()
			if content.Leaves(c) {
				b.v.Found(ruleOutside, BundleID, 0, clean(c))
				continue
			}
			if c != "" && c != "null" {
				dirs = append(dirs, path.Join(dir, c))
			}
		}
	}
	for _, l := range loaders {
		if l == "" || vetted(l) {
			continue
		}
		if _, ok := b.locate(l, append(dirs, dir)...); !ok && strings.HasPrefix(l, "mlflow.") {
			continue // MLflow's own; that it is not known is found beside it
		}
		b.module("loader_module", l, append(dirs, dir)...)
	}
	return nil
}

// triton follows the model of Triton's Python backend in its folders of versions.
func (b *bundle) triton(ctx context.Context, p, dir string) error {
	text, err := b.open(ctx, p)
	if err != nil || text == nil {
		return err
	}
	c := readTriton(string(text))
	if !tritonBackends[c.backend] {
		b.v.Found(ruleBackend, BundleID, 0, clean(c.backend))
	}
	for _, l := range c.libraries {
		name, _ := strings.CutPrefix(strings.TrimSuffix(l, ".so"), "libtriton_")
		if !tritonBackends[name] || name == "" {
			b.v.Found(ruleBackend, BundleID, 0, clean(l))
		}
	}
	for _, f := range []string{c.file, strings.TrimPrefix(c.environment, "$$TRITON_MODEL_DIRECTORY/")} {
		if f != "" && content.Leaves(f) {
			b.v.Found(ruleOutside, BundleID, 0, clean(f))
		}
	}
	if c.backend != "python" {
		return nil
	}
	b.versions(path.Clean(dir), cmp.Or(c.file, "model.py"))
	return nil
}

// versions finds the file of a model for Triton in each of its versions' folders.
func (b *bundle) versions(dir, file string) {
	prefix := dir + "/"
	if dir == "." {
		prefix = ""
	}
	found := false
	from, _ := slices.BinarySearch(b.paths, prefix)
	for _, p := range b.paths[from:] {
		rest, below := strings.CutPrefix(p, prefix)
		if !below {
			break
		}
		version, name, _ := strings.Cut(rest, "/")
		if name == file && strings.Trim(version, "0123456789") == "" {
			found = true
			b.lead("backend", p)
		}
	}
	if !found {
		b.v.Found(ruleMissing, BundleID, 0, "backend", clean(file))
	}
}
