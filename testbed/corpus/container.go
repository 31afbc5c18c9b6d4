package corpus

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// Container is a file whose container hides what it holds from some reader, or
// is built to cost much, and what a scan must say of it.
type Container struct {
	// Name says how, in a few words; it is unique.
	Name    string
	Content []byte
	Format  string
	Verdict predicate.Verdict
	// Complete is whether all of it can be looked at.
	Complete bool
	// Rules are the ids of the rules of archives and content that it meets, and
	// pickle.import.dangerous, ascending, each once.
	Rules []string
}

// Containers are the attacks by container that are known to us, each in its
// smallest form. The pickles in them would call os.system with an inert word.
func Containers() []Container {
	return slices.Concat(zipCases(), tarCases(), streamCases(), otherCases())
}

// The rules that container cases meet.
const (
	ruleChecksum  = "archive.entry.checksum"
	ruleDuplicate = "archive.entry.duplicate"
	ruleEncrypted = "archive.entry.encrypted"
	ruleHidden    = "archive.entry.hidden"
	rulePath      = "archive.entry.path"
	ruleLimit     = "archive.limit"
	ruleMalformed = "archive.malformed"
	rulePointer   = "content.pointer"
	rulePolyglot  = "content.polyglot"
	ruleDangerous = "pickle.import.dangerous"
)

// contained is a case that fails; its verdict follows from its rules otherwise.
func contained(name, format, content string, complete bool, rules ...string) Container {
	slices.Sort(rules)
	return Container{Name: name, Content: []byte(content), Format: format, Verdict: predicate.Fail, Complete: complete, Rules: slices.Compact(rules)}
}

// judged is a case with another verdict.
func judged(v predicate.Verdict, c Container) Container {
	c.Verdict = v
	return c
}

// payload would call os.system; harmless holds nothing.
func payload() string  { return proto(2) + callSystem2() + "." }
func harmless() string { return proto(2) + "N." }

func callSystem2() string { return global("os", "system") + binUnicode(inertWord) + "\x85R" }

const words = "Some words here.\n"

// zipEntry is a member of an archive, with a say over each header field. What
// is zero in central is as in the local header.
type zipEntry struct {
	name, data string
	local      zipFields
	central    zipFields
	// unlisted members have no entry in the directory; absent ones no data.
	unlisted, absent bool
	descriptor       string
	offset           int
}

type zipFields struct {
	name             string
	flags, method    int
	sum, packed, raw int
	extra            string
	external         int
	set              bool
}

// plainFields are those of stored data.
func plainFields(name, data string) zipFields {
	return zipFields{name: name, sum: int(crc32.ChecksumIEEE([]byte(data))), packed: len(data), raw: len(data), set: true}
}

func stored(name, data string) zipEntry {
	return zipEntry{name: name, data: data, local: plainFields(name, data), central: plainFields(name, data)}
}

// deflated compresses by blocks that are stored, so that the bytes never change
// with a compressor.
func deflated(name, data string) zipEntry {
	e := stored(name, data)
	e.data = "\x01" + le16(len(data)) + le16(^len(data)) + data
	for _, f := range []*zipFields{&e.local, &e.central} {
		f.method, f.packed = 8, len(e.data)
	}
	return e
}

func (e zipEntry) with(edit func(*zipEntry)) zipEntry {
	edit(&e)
	return e
}

// zipEnd are fields of the end record to change.
type zipEnd struct {
	count, size, offset int
	comment             string
}

func rawZip(entries []zipEntry, edits ...func(*zipEnd)) string {
	var out bytes.Buffer
	for i := range entries {
		e := &entries[i]
		e.offset = out.Len()
		if e.absent {
			continue
		}
		f := e.local
		fmt.Fprintf(&out, "PK\x03\x04%s%s%s%s%s%s%s%s%s%s%s%s%s", le16(20), le16(f.flags), le16(f.method), le32(0),
			le32(f.sum), le32(f.packed), le32(f.raw), le16(len(f.name)), le16(len(f.extra)), f.name, f.extra, e.data, e.descriptor)
	}
	start := out.Len()
	listed := 0
	for _, e := range entries {
		if e.unlisted {
			continue
		}
		f := e.central
		fmt.Fprintf(&out, "PK\x01\x02%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s", le16(20|3<<8), le16(20), le16(f.flags), le16(f.method), le32(0),
			le32(f.sum), le32(f.packed), le32(f.raw), le16(len(f.name)), le16(len(f.extra)), le16(0), le16(0), le16(0), le32(f.external),
			le32(e.offset), f.name, f.extra)
		listed++
	}
	end := zipEnd{count: listed, size: out.Len() - start, offset: start}
	for _, edit := range edits {
		edit(&end)
	}
	fmt.Fprintf(&out, "PK\x05\x06%s%s%s%s%s%s%s%s", le16(0), le16(0), le16(end.count), le16(end.count), le32(end.size), le32(end.offset),
		le16(len(end.comment)), end.comment)
	return out.String()
}

// zip64Of ends an archive by the records of zip64, with what is to lie between
// them.
func zip64Of(entries []zipEntry, between string) string {
	whole := rawZip(entries)
	at := strings.LastIndex(whole, "PK\x05\x06")
	start := strings.Index(whole, "PK\x01\x02")
	record := "PK\x06\x06" + le64(44) + le16(45) + le16(45) + le32(0) + le32(0) + le64(len(entries)) + le64(len(entries)) + le64(at-start) + le64(start)
	locator := "PK\x06\x07" + le32(0) + le64(at) + le32(1)
	end := "PK\x05\x06" + le16(0) + le16(0) + le16(0xffff) + le16(0xffff) + le32(0xffffffff) + le32(0xffffffff) + le16(0)
	return whole[:at] + record + between + locator + end
}

func zipCases() []Container {
	note, bad := stored("note.txt", words), stored("m.bin", payload())
	one := func(e zipEntry) string { return rawZip([]zipEntry{note, e}) }
	local := func(edit func(*zipFields)) zipEntry { return bad.with(func(e *zipEntry) { edit(&e.local) }) }
	central := func(edit func(*zipFields)) zipEntry { return bad.with(func(e *zipEntry) { edit(&e.central) }) }
	both := func(edit func(*zipFields)) zipEntry {
		return bad.with(func(e *zipEntry) { edit(&e.local); edit(&e.central) })
	}
	return []Container{
		contained("zip: stored", "zip", one(bad), true, ruleDangerous),
		contained("zip: deflated", "zip", one(deflated("m.bin", payload())), true, ruleDangerous),
		contained("zip: wrong checksums", "zip", one(both(func(f *zipFields) { f.sum = 7 })), true, ruleChecksum, ruleDangerous),
		contained("zip: two checksums", "zip", one(local(func(f *zipFields) { f.sum = 7 })), true, ruleMalformed, ruleDangerous),
		contained("zip: encrypted by both flags, and plain", "zip", one(both(func(f *zipFields) { f.flags = 1 })), false, ruleEncrypted, ruleDangerous),
		contained("zip: encrypted by the directory's flag, and plain", "zip", one(central(func(f *zipFields) { f.flags = 1 })), false,
			ruleEncrypted, ruleMalformed, ruleDangerous),
		contained("zip: encrypted by the local flag, and plain", "zip", one(local(func(f *zipFields) { f.flags = 1 })), false,
			ruleEncrypted, ruleMalformed, ruleDangerous),
		contained("zip: other name in the local header", "zip", one(local(func(f *zipFields) { f.name = "other" })), true, ruleMalformed, ruleDangerous),
		contained("zip: other method in the local header", "zip", one(local(func(f *zipFields) { f.method = 8 })), false, ruleMalformed, ruleDangerous),
		contained("zip: other method in the directory", "zip", one(central(func(f *zipFields) { f.method = 8 })), false, ruleMalformed, ruleDangerous),
		contained("zip: method that nobody knows", "zip", one(central(func(f *zipFields) { f.method = 77 })), false, ruleMalformed, ruleDangerous),
		contained("zip: no size in the directory", "zip", one(central(func(f *zipFields) { f.packed, f.raw, f.sum = 0, 0, 0 })), true,
			ruleHidden, ruleMalformed, ruleDangerous),
		contained("zip: a folder with content", "torch-zip", one(both(func(f *zipFields) { f.name = "m/data.pkl/" })), true, ruleMalformed, ruleDangerous),
		contained("zip: a folder with a size in the local header only", "zip",
			one(both(func(f *zipFields) { f.name = "d/" }).with(func(e *zipEntry) { e.central.packed, e.central.raw, e.central.sum = 0, 0, 0 })), true,
			ruleHidden, ruleMalformed, ruleDangerous),
		contained("zip: name with NUL", "zip", one(both(func(f *zipFields) { f.name = "m.txt\x00.pkl" })), true, ruleMalformed, ruleDangerous),
		contained("zip: second name in an extra field", "zip",
			one(both(func(f *zipFields) { f.extra = "\x75\x70" + le16(10) + "\x01" + le32(0) + "m.pkl" })), true, ruleMalformed, ruleDangerous),
		contained("zip: names that differ in case", "zip", rawZip([]zipEntry{stored("a", words), stored("A", payload())}), true, ruleDuplicate, ruleDangerous),
		contained("zip: not listed", "zip", one(bad.with(func(e *zipEntry) { e.unlisted = true })), true, ruleHidden, ruleDangerous),
		contained("zip: not listed, size in a descriptor only", "zip", one(deflated("m.bin", payload()).with(func(e *zipEntry) {
			e.unlisted, e.local.flags, e.local.packed, e.local.raw = true, 8, 0, 0
			e.descriptor = "PK\x07\x08" + le32(e.central.sum) + le32(e.central.packed) + le32(e.central.raw)
		})), true, ruleHidden, ruleDangerous),
		contained("zip: not listed, stored, size in a descriptor only", "zip", rawZip([]zipEntry{bad.with(func(e *zipEntry) {
			e.unlisted, e.local.flags, e.local.packed, e.local.raw = true, 8, 0, 0
		}), note}), true, ruleHidden, ruleDangerous),
		contained("zip: descriptor", "zip", one(bad.with(func(e *zipEntry) {
			e.local.flags, e.central.flags, e.local.packed, e.local.raw, e.local.sum = 8, 8, 0, 0, 0
			e.descriptor = "PK\x07\x08" + le32(e.central.sum) + le32(e.central.packed) + le32(e.central.raw)
		})), true, ruleDangerous),
		contained("zip: junk before a member that is not listed", "zip", rawZip([]zipEntry{
			note.with(func(e *zipEntry) { e.descriptor = "\xff\xfe\xfd" }), bad.with(func(e *zipEntry) { e.unlisted = true })}), false, ruleHidden, ruleDangerous),
		contained("zip: pickle between members", "zip", rawZip([]zipEntry{note.with(func(e *zipEntry) { e.descriptor = payload() }), stored("b", words)}), false,
			ruleHidden, rulePolyglot, ruleDangerous),
		contained("zip: pickle behind", "zip", one(note.with(func(e *zipEntry) { e.local.name, e.central.name = "b", "b" }))+payload(), true, ruleHidden, ruleDangerous),
		contained("zip: pickle in the comment", "zip", rawZip([]zipEntry{note}, func(e *zipEnd) { e.comment = payload() }), true, ruleDangerous),
		contained("zip: pickle before", "pickle", payload()+rawZip([]zipEntry{note}), false, ruleHidden, ruleMalformed, rulePolyglot, ruleDangerous),
		contained("zip: behind a harmless pickle", "pickle", harmless()+one(bad), false, ruleHidden, ruleMalformed, rulePolyglot, ruleDangerous),
		contained("zip: in a zip", "zip", rawZip([]zipEntry{stored("a.zip", one(bad))}), true, ruleDangerous),
		contained("zip: behind a zip", "zip", one(bad)+rawZip([]zipEntry{note}), true, ruleHidden, ruleMalformed, ruleDangerous),
		contained("zip: no directory", "zip", strings.SplitN(one(bad), "PK\x01\x02", 2)[0], false, ruleMalformed, ruleDangerous),
		contained("zip: directory elsewhere", "zip", rawZip([]zipEntry{note, bad}, func(e *zipEnd) { e.offset = 1 << 30 }), false,
			ruleHidden, ruleMalformed, ruleDangerous),
		contained("zip: zip64", "zip", zip64Of([]zipEntry{note, bad}, ""), true, ruleDangerous),
		contained("zip: pickle between the records of zip64", "zip", zip64Of([]zipEntry{note}, payload()), true, ruleHidden, ruleDangerous),
		contained("zip: count is wrong", "zip", rawZip([]zipEntry{note, bad}, func(e *zipEnd) { e.count = 1 }), false, ruleMalformed, ruleDangerous),
		contained("zip: name that leaves", "zip", one(both(func(f *zipFields) { f.name = "../m" })), true, rulePath, ruleDangerous),
		contained("zip: link that leaves", "zip", one(stored("l", "/etc/passwd").with(func(e *zipEntry) { e.central.external = 0o120777 << 16 })), true, rulePath),
	}
}

func tarHead(name string, kind byte, size int, edits map[int]string) string {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x00%011o\x00        ", size, 0))
	b[156] = kind
	for at, s := range edits {
		copy(b[at:], s)
	}
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return string(b)
}

func toBlock(s string) string { return s + strings.Repeat("\x00", (512-len(s)%512)%512) }

func tarEntry(name, data string) string { return tarHead(name, '0', len(data), nil) + toBlock(data) }

func tarCases() []Container {
	end := strings.Repeat("\x00", 1024)
	note, bad := tarEntry("note.txt", words), tarEntry("m.bin", payload())
	return []Container{
		contained("tar: plain", "tar", note+bad+end, true, ruleDangerous),
		contained("tar: torch's legacy archive", "torch-tar",
			tarEntry("storages", harmless())+tarEntry("tensors", harmless())+tarEntry("pickle", payload())+end, true, ruleDangerous),
		contained("tar: entry behind the end", "tar", note+end+bad+end, true, ruleHidden, ruleDangerous),
		contained("tar: pickle behind the end", "tar", note+end+payload(), true, ruleHidden, ruleDangerous),
		contained("tar: two sizes", "tar", tarHead("p", 'x', 13, nil)+toBlock("13 size=1536\n")+tarHead("x", '0', 0, nil)+bad+toBlock(words)+end, false,
			ruleHidden, ruleMalformed, ruleDangerous),
		contained("tar: link that leaves", "tar", tarHead("l", '2', 0, map[int]string{157: "../../x"})+end, true, rulePath),
		contained("tar: hard link that leaves", "tar", tarHead("l", '1', 0, map[int]string{157: "/x"})+end, true, rulePath),
		contained("tar: name that leaves", "tar", tarEntry("a/../../x", words)+end, true, rulePath),
		contained("tar: same name twice", "tar", note+tarEntry("./note.txt", words)+end, true, ruleDuplicate),
		contained("tar: folder with content", "tar", tarHead("d/", 0, len(payload()), nil)+toBlock(payload())+end, true, ruleMalformed, ruleDangerous),
		contained("tar: kind that nobody knows", "tar", tarHead("d", 'Z', len(payload()), nil)+toBlock(payload())+end, true, ruleDangerous),
		contained("tar: sparse pieces of a pickle", "tar", tarHead("s", 'S', len(payload()), map[int]string{
			386: fmt.Sprintf("%011o\x00%011o\x00%011o\x00%011o\x00", 0, 9, 9, len(payload())-9), 483: fmt.Sprintf("%011o\x00", len(payload()))})+toBlock(payload())+end,
			true, ruleDangerous),
		judged(predicate.Warn, contained("tar: sparse and endless", "tar", tarHead("s", 'S', 1, map[int]string{
			386: fmt.Sprintf("%011o\x00%011o\x00", 0, 1), 483: "\x80\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00"})+toBlock("x")+end, false, ruleLimit)),
		contained("tar: named as a pickle", "tar", tarEntry("cos\nsystem\n(S'"+inertWord+"'\ntR.", words)+end, false, rulePolyglot, ruleDangerous),
		judged(predicate.Warn, contained("tar: cut short", "tar", note[:520], false, ruleMalformed)),
	}
}

func gzipOf(data string) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write([]byte(data)); err != nil || w.Close() != nil {
		return "" // a buffer takes everything
	}
	return out.String()
}

func zlibOf(data string) string {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	if _, err := w.Write([]byte(data)); err != nil || w.Close() != nil {
		return "" // a buffer takes everything
	}
	return out.String()
}

// lz4Of is a frame of literals.
func lz4Of(data string) string {
	return "\x04\x22\x4d\x18\x60\x40\x82" + le32(1<<31|len(data)) + data + le32(0)
}

// zstdOf is a frame of one raw block.
func zstdOf(data string) string {
	h := len(data)<<3 | 1
	return "\x28\xb5\x2f\xfd\x00\x58" + string([]byte{byte(h), byte(h >> 8), byte(h >> 16)}) + data
}

// xzOf is a stream of one chunk that is not compressed, without a check, and with
// a dictionary that the byte stands for.
func xzOf(data string, dictionary byte) string {
	sum := func(s string) string { return le32(int(crc32.ChecksumIEEE([]byte(s)))) }
	header := "\x02\x00\x21\x01" + string([]byte{dictionary}) + "\x00\x00\x00"
	chunk := "\x01" + string([]byte{byte((len(data) - 1) >> 8), byte(len(data) - 1)}) + data + "\x00"
	unpadded := len(header) + 4 + len(chunk)
	index := "\x00\x01" + string([]byte{byte(unpadded), byte(len(data))})
	pad := strings.Repeat("\x00", (4-len(chunk)%4)%4)
	footer := le32(len(index)/4) + "\x00\x00"
	return "\xfd7zXZ\x00\x00\x00" + sum("\x00\x00") + header + sum(header) + chunk + pad + index + sum(index) + sum(footer) + footer + "YZ"
}

func streamCases() []Container {
	skipped := "\x50\x2a\x4d\x18" + le32(len(payload())) + payload()
	var out []Container
	for _, c := range []struct {
		id   string
		pack func(string) string
	}{
		{"gzip", gzipOf}, {"zlib", zlibOf}, {"lz4", lz4Of}, {"zstd", zstdOf}, {"xz", func(s string) string { return xzOf(s, 0) }},
	} {
		bad, good := c.pack(payload()), c.pack(words)
		out = append(out,
			contained(c.id+": plain", c.id, bad, true, ruleDangerous),
			contained(c.id+": second stream", c.id, c.pack(harmless())+bad, true, ruleDangerous),
			contained(c.id+": pickle behind", c.id, good+payload(), true, ruleHidden, ruleDangerous),
			contained(c.id+": zip behind", c.id, good+rawZip([]zipEntry{stored("m", payload())}), true, ruleHidden, ruleMalformed, rulePolyglot, ruleDangerous),
			contained(c.id+": in gzip in a zip", "zip", rawZip([]zipEntry{stored("a.gz", gzipOf(bad))}), true, ruleDangerous),
			judged(predicate.Warn, contained(c.id+": cut short", c.id, good[:len(good)-1], false, ruleMalformed)),
		)
	}
	flipped := []byte(gzipOf(payload()))
	flipped[len(flipped)-6] ^= 1
	return append(out,
		contained("gzip: wrong checksum", "gzip", string(flipped), false, ruleMalformed, ruleDangerous),
		contained("zstd: frame that is passed over", "zstd", skipped+zstdOf(words), true, ruleHidden, ruleDangerous),
		contained("lz4: frame that is passed over", "lz4", lz4Of(words)+skipped, true, ruleHidden, ruleDangerous),
		contained("xz: dictionary of 4 GiB", "xz", xzOf(payload(), 40), true, ruleDangerous),
		contained("zfile: joblib's old framing", "zfile", fmt.Sprintf("ZF%-19s", fmt.Sprintf("0x%x", len(payload())))+zlibOf(payload()), true, ruleDangerous),
	)
}

// sevenZipOf is an archive of one stored member, with a header that is not
// encoded.
func sevenZipOf(name, data string) string {
	utf16 := ""
	for _, c := range name + "\x00" {
		utf16 += le16(int(c))
	}
	num := func(n int) string { return "\xc0" + le16(n) }
	header := "\x01\x04\x06\x00\x01\x09" + num(len(data)) + "\x00" +
		"\x07\x0b\x01\x00\x01\x01\x00\x0c" + num(len(data)) + "\x00" +
		"\x00\x05\x01\x11" + string([]byte{byte(len(utf16) + 1)}) + "\x00" + utf16 + "\x00\x00"
	start := le64(len(data)) + le64(len(header)) + le32(int(crc32.ChecksumIEEE([]byte(header))))
	return "7z\xbc\xaf\x27\x1c\x00\x04" + le32(int(crc32.ChecksumIEEE([]byte(start)))) + start + data + header
}

// rarOf is an archive of version 5 with one member, by a method.
func rarOf(name, data string, method byte) string {
	block := func(body string) string {
		s := string([]byte{byte(len(body))}) + body
		return le32(int(crc32.ChecksumIEEE([]byte(s)))) + s
	}
	size := string([]byte{byte(len(data)&0x7f | 0x80), byte(len(data) >> 7)})
	file := "\x02\x02" + size + "\x00" + size + "\x00" + string([]byte{method<<7 | 0x80, method >> 1}) + "\x01" + string([]byte{byte(len(name))}) + name
	return "Rar!\x1a\x07\x01\x00" + block("\x01\x00\x00") + block(file) + data + block("\x05\x00\x00")
}

func otherCases() []Container {
	pointer := "version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("0", 64) + "\nsize 4096\n"
	return []Container{
		contained("7z: stored", "7z", sevenZipOf("m.bin", payload()), true, ruleDangerous),
		contained("7z: pickle behind", "7z", sevenZipOf("m", words)+payload(), true, ruleHidden, ruleDangerous),
		contained("7z: name that leaves", "7z", sevenZipOf("../m", words), true, rulePath),
		judged(predicate.Warn, contained("7z: header cut short", "7z", sevenZipOf("m", words)[:60], false, ruleMalformed)),
		contained("rar: stored", "rar", rarOf("m.bin", payload(), 0), true, ruleDangerous),
		judged(predicate.Error, contained("rar: compressed", "rar", rarOf("m.bin", payload(), 3), false)),
		contained("rar: pickle behind", "rar", rarOf("m", words, 0)+payload(), true, ruleHidden, ruleDangerous),
		judged(predicate.Warn, contained("pointer: Git LFS", "git-lfs-pointer", pointer, false, rulePointer)),
	}
}
