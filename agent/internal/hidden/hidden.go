// Package hidden remembers, on the agent's machine alone, what stands behind the
// keyed hashes that it sends: names, and digests of small files and bundles. It
// guarantees that what Save returned for is there, and that what a full disk did
// not take, or a crash cut short, is written when there is room or it comes up
// again.
package hidden

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/cavra/cavra/sdk/diskio"
)

// The bounds of a book, in bytes.
const (
	MaxBytes = 1 << 30
	maxLine  = 1 << 20
)

// Entry is a keyed hash and what it hides.
type Entry struct {
	// Keyed is as statements write it: "hmac-sha256:" and 64 digits.
	Keyed string `json:"keyed"`
	// Plain is a name, which need not be UTF-8, or a digest as it is written.
	Plain []byte `json:"plain"`
}

// Book is a file of entries that only grows. It may be used from several
// goroutines at once.
type Book struct {
	mu  sync.Mutex
	log *diskio.Log
	// have are the entries that are written or wait, by the first 64 bits of
	// their hashes.
	have    map[uint64]bool
	waiting []byte
}

// Open opens the book, or begins one. Close it.
func Open(name string) (*Book, error) {
	b := &Book{have: map[uint64]bool{}}
	size, err := read(name, func(e Entry) error {
		b.have[mark(e.Keyed)] = true
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		err = diskio.WriteFile(diskio.OS{}, name, nil, 0o600)
	}
	if err == nil {
		b.log, err = diskio.OpenLog(diskio.OS{}, name, size)
	}
	if err != nil {
		return nil, fmt.Errorf("open what is hidden: %w", err)
	}
	return b, nil
}

// mark is the beginning of a hash; 0 for what is none.
func mark(keyed string) uint64 {
	_, digits, _ := strings.Cut(keyed, ":")
	if len(digits) < 16 {
		return 0
	}
	b, err := hex.DecodeString(digits[:16])
	if err != nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// Remember notes an entry; Save writes it down.
func (b *Book) Remember(keyed, plain string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := mark(keyed)
	if m == 0 || b.have[m] {
		return
	}
	line, err := json.Marshal(Entry{keyed, []byte(plain)})
	if err != nil || len(line) >= maxLine || b.log.Size()+int64(len(b.waiting)+len(line)) >= MaxBytes {
		return // it can be asked for all the same, and is not known
	}
	b.have[m] = true
	b.waiting = append(append(b.waiting, line...), '\n')
}

// Save makes durable what was remembered.
func (b *Book) Save() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		return nil
	}
	if err := b.log.Append(b.waiting); err != nil {
		return fmt.Errorf("save what is hidden: %w", err)
	}
	if err := b.log.Sync(len(b.waiting)); err != nil {
		return fmt.Errorf("save what is hidden: %w", err)
	}
	b.waiting = b.waiting[:0]
	return nil
}

// Close closes the file; what was not saved is gone.
func (b *Book) Close() error { return b.log.Close() }

// Read hands out every entry of a book, while an agent writes it or not. No book
// is an empty one.
func Read(name string, emit func(Entry) error) error {
	_, err := read(name, emit)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read what is hidden: %w", err)
	}
	return nil
}

// read returns how many bytes are whole lines.
func read(name string, emit func(Entry) error) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	r := bufio.NewReaderSize(f, maxLine)
	var size int64
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return size, nil // a line that is not done, or none
		}
		if err != nil {
			return size, fmt.Errorf("%s at %d: %w", name, size, err)
		}
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return size, fmt.Errorf("%s at %d: %w", name, size, err)
		}
		if err := emit(e); err != nil {
			return size, err
		}
		size += int64(len(line))
	}
}
