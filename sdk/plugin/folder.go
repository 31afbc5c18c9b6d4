package plugin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cavra/cavra/sdk/diskio"
)

// folderPattern names the folder of one plugin's socket in the machine's temporary
// one, and folderLock the file in it that the host has locked while it lives.
const (
	folderPattern = "cavra-plugin-*"
	folderLock    = "lock"
)

// sweepAfter is how old a folder has to be: who makes one needs a moment to lock it.
const sweepAfter = time.Minute

// newFolder makes a folder that stays as long as this process, or until remove.
func newFolder() (dir string, remove func() error, err error) {
	dir, err = os.MkdirTemp("", folderPattern)
	if err != nil {
		return "", nil, fmt.Errorf("make folder for a plugin's socket: %w", err)
	}
	unlock, err := diskio.Lock(filepath.Join(dir, folderLock))
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("make folder for a plugin's socket: %w", err), os.RemoveAll(dir))
	}
	return dir, func() error { return errors.Join(os.RemoveAll(dir), unlock()) }, nil
}

// Sweep deletes what hosts of this user that were killed have left behind in the
// temporary folder. It touches nothing of a host that lives.
func Sweep() error {
	left, err := filepath.Glob(filepath.Join(os.TempDir(), folderPattern))
	if err != nil {
		return fmt.Errorf("sweep temporary folder: %w", err)
	}
	var errs []error
	for _, dir := range left {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 || !ours(info) || time.Since(info.ModTime()) < sweepAfter {
			continue // gone meanwhile, new, or nobody's business here
		}
		unlock, err := diskio.Lock(filepath.Join(dir, folderLock))
		if errors.Is(err, diskio.ErrLocked) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = errors.Join(os.RemoveAll(dir), unlock())
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sweep temporary folder: %w", err)
	}
	return nil
}

func ours(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
