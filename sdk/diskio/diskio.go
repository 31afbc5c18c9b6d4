// Package diskio writes files that survive a crash. A file that is replaced is
// at any time the old one or the new one, whole; an append is all there or not
// at all; and nothing counts as written before the disk says so. Every write
// passes a seam where tests let it fail.
package diskio

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// File is an open file that is written at given offsets.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
}

// FS is the file system as far as writing goes.
type FS interface {
	// OpenFile is os.OpenFile.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes the entries of a folder durable.
	SyncDir(name string) error
}

// OS is the file system of the machine.
type OS struct{}

// OpenFile implements FS.
func (OS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag|syscall.O_CLOEXEC, perm)
	if err != nil {
		return nil, err // not the nil *os.File in an interface
	}
	return f, nil
}

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements FS.
func (OS) Remove(name string) error { return os.Remove(name) }

// SyncDir implements FS.
func (OS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// TempSuffix ends the names of files that were not finished. Who owns a folder
// may delete them when it starts.
const TempSuffix = ".tmp"

// WriteFile replaces name by a file that holds b, durably and atomically.
func WriteFile(fsys FS, name string, b []byte, perm fs.FileMode) error {
	return Replace(fsys, name, perm, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// Replace is WriteFile for content that write produces as a stream.
func Replace(fsys FS, name string, perm fs.FileMode, write func(io.Writer) error) (err error) {
	temp := name + TempSuffix
	f, err := fsys.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	err = write(&sequential{f: f})
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		// What failed first is what counts; the rest of it is deleted at the
		// next start if not now.
		_ = fsys.Remove(temp)
		return fmt.Errorf("write file %s: %w", name, err)
	}
	if err := fsys.Rename(temp, name); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := fsys.SyncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("write file %s: %w", name, err)
	}
	return nil
}

// sequential writes a file from its start.
type sequential struct {
	f   File
	off int64
}

func (s *sequential) Write(p []byte) (int, error) {
	n, err := s.f.WriteAt(p, s.off)
	s.off += int64(n)
	return n, err
}

// Remove deletes name durably. That it is gone already is no error.
func Remove(fsys FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove file: %w", err)
	}
	if err := fsys.SyncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("remove file %s: %w", name, err)
	}
	return nil
}

// Rename moves a file within its folder, durably.
func Rename(fsys FS, from, to string) error {
	if err := fsys.Rename(from, to); err != nil {
		return fmt.Errorf("rename file: %w", err)
	}
	if err := fsys.SyncDir(filepath.Dir(to)); err != nil {
		return fmt.Errorf("rename file %s: %w", from, err)
	}
	return nil
}

// MakeDir creates a folder and those above it, durably.
func MakeDir(fsys FS, name string, perm fs.FileMode) error {
	if err := os.MkdirAll(name, perm); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := fsys.SyncDir(filepath.Dir(filepath.Clean(name))); err != nil {
		return fmt.Errorf("make folder %s: %w", name, err)
	}
	return nil
}

// ReadFile reads a file of at most limit bytes.
func ReadFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read file %s: larger than %d bytes", name, limit)
	}
	return b, nil
}

// IsFull reports whether an error says that there is no room on the disk, which
// may pass.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
