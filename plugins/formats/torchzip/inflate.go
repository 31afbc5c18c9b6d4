package torchzip

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// unpacked is a member's content after decompression: in memory when it is
// small, and else decompressed again from the start when a read goes back.
type unpacked struct {
	budget *content.Budget
	packed io.ReaderAt
	n      int64 // packed bytes
	// size is what decompression really gave.
	size int64
	crc  uint32
	// broken is why there is no more, when there should be.
	broken predicate.Reason

	held []byte
	r    io.Reader
	at   int64
}

// unpack decompresses the whole member once, within the limits, to learn its
// true size and checksum.
func unpack(ctx context.Context, v *content.Visit, e *entry) (*unpacked, error) {
	u := &unpacked{budget: v.Budget, packed: io.NewSectionReader(v.Bytes, e.data, e.packed), n: e.packed}
	// The stated size decides only how the content is kept.
	hold := e.size <= v.Budget.Held/2 && v.Budget.Hold(e.size)
	if hold {
		u.held = make([]byte, 0, min(e.size, max(4*e.packed, 64<<10)))
	}
	u.restart()
	sum := crc32.NewIEEE()
	buf := make([]byte, min(max(e.size, 0)+1, 64<<10))
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("inflate: %w", err)
		}
		n, err := u.r.Read(buf)
		sum.Write(buf[:n])
		u.size += int64(n)
		if hold {
			u.held = append(u.held, buf[:n]...)
		}
		if why := u.beyond(e, int64(n)); why != "" {
			u.broken = why
			break
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) {
			if u.broken, err = blame(err); err != nil {
				return nil, err
			}
		}
		break
	}
	u.crc = sum.Sum32()
	if !hold {
		u.r = nil
	}
	return u, nil
}

// beyond reports the limit that the decompressed bytes exceed.
func (u *unpacked) beyond(e *entry, n int64) predicate.Reason {
	switch {
	case !u.budget.Inflate(n):
		return predicate.LimitBytes
	case u.size > u.budget.RatioFrom && u.size/max(1, u.n) > u.budget.Ratio:
		return predicate.LimitRatio
	case u.size > e.size:
		// More than the headers say: readers stop at different places.
		return predicate.Malformed
	}
	return ""
}

// blame tells broken data from a read error of the source.
func blame(err error) (predicate.Reason, error) {
	var corrupt flate.CorruptInputError
	var internal flate.InternalError
	switch {
	case errors.As(err, &corrupt), errors.As(err, &internal):
		return predicate.Malformed, nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return predicate.Truncated, nil
	}
	return "", fmt.Errorf("inflate: %w", err)
}

func (u *unpacked) restart() {
	u.r = flate.NewReader(io.NewSectionReader(u.packed, 0, u.n))
	u.at = 0
}

// release gives back the memory that is held.
func (u *unpacked) release(e *entry) {
	if u.held != nil {
		u.budget.Release(e.size)
	}
}

var errInflate = errors.New("decompression exceeds the scan's limits")

// ReadAt implements io.ReaderAt. One goroutine at a time may call it.
func (u *unpacked) ReadAt(p []byte, off int64) (int, error) {
	if off >= u.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), u.size-off)]
	if u.held != nil {
		copy(want, u.held[off:])
	} else if err := u.stream(want, off); err != nil {
		return 0, err
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}

func (u *unpacked) stream(p []byte, off int64) error {
	if u.r == nil || off < u.at {
		u.restart()
	}
	if !u.budget.Inflate(off - u.at + int64(len(p))) {
		return errInflate
	}
	n, err := io.CopyN(io.Discard, u.r, off-u.at)
	u.at += n
	if err != nil {
		return fmt.Errorf("inflate: %w", err)
	}
	got, err := io.ReadFull(u.r, p)
	u.at += int64(got)
	if err != nil {
		return fmt.Errorf("inflate: %w", err)
	}
	return nil
}
