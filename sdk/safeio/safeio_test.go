package safeio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/schemas/predicate"
)

// longer is a reader whose Size is not how many bytes it has.
type longer struct {
	*bytes.Reader
	size int64
}

func (l longer) Size() int64 { return l.size }
func (longer) Close() error  { return nil }

func TestDigest(t *testing.T) {
	data := bytes.Repeat([]byte("x"), digestBuffer+3)
	for name, tt := range map[string]struct {
		size int64
		want error
	}{"whole": {int64(len(data)), nil}, "short": {int64(len(data)) + 1, io.ErrUnexpectedEOF}, "grown": {3, ErrChanged}} {
		got, err := Digest(t.Context(), longer{bytes.NewReader(data), tt.size}, "x")
		if !errors.Is(err, tt.want) || err == nil && got != predicate.DigestOf(data) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if got, err := Digest(t.Context(), longer{bytes.NewReader(nil), 0}, "x"); err != nil || got != predicate.DigestOf(nil) {
		t.Errorf("empty: %s, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Digest(ctx, longer{bytes.NewReader(data), 5}, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestShortReadNamesTheBytes(t *testing.T) {
	err := ReadFull(strings.NewReader("abc"), make([]byte, 4), 1, "weights.bin")
	var short *ShortReadError
	if !errors.As(err, &short) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if want := "read weights.bin: 2 of 4 bytes at offset 1: unexpected EOF"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	if err := ReadFull(strings.NewReader("abc"), make([]byte, 3), 0, "x"); err != nil {
		t.Error(err)
	}
}

func TestTail(t *testing.T) {
	tail := NewTail(4)
	for _, tt := range []struct {
		write, want string
		dropped     uint64
	}{{"ab", "ab", 0}, {"cd", "abcd", 0}, {"e", "bcde", 1}, {"0123456789", "6789", 11}, {"", "6789", 11}} {
		if n, err := tail.Write([]byte(tt.write)); n != len(tt.write) || err != nil {
			t.Fatal(n, err)
		}
		if got, dropped := tail.Snapshot(); got != tt.want || dropped != tt.dropped {
			t.Errorf("after %q: %q and %d, want %q and %d", tt.write, got, dropped, tt.want, tt.dropped)
		}
	}
}

func opened(t *testing.T, content string) (*File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	file, err := NewFile(f, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file, path
}

func TestFileThatChanges(t *testing.T) {
	f, path := opened(t, "0123456789")
	if err := f.Unchanged(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("0123456789and more"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := f.ReadAt(make([]byte, 20), 0); n != 10 || err != io.EOF {
		t.Errorf("grown: %d bytes, %v", n, err)
	}
	if err := f.Unchanged(); !errors.Is(err, ErrChanged) {
		t.Errorf("grown: %v", err)
	}
	if err := os.Truncate(path, 4); err != nil {
		t.Fatal(err)
	}
	if n, err := f.ReadAt(make([]byte, 10), 0); n != 4 || !errors.Is(err, ErrChanged) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut: %d bytes, %v", n, err)
	}
}

func TestFileIsRegular(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := NewFile(r, "pipe"); !errors.Is(err, ErrNotRegular) {
		t.Error(err)
	}
}

func TestReadOnly(t *testing.T) {
	f, _ := opened(t, "abc")
	fd, own, err := ReadOnly(int(f.Fd()))
	if err != nil || !own {
		t.Fatal(own, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("x")); !errors.Is(err, unix.EBADF) {
		t.Errorf("write: %v", err)
	}
	if again, own, err := ReadOnly(fd); again != fd || own || err != nil {
		t.Error(again, own, err)
	}
}
