package inspect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/safeio"
	"github.com/cavra/cavra/sdk/scanner"
)

// copyBuffer is how much is copied at a time, in bytes.
const copyBuffer = 1 << 20

// errTooLarge says that content is beyond MaxRemote.
var errTooLarge = errors.New("the content is larger than may be copied from this connector")

// read opens the item, hashes and scans it, and fills in out. An error says
// that the bytes could not be read as they were.
func (n *Inspector) read(ctx context.Context, out *Result) (err error) {
	opened, err := n.cfg.Source.Open(ctx, out.Scope.Root, out.Item.Key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	out.Size = opened.Size()
	content, err := n.hold(ctx, opened, out.Item.Path)
	if err != nil {
		return err
	}
	if content != opened {
		defer func() { err = errors.Join(err, content.Close()) }()
	}
	failed := n.hashAndScan(ctx, content, out)
	// Bytes that are held by us cannot change any more, but may have been
	// copied half before and half after a change.
	u, ok := opened.(interface{ Unchanged() error })
	if !ok {
		return failed
	}
	if err := u.Unchanged(); err != nil {
		// A scanner that saw two contents is not to blame for what it made of them.
		out.Findings = slices.DeleteFunc(out.Findings, func(f finding.Finding) bool {
			return f.Rule == ruleFailed || f.Rule == ruleContract
		})
		return err
	}
	return failed
}

// hold returns content that can be read twice with the same result: small
// content in memory, a file by its descriptor (read checks that it did not
// change), and anything else copied once into memory that is then sealed.
func (n *Inspector) hold(ctx context.Context, r artifact.Reader, name string) (artifact.Reader, error) {
	if r.Size() <= MaxInMemory {
		b := make([]byte, r.Size())
		if err := safeio.ReadFull(r, b, 0, name); err != nil {
			return nil, err
		}
		return memory{bytes.NewReader(b)}, nil
	}
	if _, ok := r.(artifact.Descriptor); ok {
		return r, nil
	}
	if r.Size() > n.cfg.MaxRemote {
		return nil, &connector.Problem{
			Reason: predicate.LimitBytes,
			Err:    fmt.Errorf("%w: %d bytes, at most %d", errTooLarge, r.Size(), n.cfg.MaxRemote),
		}
	}
	return copySealed(ctx, r, name)
}

// hashAndScan does both at once where there is more than one pass to wait for.
func (n *Inspector) hashAndScan(ctx context.Context, content artifact.Reader, out *Result) error {
	target := scanner.Target{Path: out.Item.Path, Content: content, Siblings: n.siblings(out.Work)}
	hash := func(ctx context.Context) error {
		d, err := safeio.Digest(ctx, counted{content, n.cfg.Progress}, out.Item.Path)
		out.Digest = d
		return err
	}
	if content.Size() <= MaxInMemory {
		if err := hash(ctx); err != nil {
			return err
		}
		return n.scan(ctx, target, out)
	}
	// A failure to read is no reason to lose what the scanners find, so neither
	// ends the other.
	var group errgroup.Group
	group.Go(func() error { return hash(ctx) })
	group.Go(func() error { return n.scan(ctx, target, out) })
	return group.Wait()
}

// memory is content in memory.
type memory struct{ *bytes.Reader }

func (m memory) Close() error { return nil }

// counted tells of what is read.
type counted struct {
	artifact.Reader
	progress func(int64)
}

func (c counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Reader.ReadAt(p, off)
	c.progress(int64(n))
	return n, err
}

// copySealed copies r into an anonymous file that nobody can change any more.
func copySealed(ctx context.Context, r artifact.Reader, name string) (artifact.Reader, error) {
	fd, err := unix.MemfdCreate("cavra-content", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "cavra-content")
	if err := copyAll(ctx, f, r, name); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(fmt.Errorf("seal memory file: %w", err), f.Close())
	}
	sealed, err := safeio.NewFile(f, name)
	if err != nil {
		return nil, err
	}
	return sealed, nil
}

func copyAll(ctx context.Context, w io.Writer, r artifact.Reader, name string) error {
	buf := make([]byte, copyBuffer)
	for off := int64(0); off < r.Size(); off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		part := buf[:min(int64(len(buf)), r.Size()-off)]
		if err := safeio.ReadFull(r, part, off, name); err != nil {
			return err
		}
		if _, err := w.Write(part); err != nil {
			return fmt.Errorf("write memory file: %w", err)
		}
	}
	return nil
}

// reasonOf classifies why bytes could not be read. A file that is shorter than
// it was at its opening has changed.
func reasonOf(err error) predicate.Reason {
	if errors.Is(err, safeio.ErrChanged) || errors.Is(err, io.ErrUnexpectedEOF) {
		return predicate.Changed
	}
	return connector.ReasonOf(err)
}

// describe puts a reason for which there is no error into words.
func describe(why predicate.Reason) string {
	switch why {
	case predicate.NotRegular:
		return "not a regular file: a device, a socket, a pipe, or a link to a folder outside; it was not opened"
	case predicate.NotFound:
		return "nothing is there: a dangling link, or the file is gone since it was listed"
	case predicate.PermissionDenied:
		return "permission denied: run as a user who may read it"
	case predicate.ReadFailed:
		return "could not be read: check the disk or the file system"
	case predicate.Changed:
		return "changed while it was read: scan it again when nobody writes to it"
	}
	return "could not be read: " + string(why)
}
