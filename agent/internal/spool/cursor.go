package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
)

// The cursor file has two slots, which are written in turn and in place: a full
// disk has room for that, and a torn write leaves the other slot.
const (
	cursorName  = "cursor"
	slotBytes   = 512
	cursorBytes = 2 * slotBytes
)

// mark is the last statement that may be public: it has been handed out.
type mark struct {
	Place
	Digest predicate.Digest
}

// cursorState is what the cursor says: up to where the broker has acknowledged,
// and up to where statements may be public.
type cursorState struct {
	generation uint64
	acked      Place
	exposed    mark
}

type cursorFile struct {
	f     diskio.File
	state cursorState
}

// errNoCursor says that there is no cursor that can be believed.
var errNoCursor = errors.New("no cursor")

func (c cursorState) encode() []byte {
	b := make([]byte, 4, slotBytes)
	b = binary.BigEndian.AppendUint64(b, c.generation)
	b = binary.BigEndian.AppendUint64(b, c.acked.Epoch)
	b = binary.BigEndian.AppendUint64(b, c.acked.Sequence)
	b = binary.BigEndian.AppendUint64(b, c.exposed.Epoch)
	b = binary.BigEndian.AppendUint64(b, c.exposed.Sequence)
	b = append(b, sum(c.exposed.Digest)...)
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b[:slotBytes]
}

const slotUsed = 4 + 5*8 + 32

func decodeSlot(b []byte) (cursorState, bool) {
	if len(b) < slotUsed || crc32.Checksum(b[4:slotUsed], castagnoli) != binary.BigEndian.Uint32(b) {
		return cursorState{}, false
	}
	c := cursorState{
		generation: binary.BigEndian.Uint64(b[4:]),
		acked:      Place{binary.BigEndian.Uint64(b[12:]), binary.BigEndian.Uint64(b[20:])},
		exposed: mark{
			Place:  Place{binary.BigEndian.Uint64(b[28:]), binary.BigEndian.Uint64(b[36:])},
			Digest: predicate.DigestFromSum(b[44:76]),
		},
	}
	return c, c.generation > 0
}

// readCursor returns the newer slot that can be believed.
func readCursor(name string) (cursorState, error) {
	b, err := diskio.ReadFile(name, cursorBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return cursorState{}, errNoCursor
	}
	if err != nil {
		return cursorState{}, err
	}
	var best cursorState
	for off := 0; off+slotBytes <= len(b); off += slotBytes {
		if c, ok := decodeSlot(b[off : off+slotBytes]); ok && c.generation > best.generation {
			best = c
		}
	}
	if best.generation == 0 {
		return cursorState{}, errNoCursor
	}
	return best, nil
}

// createCursor writes a cursor file anew.
func createCursor(fsys diskio.FS, name string, c cursorState) error {
	c.generation++
	b := make([]byte, cursorBytes)
	copy(b[int(c.generation%2)*slotBytes:], c.encode())
	return diskio.WriteFile(fsys, name, b, 0o600)
}

func openCursor(fsys diskio.FS, name string) (*cursorFile, error) {
	state, err := readCursor(name)
	if err != nil {
		return nil, err
	}
	f, err := fsys.OpenFile(name, os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open cursor: %w", err)
	}
	c := &cursorFile{f: f, state: state}
	// What was read may be in the cache alone: the process that wrote it may have
	// died before it could sync it, or the sync may have failed.
	if err := c.set(state.acked, state.exposed); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return c, nil
}

// set makes a new state durable.
func (c *cursorFile) set(acked Place, exposed mark) error {
	next := cursorState{generation: c.state.generation + 1, acked: acked, exposed: exposed}
	if _, err := c.f.WriteAt(next.encode(), int64(next.generation%2)*slotBytes); err != nil {
		return fmt.Errorf("write cursor: %w", err)
	}
	if err := c.f.Sync(); err != nil {
		return fmt.Errorf("sync cursor: %w", err)
	}
	c.state = next
	return nil
}

func (c *cursorFile) Close() error { return c.f.Close() }
