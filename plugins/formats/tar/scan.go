// Package tar reads tar archives of every dialect: v7, POSIX, pax, GNU with long
// names and sparse files. Every block is looked at: those that readers stop at,
// pass over or read differently are findings, and what lies there is scanned all
// the same. The legacy archives of torch are tar files, and are told by their
// members.
package tar

import (
	"context"
	"fmt"
	"io"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// The ids of the formats that a tar archive can be.
const (
	ID      = "tar"
	IDTorch = "torch-tar"
)

const where = "tar"

// maxExtended bounds one extended header or long name, in bytes.
const maxExtended = 1 << 20

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{"archive.entry.duplicate", "archive.entry.hidden", "archive.entry.path", "archive.limit", "archive.malformed"}
}

// Format is tar as a format of the program.
type Format struct{}

// Identify goes by the checksum of the first header, as Python's tarfile does:
// old archives have no other mark.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return parseHeader(v.Head) != nil, nil
}

// IdentifyBeside says the same: torch tries tar before anything else but zip.
func (f Format) IdentifyBeside(ctx context.Context, v *content.Visit) (bool, error) {
	return f.Identify(ctx, v)
}

// archive is one scan of one archive.
type archive struct {
	*content.Visit
	at    int64
	ended bool // zeros or junk were there, where readers stop
	// strange is where a run of blocks began that are no headers, or -1.
	strange int64

	global, local      pax
	longName, longLink *string

	seen map[string]bool
	// entries counts headers; torch those names that its archives have.
	entries int64
	torch   map[string]bool
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	a := &archive{Visit: v, strange: -1, seen: make(map[string]bool), torch: make(map[string]bool, 3)}
	var block [blockSize]byte
	for a.at < v.Size {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		n := min(blockSize, v.Size-a.at)
		if err := content.ReadFull(v.Bytes, block[:n], a.at); err != nil {
			return err
		}
		if err := a.step(ctx, block[:n]); err != nil {
			return err
		}
	}
	if a.local.values != nil || a.longName != nil || a.longLink != nil {
		a.Found("archive.malformed", where, v.Size, "an extended header of nothing")
		a.Unread(v.Size, v.Size, predicate.Truncated)
	}
	if a.torch["storages"] && a.torch["tensors"] && a.torch["pickle"] {
		v.Format = IDTorch
	}
	return a.flush(ctx, v.Size)
}

// step takes the block at a.at.
func (a *archive) step(ctx context.Context, b []byte) error {
	if h := parseHeader(b); h != nil {
		if err := a.flush(ctx, a.at); err != nil {
			return err
		}
		if a.ended {
			a.Found("archive.entry.hidden", where, a.at, h.name, "entry behind the end")
		}
		h.at = a.at
		if a.entries++; a.entries > a.Budget.Members || a.Budget.Spent() {
			a.Limited(where, a.at, a.Size, predicate.LimitMembers)
			a.at = a.Size
			return nil
		}
		return a.entry(ctx, h)
	}
	zero := true
	for _, c := range b {
		zero = zero && c == 0
	}
	if zero && a.strange < 0 {
		a.Parsed(a.at, a.at+int64(len(b)))
	} else if a.strange < 0 {
		a.strange = a.at
	}
	a.ended = true
	a.at += int64(len(b))
	return nil
}

// flush scans the blocks up to end that are no headers.
func (a *archive) flush(ctx context.Context, end int64) error {
	if a.strange < 0 {
		return nil
	}
	start := a.strange
	a.strange = -1
	a.Found("archive.entry.hidden", where, start, "blocks that are no entry")
	_, err := a.Enter(ctx, a.Part(start, end))
	return err
}

// entry takes the entry whose header is at h.at, and its data.
func (a *archive) entry(ctx context.Context, h *header) error {
	a.Parsed(h.at, h.at+blockSize)
	a.at = h.at + blockSize
	switch h.kind {
	case typeGlobal, typeExtended, typeSolaris, typeLongName, typeLongLink:
		return a.extension(ctx, h)
	}
	merged := pax{values: make(map[string]string), pieces: a.local.pieces}
	for _, p := range []pax{a.global, a.local} {
		for k, v := range p.values {
			merged.values[k] = v
		}
	}
	if a.longName != nil {
		h.name = *a.longName
	}
	if a.longLink != nil {
		h.link = *a.longLink
	}
	a.local, a.longName, a.longLink = pax{}, nil, nil
	h.apply(&merged)
	if h.kind == typeSparse {
		if err := a.oldSparse(h); err != nil {
			return err
		}
	}
	a.check(h)
	end, cut := a.extent(h.data())
	if cut {
		a.Found("archive.malformed", where, h.at, h.name, "data is cut short")
		a.Unread(end, end, predicate.Truncated)
	}
	if h.isFile() {
		if err := a.file(ctx, h, &merged, end); err != nil {
			return err
		}
	}
	return a.pad(ctx, end)
}

// extent is where size bytes from here end, at most at the end of the archive.
func (a *archive) extent(size int64) (end int64, cut bool) {
	if size > a.Size-a.at {
		return a.Size, true
	}
	return a.at + size, false
}

// pad goes to the next block.
func (a *archive) pad(ctx context.Context, end int64) error {
	next := min(a.Size, end+(blockSize-end%blockSize)%blockSize)
	zero, err := a.IsZero(ctx, end, next)
	if zero {
		a.Parsed(end, next)
	} else {
		a.Unread(end, next, predicate.Unclaimed)
	}
	a.at = next
	return err
}

// extension takes an entry that says something of the next one.
func (a *archive) extension(ctx context.Context, h *header) error {
	end, cut := a.extent(h.size)
	switch {
	case cut:
		a.Found("archive.malformed", where, h.at, "extended header is cut short")
		a.Unread(a.at, end, predicate.Truncated)
		a.Unread(end, end, predicate.Truncated)
		a.at = end
		return nil
	case h.size > maxExtended:
		a.Limited(where, a.at, end, predicate.LimitBytes)
		return a.pad(ctx, end)
	}
	if h.odd != "" {
		a.Found("archive.malformed", where, h.at, h.odd)
	}
	b := make([]byte, h.size)
	if err := content.ReadFull(a.Bytes, b, a.at); err != nil {
		return err
	}
	a.Parsed(a.at, end)
	fine := true
	switch h.kind {
	case typeGlobal:
		fine = parsePax(b, &a.global)
	case typeExtended, typeSolaris:
		fine = parsePax(b, &a.local)
	case typeLongName:
		name := text(b)
		a.longName = &name
	case typeLongLink:
		link := text(b)
		a.longLink = &link
	}
	if !fine {
		a.Found("archive.malformed", where, h.at, "extended header is broken")
		a.Unread(h.at, h.at, predicate.Malformed)
	}
	return a.pad(ctx, end)
}

// check reports what the header says that no ordinary writer writes.
func (a *archive) check(h *header) {
	if h.odd != "" {
		a.Found("archive.malformed", where, h.at, h.name, h.odd)
	}
	if !h.isFile() && h.size > 0 && h.kind != typeHardLink {
		a.Found("archive.malformed", where, h.at, h.name, "content for an entry that has none")
	}
	leaves := content.Leaves(h.name)
	switch h.kind {
	case typeLink:
		leaves = leaves || content.LinkLeaves(h.name, h.link)
	case typeHardLink:
		leaves = leaves || content.Leaves(h.link)
	case typeChar, typeBlock:
		a.Found("archive.entry.path", where, h.at, h.name, "a device")
	}
	if leaves {
		a.Found("archive.entry.path", where, h.at, h.name, h.link)
	}
	if h.kind == typeFolder {
		return
	}
	key := content.CanonicalName(h.name)
	if a.seen[key] {
		a.Found("archive.entry.duplicate", where, h.at, h.name)
	}
	a.seen[key] = true
	switch h.name {
	case "storages", "tensors", "pickle":
		a.torch[h.name] = true
	}
}

// file scans an entry's data, which lie from a.at to end.
func (a *archive) file(ctx context.Context, h *header, p *pax, end int64) error {
	_, isSparse := p.values["GNU.sparse.realsize"]
	_, alsoSparse := p.values["GNU.sparse.size"]
	if h.kind == typeSparse || isSparse || alsoSparse {
		return a.sparse(ctx, h, p, end)
	}
	part := a.Part(a.at, end)
	part.Name = h.name
	if part.Name == "" {
		part.Name = "unnamed"
	}
	if (h.kind == typeOld || h.kind == typeFile) && len(h.name) > 0 && h.name[len(h.name)-1] == '/' && end > a.at {
		a.Found("archive.malformed", where, h.at, h.name, "a folder with content")
	}
	if end == a.at {
		return nil
	}
	_, err := a.Enter(ctx, part)
	return err
}

// sparse scans a sparse file as it is once extracted.
func (a *archive) sparse(ctx context.Context, h *header, p *pax, end int64) error {
	start, pieces, real, ok := a.at, h.sparse, h.real, h.kind == typeSparse && h.odd == ""
	if h.kind != typeSparse {
		before := make([]byte, min(end-start, maxExtended))
		if err := content.ReadFull(a.Bytes, before, start); err != nil {
			return err
		}
		var used int64
		pieces, real, used, ok = paxSparse(p, before)
		used = min(used, end-start)
		if ok {
			a.Parsed(start, start+used)
			start += used
		}
	}
	var file *sparseFile
	if ok {
		file = newSparse(io.NewSectionReader(a.Bytes, start, end-start), end-start, pieces, real)
	}
	if file == nil {
		a.Found("archive.malformed", where, h.at, h.name, "sparse file whose map does not fit")
		a.Unread(h.at, h.at, predicate.Malformed)
		part := a.Part(start, end)
		part.Name = h.name
		_, err := a.Enter(ctx, part)
		return err
	}
	// Holes cost nothing to write, and as much as anything to read.
	if !a.Budget.Inflate(real) {
		a.Limited(where, start, end, predicate.LimitBytes)
		return nil
	}
	_, err := a.Enter(ctx, content.Span{Name: h.name, Bytes: file, Size: real, Start: start, End: end})
	return err
}

// oldSparse reads the map of GNU's old sparse files, which goes on in blocks of
// its own behind the header.
func (a *archive) oldSparse(h *header) error {
	b := h.block[:]
	real, _, ok := number(b[483:495])
	var fine bool
	h.sparse, fine = sparseFields(b[386:], 4)
	h.real = max(real, 0)
	more := b[482]
	for ok && fine && more != 0 {
		var block [blockSize]byte
		if a.at > a.Size-blockSize || len(h.sparse) > maxSegments {
			fine = false
			break
		}
		if err := content.ReadFull(a.Bytes, block[:], a.at); err != nil {
			return err
		}
		a.Parsed(a.at, a.at+blockSize)
		a.at += blockSize
		var pieces []segment
		pieces, fine = sparseFields(block[:], 21)
		h.sparse = append(h.sparse, pieces...)
		more = block[504]
	}
	if !ok || !fine {
		h.odd = "sparse file whose map is broken"
	}
	return nil
}
