package safeio

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotRegular says that a descriptor is of no regular file.
var ErrNotRegular = errors.New("not a regular file")

// File is a regular file as an artifact's bytes, read by its descriptor. Its
// size is that at opening: what is added later is not seen, and what is cut off
// is an error of the read.
type File struct {
	f    *os.File
	name string
	was  Stamp
}

// Stamp is what tells one content of a file from another without reading it.
// Two writes within one tick of the file system's clock (some milliseconds) can
// leave the same stamp.
type Stamp struct {
	Dev, Inode       uint64
	Size             int64
	MtimeNs, CtimeNs int64
}

// StampOf takes the stamp from a file's status.
func StampOf(st *unix.Stat_t) Stamp {
	return Stamp{Dev: st.Dev, Inode: st.Ino, Size: st.Size, MtimeNs: st.Mtim.Nano(), CtimeNs: st.Ctim.Nano()}
}

// NewFile takes f over, which it closes on an error too.
func NewFile(f *os.File, name string) (*File, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = ErrNotRegular
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", name, err), f.Close())
	}
	return &File{f: f, name: name, was: StampOf(&st)}, nil
}

// Size is in bytes, as it was at opening.
func (f *File) Size() int64 { return f.was.Size }

// Stamp is that of the opening.
func (f *File) Stamp() Stamp { return f.was }

// Fd is valid until Close.
func (f *File) Fd() uintptr { return f.f.Fd() }

// Close closes the descriptor.
func (f *File) Close() error { return f.f.Close() }

// ReadAt gives io.EOF at the size of the opening, and a *ShortReadError where
// the file ends before that.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s: offset %d", f.name, off)
	}
	if off >= f.was.Size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), f.was.Size-off)]
	n, err := f.f.ReadAt(want, off)
	if n < len(want) {
		if errors.Is(err, io.EOF) {
			err = errors.Join(io.ErrUnexpectedEOF, ErrChanged)
		}
		return n, &ShortReadError{Name: f.name, Offset: off, Want: len(want), Got: n, Err: err}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Unchanged returns an error that is ErrChanged when the file is not as it was
// at opening: whoever has read it twice calls it last.
func (f *File) Unchanged() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.f.Fd()), &st); err != nil {
		return fmt.Errorf("check %s: %w", f.name, err)
	}
	if now := StampOf(&st); now != f.was {
		return fmt.Errorf("check %s: %w", f.name, ErrChanged)
	}
	return nil
}

// ReadOnly returns fd itself when it is open for reading only, and otherwise a
// new descriptor of the same file that is. The caller closes what own says.
func ReadOnly(fd int) (ro int, own bool, err error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return -1, false, fmt.Errorf("read descriptor's mode: %w", err)
	}
	if flags&(unix.O_ACCMODE|unix.O_PATH) == unix.O_RDONLY {
		return fd, false, nil
	}
	ro, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, false, fmt.Errorf("reopen descriptor for reading only: %w", err)
	}
	return ro, true, nil
}
