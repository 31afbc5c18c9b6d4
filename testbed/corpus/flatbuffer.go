package corpus

import "encoding/binary"

// fbTable is a table of a flatbuffer: a number of 1, 4 or 8 bytes, a text, a list
// of numbers, a table or a list of tables for each slot, or nil.
type fbTable []any

// flatbuffer writes tables, each behind its layout and before all that it refers
// to.
func flatbuffer(mark, header string, root fbTable) string {
	w := &fbWriter{b: append([]byte("\x00\x00\x00\x00"+mark), header...)}
	at := w.table(root)
	binary.LittleEndian.PutUint32(w.b, uint32(at))
	return string(w.b)
}

type fbWriter struct{ b []byte }

func (w *fbWriter) pad() {
	for len(w.b)%8 != 0 {
		w.b = append(w.b, 0)
	}
}

func (w *fbWriter) u32(n int) { w.b = binary.LittleEndian.AppendUint32(w.b, uint32(n)) }

// refer makes the place at hold the offset to the end.
func (w *fbWriter) refer(at int) {
	binary.LittleEndian.PutUint32(w.b[at:], uint32(len(w.b)-at))
}

func (w *fbWriter) table(t fbTable) int {
	w.pad()
	layout := len(w.b)
	sizes, total := make([]int, len(t)), 4
	for i, f := range t {
		switch f.(type) {
		case nil:
		case byte:
			sizes[i] = 1
		case uint64:
			sizes[i] = 8
		default:
			sizes[i] = 4
		}
		total += sizes[i]
	}
	w.b = append(w.b, le16(4+2*len(t))+le16(total)...)
	offset := 4
	for i := range t {
		if sizes[i] == 0 {
			w.b = append(w.b, 0, 0)
			continue
		}
		w.b = append(w.b, le16(offset)...)
		offset += sizes[i]
	}
	at := len(w.b)
	w.u32(at - layout)
	w.b = append(w.b, make([]byte, total-4)...)
	offset = at + 4
	for i, f := range t {
		w.field(f, offset)
		offset += sizes[i]
	}
	return at
}

// field writes a field at its place, and what it refers to at the end.
func (w *fbWriter) field(f any, at int) {
	switch f := f.(type) {
	case byte:
		w.b[at] = f
	case int:
		binary.LittleEndian.PutUint32(w.b[at:], uint32(f))
	case uint64:
		binary.LittleEndian.PutUint64(w.b[at:], f)
	case string:
		w.pad()
		w.refer(at)
		w.u32(len(f))
		w.b = append(w.b, f+"\x00"...)
	case []int:
		w.pad()
		w.refer(at)
		w.u32(len(f))
		for _, n := range f {
			w.u32(n)
		}
	case fbTable:
		to := w.table(f)
		binary.LittleEndian.PutUint32(w.b[at:], uint32(to-at))
	case []fbTable:
		w.pad()
		w.refer(at)
		w.u32(len(f))
		list := len(w.b)
		w.b = append(w.b, make([]byte, 4*len(f))...)
		for i, t := range f {
			to := w.table(t)
			binary.LittleEndian.PutUint32(w.b[list+4*i:], uint32(to-list-4*i))
		}
	}
}
