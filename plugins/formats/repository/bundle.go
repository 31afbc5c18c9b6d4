package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/document"
	"github.com/cavra/cavra/plugins/formats/python"
)

// BundleID is the format of a bundle's manifest, and the class of the findings
// that only the bundle as a whole has.
const BundleID = "bundle"

const (
	// maxOpened files of a bundle are opened, each of at most maxOpen bytes, or
	// document.MaxBytes for a list of weights; all of at most maxRead.
	maxOpened = 20_000
	maxOpen   = 2 << 20
	maxRead   = 256 << 20
	// maxManifest is how long a manifest may be.
	maxManifest = 32 << 20
)

// IsManifest reports whether content begins as a bundle's manifest.
func IsManifest(head []byte) bool {
	return strings.HasPrefix(string(head), artifact.ManifestHeader)
}

// bundle is one that is being judged.
type bundle struct {
	v         *content.Visit
	dangerous Judge
	files     map[string]artifact.File
	paths     []string
	opened    int
	read      int64
	// leads are the programs that settings lead to, each once, in the order in
	// which they are come to; known are their paths.
	leads []lead
	known map[string]bool
}

// lead is a program, and the setting that leads to it.
type lead struct{ setting, path string }

// ScanBundle judges a bundle by its manifest: whether the code that its settings
// lead to is there and what it does, and whether its lists of weights stay within
// it. It opens files by the names under which loaders look for them, and holds
// each against the digest in the manifest. It adds to what is claimed of the
// manifest's own text only what it could not look at.
func ScanBundle(ctx context.Context, v *content.Visit, dangerous Judge) error {
	if v.Size > maxManifest || !v.Budget.Hold(v.Size*4) {
		v.Unread(0, 0, predicate.LimitBytes)
		return nil
	}
	defer v.Budget.Release(v.Size * 4)
	text := make([]byte, v.Size)
	if err := content.ReadFull(v.Bytes, text, 0); err != nil {
		return err
	}
	files, err := artifact.ParseManifest(text)
	if err != nil {
		return nil //nolint:nilerr // some text that begins as a manifest does
	}
	v.Format = BundleID
	b := &bundle{v: v, dangerous: dangerous, files: make(map[string]artifact.File, len(files)), known: make(map[string]bool)}
	for _, f := range files {
		b.files[f.Path] = f
		b.paths = append(b.paths, f.Path)
	}
	for _, p := range b.paths {
		if err := b.file(ctx, p); err != nil {
			return fmt.Errorf("judge bundle: %w", err)
		}
	}
	for i := 0; i < len(b.leads); i++ {
		if err := b.program(ctx, b.leads[i]); err != nil {
			return fmt.Errorf("judge bundle: %w", err)
		}
	}
	b.pickles()
	return nil
}

// lead notes a program that a setting leads to.
func (b *bundle) lead(setting, p string) {
	if !b.known[p] {
		b.known[p] = true
		b.leads = append(b.leads, lead{setting, p})
	}
}

// file looks at one file by the name under which a loader would open it.
func (b *bundle) file(ctx context.Context, p string) error {
	dir, name := path.Split(p)
	dir = path.Clean(dir)
	switch {
	case isSettings(dir, name):
		return b.settings(ctx, p, dir)
	case strings.HasSuffix(name, ".yaml"), strings.HasSuffix(name, ".yml"):
		return b.yaml(ctx, p, dir)
	case name == "MLmodel":
		return b.mlmodel(ctx, p, dir)
	case name == "config.pbtxt":
		return b.triton(ctx, p, dir)
	case entryPoint(dir, name):
		b.lead(name, p)
	}
	return nil
}

// isSettings reports whether loaders look for what leads to code in a JSON file of
// that name. Others may be data, by the thousand; what is in them is judged where
// they are scanned themselves.
func isSettings(dir, name string) bool {
	if !strings.HasSuffix(name, ".json") {
		return false
	}
	return dir == "." || loaded[name] || strings.HasSuffix(name, "config.json") || strings.HasSuffix(name, indexSuffix)
}

// entryPoint reports whether a program is one that is run by its name: by
// torch.hub, by servers, by diffusers, or by transformers when it generates.
func entryPoint(dir, name string) bool {
	switch name {
	case "hubconf.py", "handler.py":
		return true
	case "pipeline.py":
		return dir == "."
	case "inference.py":
		return dir == "code"
	case "generate.py":
		return dir == "custom_generate"
	}
	return false
}

// open reads a file of the bundle and holds it against its digest. It returns
// nothing for what is too large, gone or changed, and says so as a gap.
func (b *bundle) open(ctx context.Context, p string) ([]byte, error) {
	f := b.files[p]
	most := int64(maxOpen)
	if strings.HasSuffix(p, indexSuffix) {
		most = document.MaxBytes
	}
	if f.Size > most {
		b.v.Unread(0, 0, predicate.LimitBytes)
		return nil, nil
	}
	if b.opened++; b.opened > maxOpened {
		b.v.Unread(0, 0, predicate.LimitMembers)
		return nil, nil
	}
	if b.read += f.Size; b.read > maxRead {
		b.v.Unread(0, 0, predicate.LimitBytes)
		return nil, nil
	}
	r, err := b.v.Sibling(ctx, p)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("open %s: %w", p, context.Cause(ctx))
	}
	if err != nil {
		why := predicate.ReadFailed
		if errors.Is(err, fs.ErrNotExist) {
			why = predicate.NotFound
		}
		b.v.Unread(0, 0, why)
		return nil, nil //nolint:nilerr // the gap says it
	}
	text := make([]byte, min(r.Size(), most+1))
	err = errors.Join(content.ReadFull(r, text, 0), r.Close())
	if err != nil || predicate.DigestOf(text) != f.Digest {
		b.v.Unread(0, 0, predicate.Changed)
		return nil, nil //nolint:nilerr // the gap says it
	}
	return text, nil
}

// module looks for a module's file in some folders, as what a setting leads to.
func (b *bundle) module(setting, module string, dirs ...string) {
	p, ok := b.locate(module, dirs...)
	if !ok {
		b.v.Found(ruleMissing, BundleID, 0, setting, clean(module))
		return
	}
	b.lead(setting, p)
}

// locate finds a module's file: "a.b" is a/b.py or a/b/__init__.py.
func (b *bundle) locate(module string, dirs ...string) (string, bool) {
	if module == "" || strings.ContainsRune(module, 0) {
		return "", false
	}
	inner := strings.ReplaceAll(module, ".", "/")
	for _, d := range dirs {
		for _, p := range []string{path.Join(d, inner+".py"), path.Join(d, inner, "__init__.py")} {
			if _, ok := b.files[p]; ok {
				return p, true
			}
		}
	}
	return "", false
}

// program judges a Python file that a setting leads to, and notes those that it
// imports from beside it.
func (b *bundle) program(ctx context.Context, l lead) error {
	text, err := b.open(ctx, l.path)
	if err != nil || text == nil {
		return err
	}
	program, err := python.Check(string(text))
	if program.Serious != "" {
		b.v.Found(ruleLeads, BundleID, 0, l.setting, clean(l.path), program.Serious)
	}
	if err != nil { // its own entry says that it was not understood
		b.v.Unread(0, 0, predicate.Malformed)
	}
	for _, module := range program.Imports {
		b.imported(l, module)
	}
	return nil
}

// imported notes an import of a program: the module, and the packages around it,
// which are imported first. Names without dots are looked for beside the program,
// as a script's are.
func (b *bundle) imported(l lead, module string) {
	if strings.Count(module, ".") >= maxParts {
		return // no package is as deep
	}
	dir := path.Dir(l.path)
	rest := strings.TrimLeft(module, ".")
	for range len(module) - len(rest) - 1 {
		dir = path.Dir(dir)
	}
	for i, c := range rest + "." {
		if c != '.' {
			continue
		}
		if at, ok := b.locate(rest[:i], dir); ok {
			b.lead(l.setting, at)
		}
	}
}

// pickles notes weights that are there in a format that loads safely as well.
func (b *bundle) pickles() {
	safe := slices.ContainsFunc(b.paths, func(p string) bool { return strings.HasSuffix(p, ".safetensors") })
	for _, p := range b.paths {
		switch ext := path.Ext(p); {
		case !safe:
		case ext == ".bin" && strings.HasPrefix(path.Base(p), "pytorch_model"), ext == ".pt", ext == ".pth", ext == ".ckpt":
			b.v.Found(rulePickle, BundleID, 0, clean(p))
		}
	}
}
