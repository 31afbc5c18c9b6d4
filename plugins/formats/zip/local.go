package zip

import (
	"encoding/binary"
	"fmt"

	"github.com/cavra/cavra/plugins/formats/content"
)

// readLocal reads the entry's local header, finds its data, and compares what
// the two headers say. A reader that goes by the one must see what a reader
// sees that goes by the other.
func (e *entry) readLocal(v *content.Visit, limit int64) error {
	if e.header < 0 || e.header > limit-sizeLocal {
		e.bad = "local header is outside of the archive"
		return nil
	}
	var b [sizeLocal]byte
	if err := content.ReadFull(v.Bytes, b[:], e.header); err != nil {
		return err
	}
	if string(b[:4]) != sigLocal {
		e.bad = "no local header"
		return nil
	}
	le := binary.LittleEndian
	nameLen, extraLen := int64(le.Uint16(b[26:])), int64(le.Uint16(b[28:]))
	e.data = e.header + sizeLocal + nameLen + extraLen
	if e.data > limit {
		e.bad = "data is outside of the archive"
		e.data, e.dataEnd, e.end = e.header, e.header, e.header
		return nil
	}
	if e.packed > limit-e.data {
		// Readers take what is there.
		e.packed, e.cut = limit-e.data, true
	}
	e.dataEnd = e.data + e.packed
	e.end = e.dataEnd
	rest := make([]byte, nameLen+extraLen)
	if err := content.ReadFull(v.Bytes, rest, e.header+sizeLocal); err != nil {
		return err
	}
	e.localName = string(rest[:nameLen])
	flags, method := le.Uint16(b[6:]), le.Uint16(b[8:])
	sizes := [3]uint64{uint64(le.Uint32(b[22:])), uint64(le.Uint32(b[18:])), 0}
	zip64(rest[nameLen:], sizes[:])
	if name := unicodeName(rest[nameLen:]); name != "" {
		e.otherName = name
	}
	const binding = flagEncrypted | flagDescriptor
	e.disagrees = e.localName != e.name || method != e.method || (flags^e.flags)&binding != 0
	// With a descriptor, the sizes may be left at 0, both or either.
	for i, size := range []int64{e.size, e.packed} {
		open := flags&flagDescriptor != 0 && sizes[i] == 0
		e.disagrees = e.disagrees || !open && sizes[i] != uint64(size)
	}
	if flags&flagDescriptor == 0 {
		e.disagrees = e.disagrees || le.Uint32(b[14:]) != e.crc
	} else if err := e.readDescriptor(v, limit); err != nil {
		return err
	}
	if e.disagrees {
		e.local = e.asLocal(flags, method, le.Uint32(b[14:]), sizes, limit)
	}
	return nil
}

// asLocal is the member by its local header alone, where that can be read.
func (e *entry) asLocal(flags, method uint16, sum uint32, sizes [3]uint64, limit int64) *entry {
	l := *e
	l.name, l.flags, l.method, l.crc = e.localName, flags, method, sum
	open := flags&flagDescriptor != 0
	if !open || sizes[0] != 0 || sizes[1] != 0 {
		room := uint64(limit - e.data)
		l.size, l.packed = int64(min(sizes[0], 1<<62)), int64(min(sizes[1], room))
	}
	l.noSum = open
	l.dataEnd = l.data + l.packed
	l.end = l.dataEnd
	l.disagrees = false
	return &l
}

// readDescriptor finds the data descriptor after the data: with or without its
// signature, with sizes of 4 or 8 bytes.
func (e *entry) readDescriptor(v *content.Visit, limit int64) error {
	b := make([]byte, min(24, limit-e.dataEnd))
	if err := content.ReadFull(v.Bytes, b, e.dataEnd); err != nil {
		return err
	}
	le := binary.LittleEndian
	at := 0
	if len(b) >= 4 && string(b[:4]) == sigDescriptor {
		at = 4
	}
	rest := b[at:]
	switch {
	case len(rest) >= 20 && le.Uint32(rest) == e.crc &&
		le.Uint64(rest[4:]) == uint64(e.packed) && le.Uint64(rest[12:]) == uint64(e.size):
		e.end = e.dataEnd + int64(at) + 20
	case len(rest) >= 12 && le.Uint32(rest) == e.crc &&
		uint64(le.Uint32(rest[4:])) == uint64(e.packed) && uint64(le.Uint32(rest[8:])) == uint64(e.size):
		e.end = e.dataEnd + int64(at) + 12
	default:
		e.disagrees = true
	}
	return nil
}

// isSymlink goes by the mode that Unix writers keep.
func (e *entry) isSymlink() bool {
	const unix, kind, link = 3, 0o170000, 0o120000
	return e.creator == unix && e.external>>16&kind == link
}

func (e *entry) String() string { return fmt.Sprintf("%q", content.Clip(e.name, 200)) }

// localOnly makes an entry of a local header alone. A member whose size only a
// descriptor states is taken to reach up to the end of the gap.
func localOnly(v *content.Visit, at, end int64) (*entry, error) {
	var b [sizeLocal]byte
	if err := content.ReadFull(v.Bytes, b[:], at); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	nameLen, extraLen := int64(le.Uint16(b[26:])), int64(le.Uint16(b[28:]))
	data := at + sizeLocal + nameLen + extraLen
	if data > end {
		return nil, nil
	}
	rest := make([]byte, nameLen+extraLen)
	if err := content.ReadFull(v.Bytes, rest, at+sizeLocal); err != nil {
		return nil, err
	}
	sizes := [3]uint64{uint64(le.Uint32(b[22:])), uint64(le.Uint32(b[18:])), 0}
	zip64(rest[nameLen:], sizes[:])
	e := &entry{
		name: string(rest[:nameLen]), flags: le.Uint16(b[6:]), method: le.Uint16(b[8:]), crc: le.Uint32(b[14:]),
		header: at, data: data, noSum: le.Uint16(b[6:])&flagDescriptor != 0,
	}
	room := uint64(end - data)
	e.packed, e.size = int64(min(sizes[1], room)), int64(min(sizes[0], 1<<62))
	e.open = e.flags&flagDescriptor != 0 && e.packed == 0
	if e.open || sizes[1] > room {
		e.packed, e.size = int64(room), int64(min(sizes[0], 1<<62))
		e.noSum = true
		e.open = true
	}
	e.dataEnd = e.data + e.packed
	e.end = e.dataEnd
	return e, nil
}
