// Package safeio reads untrusted bytes within bounds. A read either gives all
// the bytes that were asked for or an error that says where it fell short, and
// a file that changed while it was read says so.
package safeio

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/cavra/cavra/sdk/artifact"
)

// ErrChanged says that bytes are not what they were when they were opened.
var ErrChanged = errors.New("changed while it was read")

// digestBuffer is how much Digest reads at once, in bytes.
const digestBuffer = 1 << 20

// ShortReadError says that a read gave less than was asked for. It unwraps to
// io.ErrUnexpectedEOF where the bytes end too early.
type ShortReadError struct {
	// Name of what was read, for the person at this machine.
	Name string
	// Offset and Want are of the read, Got is what came; all in bytes.
	Offset    int64
	Want, Got int
	Err       error
}

func (e *ShortReadError) Error() string {
	return fmt.Sprintf("read %s: %d of %d bytes at offset %d: %v", e.Name, e.Got, e.Want, e.Offset, e.Err)
}

func (e *ShortReadError) Unwrap() error { return e.Err }

// ReadFull fills p from offset off of r, or returns a *ShortReadError.
func ReadFull(r io.ReaderAt, p []byte, off int64, name string) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return &ShortReadError{Name: name, Offset: off, Want: len(p), Got: n, Err: err}
}

// Digest reads all of r and returns the SHA-256 of its bytes. That r holds more
// or fewer than its Size is an error: the digest would name other bytes than
// those a parser is shown.
func Digest(ctx context.Context, r artifact.Reader, name string) (artifact.Digest, error) {
	size := r.Size()
	h := sha256.New()
	buf := make([]byte, max(1, min(int64(digestBuffer), size)))
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return "", fmt.Errorf("digest %s: %w", name, err)
		}
		p := buf[:min(int64(len(buf)), size-off)]
		if err := ReadFull(r, p, off, name); err != nil {
			return "", fmt.Errorf("digest: %w", err)
		}
		h.Write(p)
		off += int64(len(p))
	}
	switch n, err := r.ReadAt(buf[:1], size); {
	case n > 0:
		return "", fmt.Errorf("digest %s: more than the %d bytes that it opened with: %w", name, size, ErrChanged)
	case err != nil && !errors.Is(err, io.EOF):
		return "", fmt.Errorf("digest %s: read past the end: %w", name, err)
	}
	return artifact.Digest(fmt.Sprintf("sha256:%x", h.Sum(nil))), nil
}
