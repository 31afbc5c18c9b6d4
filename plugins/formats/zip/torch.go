package zip

import (
	"context"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/pickle"
	"github.com/cavra/cavra/plugins/formats/torchexport"
	"github.com/cavra/cavra/plugins/formats/torchscript"
	"github.com/cavra/cavra/plugins/formats/unpack"
)

// ruleNative is met by programs of the processor in an exported program,
// rulePackage by Python in a package.
const (
	ruleNative  = "torch.export.native"
	rulePackage = "torch.package.code"
)

// torch is what is known of an archive that torch has written.
type torch struct {
	// scripts are the folders with TorchScript: source in code, beside constants.
	// exports are the ones at the top with an exported program, and packages
	// those that torch.package wrote.
	scripts, exports, packages map[string]bool
	// storages are the folders whose members a pickle of that name refers to,
	// true when it was read to its end and there is one of it.
	storages map[string]bool
	// extents are the sizes of raw weights that a list gives, by member.
	extents map[string]int64
	done    map[*entry]bool
}

// torch looks for torch's folders among the members.
func (a *archive) torch() *torch {
	t := &torch{
		scripts: make(map[string]bool), exports: make(map[string]bool), packages: make(map[string]bool), storages: make(map[string]bool),
		extents: make(map[string]int64), done: make(map[*entry]bool),
	}
	constants := make(map[string]bool)
	for _, e := range a.dir.entries {
		switch top := root(e.name); {
		case e.bad != "":
		case e.name == top+"/constants.pkl":
			constants[top] = true
		case e.name == top+"/archive_format":
			t.exports[top] = true
		case e.name == top+"/.data/extern_modules":
			t.packages[top] = true
		}
	}
	for _, e := range a.dir.entries {
		folder, ok := scriptOf(e.name)
		if top := root(e.name); ok && e.bad == "" && (constants[folder] || t.packages[top] && folder == top+inPackage) {
			t.scripts[folder] = true
		}
	}
	return t
}

// inPackage is where a package keeps TorchScript.
const inPackage = "/.data/ts_code"

// root is the folder at the top that a member is in.
func root(name string) string {
	top, _, ok := strings.Cut(name, "/")
	if !ok {
		return "."
	}
	return top
}

// scriptOf is the folder of the TorchScript that a member would be source of.
func scriptOf(name string) (string, bool) {
	folder := root(name)
	if strings.HasPrefix(name, folder+inPackage+"/") {
		folder += inPackage
	}
	return folder, strings.HasPrefix(name, folder+"/code/") && strings.HasSuffix(name, ".py")
}

// sources scans the source that torch.jit compiles, and keeps the classes that it
// defines by the names that pickles have for them. In a package, any module whose
// source is there is the package's own.
func (a *archive) sources(ctx context.Context, t *torch) error {
	classes := make(map[string]bool)
	for _, e := range a.dir.entries {
		folder, ok := scriptOf(e.name)
		if e.bad != "" || !ok || !t.scripts[folder] {
			a.ownModule(e, t, classes)
			continue
		}
		t.done[e] = true
		module := strings.TrimSuffix(strings.TrimPrefix(e.name, folder+"/code/"), ".py")
		_, err := a.memberBy(ctx, e, func(ctx context.Context, c *content.Visit) error {
			names, err := torchscript.Scan(ctx, c)
			for _, n := range names {
				classes[strings.ReplaceAll(module, "/", ".")+"."+n] = true
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := a.variant(ctx, e); err != nil {
			return err
		}
		a.others++
	}
	a.Classes = classes
	return nil
}

// ownModule notes a module of a package, which its loader runs; what it does is
// judged when the member is scanned, and that it is there is a finding.
func (a *archive) ownModule(e *entry, t *torch, classes map[string]bool) {
	top := root(e.name)
	module, isPython := strings.CutSuffix(strings.TrimPrefix(e.name, top+"/"), ".py")
	if e.bad != "" || !isPython || !t.packages[top] {
		return
	}
	a.Found(rulePackage, where, e.header, e.String())
	classes[strings.ReplaceAll(strings.TrimSuffix(module, "/__init__"), "/", ".")+"."+content.AnyClass] = true
}

// pickles scans the pickles that refer to storages beside them: data.pkl to
// data/0 and so on, and so with TorchScript's constants.
func (a *archive) pickles(ctx context.Context, t *torch) error {
	for _, e := range a.dir.entries {
		dir := path.Dir(path.Clean(e.name))
		name, isPickle := strings.CutSuffix(path.Base(e.name), ".pkl")
		if e.bad != "" || !isPickle || name != "data" && (name != "constants" || !t.scripts[dir]) {
			continue
		}
		t.done[e] = true
		if name == "data" {
			a.Format = IDTorch
		}
		out, err := a.member(ctx, e)
		if err != nil {
			return err
		}
		if err := a.variant(ctx, e); err != nil {
			return err
		}
		a.others++
		folder := path.Join(dir, name)
		was, twice := t.storages[folder]
		t.storages[folder] = out.Complete && out.Format == pickle.ID && (was || !twice)
	}
	return nil
}

// maxWeightList bounds a list of weights, in bytes.
const maxWeightList = 16 << 20

// weights reads the lists of raw weights of exported programs. The lists
// themselves are scanned like any member.
func (a *archive) weights(ctx context.Context, t *torch) error {
	for _, e := range a.dir.entries {
		dir, base := path.Split(e.name)
		if e.bad != "" || !t.exports[root(e.name)] || !strings.HasSuffix(base, "_config.json") || max(e.size, e.packed) > maxWeightList || e.flags&flagEncrypted != 0 {
			continue
		}
		text, err := a.text(ctx, e)
		if err != nil {
			return err
		}
		for name, size := range torchexport.Extents(text) {
			if known, twice := t.extents[dir+name]; twice && known != size {
				size = -1
			}
			t.extents[dir+name] = size
		}
	}
	return nil
}

// text is what a member holds, or nothing where it cannot be read.
func (a *archive) text(ctx context.Context, e *entry) ([]byte, error) {
	if !a.Budget.Hold(e.size) {
		return nil, nil
	}
	defer a.Budget.Release(e.size)
	if e.method == methodStored {
		b := make([]byte, e.packed)
		return b, content.ReadFull(a.Bytes, b, e.data)
	}
	codec, ok := codecOf(e)
	if !ok {
		return nil, nil
	}
	c, err := unpack.Read(ctx, a.Budget, codec, io.NewSectionReader(a.Bytes, e.data, e.packed), e.packed, e.size)
	if err != nil {
		return nil, err
	}
	b := make([]byte, c.Size)
	if c.Fault == nil {
		err = content.ReadFull(c, b, 0)
	}
	if closed := c.Close(); err == nil {
		err = closed
	}
	return b, err
}

// rest scans a member by the place that it has in one of torch's archives, or by
// its content.
func (a *archive) rest(ctx context.Context, e *entry, t *torch) (content.Outcome, error) {
	folder, base := path.Split(e.name)
	folder = path.Clean(folder)
	plain := e.method == methodStored && e.flags&flagEncrypted == 0 && !e.disagrees && e.packed == e.size
	size, listed := t.extents[e.name]
	top := root(e.name)
	switch {
	case plain && isNumber(base) && t.storages[folder]:
		return a.storage(ctx, e)
	case plain && listed && size == e.size:
		return a.storage(ctx, e)
	case plain && t.packages[top] && folder == top+"/.data" && isStorage(base):
		return a.storage(ctx, e)
	case t.scripts[top] && e.name == top+"/bytecode.pkl":
		return a.bytecode(ctx, e)
	case t.exports[top] && !e.isDir() && strings.HasPrefix(e.name, top+"/data/aotinductor/") && slices.Contains([]string{".so", ".o", ".cubin", ".spv", ".hsaco", ".metallib"}, path.Ext(base)):
		a.Found(ruleNative, where, e.header, e.String())
	}
	return a.member(ctx, e)
}

// isStorage reports whether a member of a package's own folder is a storage.
func isStorage(base string) bool {
	number, ok := strings.CutSuffix(base, ".storage")
	return ok && isNumber(number)
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// storage claims a tensor's bytes, unless they begin as a pickle that imports:
// torch maps them into memory and never unpickles them, but some other program
// may load them.
func (a *archive) storage(ctx context.Context, e *entry) (content.Outcome, error) {
	out, err := a.EnterWith(ctx, a.stored(e), func(ctx context.Context, c *content.Visit) error {
		c.Format = "torch-storage"
		hidden, err := pickle.Imports(ctx, c)
		if err != nil {
			return err
		}
		if hidden {
			return pickle.Format{}.Scan(ctx, c)
		}
		c.Inert(0, c.Size)
		return nil
	})
	a.frame(e)
	return out, err
}

// bytecode marks the program of the mobile interpreter, which is not read, beside
// what it is as a pickle.
func (a *archive) bytecode(ctx context.Context, e *entry) (content.Outcome, error) {
	out, err := a.member(ctx, e)
	a.Unread(e.data, e.dataEnd, predicate.UnsupportedFormat)
	return out, err
}
