package corpus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/cavra/cavra/schemas/predicate"
)

// inertWord is what dangerous functions would be given.
const inertWord = "cavra-inert-sample"

func le16(n int) string    { return string(binary.LittleEndian.AppendUint16(nil, uint16(n))) }
func le32(n int) string    { return string(binary.LittleEndian.AppendUint32(nil, uint32(n))) }
func be32(n int) string    { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }
func be64(n int) string    { return string(binary.BigEndian.AppendUint64(nil, uint64(n))) }
func decimal(n int) string { return strconv.Itoa(n) }
func le64(n int) string    { return string(binary.LittleEndian.AppendUint64(nil, uint64(n))) }

// Opcodes of the pickle language that need an argument.
func proto(n byte) string                 { return "\x80" + string([]byte{n}) }
func global(module, name string) string   { return "c" + module + "\n" + name + "\n" }
func binUnicode(s string) string          { return "X" + le32(len(s)) + s }
func shortUnicode(s string) string        { return "\x8c" + string([]byte{byte(len(s))}) + s }
func binInt(n int) string                 { return "J" + le32(n) }
func binPut(n byte) string                { return "q" + string([]byte{n}) }
func binGet(n byte) string                { return "h" + string([]byte{n}) }
func imp(module, name string) Import      { return Import{module, name, predicate.ByGlobal} }
func impStack(module, name string) Import { return Import{module, name, predicate.ByStackGlobal} }

// framed is a protocol 4 stream in one frame.
func framed(body string) string { return proto(4) + "\x95" + le64(len(body)) + body }

// tensor is a tensor of n floats as torch.save refers to it: the storage by a
// persistent id, the tensor by a call.
func tensor(key string, n int) string {
	id := "(" + binUnicode("storage") + global("torch", "FloatStorage") + binUnicode(key) + binUnicode("cpu") + binInt(n) + "tQ"
	return global("torch._utils", "_rebuild_tensor_v2") + "(" + id + "K\x00" + "K" + string([]byte{byte(n)}) + "\x85K\x01\x85\x89" +
		global("collections", "OrderedDict") + ")Rt" + "R"
}

var tensorImports = []Import{
	imp("collections", "OrderedDict"), imp("torch", "FloatStorage"), imp("torch._utils", "_rebuild_tensor_v2"),
}

// stateDict is a protocol 2 pickle of two tensors.
func stateDict() string {
	return proto(2) + "}" + binPut(0) + "(" + binUnicode("weight") + tensor("0", 16) + binUnicode("bias") + tensor("1", 4) + "u."
}

// member is a member of an archive, stored.
type member struct {
	name, data string
	// offset of the local header, once written.
	offset int
}

// zipped writes an archive of stored members, with the data of each aligned to
// 64 bytes as torch does it. What is in hidden gets no entry in the directory.
func zipped(members []member, hidden ...member) []byte {
	var out bytes.Buffer
	local := func(m *member) {
		m.offset = out.Len()
		pad := (64 - (out.Len()+30+len(m.name)+4)%64) % 64
		fmt.Fprintf(&out, "PK\x03\x04%s%s%s%s%s%s%s%s%s%s", le16(20), le16(0), le16(0), le32(0),
			le32(int(crc32.ChecksumIEEE([]byte(m.data)))), le32(len(m.data)), le32(len(m.data)), le16(len(m.name)), le16(4+pad), m.name)
		fmt.Fprintf(&out, "FB%s%s%s", le16(pad), bytes.Repeat([]byte("Z"), pad), m.data)
	}
	for i := range hidden {
		local(&hidden[i])
	}
	for i := range members {
		local(&members[i])
	}
	start := out.Len()
	for _, m := range members {
		fmt.Fprintf(&out, "PK\x01\x02%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s", le16(20), le16(20), le16(0), le16(0), le32(0),
			le32(int(crc32.ChecksumIEEE([]byte(m.data)))), le32(len(m.data)), le32(len(m.data)), le16(len(m.name)),
			le16(0), le16(0), le16(0), le16(0), le32(0), le32(m.offset), m.name)
	}
	size := out.Len() - start
	fmt.Fprintf(&out, "PK\x05\x06%s%s%s%s%s%s%s", le16(0), le16(0), le16(len(members)), le16(len(members)), le32(size), le32(start), le16(0))
	return out.Bytes()
}

// torchMembers are those of a checkpoint with the pickle and two storages.
func torchMembers(pkl string) []member {
	return []member{
		{name: "model/data.pkl", data: pkl},
		{name: "model/byteorder", data: "little"},
		{name: "model/data/0", data: floats(16)},
		{name: "model/data/1", data: floats(4)},
		{name: "model/version", data: "3\n"},
	}
}

func floats(n int) string {
	b := make([]byte, 0, 4*n)
	for i := range n {
		b = binary.LittleEndian.AppendUint32(b, 0x3f800000+uint32(i)<<12)
	}
	return string(b)
}

// npy is an array file of version 1.0.
func npy(descr, shape, data string) string {
	header := fmt.Sprintf("{'descr': %s, 'fortran_order': False, 'shape': %s, }", descr, shape)
	for (10+len(header)+1)%64 != 0 {
		header += " "
	}
	header += "\n"
	return "\x93NUMPY\x01\x00" + le16(len(header)) + header + data
}

// png is an image of one grey pixel.
func png() []byte {
	var out bytes.Buffer
	out.WriteString("\x89PNG\r\n\x1a\n")
	for _, c := range []struct{ kind, data string }{
		{"IHDR", "\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00"},
		{"IDAT", "\x78\x01\x01\x02\x00\xfd\xff\x00\x80\x00\x82\x00\x81"},
		{"IEND", ""},
	} {
		out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(c.data))))
		out.WriteString(c.kind + c.data)
		out.Write(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(c.kind+c.data))))
	}
	return out.Bytes()
}
