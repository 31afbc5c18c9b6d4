package diskio

import (
	"errors"
	"fmt"
	"os"
)

// ErrUnsure says that a disk has not confirmed what it holds. To sync again
// confirms nothing: the system forgets what it could not write, and reads it from
// its cache all the same. Whoever goes on has to write again.
var ErrUnsure = errors.New("nobody knows what the disk holds")

// Log is a file that only grows. It may not be used from several goroutines at
// once.
type Log struct {
	f    File
	name string
	size int64
	// broken is set once nothing is known any more of what the disk holds.
	broken error
}

// OpenLog opens an existing file of which the first size bytes are right. What is
// behind them is cut off.
func OpenLog(fsys FS, name string, size int64) (*Log, error) {
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	err = f.Truncate(size)
	if err == nil {
		// What was read from the cache at the start may not be on the disk yet.
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log %s: %w", name, err), f.Close())
	}
	return &Log{f: f, name: name, size: size}, nil
}

// Rewrite writes again what is there from an offset on, which a process before
// this one may have written in vain, and makes it durable.
func (l *Log) Rewrite(from int64) error {
	if l.broken != nil {
		return l.broken
	}
	buf := make([]byte, 256<<10)
	for off := from; off < l.size; {
		b := buf[:min(int64(len(buf)), l.size-off)]
		if _, err := l.f.ReadAt(b, off); err != nil {
			return fmt.Errorf("write log %s again: %w", l.name, err)
		}
		if _, err := l.f.WriteAt(b, off); err != nil {
			return fmt.Errorf("write log %s again: %w", l.name, err)
		}
		off += int64(len(b))
	}
	return l.Sync(0)
}

// Size is what is durable, in bytes.
func (l *Log) Size() int64 { return l.size }

// Append writes b behind what is there. When it returns nil and b is synced,
// Commit makes it part of the log; until then the log is as it was. A failed
// write may be tried again.
func (l *Log) Append(b []byte) error {
	if l.broken != nil {
		return l.broken
	}
	if _, err := l.f.WriteAt(b, l.size); err != nil {
		return fmt.Errorf("append to log %s: %w", l.name, err)
	}
	return nil
}

// Sync makes the n bytes that the last Append wrote durable. After a failure
// nobody knows what the disk holds, so the log takes nothing more: it has to be
// opened and read again.
func (l *Log) Sync(n int) error {
	if l.broken != nil {
		return l.broken
	}
	if err := l.f.Sync(); err != nil {
		l.broken = fmt.Errorf("sync log %s: %w: %w", l.name, ErrUnsure, err)
		return l.broken
	}
	l.size += int64(n)
	return nil
}

// Revert takes back what Append wrote and Sync did not confirm.
func (l *Log) Revert() error {
	if l.broken != nil {
		return l.broken
	}
	if err := l.f.Truncate(l.size); err != nil {
		l.broken = fmt.Errorf("revert log %s: %w: %w", l.name, ErrUnsure, err)
		return l.broken
	}
	return nil
}

// ReadAt reads what is durable.
func (l *Log) ReadAt(p []byte, off int64) (int, error) { return l.f.ReadAt(p, off) }

// Close closes the file.
func (l *Log) Close() error { return l.f.Close() }
