package corpus

import (
	"bytes"
	"compress/flate"
	"fmt"
	"hash/crc32"
	"strings"
)

// Costly are files that are built to cost time or memory: bombs, deep nesting,
// lying lengths, files that hold themselves. A scan of each must end soon, in
// little memory, and not pass. Their rules are not listed, and each is made when
// it is asked for, since some are large.
func Costly() []func() Container {
	var out []func() Container
	add := func(name string, content func() string) {
		out = append(out, func() Container { return Container{Name: name, Content: []byte(content())} })
	}
	add("gzip: members of zeros without end", func() string {
		return strings.Repeat(gzipOf(strings.Repeat("\x00", 32<<20)), 200)
	})
	add("gzip: a million empty members", func() string {
		return strings.Repeat(gzipOf(""), 400_000)
	})
	add("gzip: opcodes without end", func() string {
		return strings.Repeat(gzipOf(proto(2)+strings.Repeat("N0", 16<<20)), 40)
	})
	add("zip: members of opcodes", func() string {
		return zipOfAll(60, "o", strings.Repeat("N0", 8<<20))
	})
	add("zip: members of text", func() string {
		return zipOfAll(200, "t", strings.Repeat("word ", 3<<20))
	})
	add("zip: members of brackets", func() string {
		return zipOfAll(100, "b", strings.Repeat("[", 16<<20))
	})
	add("zip: members that share their bytes", func() string {
		return zipShared(20_000, strings.Repeat("word ", 200_000))
	})
	add("zip: deflated members that share their bytes", func() string {
		return zipSharedDeflated(5_000, strings.Repeat("\x00", 8<<20))
	})
	add("zip: members in members", func() string {
		return nested(60, func(s string) string { return rawZip([]zipEntry{stored("x", s)}) })
	})
	add("zip: two of each in each", func() string {
		return nested(14, func(s string) string { return rawZip([]zipEntry{stored("x", s), stored("y", s)}) })
	})
	add("gzip: gzip in gzip", func() string {
		return nested(60, gzipOf)
	})
	add("tar: tar in tar", func() string {
		return nested(40, func(s string) string { return tarEntry("x", s) })
	})
	add("7z: 7z in 7z", func() string {
		return nested(20, func(s string) string { return sevenZipOf("x", s) })
	})
	add("zip: signatures without end", func() string {
		return "PK\x03\x04" + strings.Repeat("PK\x03\x04\x00\x00PK\x01\x02PK\x05\x06", 300_000)
	})
	add("zip: directory without end", func() string {
		return strings.Repeat(rawZip([]zipEntry{stored("x", "").with(func(e *zipEntry) { e.absent = true })}), 100_000)
	})
	add("zip: a million entries", func() string {
		return zipEntries(400_000)
	})
	add("tar: a million entries", func() string {
		return strings.Repeat(tarEntry("x", ""), 100_000)
	})
	add("tar: a million extended headers", func() string {
		return strings.Repeat(tarHead("p", 'x', 6, nil)+toBlock("6 a=b\n"), 20_000)
	})
	add("tar: sparse files of zeros", func() string {
		return strings.Repeat(tarHead("s", 'S', 1, map[int]string{
			386: fmt.Sprintf("%011o\x00%011o\x00", 0, 1), 483: fmt.Sprintf("%011o\x00", 200<<20)})+toBlock("x"), 50)
	})
	add("zstd: blocks of one byte repeated", func() string {
		return zstdRuns(60_000)
	})
	add("zstd: a window of 2 GiB", func() string {
		return "\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00"
	})
	add("zstd: frames without end", func() string {
		return strings.Repeat("\x28\xb5\x2f\xfd\x00\x58\x01\x00\x00", 300_000)
	})
	add("lz4: one byte repeated", func() string {
		return lz4Runs(60)
	})
	add("lz4: empty blocks without end", func() string {
		return "\x04\x22\x4d\x18\x60\x70\x73" + strings.Repeat("\x00\x00\x00\x80", 1_000_000)
	})
	add("lz4: frames that are passed over", func() string {
		return strings.Repeat("\x50\x2a\x4d\x18\x00\x00\x00\x00", 500_000) + lz4Of(words)
	})
	add("xz: dictionaries of 4 GiB", func() string {
		return strings.Repeat(xzOf(words, 40), 100_000)
	})
	add("bzip2: zeros without end", func() string {
		return strings.Repeat(bzip2Zeros, 50_000)
	})
	add("rar: headers without end", func() string {
		return "Rar!\x1a\x07\x00" + strings.Repeat("\x00\x00\x75\x00\x00\x07\x00", 500_000)
	})
	add("7z: files without end", func() string {
		return sevenZipFiles(1 << 17)
	})
	costlyFormats(add)
	return out
}

// bzip2Zeros is a stream of 900,000 zeros: bzip2 has no encoder in Go.
const bzip2Zeros = "\x42\x5a\x68\x39\x31\x41\x59\x26\x53\x59\x63\xe3\xec\xa2\x00\x06\xe4\xc1\x00\xc0\x00\x02\x00\x00\x08\x20\x00\x30\xcc\x09\xaa\x69\x94\xa1\x36\xa9\x28\x4f\x17\x72\x45\x38\x50\x90\x63\xe3\xec\xa2"

func nested(depth int, wrap func(string) string) string {
	s := payload()
	for range depth {
		s = wrap(s)
	}
	return s
}

func deflateOf(data string) string {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, 6)
	if err == nil {
		_, err = w.Write([]byte(data))
	}
	if err != nil || w.Close() != nil {
		return "" // a buffer takes everything
	}
	return out.String()
}

// deflatedEntry compresses for real.
func deflatedEntry(name, data string) zipEntry {
	e := stored(name, data)
	e.data = deflateOf(data)
	for _, f := range []*zipFields{&e.local, &e.central} {
		f.method, f.packed = 8, len(e.data)
	}
	return e
}

func zipOfAll(n int, name, data string) string {
	one := deflatedEntry(name, data)
	entries := make([]zipEntry, n)
	for i := range entries {
		entries[i] = one
		entries[i].local.name = fmt.Sprint(name, i)
		entries[i].central.name = entries[i].local.name
	}
	return rawZip(entries)
}

// zipShared has n entries that are all of the same stored bytes.
func zipShared(n int, data string) string { return shared(n, stored("x", data)) }

func zipSharedDeflated(n int, data string) string { return shared(n, deflatedEntry("x", data)) }

func shared(n int, first zipEntry) string {
	entries := []zipEntry{first}
	for i := range n {
		e := first
		e.central.name, e.absent = fmt.Sprint("y", i), true
		entries = append(entries, e)
	}
	whole := rawZip(entries)
	// The entries without data point behind the first: make them point at it.
	parts := strings.Split(whole, "PK\x01\x02")
	for i := 2; i < len(parts); i++ {
		parts[i] = parts[i][:38] + le32(0) + parts[i][42:]
	}
	return strings.Join(parts, "PK\x01\x02")
}

func zipEntries(n int) string {
	entries := make([]zipEntry, n)
	for i := range entries {
		entries[i] = stored(fmt.Sprint(i), "")
	}
	return rawZip(entries, func(e *zipEnd) { e.count = n & 0xffff })
}

// zstdRuns is a frame of blocks that stand for 128 KiB of one byte each.
func zstdRuns(n int) string {
	h := (128<<10)<<3 | 1<<1
	block := string([]byte{byte(h), byte(h >> 8), byte(h >> 16), 'x'})
	return "\x28\xb5\x2f\xfd\x00\x58" + strings.Repeat(block, n) + "\x01\x00\x00"
}

// lz4Runs is a frame of blocks that stand for 4 MiB of one byte each.
func lz4Runs(n int) string {
	body := "\x1fx\x01\x00" + strings.Repeat("\xff", (4<<20-64)/255) + "\x00\x50aaaaa"
	return "\x04\x22\x4d\x18\x60\x70\x73" + strings.Repeat(le32(len(body))+body, n) + le32(0)
}

// sevenZipFiles has a header that names n files without content.
func sevenZipFiles(n int) string {
	num := func(n int) string { return "\xf0" + le32(n) }
	names := "\x00" + strings.Repeat("x\x00\x00\x00", n)
	header := "\x01\x05" + num(n) + "\x11" + num(len(names)) + names + "\x00\x00"
	start := le64(0) + le64(len(header)) + le32(int(crc32.ChecksumIEEE([]byte(header))))
	return "7z\xbc\xaf\x27\x1c\x00\x04" + le32(int(crc32.ChecksumIEEE([]byte(start)))) + start + header
}
