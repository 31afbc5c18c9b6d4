package diskio

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// ErrLocked says that another process holds a lock.
var ErrLocked = errors.New("locked by another process")

// The record of who took a lock has one length, so that it is written over in
// place: that needs no room on a full disk.
const (
	ownerFormat = "%-10d %-32s\n"
	ownerBytes  = 10 + 1 + 32 + 1
)

// Owner is who has taken a lock.
type Owner struct {
	// PID is the process, as it sees itself.
	PID int
	// ID is another one each time that the lock is taken, since processes come
	// to have the number of one that has ended.
	ID string
}

// Lock takes the lock of a file, which is made if it is not there, and returns
// what gives it back. The system gives it back when the process ends, however
// it ends.
func Lock(name string) (unlock func() error, err error) {
	f, err := flock(name, os.O_RDWR|os.O_CREATE, syscall.LOCK_EX)
	if err != nil {
		return nil, err
	}
	id := make([]byte, 16)
	if _, err = rand.Read(id); err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, ownerFormat, os.Getpid(), hex.EncodeToString(id)), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
	}
	return f.Close, nil
}

// LockShared keeps everybody from taking the lock of a file that is there, for
// as long as somebody reads what it guards. It writes nothing.
func LockShared(name string) (unlock func() error, err error) {
	f, err := flock(name, os.O_RDONLY, syscall.LOCK_SH)
	if err != nil {
		return nil, err
	}
	return f.Close, nil
}

// OwnerOf tells who has the lock of a file; ok is false when nobody has, or only
// those who share it.
func OwnerOf(name string) (o Owner, ok bool, err error) {
	unlock, err := LockShared(name)
	switch {
	case err == nil:
		return Owner{}, false, unlock()
	case errors.Is(err, os.ErrNotExist):
		return Owner{}, false, nil
	case !errors.Is(err, ErrLocked):
		return Owner{}, false, err
	}
	b, err := ReadFile(name, ownerBytes)
	if err != nil {
		return Owner{}, false, err
	}
	if _, err := fmt.Sscan(string(b), &o.PID, &o.ID); err != nil {
		return Owner{}, false, fmt.Errorf("read lock %s: %w", name, err)
	}
	return o, true, nil
}

func flock(name string, flag, how int) (*os.File, error) {
	f, err := os.OpenFile(name, flag|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
	}
	return f, nil
}
