// Package fault causes what can happen to a running installation: disks that are
// full, and networks that carry one direction only. It works in namespaces of the
// test's own (see wire.Rerun and Rerun), and does nothing outside of them.
package fault

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/testbed/wire"
)

// errOutside protects the machine's own disks and network.
var errOutside = errors.New("not in a namespace of its own")

// Mounts is the environment variable that says that this process is in a mount
// namespace that Rerun has made.
const Mounts = "CAVRA_FAULT_MOUNTS"

// Rerun runs the calling test again in a mount namespace of its own, on the
// machine's network. It skips where the machine lets nobody make one, but not in CI.
func Rerun(t *testing.T) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60m")
	cmd.Env = append(os.Environ(), Mounts+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	err := cmd.Run()
	if errors.Is(err, syscall.EPERM) && os.Getenv("CI") == "" {
		t.Skipf("no mount namespace can be made here (run as root): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Disk is a small one.
type Disk struct{ at string }

// Mount puts a disk of so many bytes at a folder, which it makes.
func Mount(at string, size int64) (*Disk, error) {
	if os.Getenv(wire.Namespace) == "" && os.Getenv(Mounts) == "" {
		return nil, errOutside
	}
	err := os.MkdirAll(at, 0o700)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err == nil {
		err = unix.Mount("tmpfs", at, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size))
	}
	if err != nil {
		return nil, fmt.Errorf("mount disk: %w", err)
	}
	return &Disk{at: at}, nil
}

// Unmount takes it away, whoever uses it.
func (d *Disk) Unmount() error {
	if err := unix.Unmount(d.at, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount disk: %w", err)
	}
	return nil
}

// filler takes the room of a disk.
const filler = "another-programs-file"

// Full takes all the room that there is, and all that is given back meanwhile, and
// frees it after a while.
func (d *Disk) Full(lasts time.Duration) error {
	f, err := os.OpenFile(filepath.Join(d.at, filler), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("fill disk: %w", err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	block := make([]byte, 1<<20)
	for end := time.Now().Add(lasts); err == nil && time.Now().Before(end); {
		for size := len(block); size >= 4096 && err == nil; {
			if _, err = f.Write(block[:size]); errors.Is(err, unix.ENOSPC) {
				size, err = size/4, nil
			}
		}
		<-tick.C
	}
	if err = errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		return fmt.Errorf("fill disk: %w", err)
	}
	return nil
}
