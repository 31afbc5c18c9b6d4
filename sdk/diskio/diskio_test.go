package diskio_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/diskio/diskfault"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := diskio.WriteFile(diskio.OS{}, name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWriteFileReplaces(t *testing.T) {
	name := filepath.Join(t.TempDir(), "key.pem")
	for _, text := range []string{"first", "second, and longer", ""} {
		write(t, name, text)
		if diff := cmp.Diff(text, content(t, name)); diff != "" {
			t.Error(diff)
		}
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestWriteFileIsWholeOrNotThere fails each operation in turn: afterwards the
// file is the old one or the new one.
func TestWriteFileIsWholeOrNotThere(t *testing.T) {
	for n := 1; ; n++ {
		dir := t.TempDir()
		name := filepath.Join(dir, "f")
		write(t, name, "old")
		var trace []string
		fsys := diskfault.FS{Under: diskio.OS{}, Fail: func(op diskfault.Op, name string) error {
			trace = append(trace, string(op))
			if len(trace) == n {
				return syscall.EIO
			}
			return nil
		}}
		err := diskio.WriteFile(fsys, name, []byte("new"), 0o600)
		if len(trace) < n {
			if err != nil {
				t.Fatal(err)
			}
			want := "open write sync close rename syncdir"
			if got := strings.Join(trace, " "); got != want {
				t.Errorf("operations: %s, want %s", got, want)
			}
			return
		}
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("after %v: %v, want the disk's error", trace, err)
		}
		want := "old"
		if trace[n-1] == "syncdir" {
			want = "new"
		}
		if got := content(t, name); got != want {
			t.Errorf("after %v: %q, want %q", trace, got, want)
		}
	}
}

func TestReplaceKeepsTheOldFileWhenItsWriterFails(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	write(t, name, "old")
	failed := errors.New("cannot go on")
	err := diskio.Replace(diskio.OS{}, name, 0o600, func(w io.Writer) error {
		if _, err := fmt.Fprint(w, "half"); err != nil {
			return err
		}
		return failed
	})
	if !errors.Is(err, failed) || content(t, name) != "old" {
		t.Errorf("%v, %q", err, content(t, name))
	}
	if _, err := os.Stat(name + diskio.TempSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unfinished file is left: %v", err)
	}
}

func TestReadFileIsBounded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	write(t, name, "12345")
	if b, err := diskio.ReadFile(name, 5); err != nil || string(b) != "12345" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := diskio.ReadFile(name, 4); err == nil || !strings.Contains(err.Error(), "larger than 4 bytes") {
		t.Errorf("%q, %v", b, err)
	}
}

func TestRemoveAndRename(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write(t, a, "x")
	if err := diskio.Rename(diskio.OS{}, a, b); err != nil || content(t, b) != "x" {
		t.Fatal(err)
	}
	for range 2 {
		if err := diskio.Remove(diskio.OS{}, b); err != nil {
			t.Errorf("remove, the second time of what is gone: %v", err)
		}
	}
	if err := diskio.Rename(diskio.OS{}, a, b); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rename of what is not there: %v", err)
	}
}

func TestLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	unlock, err := diskio.Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := diskio.Lock(name); !errors.Is(err, diskio.ErrLocked) {
		t.Errorf("a second time: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	again, err := diskio.Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := again(); err != nil {
		t.Fatal(err)
	}
}

func TestLockTellsItsOwner(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	if _, err := diskio.LockShared(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a share of what is not there: %v", err)
	}
	ids := map[string]bool{}
	for range 2 {
		unlock, err := diskio.Lock(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := diskio.LockShared(name); !errors.Is(err, diskio.ErrLocked) {
			t.Errorf("a share of what is taken: %v", err)
		}
		owner, ok, err := diskio.OwnerOf(name)
		if err != nil || !ok || owner.PID != os.Getpid() || owner.ID == "" || ids[owner.ID] {
			t.Errorf("owner %+v, %v, %v", owner, ok, err)
		}
		ids[owner.ID] = true
		if err := unlock(); err != nil {
			t.Fatal(err)
		}
		if owner, ok, err := diskio.OwnerOf(name); ok || err != nil {
			t.Errorf("owner of what is free: %+v, %v", owner, err)
		}
	}
	var shares []func() error
	for range 2 {
		share, err := diskio.LockShared(name)
		if err != nil {
			t.Fatal(err)
		}
		shares = append(shares, share)
	}
	if _, err := diskio.Lock(name); !errors.Is(err, diskio.ErrLocked) {
		t.Errorf("what is shared was taken: %v", err)
	}
	if owner, ok, err := diskio.OwnerOf(name); ok || err != nil {
		t.Errorf("owner of what is shared: %+v, %v", owner, err)
	}
	for _, give := range shares {
		if err := give(); err != nil {
			t.Error(err)
		}
	}
}

func TestLog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	write(t, name, "keep and cut")
	var fail error
	on := diskfault.Op("")
	fsys := diskfault.FS{Under: diskio.OS{}, Fail: func(op diskfault.Op, _ string) error {
		if op == on {
			return fail
		}
		return nil
	}}
	l, err := diskio.OpenLog(fsys, name, 4)
	if err != nil {
		t.Fatal(err)
	}
	add := func(text string) error {
		if err := l.Append([]byte(text)); err != nil {
			return err
		}
		return l.Sync(len(text))
	}
	if err := add(" this"); err != nil || l.Size() != 9 {
		t.Fatal(err, l.Size())
	}
	// A write that fails half way may be tried again.
	on, fail = diskfault.Write, syscall.ENOSPC
	if err := add(" xx"); !diskio.IsFull(err) {
		t.Fatalf("%v", err)
	}
	on = ""
	if err := add(" too"); err != nil || content(t, name) != "keep this too" {
		t.Fatalf("%v, %q", err, content(t, name))
	}
	if err := l.Append([]byte("never")); err != nil {
		t.Fatal(err)
	}
	if err := l.Revert(); err != nil || content(t, name) != "keep this too" {
		t.Fatalf("%v, %q", err, content(t, name))
	}
	// After a failed sync nobody knows what is on the disk.
	on, fail = diskfault.Sync, syscall.EIO
	if err := add("!"); !errors.Is(err, syscall.EIO) {
		t.Fatalf("%v", err)
	}
	on = ""
	if err := add("?"); !errors.Is(err, syscall.EIO) || l.Size() != 13 {
		t.Errorf("after a failed sync: %v, %d", err, l.Size())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
