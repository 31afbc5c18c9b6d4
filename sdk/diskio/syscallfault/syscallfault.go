//go:build linux

// Package syscallfault lets the disk fail beneath a program that is run as it
// is. The kernel asks the test about every system call by which the program
// changes something below a folder (seccomp's user notifications), and the test
// says what becomes of it.
//
// It also keeps what a real disk would hold: a write counts once a sync has
// confirmed it, and what a failed sync should have written is lost for good,
// although it can be read until the power is cut. That is what Linux does: it
// marks the pages clean, and the next sync succeeds.
package syscallfault

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/sdk/diskio/diskfault"
)

// Call is a system call that changes something below the folder. Names are
// whole paths.
type Call struct {
	Op   diskfault.Op
	Name string
	// Off and Size are a write's.
	Off  int64
	Size int
}

// Fate is what becomes of a call. The zero Fate lets it happen.
type Fate struct {
	// Errno is what the call fails with.
	Errno unix.Errno
	// Torn says that Bytes of a write reach the file and no more. Without Errno
	// the program is told so.
	Torn  bool
	Bytes int
	// Kill ends the program in the middle of the call.
	Kill bool
}

// Disk is what lies beneath a running program.
type Disk struct {
	dir    string
	decide func(Call) Fate
	done   chan struct{}

	mu    sync.Mutex
	files map[uint64]*file
	err   error
}

// file is what the disk has of a file, and what only the cache has.
type file struct {
	durable []byte
	pending []func([]byte) []byte
}

// Start starts a program. Below dir, decide says what becomes of its calls, one
// at a time. The calling program has to begin with Launch.
func Start(cmd *exec.Cmd, dir string, decide func(Call) Fate) (*Disk, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("start over failing disk: %w", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start over failing disk: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "launcher"), os.NewFile(uintptr(pair[1]), "launcher")
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", variable, 3+len(cmd.ExtraFiles)))
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	cmd.Args = append([]string{"launch", cmd.Path}, cmd.Args...)
	cmd.Path = "/proc/self/exe"
	if err := errors.Join(cmd.Start(), theirs.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("start over failing disk: %w", err), ours.Close())
	}
	listener, err := receive(ours)
	if err = errors.Join(err, ours.Close()); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // what it said is on its stderr
		return nil, fmt.Errorf("start over failing disk: %w", err)
	}
	d := &Disk{dir: dir, decide: decide, done: make(chan struct{}), files: map[uint64]*file{}}
	go func() { // ends with the program
		defer close(d.done)
		err := errors.Join(d.serve(listener), unix.Close(listener))
		d.mu.Lock()
		defer d.mu.Unlock()
		d.err = err
	}()
	return d, nil
}

// receive takes the descriptor by which the kernel asks.
func receive(from *os.File) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(int(from.Fd()), make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if n == 0 {
		return -1, errors.New("the program ended before its calls could be watched")
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("want one descriptor: %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("want one descriptor: %w", err)
	}
	return fds[0], nil
}

// Wait returns once the program has ended with all that it has started.
func (d *Disk) Wait() error {
	<-d.done
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return fmt.Errorf("watch calls: %w", d.err)
	}
	return nil
}

// Cut gives the files below the folder the content that the disk has: as if the
// power had been cut when the program ended. That files are there, and under
// which names, counts as durable at once.
func (d *Disk) Cut() error {
	if err := d.Wait(); err != nil {
		return err
	}
	return filepath.Walk(d.dir, func(name string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		f := d.files[inode(info)]
		if f == nil {
			return nil
		}
		return os.WriteFile(name, f.durable, info.Mode().Perm())
	})
}

// answer decides on one call.
func (d *Disk) answer(n *notification) reply {
	yes := reply{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	call, ok := d.callOf(n)
	if !ok {
		return yes
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	fate := d.decide(call)
	val, err := int64(0), error(nil)
	switch call.Op {
	case diskfault.Write, diskfault.Sync, diskfault.Truncate:
		val, err = d.do(n, call, fate)
	case diskfault.Rename, diskfault.Remove:
		if fate.Errno == 0 {
			d.forget(n)
		}
	}
	if fate.Kill {
		_ = unix.Kill(int(n.pid), unix.SIGKILL) // a thread's number does as well
		return reply{id: n.id, error: -int32(unix.EINTR)}
	}
	var errno unix.Errno
	switch {
	case fate.Errno != 0:
		return reply{id: n.id, error: -int32(fate.Errno)}
	case errors.As(err, &errno):
		return reply{id: n.id, error: -int32(errno)}
	case err != nil:
		return reply{id: n.id, error: -int32(unix.EIO)}
	case call.Op == diskfault.Write:
		return reply{id: n.id, val: val}
	case call.Op == diskfault.Sync || call.Op == diskfault.Truncate:
		return reply{id: n.id}
	}
	return yes
}

// callOf reads what a call is about; ok is false when it is none of ours.
func (d *Disk) callOf(n *notification) (c Call, ok bool) {
	var err error
	switch n.call {
	case unix.SYS_PWRITE64:
		c = Call{Op: diskfault.Write, Size: int(n.args[2]), Off: int64(n.args[3])}
		c.Name, err = opened(n)
	case unix.SYS_FTRUNCATE:
		c = Call{Op: diskfault.Truncate, Off: int64(n.args[1])}
		c.Name, err = opened(n)
	case unix.SYS_FSYNC, unix.SYS_FDATASYNC:
		c.Op = diskfault.Sync
		if c.Name, err = opened(n); err == nil {
			if info, err := os.Stat(c.Name); err == nil && info.IsDir() {
				c.Op = diskfault.SyncDir
			}
		}
	case unix.SYS_OPENAT:
		c.Op = diskfault.Open
		c.Name, err = named(n, 0, 1)
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		c.Op = diskfault.Rename
		c.Name, err = named(n, 0, 1)
	case unix.SYS_UNLINKAT:
		c.Op = diskfault.Remove
		c.Name, err = named(n, 0, 1)
	default:
		return Call{}, false
	}
	return c, err == nil && (c.Name == d.dir || strings.HasPrefix(c.Name, d.dir+"/"))
}

// do writes, syncs or truncates for the program.
func (d *Disk) do(n *notification, c Call, fate Fate) (int64, error) {
	f, err := os.OpenFile(descriptor(n), os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // what matters was synced before
	have, err := d.file(f)
	if err != nil {
		return 0, err
	}
	switch {
	case c.Op == diskfault.Write:
		size := c.Size
		if fate.Torn {
			size = min(size, fate.Bytes)
		} else if fate.Errno != 0 {
			size = 0
		}
		b := make([]byte, size)
		if err := read(n, n.args[1], b); err != nil {
			return 0, err
		}
		wrote, err := f.WriteAt(b, c.Off)
		have.pending = append(have.pending, written(b[:wrote], c.Off))
		return int64(wrote), err
	case fate.Errno != 0:
		if c.Op == diskfault.Sync {
			have.pending = nil
		}
		return 0, nil
	case c.Op == diskfault.Truncate:
		have.pending = append(have.pending, truncated(c.Off))
		return 0, f.Truncate(c.Off)
	}
	// This is the disk: the machine's own need not be waited for.
	for _, change := range have.pending {
		have.durable = change(have.durable)
	}
	have.pending = nil
	return 0, nil
}

// file is what is known of an open file. Before its first change the disk has
// what can be read.
func (d *Disk) file(f *os.File) (*file, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	id := inode(info)
	if d.files[id] == nil {
		b, err := io.ReadAll(io.NewSectionReader(f, 0, info.Size()))
		if err != nil {
			return nil, err
		}
		d.files[id] = &file{durable: b}
	}
	return d.files[id], nil
}

// forget drops what is known of a file that is about to go, since another one
// may get its number.
func (d *Disk) forget(n *notification) {
	name, err := named(n, 0, 1)
	if n.call != unix.SYS_UNLINKAT {
		name, err = named(n, 2, 3)
	}
	if err != nil {
		return
	}
	if info, err := os.Lstat(name); err == nil {
		delete(d.files, inode(info))
	}
}

func written(b []byte, off int64) func([]byte) []byte {
	return func(was []byte) []byte {
		if grow := off + int64(len(b)) - int64(len(was)); grow > 0 {
			was = append(was, make([]byte, grow)...)
		}
		copy(was[off:], b)
		return was
	}
}

func truncated(size int64) func([]byte) []byte {
	return func(was []byte) []byte {
		if grow := size - int64(len(was)); grow > 0 {
			return append(was, make([]byte, grow)...)
		}
		return was[:size]
	}
}

func inode(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

func descriptor(n *notification) string {
	return fmt.Sprintf("/proc/%d/fd/%d", n.pid, int32(n.args[0]))
}

// opened is the path of the file that a call's first argument has open.
func opened(n *notification) (string, error) {
	name, err := os.Readlink(descriptor(n))
	return strings.TrimSuffix(name, " (deleted)"), err
}

// named is the path that two of a call's arguments name.
func named(n *notification, at, arg int) (string, error) {
	b := make([]byte, unix.PathMax)
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", n.pid))
	if err != nil {
		return "", err
	}
	defer memory.Close() //nolint:errcheck // it was only read
	got, err := memory.ReadAt(b, int64(n.args[arg]))
	if got == 0 {
		return "", err
	}
	raw, _, _ := bytes.Cut(b[:got], []byte{0})
	name := string(raw)
	if filepath.IsAbs(name) {
		return filepath.Clean(name), nil
	}
	base := fmt.Sprintf("/proc/%d/cwd", n.pid)
	if fd := int32(n.args[at]); fd != unix.AT_FDCWD {
		base = fmt.Sprintf("/proc/%d/fd/%s", n.pid, strconv.Itoa(int(fd)))
	}
	dir, err := os.Readlink(base)
	return filepath.Join(dir, name), err
}

// read copies the program's memory.
func read(n *notification, from uint64, b []byte) error {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", n.pid))
	if err != nil {
		return err
	}
	defer memory.Close() //nolint:errcheck // it was only read
	_, err = io.ReadFull(io.NewSectionReader(memory, int64(from), int64(len(b))), b)
	return err
}
