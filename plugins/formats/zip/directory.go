package zip

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cavra/cavra/plugins/formats/content"
)

// The records' signatures and fixed sizes (PKWARE APPNOTE 6.3.10, section 4.3).
const (
	sigLocal      = "PK\x03\x04"
	sigCentral    = "PK\x01\x02"
	sigEnd        = "PK\x05\x06"
	sigEnd64      = "PK\x06\x06"
	sigLocator64  = "PK\x06\x07"
	sigDescriptor = "PK\x07\x08"

	sizeLocal     = 30
	sizeCentral   = 46
	sizeEnd       = 22
	sizeEnd64     = 56
	sizeLocator64 = 20
	maxComment    = 1<<16 - 1
)

const (
	methodStored  = 0
	methodDeflate = 8
	methodBzip2   = 12
	methodLZMA    = 14
	methodZstdOld = 20
	methodZstd    = 93
	methodXZ      = 95

	flagEncrypted  = 1 << 0
	flagEndMark    = 1 << 1 // of LZMA
	flagDescriptor = 1 << 3
)

// directory is a central directory and where it lies.
type directory struct {
	// start and end are the extent of the entries; tail is the beginning of the
	// first end record, and fileEnd the end of the last one with its comment.
	start, end, tail, fileEnd int64
	// comment is where the comment begins that goes on to fileEnd.
	comment int64
	// records are the end records.
	records []extent
	// shift is what has to be added to the offsets that the archive states.
	shift   int64
	count   uint64
	entries []*entry
	// cut is set when the entries could not be read to their end.
	cut bool
	// tooMany is set when there are more entries than the scan takes, and disks
	// when the archive says that it is one part of several.
	tooMany, disks bool
	// twoEnds is set when the two end records say different things.
	twoEnds bool
}

// entry is a member as the central directory has it, and later its local header.
type entry struct {
	name          string
	flags, method uint16
	crc           uint32
	packed, size  int64
	header        int64 // offset of the local header
	external      uint32
	creator       byte
	data, dataEnd int64 // the packed bytes
	end           int64 // with the data descriptor
	localName     string
	bad           string // why the member cannot be read
	listedAt      int64
	disagrees     bool
	noSum         bool // the checksum is not known
	open          bool // no header states the size
	short         bool // the entry would go on behind the directory
	cut           bool // the data would go on behind the archive
	// otherName is one that an extra field has, for readers that know it.
	otherName string
	// local is the member as its local header has it.
	local *entry
}

func (e *entry) isDir() bool { return strings.HasSuffix(e.name, "/") && e.size == 0 && e.packed == 0 }

// findEnd looks for the last end record. It returns its offset, or -1.
func findEnd(v *content.Visit) (int64, []byte, error) {
	n := min(v.Size, sizeEnd+maxComment)
	tail := make([]byte, n)
	if err := content.ReadFull(v.Bytes, tail, v.Size-n); err != nil {
		return -1, nil, err
	}
	for i := len(tail) - sizeEnd; i >= 0; i-- {
		if tail[i] == 'P' && bytes.HasPrefix(tail[i:], []byte(sigEnd)) {
			return v.Size - n + int64(i), tail[i:], nil
		}
	}
	return -1, nil, nil
}

// readDirectory reads the end records and the entries. It returns nil when there
// is no end record that can be followed.
func readDirectory(ctx context.Context, v *content.Visit) (*directory, error) {
	at, rec, err := findEnd(v)
	if at < 0 || err != nil {
		return nil, err
	}
	d := &directory{tail: at, comment: at + sizeEnd, fileEnd: at + sizeEnd + int64(binary.LittleEndian.Uint16(rec[20:]))}
	d.records = []extent{{at, at + sizeEnd}}
	d.disks = string(rec[4:8]) != "\x00\x00\x00\x00" && string(rec[4:8]) != "\xff\xff\xff\xff" || rec[8] != rec[10] || rec[9] != rec[11]
	d.count = uint64(binary.LittleEndian.Uint16(rec[10:]))
	size, offset := uint64(binary.LittleEndian.Uint32(rec[12:])), uint64(binary.LittleEndian.Uint32(rec[16:]))
	if size, offset, err = d.end64(v, at, size, offset); err != nil {
		return nil, err
	}
	if size > uint64(d.tail) || offset > 1<<62 {
		return nil, nil
	}
	// Data before the archive shifts all offsets, as for self-extracting ones;
	// data that is missing shifts them back.
	d.end = d.tail
	d.start = d.tail - int64(size)
	d.shift = d.start - int64(offset)
	if err := d.unshift(v, int64(size), int64(min(offset, 1<<62))); err != nil {
		return nil, err
	}
	if int64(size) > v.Budget.DirectoryBytes {
		d.cut = true
		return d, nil
	}
	return d, d.readEntries(ctx, v, int64(size))
}

// unshift takes the directory at the offset that is stated, where there is none
// before the end record.
func (d *directory) unshift(v *content.Visit, size, offset int64) error {
	if d.shift == 0 || offset > d.tail-size {
		return nil
	}
	if _, here, err := hasSignature(v, d.start, sigCentral); here || err != nil {
		return err
	}
	_, there, err := hasSignature(v, offset, sigCentral)
	if there {
		d.start, d.end, d.shift = offset, offset+size, 0
	}
	return err
}

func hasSignature(v *content.Visit, at int64, sig string) (int64, bool, error) {
	if at < 0 || at+int64(len(sig)) > v.Size {
		return at, false, nil
	}
	var b [4]byte
	if err := content.ReadFull(v.Bytes, b[:], at); err != nil {
		return at, false, err
	}
	return at, string(b[:]) == sig, nil
}

// end64 follows the zip64 locator before the end record, when it is there. Python
// and torch go by its record even where the plain one has room for all numbers, as
// newer versions of torch write it; others do not, so both have to agree.
func (d *directory) end64(v *content.Visit, at int64, size, offset uint64) (uint64, uint64, error) {
	loc := at - sizeLocator64
	if _, ok, err := hasSignature(v, loc, sigLocator64); !ok || err != nil {
		return size, offset, err
	}
	b := make([]byte, sizeLocator64)
	if err := content.ReadFull(v.Bytes, b, loc); err != nil {
		return 0, 0, err
	}
	rec := int64(min(binary.LittleEndian.Uint64(b[8:]), uint64(v.Size)))
	if _, ok, err := hasSignature(v, rec, sigEnd64); err != nil {
		return 0, 0, err
	} else if !ok {
		// As readers do that allow for data before the archive.
		rec = loc - sizeEnd64
		if _, ok, err = hasSignature(v, rec, sigEnd64); !ok || err != nil {
			return size, offset, err
		}
	}
	r := make([]byte, sizeEnd64)
	if rec+sizeEnd64 > loc {
		return size, offset, nil
	}
	if err := content.ReadFull(v.Bytes, r, rec); err != nil {
		return 0, 0, err
	}
	d.tail = rec
	d.records = append(d.records, extent{rec, rec + sizeEnd64}, extent{loc, loc + sizeLocator64})
	size64, offset64, count := binary.LittleEndian.Uint64(r[40:]), binary.LittleEndian.Uint64(r[48:]), binary.LittleEndian.Uint64(r[32:])
	d.twoEnds = size != 0xffffffff && size != size64 || offset != 0xffffffff && offset != offset64 || d.count != 0xffff && d.count != count
	d.count = count
	return size64, offset64, nil
}

func (d *directory) readEntries(ctx context.Context, v *content.Visit, size int64) error {
	b := make([]byte, size)
	if err := content.ReadFull(v.Bytes, b, d.start); err != nil {
		return err
	}
	for at := 0; at < len(b); {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read zip directory: %w", err)
		}
		if int64(len(d.entries)) >= v.Budget.Members {
			d.tooMany = true
			return nil
		}
		e, n := parseEntry(b[at:])
		if n == 0 {
			// What follows is no entry, though the archive says so: it is looked
			// at like any bytes between records.
			d.cut, d.end = true, d.start+int64(at)
			return nil
		}
		e.listedAt = d.start + int64(at)
		e.header += d.shift
		d.entries = append(d.entries, e)
		d.cut = d.cut || e.short
		at += n
	}
	if uint64(len(d.entries)) != d.count {
		d.cut = true
	}
	return nil
}

// parseEntry reads one entry, and returns its length, or 0 when it is none.
func parseEntry(b []byte) (*entry, int) {
	if len(b) < sizeCentral || string(b[:4]) != sigCentral {
		return nil, 0
	}
	le := binary.LittleEndian
	name, extra, comment := int(le.Uint16(b[28:])), int(le.Uint16(b[30:])), int(le.Uint16(b[32:]))
	// What goes on behind the directory is cut, as Python's zipfile does it.
	n := min(len(b), sizeCentral+name+extra+comment)
	name = min(name, n-sizeCentral)
	extra = min(extra, n-sizeCentral-name)
	e := &entry{
		short:   n < sizeCentral+name+extra+comment,
		creator: b[5], flags: le.Uint16(b[8:]), method: le.Uint16(b[10:]), crc: le.Uint32(b[16:]),
		external: le.Uint32(b[38:]), name: string(b[sizeCentral : sizeCentral+name]),
	}
	sizes := [3]uint64{uint64(le.Uint32(b[24:])), uint64(le.Uint32(b[20:])), uint64(le.Uint32(b[42:]))}
	fields := b[sizeCentral+name : sizeCentral+name+extra]
	zip64(fields, sizes[:])
	e.otherName = unicodeName(fields)
	for _, s := range sizes {
		if s > 1<<62 {
			return nil, 0
		}
	}
	e.size, e.packed, e.header = int64(sizes[0]), int64(sizes[1]), int64(sizes[2])
	return e, n
}

// zip64 replaces the sizes that are 0xffffffff by those in the extra field, in
// the order that the field has them: size, packed size, header offset.
func zip64(extra []byte, sizes []uint64) {
	for len(extra) >= 4 {
		id, n := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		if n > len(extra)-4 {
			return
		}
		if id == 1 {
			field := extra[4 : 4+n]
			for i := range sizes {
				if sizes[i] == 0xffffffff && len(field) >= 8 {
					sizes[i] = binary.LittleEndian.Uint64(field)
					field = field[8:]
				}
			}
			return
		}
		extra = extra[4+n:]
	}
}

// unicodeName is the name in Info-ZIP's field 0x7075, which some readers prefer.
func unicodeName(extra []byte) string {
	for len(extra) >= 4 {
		id, n := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		if n > len(extra)-4 {
			return ""
		}
		if id == 0x7075 && n > 5 {
			return string(extra[4+5 : 4+n])
		}
		extra = extra[4+n:]
	}
	return ""
}
