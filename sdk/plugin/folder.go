package plugin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cavra/cavra/sdk/diskio"
)

// A host locks a file beside the folder of each plugin's socket while it lives. The
// plugin cannot reach the file; and a folder around the folder would make the socket's
// path too long for the kernel where the temporary folder's own is not short.
const (
	folderPattern = "plugin-dir*"
	folderLock    = ".cavra-lock"
)

// sweepAfter is how old a lock has to be: who makes one needs a moment to lock it.
const sweepAfter = time.Minute

// holdFolder says that the folder of a plugin's socket is this process's, as long as
// that lives or until release, which deletes it.
func holdFolder(dir string) (release func() error, err error) {
	lock := dir + folderLock
	unlock, err := diskio.Lock(lock)
	if err != nil {
		return nil, fmt.Errorf("hold folder of a plugin's socket: %w", err)
	}
	return func() error { return errors.Join(os.RemoveAll(dir), os.RemoveAll(lock), unlock()) }, nil
}

// Sweep deletes what hosts of this user that were killed have left behind in the
// temporary folder. It touches nothing of a host that lives.
func Sweep() error {
	locks, err := filepath.Glob(filepath.Join(os.TempDir(), folderPattern+folderLock))
	if err != nil {
		return fmt.Errorf("sweep temporary folder: %w", err)
	}
	var errs []error
	for _, lock := range locks {
		dir := strings.TrimSuffix(lock, folderLock)
		info, err := os.Lstat(lock)
		if err != nil || !info.Mode().IsRegular() || !ours(info) || time.Since(info.ModTime()) < sweepAfter {
			continue // gone meanwhile, new, or nobody's business here
		}
		if folder, err := os.Lstat(dir); err == nil && (!folder.IsDir() || !ours(folder)) {
			continue // somebody else's
		}
		unlock, err := diskio.Lock(lock)
		if errors.Is(err, diskio.ErrLocked) {
			continue
		}
		if err == nil {
			err = errors.Join(os.RemoveAll(dir), os.RemoveAll(lock), unlock())
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
