package plugin

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
)

func launchConnector(t testing.TB, role string) *Connector {
	t.Helper()
	c, err := launch(t, role).Connector(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestListing(t *testing.T) {
	c := launchConnector(t, "connector")
	n := 0
	for item, err := range c.List(t.Context(), "all") {
		if err != nil {
			t.Fatal(err)
		}
		if item.Size != int64(n) {
			t.Fatalf("item %d is %+v", n, item)
		}
		n++
	}
	if n != 10_000 {
		t.Errorf("%d items", n)
	}
	for range c.List(t.Context(), "all") {
		break
	}
	var broke *ContractError
	for _, root := range []string{"unsorted", "problem", "escape"} {
		if err := last(t, c, root); !errors.As(err, &broke) {
			t.Errorf("%s: %v", root, err)
		}
	}
	if err := last(t, c, "missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if err := last(t, c, "not\xffutf8"); err == nil || errors.As(err, &broke) {
		t.Errorf("a root that cannot be sent: %v", err)
	}
	var crash *CrashError
	if err := last(t, c, "crash"); !errors.As(err, &crash) || crash.ExitCode != 4 {
		t.Errorf("crash: %v", err)
	}
}

// TestConnectorNamesWhatItMayNotRead has a confined connector pass a descriptor that
// only names a file, the agent's key, for its host to read.
func TestConnectorNamesWhatItMayNotRead(t *testing.T) {
	p, err := launchSandboxed(t, "rawconnector")
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.Connector(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var broke *ContractError
	if r, err := c.Open(t.Context(), hostileFolder(t)+"/key", "named"); !errors.As(err, &broke) || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("%v, %v", r, err)
	}
}

func last(t *testing.T, c *Connector, root string) error {
	var last error
	for _, err := range c.List(t.Context(), root) {
		last = err
	}
	return last
}

func TestOpening(t *testing.T) {
	c := launchConnector(t, "connector")
	want := blob(3<<20 + 7)
	local := file(t, want)
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(local.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	for key, isFile := range map[string]bool{"remote": false, "file": true} {
		r, err := c.Open(t.Context(), path, key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", key, len(got), err)
		}
		d, ok := r.(artifact.Descriptor)
		if ok != isFile {
			t.Errorf("%s came as %T", key, r)
		}
		if ok {
			flags, err := unix.FcntlInt(d.Fd(), unix.F_GETFL, 0)
			if err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY {
				t.Errorf("%s can be written to: %x, %v", key, flags, err)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := r.ReadAt(make([]byte, 1), 0); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s: a read after Close: %v", key, err)
		}
	}
	if _, err := c.Open(t.Context(), path, "gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("gone: %v", err)
	}
	if _, err := c.Open(t.Context(), path, "pipe"); connector.ReasonOf(err) != predicate.NotRegular {
		t.Errorf("pipe: %v", err)
	}
}

func TestOpeningWhatBreaksTheContract(t *testing.T) {
	local := file(t, blob(100))
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(local.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	var broke *ContractError
	for _, key := range []string{"negative", "pipe", "named", "none"} {
		c := launchConnector(t, "rawconnector")
		if r, err := c.Open(t.Context(), path, key); !errors.As(err, &broke) {
			t.Errorf("%s: %v, %v", key, r, err)
		}
	}
	c := launchConnector(t, "rawconnector")
	if _, err := c.Open(t.Context(), path, "other size"); err == nil {
		t.Error("a file of another size than was said was opened")
	}
	r, err := c.Open(t.Context(), path, "short")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := r.ReadAt(make([]byte, 100), 0); n != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short range: %d bytes, %v", n, err)
	}
	if err := r.Close(); err == nil {
		t.Error("a close that the plugin does not know succeeded")
	}
}
