package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/safeio"
)

// Open opens the file that was listed under key. What is there must be a
// regular file, and is looked at before it is opened: opening a device or a
// pipe can do things.
func (*Connector) Open(_ context.Context, root, key string) (artifact.Reader, error) {
	f, err := open(root, key)
	if err != nil {
		return nil, fmt.Errorf("open %s in %s: %w", key, root, err)
	}
	return f, nil
}

func open(root, key string) (*safeio.File, error) {
	if !filepath.IsAbs(root) {
		return nil, errors.New("the path is not absolute")
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if key != encode(filepath.Base(root)) {
			return nil, errors.Join(fmt.Errorf("the root is a file: %w", unix.ENOENT), unix.Close(fd))
		}
		return regular(fd, root)
	}
	if fd, err = descend(fd, strings.Split(key, "/")); err != nil {
		return nil, err
	}
	return regular(fd, key)
}

// descend goes from the folder fd, which it closes, to the file that the parts
// lead to. It follows a link in the last part only, as List does.
func descend(fd int, parts []string) (int, error) {
	for i, part := range parts {
		name, err := decode(part)
		if err != nil {
			return -1, errors.Join(err, unix.ENOENT, unix.Close(fd))
		}
		flags := unix.O_PATH | unix.O_CLOEXEC
		if i < len(parts)-1 {
			flags |= unix.O_DIRECTORY | unix.O_NOFOLLOW
		}
		next, err := unix.Openat(fd, name, flags, 0)
		if cerr := unix.Close(fd); err != nil || cerr != nil {
			if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
				err = &connector.Problem{Reason: predicate.Changed, Err: err}
			}
			return -1, errors.Join(err, cerr)
		}
		fd = next
	}
	return fd, nil
}

// regular opens for reading what fd, a path descriptor that it closes, is the
// path of: that very file, whatever its name leads to by now.
func regular(fd int, name string) (*safeio.File, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = &connector.Problem{Reason: predicate.NotRegular, Err: safeio.ErrNotRegular}
	}
	ro := -1
	if err == nil {
		ro, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return nil, err
	}
	return safeio.NewFile(os.NewFile(uintptr(ro), name), name)
}
