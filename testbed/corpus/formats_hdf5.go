package corpus

import (
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// h5 puts an HDF5 file together: structures one behind the other, at addresses of
// multiples of eight.
type h5 struct{ body strings.Builder }

// h5Base is where the first structure lies, behind the superblock.
const h5Base = 96

func (f *h5) put(b string) int {
	at := h5Base + f.body.Len()
	f.body.WriteString(b + strings.Repeat("\x00", -len(b)&7))
	return at
}

// object is an object header of the first version with messages: pairs of a kind
// and a body.
func (f *h5) object(messages ...string) int {
	var b strings.Builder
	for i := 0; i < len(messages); i += 2 {
		body := messages[i+1] + strings.Repeat("\x00", -len(messages[i+1])&7)
		b.WriteString(messages[i] + "\x00" + le16(len(body)) + "\x00\x00\x00\x00" + body)
	}
	return f.put("\x01\x00" + le16(len(messages)/2) + le32(1) + le32(b.Len()) + le32(0) + b.String())
}

// group is a group of the first version with one member, by a link of its cache's
// kind.
func (f *h5) group(name string, member int, more ...string) int {
	data := f.put(strings.Repeat("\x00", 8) + name + "\x00")
	heap := f.put("HEAP\x00\x00\x00\x00" + le64(8+(len(name)+8)&^7) + le64(1) + le64(data))
	entry := le64(8) + le64(member) + le32(0) + le32(0) + strings.Repeat("\x00", 16)
	table := f.put("SNOD\x01\x00\x01\x00" + entry + strings.Repeat("\x00", 7*len(entry)))
	node := "TREE\x00\x00\x01\x00" + h5Nothing + h5Nothing + le64(0) + le64(table) + le64(8)
	tree := f.put(node + strings.Repeat("\x00", 24+33*8+32*8-len(node)))
	return f.object(append([]string{"\x11", le64(tree) + le64(heap)}, more...)...)
}

// h5Nothing is the address of nothing.
const h5Nothing = "\xff\xff\xff\xff\xff\xff\xff\xff"

// file ends the file with a superblock of the first version for the root.
func (f *h5) file(root int) string {
	body := f.body.String()
	return "\x89HDF\r\n\x1a\n\x00\x00\x00\x00\x00\x08\x08\x00" + le16(4) + le16(16) + le32(0) + le64(0) + h5Nothing + le64(h5Base+len(body)) + h5Nothing +
		le64(0) + le64(root) + le32(0) + le32(0) + strings.Repeat("\x00", 16) + body
}

// Messages of data sets.
func h5Space(n int) string     { return "\x01\x01\x00\x00\x00\x00\x00\x00" + le64(n) }
func h5Opaque(size int) string { return "\x15\x00\x00\x00" + le32(size) }
func h5Floats() string {
	return "\x11\x20\x1f\x00" + le32(4) + le16(0) + le16(32) + "\x17\x08\x00\x17" + le32(127)
}
func h5At(at, size int) string  { return "\x03\x01" + le64(at) + le64(size) }
func h5Compact(b string) string { return "\x03\x00" + le16(len(b)) + b }

// h5Attribute is an attribute of the first version with a text of fixed length.
func h5Attribute(name, text string) string {
	padded := func(s string) string { return s + strings.Repeat("\x00", -len(s)&7) }
	typ, space := "\x13\x00\x00\x00"+le32(len(text)), "\x01\x00\x00\x00\x00\x00\x00\x00"
	return "\x01\x00" + le16(len(name)+1) + le16(len(typ)) + le16(len(space)) + padded(name+"\x00") + padded(typ) + padded(space) + text
}

func hdf5Made(build func(f *h5) int) string {
	f := new(h5)
	return f.file(build(f))
}

// hdf5Chunked is a file with one chunk of opaque bytes.
func hdf5Chunked(data string, filters ...string) string {
	return hdf5Made(func(f *h5) int {
		chunk := f.put(data)
		node := "TREE\x01\x00\x01\x00" + h5Nothing + h5Nothing + le32(len(data)) + le32(0) + le64(0) + le64(0) + le64(chunk) + le32(0) + le32(0) + le64(1) + le64(0)
		tree := f.put(node + strings.Repeat("\x00", 24+65*24+64*8-len(node)))
		messages := append([]string{"\x01", h5Space(1), "\x03", h5Opaque(len(data)), "\x08", "\x03\x02\x02" + le64(tree) + le32(1) + le32(len(data))}, filters...)
		return f.group("c", f.object(messages...))
	})
}

// hdf5Filtered is a file with text behind a filter, which is not read.
func hdf5Filtered() string {
	return hdf5Chunked("packed bytes", "\x0b", "\x01\x01\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00")
}

// hdf5Files are files as Keras and pandas make them, and such as hide what they
// would load.
func hdf5Files() []ModelFile {
	const id = "hdf5"
	lambda := `{"class_name": "Sequential", "config": {"layers": [{"class_name": "Lambda", "config": {"function": ["4wEAAAA=", null, null], "function_type": "lambda"}}]}}`
	plain := `{"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {"units": 1}}]}}`
	data := func(typ, layout func(f *h5) string, n int) string {
		return hdf5Made(func(f *h5) int {
			l := layout(f)
			return f.group("d", f.object("\x01", h5Space(n), "\x03", typ(f), "\x08", l))
		})
	}
	is := func(s string) func(*h5) string { return func(*h5) string { return s } }
	floats16 := func(f *h5) string { return h5At(f.put(floats(16)), 64) }
	good := data(is(h5Floats()), floats16, 16)
	bad := payload()
	heap := func(object string) string {
		return hdf5Made(func(f *h5) int {
			padded := object + strings.Repeat("\x00", -len(object)&7)
			at := f.put("GCOL\x01\x00\x00\x00" + le64(32+len(padded)+16) + le16(1) + le16(0) + le32(0) + le64(len(object)) + padded + strings.Repeat("\x00", 16))
			sequence := "\x19\x00\x00\x00" + le32(16) + "\x10\x00\x00\x00" + le32(1) + "\x00\x00\x08\x00"
			return f.group("v", f.object("\x01", h5Space(1), "\x03", sequence, "\x08", h5Compact(le32(len(object))+le64(at)+le32(1))))
		})
	}
	link := "\x01\x08\x40\x01" + "l" + le16(10) + "\x00o.h5\x00/x\x00"
	return []ModelFile{
		set(predicate.Pass, id, "HDF5: weights", good),
		set(predicate.Pass, id, "HDF5: a configuration", hdf5Made(func(f *h5) int { return f.object("\x0c", h5Attribute("model_config", plain)) })),
		set(predicate.Fail, id, "HDF5: a configuration with code, three groups down", hdf5Made(func(f *h5) int {
			return f.group("a", f.group("b", f.group("c", f.object("\x0c", h5Attribute("x", lambda)))))
		}), "keras.code.embedded"),
		set(predicate.Fail, id, "HDF5: two configurations", hdf5Made(func(f *h5) int {
			return f.object("\x0c", h5Attribute("model_config", plain), "\x0c", h5Attribute("model_config", lambda))
		}), "keras.code.embedded"),
		set(predicate.Fail, id, "HDF5: a pickle in an attribute", hdf5Made(func(f *h5) int { return f.object("\x0c", h5Attribute("values", bad)) }), ruleDangerous),
		set(predicate.Fail, id, "HDF5: a pickle in opaque data", data(is(h5Opaque(len(bad))), func(f *h5) string { return h5At(f.put(strings.Repeat("x", len(bad))+bad), 2*len(bad)) }, 2), ruleDangerous),
		set(predicate.Fail, id, "HDF5: a pickle in compact data", data(is(h5Opaque(len(bad))), is(h5Compact(bad)), 1), ruleDangerous),
		set(predicate.Fail, id, "HDF5: a pickle in a heap", heap(bad), ruleDangerous),
		set(predicate.Fail, id, "HDF5: a pickle in a chunk", hdf5Chunked(bad), ruleDangerous),
		partial(set(predicate.Error, id, "HDF5: text behind a filter", hdf5Filtered())),
		partial(set(predicate.Warn, id, "HDF5: a filter of nobody", hdf5Chunked(bad, "\x0b", "\x01\x01\x00\x00\x00\x00\x00\x00\xff\x7f\x00\x00\x00\x00\x00\x00"), "hdf5.filter.unknown")),
		set(predicate.Fail, id, "HDF5: a link into another file", hdf5Made(func(f *h5) int { return f.object("\x06", link) }), "hdf5.external"),
		set(predicate.Fail, id, "HDF5: data in another file", hdf5Made(func(f *h5) int {
			return f.object("\x01", h5Space(1), "\x03", h5Floats(), "\x08", "\x03\x01"+h5Nothing+le64(4), "\x07", "\x01\x00\x00\x00")
		}), "hdf5.external"),
		set(predicate.Warn, id, "HDF5: a bomb", data(is(h5Floats()), floats16, 1<<40), "hdf5.bomb"),
		partial(set(predicate.Fail, id, "HDF5: a pickle in free space", hdf5Made(func(f *h5) int { f.put(bad); return f.object() }), "pickle.trailing.data", ruleDangerous)),
		partial(set(predicate.Warn, id, "HDF5: a group of itself, and a tree that is none", hdf5Made(func(f *h5) int { return f.object("\x11", le64(h5Base)+le64(h5Base)) }), "hdf5.malformed")),
		partial(set(predicate.Warn, id, "HDF5: cut short", good[:len(good)-8], "hdf5.malformed")),
	}
}
