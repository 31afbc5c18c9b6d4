package plugin

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/safeio"
)

// lowestProgramFd keeps the program's descriptor clear of the numbers that a
// child's own descriptors are put on.
const lowestProgramFd = 64

// Program is an executable that was measured and sealed: whatever becomes of
// its path, this is what runs. It may be launched many times, and at once.
type Program struct {
	path   string
	sealed *os.File
	digest predicate.Digest
}

// Load measures the program at path. It must have the digest want, unless that
// is empty.
func Load(path string, want predicate.Digest) (*Program, error) {
	sealed, digest, err := seal(path, want)
	if err != nil {
		return nil, err
	}
	return &Program{path: path, sealed: sealed, digest: digest}, nil
}

// Digest is that of the program.
func (p *Program) Digest() predicate.Digest { return p.digest }

// Close lets go of the program. Processes that run it go on.
func (p *Program) Close() error { return p.sealed.Close() }

// seal copies the program at path into memory that nobody can change any more,
// and returns it with the digest of what was copied: what is measured is what
// is executed, whatever happens to the path.
func seal(path string, want predicate.Digest) (*os.File, predicate.Digest, error) {
	src, err := openRegular(path)
	if err != nil {
		return nil, "", fmt.Errorf("open program: %w", err)
	}
	mem, got, err := copySealed(src, path)
	if err = errors.Join(err, src.Close()); err != nil {
		if mem != nil {
			err = errors.Join(err, mem.Close())
		}
		return nil, "", fmt.Errorf("seal program %s: %w", path, err)
	}
	if want != "" && got != want {
		return nil, "", errors.Join(&DigestError{Path: path, Want: string(want), Got: string(got)}, mem.Close())
	}
	return mem, got, nil
}

func openRegular(path string) (*safeio.File, error) {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	return safeio.NewFile(f, path)
}

func copySealed(src *safeio.File, path string) (*os.File, predicate.Digest, error) {
	if src.Size() > maxProgramBytes {
		return nil, "", fmt.Errorf("%d bytes, at most %d", src.Size(), maxProgramBytes)
	}
	var magic [4]byte
	if err := safeio.ReadFull(src, magic[:], 0, path); err != nil || !bytes.Equal(magic[:], []byte("\x7fELF")) {
		return nil, "", errors.Join(errors.New("not an ELF program"), err)
	}
	mem, err := memfd()
	if err != nil {
		return nil, "", err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(mem, h), io.NewSectionReader(src, 0, src.Size()))
	if err == nil && n != src.Size() {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		_, err = unix.FcntlInt(mem.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	return mem, predicate.Digest(fmt.Sprintf("sha256:%x", h.Sum(nil))), err
}

func memfd() (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("cavra-plugin", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		// Linux before 6.3 does not know MFD_EXEC; what it makes is executable.
		fd, err = unix.MemfdCreate("cavra-plugin", flags)
	}
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, lowestProgramFd)
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return nil, fmt.Errorf("move memory file: %w", err)
	}
	return os.NewFile(uintptr(high), "program"), nil
}

func closeFd(fd int) { _ = unix.Close(fd) }
