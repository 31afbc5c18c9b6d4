//go:build linux

package syscallfault

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/diskio/diskfault"
)

// role is the first argument of the program whose disk fails.
const role = "write-child"

func TestMain(m *testing.M) {
	if err := Launch(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == role {
		writeChild(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

// writeChild does each thing once and says what came of it.
func writeChild(dir string) {
	name := filepath.Join(dir, "log")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	say("open", err)
	_, err = f.WriteAt([]byte("first"), 0)
	say("write", err)
	say("sync", f.Sync())
	_, err = f.WriteAt([]byte("second"), 5)
	say("write", err)
	say("sync", f.Sync())
	say("sync", f.Sync())
	_, err = f.WriteAt([]byte("third"), 11)
	say("write", err)
	say("truncate", f.Truncate(20))
	say("sync", f.Sync())
	say("replace", diskio.WriteFile(diskio.OS{}, filepath.Join(dir, "state"), []byte("new"), 0o600))
	say("remove", os.Remove(filepath.Join(dir, "state")))
	_, err = os.ReadFile(name)
	say("read", err)
}

func say(what string, err error) {
	var errno syscall.Errno
	errors.As(err, &errno)
	fmt.Println(what, int(errno))
}

// failing runs the program with one call made to fail, and returns what it said,
// the calls that were asked about, and the disk.
func failing(t *testing.T, dir string, nth int, fate Fate) (said, calls []string, d *Disk, ended error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", role, dir)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = exe
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, t.Output()
	d, err = Start(cmd, dir, func(c Call) Fate {
		calls = append(calls, string(c.Op))
		if len(calls) == nth {
			return fate
		}
		return Fate{}
	})
	if err != nil {
		t.Fatal(err)
	}
	ended = cmd.Wait()
	if err := d.Wait(); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(out.String()), "\n"), calls, d, ended
}

func read1(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEveryCallIsAskedAbout(t *testing.T) {
	_, calls, _, err := failing(t, t.TempDir(), 0, Fate{})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields("open write sync write sync sync write truncate sync open write sync rename syncdir remove")
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestOneCallFails(t *testing.T) {
	for n, word := range strings.Fields("open write sync write sync sync write truncate sync replace replace replace replace replace remove") {
		if word == "open" {
			continue // nothing can follow
		}
		said, _, _, err := failing(t, t.TempDir(), n+1, Fate{Errno: unix.EROFS})
		if err != nil {
			t.Fatal(err)
		}
		failed := 0
		for _, line := range said {
			if line == word+" 30" {
				failed++
			} else if !strings.HasSuffix(line, " 0") && line != "remove 2" { // what was not replaced is not there
				t.Errorf("call %d: the program says %q", n+1, line)
			}
		}
		if failed != 1 {
			t.Errorf("call %d (%s) failed %d times: %v", n+1, word, failed, said)
		}
	}
}

// TestAFailedSyncLosesWhatItShouldHaveWritten: what was written before it reads
// well until the power is cut, and the next sync, which succeeds, does not bring
// it back.
func TestAFailedSyncLosesWhatItShouldHaveWritten(t *testing.T) {
	dir := t.TempDir()
	said, _, d, err := failing(t, dir, 5, Fate{Errno: unix.EIO})
	if err != nil || said[4] != "sync 5" || said[5] != "sync 0" {
		t.Fatal(err, said)
	}
	name := filepath.Join(dir, "log")
	if diff := cmp.Diff("firstsecondthird\x00\x00\x00\x00", read1(t, name)); diff != "" {
		t.Errorf("while it is cached: %s", diff)
	}
	if err := d.Cut(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("first\x00\x00\x00\x00\x00\x00third\x00\x00\x00\x00", read1(t, name)); diff != "" {
		t.Errorf("after the power cut: %s", diff)
	}
}

func TestATornWrite(t *testing.T) {
	dir := t.TempDir()
	said, _, _, err := failing(t, dir, 4, Fate{Torn: true, Bytes: 2, Errno: unix.ENOSPC})
	if err != nil || said[3] != "write 28" {
		t.Fatal(err, said)
	}
	if got := read1(t, filepath.Join(dir, "log")); !strings.HasPrefix(got, "firstse\x00\x00\x00\x00third") {
		t.Errorf("%q", got)
	}
	// A short write is no error: Go writes the rest.
	said, calls, _, err := failing(t, t.TempDir(), 4, Fate{Torn: true, Bytes: 2})
	if err != nil || said[3] != "write 0" || calls[4] != string(diskfault.Write) {
		t.Fatal(err, said, calls)
	}
}

func TestKilledInAWrite(t *testing.T) {
	dir := t.TempDir()
	_, calls, d, err := failing(t, dir, 4, Fate{Kill: true, Torn: true, Bytes: 3})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL || len(calls) != 4 {
		t.Fatal(err, calls)
	}
	name := filepath.Join(dir, "log")
	if diff := cmp.Diff("firstsec", read1(t, name)); diff != "" {
		t.Error(diff)
	}
	if err := d.Cut(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("first", read1(t, name)); diff != "" {
		t.Error(diff)
	}
}
