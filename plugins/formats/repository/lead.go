package repository

import (
	"context"
	"path"
	"strings"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/document"
	"github.com/cavra/cavra/plugins/formats/strictjson"
)

// settings follows what JSON settings lead to within the bundle.
func (b *bundle) settings(ctx context.Context, p, dir string) error {
	if b.files[p].Size > maxOpen && !strings.HasSuffix(p, ".index.json") {
		return nil // vocabularies; their own entry judges the keys in them
	}
	text, err := b.read(ctx, p)
	if err != nil || text == nil {
		return err
	}
	roots, err := document.Read([]byte(strings.TrimPrefix(string(text), "\ufeff")), func(string, int) {})
	if err != nil {
		return nil //nolint:nilerr // its own entry says what is wrong with it
	}
	for _, root := range roots {
		if strings.HasSuffix(p, ".index.json") {
			b.index(root, dir)
		}
		var refs [][2]string
		root.Walk(func(n *document.Node) {
			for _, key := range []string{"auto_map", "custom_pipeline", "custom_pipelines"} {
				for _, v := range n.All(key) {
					for _, t := range texts(v) {
						refs = append(refs, [2]string{key, t})
					}
				}
			}
		})
		for _, r := range refs {
			if err := b.reference(ctx, r[0], r[1], dir); err != nil {
				return err
			}
		}
		if err := b.pipeline(ctx, root, dir); err != nil {
			return err
		}
		if path.Base(p) == "MANIFEST.json" && path.Base(dir) == "MAR-INF" {
			if err := b.archive(ctx, root, path.Dir(dir)); err != nil {
				return err
			}
		}
	}
	return nil
}

// reference follows "file.Class" of auto_map, or a pipeline's file. What is in
// another repository has a finding already.
func (b *bundle) reference(ctx context.Context, key, ref, dir string) error {
	if strings.Contains(ref, "--") || strings.Contains(ref, "/") || strings.Contains(ref, "..") {
		return nil
	}
	module := ref
	if i := strings.LastIndexByte(ref, '.'); i > 0 && key != "custom_pipeline" {
		module = ref[:i]
	}
	return b.module(ctx, key, strings.TrimSuffix(module, ".py"), dir)
}

// pipeline follows the modules of diffusers' components: beside the index, or in
// the component's folder.
func (b *bundle) pipeline(ctx context.Context, root *document.Node, dir string) error {
	if root.Kind != strictjson.Object || !root.Has("_class_name") {
		return nil
	}
	for i, key := range root.Keys {
		l := root.Items[i]
		if l.Kind != strictjson.Array || len(l.Items) != 2 || l.Items[0].Text == "" || l.Items[1].Text == "" || !ownModule(key, l, b.dangerous) {
			continue
		}
		if err := b.module(ctx, key, l.Items[0].Text, dir, path.Join(dir, key)); err != nil {
			return err
		}
	}
	return nil
}

// archive follows the handler of TorchServe's model archive.
func (b *bundle) archive(ctx context.Context, root *document.Node, dir string) error {
	for _, m := range root.All("model") {
		for _, key := range []string{"handler", "modelFile"} {
			for _, h := range m.Texts(key) {
				file, _, _ := strings.Cut(h, ":")
				module, isFile := strings.CutSuffix(file, ".py")
				if !isFile && builtinHandlers[file] {
					continue
				}
				if err := b.module(ctx, key, module, dir); err != nil {
					return err
				}
			}
		}
	}
	return nil
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
	text, err := b.read(ctx, p)
	if err != nil || text == nil {
		return err
	}
	s := &scalars{src: string(text), anchors: make(map[string]string)}
	var loaders []string
	dirs := []string{}
	for s.next() {
		if !s.isKey {
			continue
		}
		switch s.text {
		case "loader_module":
			loaders = append(loaders, s.value())
		case "code", "model_code_path":
			c := s.value()
			if content.Leaves(c) {
				b.v.Found(ruleOutside, BundleID, 0, clean(c))
				continue
			}
			if file, ok := b.files[path.Join(dir, c)]; ok {
				if err := b.program(ctx, s.text, file.Path); err != nil {
					return err
				}
			} else if c != "" && c != "null" {
				dirs = append(dirs, path.Join(dir, c))
			}
		}
	}
	for _, l := range loaders {
		if l == "" || vetted(l) {
			continue
		}
		if err := b.module(ctx, "loader_module", l, append(dirs, dir)...); err != nil {
			return err
		}
	}
	return nil
}

// triton follows the model of Triton's Python backend in its folders of versions.
func (b *bundle) triton(ctx context.Context, p, dir string) error {
	text, err := b.read(ctx, p)
	if err != nil || text == nil {
		return err
	}
	c := readTriton(string(text))
	if !tritonBackends[c.backend] {
		b.v.Found(ruleBackend, BundleID, 0, clean(c.backend))
	}
	for _, f := range []string{c.file, strings.TrimPrefix(c.environment, "$$TRITON_MODEL_DIRECTORY/")} {
		if f != "" && content.Leaves(f) {
			b.v.Found(ruleOutside, BundleID, 0, clean(f))
		}
	}
	if c.backend != "python" {
		return nil
	}
	file := c.file
	if file == "" {
		file = "model.py"
	}
	found := false
	for _, q := range b.paths {
		rest, below := strings.CutPrefix(q, path.Clean(dir)+"/")
		if dir == "." {
			rest, below = q, true
		}
		version, name, _ := strings.Cut(rest, "/")
		if below && name == file && strings.Trim(version, "0123456789") == "" {
			found = true
			if err := b.program(ctx, "backend", q); err != nil {
				return err
			}
		}
	}
	if !found {
		b.v.Found(ruleMissing, BundleID, 0, "backend", clean(file))
	}
	return nil
}
