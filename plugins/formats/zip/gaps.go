package zip

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"io"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/unpack"
)

// extent is a part of the archive that a record accounts for.
type extent struct{ start, end int64 }

// maxOverlaps bounds the members that share bytes with others: beyond, a small
// archive could cost without end.
const maxOverlaps = 10

// dropOverlaps leaves out members that share bytes with others, beyond the bound.
func (a *archive) dropOverlaps() {
	sorted := slices.Clone(a.dir.entries)
	slices.SortStableFunc(sorted, func(x, y *entry) int { return cmp.Or(cmp.Compare(x.header, y.header), cmp.Compare(x.end, y.end)) })
	at, overlaps := int64(0), 0
	for _, e := range sorted {
		if e.bad != "" {
			continue
		}
		if e.header < at {
			if overlaps++; overlaps > maxOverlaps {
				e.bad = "shares its bytes with too many others"
				a.Limited(where, e.listedAt, e.listedAt, predicate.LimitMembers)
				continue
			}
		}
		at = max(at, e.end)
	}
}

// gaps looks at every byte that no record accounts for, and at records that
// share bytes.
func (a *archive) gaps(ctx context.Context, entries []*entry) error {
	used := append([]extent{{a.dir.start, a.dir.end}, {min(a.dir.comment, a.Size), a.Size}}, a.dir.records...)
	for _, e := range entries {
		switch {
		case e.cut:
			// Other members may lie where this one says that its data are.
			used = append(used, extent{e.header, e.data})
		case e.bad == "":
			used = append(used, extent{e.header, e.end})
		}
	}
	slices.SortStableFunc(used, func(x, y extent) int { return cmp.Or(cmp.Compare(x.start, y.start), cmp.Compare(x.end, y.end)) })
	at := a.Carrier
	for _, u := range used {
		if u.start < at && u.end > u.start {
			a.Found("archive.malformed", where, u.start, "records overlap")
		}
		if u.start > at {
			if err := a.gap(ctx, at, u.start); err != nil {
				return err
			}
		}
		at = max(at, u.end)
	}
	return nil
}

// gap looks at bytes between the records. Zeros are padding; anything else is
// hidden from readers that go by the directory, and what looks like a record
// there is followed all the same.
func (a *archive) gap(ctx context.Context, start, end int64) error {
	zero, err := a.IsZero(ctx, start, end)
	if err != nil {
		return err
	}
	if zero {
		a.Parsed(start, end)
		return nil
	}
	if a.dir.start < a.Size {
		a.Found("archive.entry.hidden", where, start)
	}
	for at := start; at < end; {
		if a.Budget.Spent() {
			a.Limited(where, at, end, predicate.LimitMembers)
			return nil
		}
		next, err := a.record(ctx, at, end)
		if err != nil {
			return err
		}
		if next > at {
			at = next
			continue
		}
		// One byte on at least, so that a broken record is not met again.
		next, err = a.nextRecord(ctx, at+1, end)
		if err != nil {
			return err
		}
		if err := a.junk(ctx, at, next); err != nil {
			return err
		}
		at = next
	}
	return nil
}

// junk scans bytes that are no record. The beginning of content that is of
// another format has been scanned by that.
func (a *archive) junk(ctx context.Context, start, end int64) error {
	if a.beside && start == 0 {
		return nil
	}
	if _, ok, err := hasSignature(a.Visit, start, sigLocal); ok || err != nil {
		// A broken header; as content of its own it would be the same again.
		a.Unread(start, end, predicate.Malformed)
		return err
	}
	_, err := a.Enter(ctx, a.Part(start, end))
	return err
}

// record follows a record at the offset that the directory does not account for,
// and returns where it ends, or at when there is none.
func (a *archive) record(ctx context.Context, at, end int64) (int64, error) {
	var sig [4]byte
	if end-at < sizeEnd {
		return at, nil
	}
	if err := content.ReadFull(a.Bytes, sig[:], at); err != nil {
		return at, err
	}
	switch string(sig[:]) {
	case sigLocal:
		return a.hidden(ctx, at, end)
	case sigCentral:
		return a.listedAgain(ctx, at, end)
	case sigEnd:
		var b [sizeEnd]byte
		if err := content.ReadFull(a.Bytes, b[:], at); err != nil {
			return at, err
		}
		a.Parsed(at, at+sizeEnd)
		return at + sizeEnd, nil
	}
	return at, nil
}

// hidden scans a member that only its local header names.
func (a *archive) hidden(ctx context.Context, at, end int64) (int64, error) {
	if at+sizeLocal > end {
		return at, nil
	}
	e, err := localOnly(a.Visit, at, end)
	if err != nil || e == nil {
		return at, err
	}
	if e.open {
		if err := a.close(ctx, e, end); err != nil {
			return at, err
		}
	}
	_, err = a.member(ctx, e)
	return e.end, err
}

// close finds where a member ends whose size no header before it states: where
// its compressed data end, or else at the next record.
func (a *archive) close(ctx context.Context, e *entry, end int64) error {
	if codec, ok := codecOf(e); ok && e.flags&flagEncrypted == 0 {
		c, err := unpack.Read(ctx, a.Budget, codec, io.NewSectionReader(a.Bytes, e.data, end-e.data), end-e.data, -1)
		if err != nil {
			return err
		}
		e.size = c.Size
		whole := c.Fault == nil
		if whole {
			e.packed = c.End
		}
		if err := c.Close(); err != nil {
			return err
		}
		if !whole {
			if e.packed, err = a.nextRecord(ctx, e.data, end); err != nil {
				return err
			}
			e.packed -= e.data
		}
	} else {
		next, err := a.nextRecord(ctx, e.data, end)
		if err != nil {
			return err
		}
		e.packed, e.size = next-e.data, next-e.data
	}
	e.dataEnd = e.data + e.packed
	e.end = e.dataEnd
	if _, ok, err := hasSignature(a.Visit, e.end, sigDescriptor); err != nil {
		return err
	} else if ok {
		e.end = min(end, e.end+16)
	}
	return nil
}

// listedAgain follows an entry of another directory than the one in force.
func (a *archive) listedAgain(ctx context.Context, at, end int64) (int64, error) {
	if end-at < sizeCentral {
		return at, nil
	}
	b := make([]byte, sizeCentral)
	if err := content.ReadFull(a.Bytes, b, at); err != nil {
		return at, err
	}
	le := binary.LittleEndian
	b = make([]byte, min(end-at, sizeCentral+int64(le.Uint16(b[28:]))+int64(le.Uint16(b[30:]))+int64(le.Uint16(b[32:]))))
	if err := content.ReadFull(a.Bytes, b, at); err != nil {
		return at, err
	}
	e, n := parseEntry(b)
	if n == 0 {
		return at, nil
	}
	a.Parsed(at, at+int64(n))
	e.listedAt = at
	if _, ok, err := hasSignature(a.Visit, e.header+a.dir.shift, sigLocal); err != nil {
		return at, err
	} else if ok {
		e.header += a.dir.shift
	}
	if err := e.readLocal(a.Visit, a.Size); err != nil {
		return at, err
	}
	if e.bad != "" {
		a.Unread(at, at, predicate.Malformed)
		return at + int64(n), nil
	}
	if a.again++; a.again > maxOverlaps {
		a.Limited(where, at, at+int64(n), predicate.LimitMembers)
		return at + int64(n), nil
	}
	if p := e.placement(); !a.listed[p] {
		a.listed[p] = true
		if _, err := a.member(ctx, e); err != nil {
			return at, err
		}
	}
	return at + int64(n), nil
}

// nextRecord finds the next signature of a record in [at, end), or end.
func (a *archive) nextRecord(ctx context.Context, at, end int64) (int64, error) {
	const step = 64 << 10
	buf := make([]byte, min(max(0, end-at), step+3))
	for at < end {
		if err := ctx.Err(); err != nil {
			return at, err
		}
		b := buf[:min(int64(len(buf)), end-at)]
		if err := content.ReadFull(a.Bytes, b, at); err != nil {
			return at, err
		}
		for i := 0; ; i++ {
			j := bytes.Index(b[i:], []byte("PK"))
			if j < 0 || i+j+4 > len(b) {
				break
			}
			i += j
			switch binary.LittleEndian.Uint32(b[i:]) {
			case 0x04034b50, 0x02014b50, 0x06054b50, 0x08074b50:
				return at + int64(i), nil
			}
		}
		at += max(1, int64(len(b))-3)
	}
	return end, nil
}
