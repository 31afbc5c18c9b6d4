package hdf5

import (
	"bytes"
	"encoding/binary"
)

const (
	classText     = 3
	classOpaque   = 5
	classCompound = 6
	classEnum     = 8
	classSequence = 9
	classArray    = 10
)

// maxTypeDepth bounds types within types, maxTypeMembers one's members.
const (
	maxTypeDepth   = 16
	maxTypeMembers = 4096
)

// datatype is what of a type decides what its elements can hold.
type datatype struct {
	class byte
	// size of an element in bytes.
	size int64
	// texts are the extents in an element that hold text or opaque bytes.
	texts [][2]int64
}

// readType reads a data type message of version 1 to 5, and returns its length.
func readType(b []byte, depth int) (datatype, int, error) {
	if len(b) < 8 || depth > maxTypeDepth {
		return datatype{}, 0, errMalformed
	}
	version, bits := b[0]>>4, int(b[1])|int(b[2])<<8|int(b[3])<<16
	t := datatype{class: b[0] & 15, size: int64(binary.LittleEndian.Uint32(b[4:]))}
	switch t.class {
	case 0, 4:
		return t, 12, nil
	case 1:
		return t, 20, nil
	case 2:
		return t, 10, nil
	case classText:
		t.texts = [][2]int64{{0, t.size}}
		return t, 8, nil
	case classOpaque:
		t.texts = [][2]int64{{0, t.size}}
		return t, 8 + (bits&0xff+7)&^7, nil
	case classCompound:
		return readCompound(b, t, version, bits&0xffff, depth)
	case classEnum, classSequence, classArray:
		return readDerived(b, t, version, bits&0xffff, depth)
	}
	return t, 8, nil // references, and what is newer: numbers
}

func readCompound(b []byte, t datatype, version byte, members, depth int) (datatype, int, error) {
	pos := 8
	if members > maxTypeMembers {
		return t, 0, errMalformed
	}
	for range members {
		end := bytes.IndexByte(b[min(pos, len(b)):], 0)
		if end < 0 {
			return t, 0, errMalformed
		}
		name := end + 1
		if version < 3 {
			name = (name + 7) &^ 7
		}
		pos += name
		width := 4
		if version >= 3 {
			for width = 1; width < 4 && t.size >= 1<<(8*width); width++ {
			}
		}
		if pos+width > len(b) {
			return t, 0, errMalformed
		}
		offset := little(append([]byte(nil), b[pos:pos+width]...))
		pos += width
		times := int64(1)
		if version == 1 { // up to four dimensions of its own
			if pos+28 > len(b) {
				return t, 0, errMalformed
			}
			for i := range min(int(b[pos]), 4) {
				times *= int64(binary.LittleEndian.Uint32(b[pos+12+4*i:]))
			}
			pos += 28
		}
		inner, n, err := readType(b[min(pos, len(b)):], depth+1)
		if err != nil {
			return t, 0, err
		}
		pos += n
		for _, x := range inner.texts {
			if offset < 0 || times < 0 || times > 1<<20 || len(t.texts) > maxTypeMembers {
				return t, 0, errMalformed
			}
			t.texts = append(t.texts, [2]int64{offset + x[0], offset + inner.size*(times-1) + x[1]})
		}
	}
	return t, pos, nil
}

// readDerived reads a type that is made of another one.
func readDerived(b []byte, t datatype, version byte, members, depth int) (datatype, int, error) {
	pos := 8
	times := int64(1)
	if t.class == classArray {
		if len(b) < 9 {
			return t, 0, errMalformed
		}
		dims := int(b[8])
		pos = 9
		if version < 3 {
			pos = 12
		}
		if pos+4*dims > len(b) {
			return t, 0, errMalformed
		}
		for i := range dims {
			times *= int64(binary.LittleEndian.Uint32(b[pos+4*i:]))
		}
		pos += 4 * dims
		if version < 3 {
			pos += 4 * dims
		}
	}
	inner, n, err := readType(b[min(pos, len(b)):], depth+1)
	if err != nil {
		return t, 0, err
	}
	pos += n
	switch t.class {
	case classArray:
		if len(inner.texts) > 0 {
			t.texts = [][2]int64{{0, t.size}}
		}
	case classEnum:
		for range min(members, maxTypeMembers) {
			end := bytes.IndexByte(b[min(pos, len(b)):], 0)
			if end < 0 {
				return t, 0, errMalformed
			}
			if pos += end + 1; version < 3 {
				pos += -(end + 1) & 7
			}
		}
		pos += members * int(min(inner.size, 16))
	}
	return t, pos, nil
}
