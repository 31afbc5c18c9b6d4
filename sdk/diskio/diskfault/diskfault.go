// Package diskfault is a file system for tests that fails when it is told to.
// A write that fails leaves half of its bytes behind, as a full disk does.
package diskfault

import (
	"errors"
	"io/fs"

	"github.com/cavra/cavra/sdk/diskio"
)

// Op is an operation that can fail.
type Op string

// The operations.
const (
	Open     Op = "open"
	Write    Op = "write"
	Sync     Op = "sync"
	Truncate Op = "truncate"
	Close    Op = "close"
	Rename   Op = "rename"
	Remove   Op = "remove"
	SyncDir  Op = "syncdir"
)

// FS passes every operation on to Under unless Fail has an error for it.
type FS struct {
	Under diskio.FS
	// Fail may be called from several goroutines at once.
	Fail func(op Op, name string) error
}

// OpenFile implements diskio.FS.
func (f FS) OpenFile(name string, flag int, perm fs.FileMode) (diskio.File, error) {
	if err := f.Fail(Open, name); err != nil {
		return nil, err
	}
	under, err := f.Under.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return file{under, f, name}, nil
}

// Rename implements diskio.FS.
func (f FS) Rename(from, to string) error {
	if err := f.Fail(Rename, from); err != nil {
		return err
	}
	return f.Under.Rename(from, to)
}

// Remove implements diskio.FS.
func (f FS) Remove(name string) error {
	if err := f.Fail(Remove, name); err != nil {
		return err
	}
	return f.Under.Remove(name)
}

// SyncDir implements diskio.FS.
func (f FS) SyncDir(name string) error {
	if err := f.Fail(SyncDir, name); err != nil {
		return err
	}
	return f.Under.SyncDir(name)
}

type file struct {
	diskio.File
	fs   FS
	name string
}

func (f file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.Fail(Write, f.name); err != nil {
		n, under := f.File.WriteAt(p[:len(p)/2], off)
		return n, errors.Join(err, under)
	}
	return f.File.WriteAt(p, off)
}

func (f file) Sync() error {
	if err := f.fs.Fail(Sync, f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f file) Truncate(size int64) error {
	if err := f.fs.Fail(Truncate, f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f file) Close() error {
	return errors.Join(f.fs.Fail(Close, f.name), f.File.Close())
}
