package fs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/safeio"
)

// folderFlags open a folder to read its names, never through a link.
const folderFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC

// List yields every file under root, by path. A root that is a file is listed
// by its own name. A symbolic link to a regular file is an item of its own; one
// to a folder inside the root is none, since the files there are listed; one to
// anywhere else is an item with a problem. Memory grows with the largest single
// folder.
func (*Connector) List(ctx context.Context, root string) iter.Seq2[artifact.Item, error] {
	return func(yield func(artifact.Item, error) bool) {
		w := &walk{yield: yield}
		if err := w.run(ctx, root); err != nil && !errors.Is(err, errStopped) {
			yield(artifact.Item{}, fmt.Errorf("list %s: %w", root, err))
		}
	}
}

// errStopped says that the consumer wants no more.
var errStopped = errors.New("stopped")

type walk struct {
	yield func(artifact.Item, error) bool
	// root is the listed folder's path without links.
	root string
}

func (w *walk) run(ctx context.Context, root string) error {
	if !filepath.IsAbs(root) {
		return errors.New("the path is not absolute")
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		name := encode(filepath.Base(root))
		return w.emit(w.leaf(unix.AT_FDCWD, root, name, "", &st))
	}
	if w.root, err = pathOf(fd); err != nil {
		return err
	}
	dir, err := unix.Openat(fd, ".", folderFlags, 0)
	if err != nil {
		return err
	}
	return w.folder(ctx, dir, "", "", 0)
}

func (w *walk) emit(item artifact.Item) error {
	if !w.yield(item, nil) {
		return errStopped
	}
	return nil
}

// entry is a name in a folder. Its order is that of the paths that it leads to.
type entry struct {
	name, order string
	st          unix.Stat_t
	problem     artifact.Reason
	folder      bool
}

// folder lists what is in the open folder fd, which it closes. path is "" for
// the root, bundle that of the outermost bundle so far.
func (w *walk) folder(ctx context.Context, fd int, path, bundle string, depth int) error {
	dir := os.NewFile(uintptr(fd), path)
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return errors.Join(fmt.Errorf("read folder %q: %w", path, err), dir.Close())
	}
	err = w.entries(ctx, fd, names, path, bundle, depth)
	return errors.Join(err, dir.Close())
}

func (w *walk) entries(ctx context.Context, fd int, names []string, path, bundle string, depth int) error {
	entries := make([]entry, 0, len(names))
	marked := false
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		e := classify(fd, name)
		if e.folder && (depth+1 > maxDepth || len(join(path, e.order)) > maxPath) {
			e.folder, e.order, e.problem = false, encode(name), predicate.LimitDepth
		}
		marked = marked || markers[name] && !e.folder
		entries = append(entries, e)
	}
	if bundle == "" && marked {
		if bundle = path; path == "" {
			bundle = "."
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.order, b.order) })
	for _, e := range entries {
		if err := w.entry(ctx, fd, e, path, bundle, depth); err != nil {
			return err
		}
	}
	return nil
}

// classify looks at a name without opening any file. That a folder can be
// opened is tried here, since its problem stands elsewhere in the order than
// its files.
func classify(fd int, name string) entry {
	e := entry{name: name, order: encode(name)}
	if err := unix.Fstatat(fd, name, &e.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		e.problem = reasonOf(err)
		return e
	}
	if e.st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return e
	}
	sub, err := unix.Openat(fd, name, folderFlags, 0)
	if err == nil {
		err = unix.Close(sub)
	}
	if err != nil {
		e.problem = reasonOf(err)
		return e
	}
	e.folder, e.order = true, e.order+"/"
	return e
}

func (w *walk) entry(ctx context.Context, fd int, e entry, path, bundle string, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	full := join(path, encode(e.name))
	switch {
	case e.problem != "":
		return w.emit(artifact.Item{Key: full, Path: full, Bundle: bundle, Problem: e.problem})
	case e.folder:
		sub, err := unix.Openat(fd, e.name, folderFlags, 0)
		if errors.Is(err, unix.ENOENT) {
			// It is gone, and nothing is left to list.
			return nil
		}
		if err != nil {
			return fmt.Errorf("open folder %q: %w", full, err)
		}
		return w.folder(ctx, sub, full, bundle, depth+1)
	case e.st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return w.link(fd, e, full, bundle)
	}
	return w.emit(w.leaf(fd, e.name, full, bundle, &e.st))
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "/" + name
}

// link follows a symbolic link as far as what it points to.
func (w *walk) link(fd int, e entry, path, bundle string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, e.name, &st, 0); err != nil {
		return w.emit(artifact.Item{Key: path, Path: path, Bundle: bundle, Problem: reasonOf(err)})
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR && w.inside(fd, e.name) {
		return nil
	}
	return w.emit(w.leaf(fd, e.name, path, bundle, &st))
}

// inside reports whether the folder that a link points to is below the root.
// What cannot be told is outside.
func (w *walk) inside(fd int, name string) bool {
	sub, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(sub) }()
	real, err := pathOf(sub)
	if err != nil {
		return false
	}
	return real == w.root || strings.HasPrefix(real, strings.TrimSuffix(w.root, "/")+"/")
}

// pathOf asks the kernel for an open file's path without links.
func pathOf(fd int) (string, error) {
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// leaf makes the item of what is no folder to walk.
func (w *walk) leaf(fd int, name, path, bundle string, st *unix.Stat_t) artifact.Item {
	item := artifact.Item{Key: path, Path: path, Bundle: bundle}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		item.Problem = predicate.NotRegular
		return item
	}
	item.Size, item.Revision = st.Size, revision(st)
	if err := unix.Faccessat(fd, name, unix.R_OK, unix.AT_EACCESS); err != nil {
		item.Problem = reasonOf(err)
	}
	return item
}

// revision changes with whatever changes the content, but for two writes within
// one tick of the file system's clock.
func revision(st *unix.Stat_t) string {
	s := safeio.StampOf(st)
	return fmt.Sprintf("%d-%d-%d-%d-%d", s.Size, s.MtimeNs, s.CtimeNs, s.Inode, s.Dev)
}

// reasonOf classifies an error of the file system.
func reasonOf(err error) artifact.Reason {
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return predicate.NotRegular
	}
	return connector.ReasonOf(err)
}
