package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/agent/internal/spool"
)

// DiskError says that the disk of an agent's folder does not take what has to be
// kept, or does not give it back.
type DiskError struct {
	Dir   string
	errno syscall.Errno
	err   error
}

// Error says what is wrong in words, and what to do.
func (e *DiskError) Error() string {
	for _, a := range ailments {
		if a.errno == e.errno {
			return fmt.Sprintf("the disk of %s %s: %v (%s)", e.Dir, a.is, e.err, a.todo)
		}
	}
	return fmt.Sprintf("the disk of %s fails: %v", e.Dir, e.err)
}

// Unwrap gives what the disk answered.
func (e *DiskError) Unwrap() error { return e.err }

const (
	makeRoom   = "free some room; scanning goes on by itself then, and nothing that is signed is lost"
	mendMount  = "see in the kernel's log why, mend it and mount it for writing; scanning goes on by itself then"
	mendDevice = "see in the kernel's log why, and mend or replace it; scanning goes on by itself then, and gap statements tell of what could not be read"
)

// ailments are what a disk may answer that a person, or time, mends.
var ailments = []struct {
	errno    syscall.Errno
	is, todo string
}{
	{unix.ENOSPC, "is full", makeRoom},
	{unix.EDQUOT, "has no quota left", makeRoom},
	{unix.EROFS, "is read-only", mendMount},
	{unix.EIO, "fails", mendDevice},
	{unix.EUCLEAN, "has a damaged file system", mendDevice},
	{unix.ENODEV, "is gone", mendDevice},
	{unix.ENXIO, "is gone", mendDevice},
	{unix.ESTALE, "is gone", mendDevice},
	{unix.ENOTCONN, "is gone", mendDevice},
}

// diskError finds, in an error, what the disk of an agent's folder answered; nil
// when it is about something else.
func diskError(dir string, err error) *DiskError {
	for _, e := range fileErrors(err, filepath.Clean(dir)+string(filepath.Separator)) {
		var errno syscall.Errno
		if !errors.As(e, &errno) {
			continue
		}
		for _, a := range ailments {
			if a.errno == errno {
				return &DiskError{Dir: dir, errno: errno, err: e}
			}
		}
	}
	return nil
}

// fileErrors are the errors, in the tree of one, that name a file below a folder.
func fileErrors(err error, below string) (out []error) {
	name := ""
	switch e := err.(type) { //nolint:errorlint // the tree is walked here
	case nil:
		return nil
	case *fs.PathError:
		name = e.Path
	case *os.LinkError:
		name = e.Old
	case interface{ Unwrap() []error }:
		for _, each := range e.Unwrap() {
			out = append(out, fileErrors(each, below)...)
		}
		return out
	}
	if strings.HasPrefix(name+string(filepath.Separator), below) {
		return []error{err}
	}
	return fileErrors(errors.Unwrap(err), below)
}

// leastRoom is with how little room on its disk an agent counts as being about to
// wait.
const leastRoom = 1 << 20

// lookAtDisk says what is wrong with the disk of a folder as far as that can be
// seen without writing; nil for nothing.
func lookAtDisk(dir string) *DiskError {
	errno, err := syscall.Errno(0), unix.Access(dir, unix.W_OK)
	var st unix.Statfs_t
	switch {
	case errors.Is(err, unix.EROFS):
		errno = unix.EROFS
	case unix.Statfs(dir, &st) == nil && st.Bavail*uint64(st.Bsize) < leastRoom: //nolint:gosec // a block has a size
		errno = unix.ENOSPC
		err = fmt.Errorf("%d bytes are left", st.Bavail*uint64(st.Bsize)) //nolint:gosec // a block has a size
	default:
		return nil
	}
	return &DiskError{Dir: dir, errno: errno, err: err}
}

// StartError says that an agent could not start.
type StartError struct{ err error }

// Error says why.
func (e *StartError) Error() string { return e.err.Error() }

// Unwrap gives why.
func (e *StartError) Unwrap() error { return e.err }

// The pauses between two tries to open an agent whose disk has failed.
const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
)

// Keep runs the agent of a folder until ctx ends, and returns nil then. When the
// folder's disk fails it lets go of the folder, says so, and opens it again until
// the disk is back.
func Keep(ctx context.Context, cfg Config) error {
	pause := firstPause
	for {
		began := time.Now()
		err := run(ctx, cfg)
		if err == nil || ctx.Err() != nil {
			return err
		}
		failed := diskError(cfg.Dir, err)
		switch {
		case failed != nil:
			cfg.Log.ErrorContext(ctx, "nothing is scanned: what is signed cannot be kept", slog.Any("error", failed))
		case errors.Is(err, spool.ErrDamaged):
			cfg.Log.ErrorContext(ctx, "the spool is opened again, to put aside what is damaged", slog.Any("error", err))
		default:
			return err
		}
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

func run(ctx context.Context, cfg Config) (err error) {
	a, err := Open(ctx, cfg)
	if err != nil {
		return &StartError{err}
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	cfg.Log.InfoContext(ctx, "agent started", slog.Any("settings", cfg.Settings))
	return a.Run(ctx)
}

// Once does one round over the agent of a folder. See RunOnce. What the folder's
// disk does not take is a DiskError.
func Once(ctx context.Context, cfg Config, patience time.Duration) (err error) {
	defer func() {
		if failed := diskError(cfg.Dir, err); failed != nil {
			err = failed
		}
	}()
	a, err := Open(ctx, cfg)
	if err != nil {
		return &StartError{err}
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return a.RunOnce(ctx, patience)
}
