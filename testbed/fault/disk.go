// Package fault causes what can happen to a running installation: disks that are
// full, and networks that carry one direction only. It works in namespaces of the
// test's own (see wire.Isolated), and does nothing outside of them.
package fault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/testbed/wire"
)

// errOutside protects the machine's own disks and network.
var errOutside = errors.New("not in a namespace of its own")

// Disk is a small one.
type Disk struct{ at string }

// Mount puts a disk of so many bytes at a folder, which it makes.
func Mount(at string, size int64) (*Disk, error) {
	if os.Getenv(wire.Namespace) == "" {
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
