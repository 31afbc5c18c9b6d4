// Package zip reads zip archives: those that torch.save writes, those of
// numpy arrays, and any other. The central directory, every local header, and
// every byte between the members are looked at, so that no reader finds a
// member that this one has not seen.
//
// In torch's archives, which folders and pickles tell, storages are inert by
// structure and sources are compiled; see torch.go. All other members are scanned
// by their content.
package zip

import (
	"context"
	"hash/crc32"
	"io"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/unpack"
)

// The ids of the formats that a zip archive can be.
const (
	IDZip   = "zip"
	IDTorch = "torch-zip"
	IDNpz   = "npz"
	// IDScript is TorchScript, whose source torch compiles.
	IDScript = "torchscript"
	// IDExport is what torch.export.save writes.
	IDExport = "torch-export"
	// IDPackage is what torch.package writes: Python beside pickles.
	IDPackage = "torch-package"
)

// where is the location class of findings about an archive.
const where = "archive"

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{
		"archive.entry.checksum", "archive.entry.duplicate", "archive.entry.encrypted", "archive.entry.hidden",
		"archive.entry.path", "archive.limit", "archive.malformed", ruleNative, rulePackage,
	}
}

// Format is zip as a format of the program.
type Format struct{}

// Identify goes by the beginning, as torch and numpy do.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return strings.HasPrefix(string(v.Head), sigLocal) || strings.HasPrefix(string(v.Head), sigEnd), nil
}

// IdentifyBeside goes by the end, as zipfile does: whatever comes before. An
// archive that is a member at the end of a tar file is that member and no more.
func (Format) IdentifyBeside(ctx context.Context, v *content.Visit) (bool, error) {
	d, err := readDirectory(ctx, v)
	if err != nil || d == nil || len(d.entries) == 0 {
		return false, err
	}
	if !v.InWhole(d.comment - sizeEnd) {
		return true, nil
	}
	// Readers that count from the beginning of the file see another directory.
	_, other, err := hasSignature(v, d.start-d.shift, sigCentral)
	return other && d.shift != 0, err
}

// archive is one scan of one archive.
type archive struct {
	*content.Visit
	dir *directory
	// arrays and others count the members so far; npz is told by them.
	arrays, others int
	// beside is set when the content is of another format too, by which its
	// beginning has been scanned.
	beside bool
	// listed are the members of the directory, by where and how they lie.
	listed map[placement]bool
	// again counts the entries of directories that are not in force.
	again int
}

// placement is where a member lies and how it is read.
type placement struct {
	header, packed, size int64
	method, flags        uint16
}

func (e *entry) placement() placement {
	return placement{e.header, e.packed, e.size, e.method, e.flags & flagEncrypted}
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	a := &archive{Visit: v, beside: v.Format != "", listed: make(map[placement]bool)}
	v.Format = IDZip
	d, err := readDirectory(ctx, v)
	if err != nil {
		return err
	}
	a.dir = d
	if d == nil {
		v.Found("archive.malformed", where, 0, "no central directory")
		a.dir = &directory{start: v.Size, end: v.Size, tail: v.Size, comment: v.Size, fileEnd: v.Size}
		v.Unread(v.Size, v.Size, predicate.Truncated)
		return a.gaps(ctx, nil)
	}
	if d.shift == 0 && !d.cut && !d.tooMany {
		v.Whole(0, v.Size)
	}
	if err := a.checkDirectory(ctx); err != nil {
		return err
	}
	for _, e := range d.entries {
		if err := e.readLocal(v, v.Size); err != nil {
			return err
		}
		a.checkEntry(e)
	}
	a.dropOverlaps()
	a.checkNames()
	if err := a.members(ctx); err != nil {
		return err
	}
	return a.gaps(ctx, d.entries)
}

func (a *archive) checkDirectory(ctx context.Context) error {
	d := a.dir
	if d.cut {
		a.Found("archive.malformed", where, d.start, "the directory does not hold what it says")
		a.Unread(d.start, d.start, predicate.Malformed)
	}
	if d.tooMany {
		a.Limited(where, d.start, d.end, predicate.LimitMembers)
	}
	if d.disks {
		a.Found("archive.malformed", where, d.tail, "a part of several")
		a.Unread(d.tail, d.tail, predicate.Malformed)
	}
	if d.twoEnds {
		a.Found("archive.malformed", where, d.tail, "the end records disagree")
	}
	if d.shift != 0 {
		a.Found("archive.malformed", where, 0, "offsets do not count from the beginning")
	}
	if !d.cut || len(d.entries) > 0 {
		a.Parsed(d.start, d.end)
	} else {
		a.Unread(d.start, d.end, predicate.LimitBytes)
	}
	comment := min(d.comment, a.Size)
	for _, r := range d.records {
		a.Parsed(r.start, r.end)
	}
	if d.fileEnd > a.Size {
		a.Found("archive.malformed", where, d.tail, "comment is cut short")
	}
	if end := min(d.fileEnd, a.Size); end > comment {
		if _, err := a.Enter(ctx, a.Part(comment, end)); err != nil {
			return err
		}
	}
	if d.fileEnd < a.Size {
		a.Found("archive.entry.hidden", where, d.fileEnd, "bytes follow the end of the archive")
		_, err := a.Enter(ctx, a.Part(d.fileEnd, a.Size))
		return err
	}
	return nil
}

func (a *archive) checkEntry(e *entry) {
	switch {
	case e.bad != "":
		a.Found("archive.malformed", where, e.listedAt, e.String(), e.bad)
		a.Unread(e.listedAt, e.listedAt, predicate.Malformed)
	case e.cut:
		a.Found("archive.malformed", where, e.header, e.String(), "data is outside of the archive")
		a.Unread(e.header, e.header, predicate.Truncated)
	case e.disagrees:
		a.Found("archive.malformed", where, e.header, e.String(), "local header and directory disagree")
	}
	if strings.HasSuffix(e.name, "/") && !e.isDir() {
		a.Found("archive.malformed", where, e.listedAt, e.String(), "a folder with content")
	}
	if e.otherName != "" && e.otherName != e.name {
		a.Found("archive.malformed", where, e.listedAt, e.String(), "a second name in its extra field")
	}
	a.listed[e.placement()] = true
	if content.Leaves(e.name) || content.Leaves(e.localName) {
		a.Found("archive.entry.path", where, e.listedAt, e.String())
	}
	if strings.ContainsRune(e.name, 0) {
		a.Found("archive.malformed", where, e.listedAt, e.String(), "name with NUL")
	}
}

func (a *archive) checkNames() {
	seen := make(map[string]bool, len(a.dir.entries))
	for _, e := range a.dir.entries {
		if e.isDir() {
			continue
		}
		key := content.CanonicalName(e.name)
		if seen[key] {
			a.Found("archive.entry.duplicate", where, e.listedAt, e.String())
		}
		seen[key] = true
	}
}

// members scans every member: first the sources of TorchScript, since they define
// the classes of its pickles, then those pickles that decide what storages are.
func (a *archive) members(ctx context.Context) error {
	t := a.torch()
	a.Classes = nil // those of an archive around this one are not this one's
	if err := a.sources(ctx, t); err != nil {
		return err
	}
	if err := a.pickles(ctx, t); err != nil {
		return err
	}
	if err := a.weights(ctx, t); err != nil {
		return err
	}
	for _, e := range a.dir.entries {
		if e.bad != "" || t.done[e] {
			continue
		}
		if a.Budget.Spent() {
			a.Limited(where, e.header, max(e.header, a.dir.start), predicate.LimitMembers)
			break
		}
		out, err := a.rest(ctx, e, t)
		if err != nil {
			return err
		}
		if err := a.variant(ctx, e); err != nil {
			return err
		}
		if out.Format == "npy" {
			a.arrays++
		} else if !e.isDir() {
			a.others++
		}
	}
	switch {
	case a.Format == IDZip && a.arrays > 0 && a.others == 0:
		a.Format = IDNpz
	case len(t.packages) > 0:
		a.Format = IDPackage
	case len(t.exports) > 0:
		a.Format = IDExport
	case a.Format == IDTorch && len(t.scripts) > 0:
		a.Format = IDScript
	}
	return nil
}

// variant scans a member as its local header has it, where that disagrees with
// the directory.
func (a *archive) variant(ctx context.Context, e *entry) error {
	if !e.disagrees || e.local == nil || e.local.placement() == e.placement() || a.listed[e.local.placement()] {
		return nil
	}
	a.listed[e.local.placement()] = true
	_, err := a.member(ctx, e.local)
	return err
}

func (a *archive) stored(e *entry) content.Span {
	return content.Span{
		Name: e.name, Bytes: io.NewSectionReader(a.Bytes, e.data, e.packed), Size: e.packed,
		Start: e.data, End: e.dataEnd, Direct: true,
	}
}

// frame claims what surrounds a member's data: headers and descriptor.
func (a *archive) frame(e *entry) {
	a.Parsed(e.header, e.data)
	a.Parsed(e.dataEnd, e.end)
}

// member scans a member by its content.
func (a *archive) member(ctx context.Context, e *entry) (content.Outcome, error) {
	return a.memberBy(ctx, e, nil)
}

// memberBy scans a member, by its content where scan is nil.
func (a *archive) memberBy(ctx context.Context, e *entry, scan func(context.Context, *content.Visit) error) (content.Outcome, error) {
	a.frame(e)
	switch {
	case e.flags&flagEncrypted != 0:
		a.Found("archive.entry.encrypted", where, e.header, e.String())
		a.Unread(e.data, e.dataEnd, predicate.Encrypted)
		a.Unread(e.data, e.data, predicate.Encrypted)
		return a.asPlain(ctx, e)
	case e.isDir():
	case e.isSymlink():
		return a.link(ctx, e)
	case e.method == methodStored:
		return a.plain(ctx, e, scan)
	default:
		if codec, ok := codecOf(e); ok {
			return a.packed(ctx, e, codec, scan)
		}
		a.Unread(e.data, e.dataEnd, predicate.UnsupportedCompression)
		a.Unread(e.data, e.data, predicate.UnsupportedCompression)
	}
	return content.Outcome{}, nil
}

// codecOf is the decompression of a member's method, where there is one.
func codecOf(e *entry) (unpack.Codec, bool) {
	switch e.method {
	case methodDeflate:
		return unpack.Deflate(), true
	case methodBzip2:
		return unpack.Bzip2(), true
	case methodLZMA:
		size := e.size
		if e.flags&flagEndMark != 0 {
			size = -1
		}
		return unpack.LZMAHeadless(size), true
	case methodZstd, methodZstdOld:
		return unpack.Zstd(), true
	case methodXZ:
		return unpack.XZ(), true
	}
	return unpack.Codec{}, false
}

// asPlain scans a member as if it were not encrypted, for readers that do not
// look at the flag. What is truly encrypted shows nothing then.
func (a *archive) asPlain(ctx context.Context, e *entry) (content.Outcome, error) {
	codec, coded := codecOf(e)
	switch {
	case e.method == methodStored:
		return a.Enter(ctx, a.stored(e))
	case !coded:
		return content.Outcome{}, nil
	}
	c, err := unpack.Read(ctx, a.Budget, codec, io.NewSectionReader(a.Bytes, e.data, e.packed), e.packed, e.size)
	if err != nil {
		return content.Outcome{}, err
	}
	whole := c.Fault == nil
	if err := c.Close(); err != nil || !whole {
		return content.Outcome{}, err
	}
	return a.packed(ctx, e, codec, nil)
}

// maxLink bounds the target of a symbolic link, in bytes.
const maxLink = 4096

// link looks at where a symbolic link leads, and scans it like any member.
func (a *archive) link(ctx context.Context, e *entry) (content.Outcome, error) {
	if e.method == methodStored {
		target := make([]byte, min(e.packed, maxLink))
		if err := content.ReadFull(a.Bytes, target, e.data); err != nil {
			return content.Outcome{}, err
		}
		if content.LinkLeaves(e.name, string(target)) {
			a.Found("archive.entry.path", where, e.header, e.String(), string(target))
		}
		return a.plain(ctx, e, nil)
	}
	a.Found("archive.malformed", where, e.header, e.String(), "a link that is compressed")
	if codec, ok := codecOf(e); ok {
		return a.packed(ctx, e, codec, nil)
	}
	a.Unread(e.data, e.dataEnd, predicate.UnsupportedCompression)
	a.Unread(e.data, e.data, predicate.UnsupportedCompression)
	return content.Outcome{}, nil
}

// checksumUpTo is the size up to which a stored member's checksum is compared.
// The host has the digest of every byte; this is about what readers refuse.
const checksumUpTo = 16 << 20

func (a *archive) plain(ctx context.Context, e *entry, scan func(context.Context, *content.Visit) error) (content.Outcome, error) {
	if e.packed != e.size {
		a.Found("archive.malformed", where, e.header, e.String(), "stored with two sizes")
	} else if e.size <= checksumUpTo {
		sum := crc32.NewIEEE()
		if _, err := io.Copy(sum, io.NewSectionReader(a.Bytes, e.data, e.packed)); err != nil {
			return content.Outcome{}, err
		}
		a.checksum(e, sum.Sum32())
	}
	return a.EnterBy(ctx, a.stored(e), scan)
}

func (a *archive) checksum(e *entry, sum uint32) {
	if sum != e.crc && !e.noSum {
		a.Found("archive.entry.checksum", where, e.header, e.String())
	}
}

// packed scans a compressed member.
func (a *archive) packed(ctx context.Context, e *entry, codec unpack.Codec, scan func(context.Context, *content.Visit) error) (content.Outcome, error) {
	r, err := unpack.Enter(ctx, a.Visit, unpack.Member{
		Name: e.name, Codec: codec, Start: e.data, End: e.dataEnd, Most: e.size, Class: where, Scan: scan,
	})
	if err != nil || r.Fault != nil {
		return r.Outcome, err
	}
	if r.Size != e.size && !e.noSum {
		a.Found("archive.malformed", where, e.header, e.String(), "decompresses to another size")
		a.Unread(e.data, e.data, predicate.Malformed)
	}
	a.checksum(e, r.Sum)
	if r.End < e.dataEnd {
		a.Found("archive.entry.hidden", where, r.End, e.String(), "bytes follow the compressed data")
		_, err = a.Enter(ctx, a.Part(r.End, e.dataEnd))
	}
	return r.Outcome, err
}
