package formats_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/cavra/cavra/plugins/formats"
)

func written(t testing.TB, b string, open func(io.Writer) (io.WriteCloser, error)) string {
	t.Helper()
	var out bytes.Buffer
	w, err := open(&out)
	if err == nil {
		_, err = io.WriteString(w, b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func gzipped(t testing.TB, b string) string {
	return written(t, b, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, 9) })
}

func zlibbed(t testing.TB, b string) string {
	return written(t, b, func(w io.Writer) (io.WriteCloser, error) { return zlib.NewWriterLevel(w, 6) })
}

func xzed(t testing.TB, b string) string {
	return written(t, b, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) })
}

func lzmaed(t testing.TB, b string) string {
	return written(t, b, func(w io.Writer) (io.WriteCloser, error) { return lzma.NewWriter(w) })
}

func zstded(t testing.TB, b string) string {
	return written(t, b, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })
}

// lz4ed writes a frame with one block of literals.
func lz4ed(_ testing.TB, b string) string {
	return "\x04\x22\x4d\x18\x60\x40\x82" + le32(1<<31|len(b)) + b + le32(0)
}

func le32(n int) string { return string(binary.LittleEndian.AppendUint32(nil, uint32(n))) }

// bzip2ed is evil and prose as bzip2 has them; the standard library only reads.
func bzip2ed(t testing.TB, b string) string {
	switch b {
	case evil:
		return "\x42\x5a\x68\x39\x31\x41\x59\x26\x53\x59\xa3\x1b\x44\x8c\x00\x00\x08\xd3\xc0\x30\x10\x00\x01\x12\x00\x0a\x02\x8c\x60\x42\x00\x20\x00\x31\x4c\x00\x13\x42\x9a\x68\x3d\x23\x69\xa9\xaa\x8f\x04\x01\x99\x2b\x70\x5a\x97\xc5\xdc\x91\x4e\x14\x24\x28\xc6\xd1\x23\x00"
	case prose:
		return "\x42\x5a\x68\x39\x31\x41\x59\x26\x53\x59\x75\xd4\xc7\x20\x00\x00\x01\x53\x80\x00\x10\x40\x00\x08\x00\x06\x02\x98\x80\x20\x00\x31\x00\x30\x20\xd0\x62\x2d\x08\xa2\xc3\x7e\x2e\xe4\x8a\x70\xa1\x20\xeb\xa9\x8e\x40"
	}
	t.Fatalf("no bzip2 of %q", b)
	return ""
}

const prose = "Some words\n"

var compressions = []struct {
	id       string
	compress func(testing.TB, string) string
}{
	{"gzip", gzipped}, {"zlib", zlibbed}, {"bzip2", bzip2ed}, {"xz", xzed}, {"lzma", lzmaed}, {"zstd", zstded}, {"lz4", lz4ed},
}

func TestCompressed(t *testing.T) {
	for _, c := range compressions {
		good, bad := c.compress(t, prose), c.compress(t, evil)
		tests := []struct{ name, content, want string }{
			{"prose", good, c.id},
			{"pickle", bad, c.id + " pickle.import.dangerous"},
			{"zeros behind", good + strings.Repeat("\x00", 512), c.id},
			{"pickle behind", good + evil, c.id + " archive.entry.hidden pickle.import.dangerous"},
			{"junk behind", good + "\xff\xfe\x00", c.id + " incomplete archive.entry.hidden"},
			{"twice", bad + bad, c.id + " pickle.import.dangerous"},
			{"inside of another", gzipped(t, bad), "gzip pickle.import.dangerous"},
			{"in an archive", string(archive(t, 8, "x", bad)), "zip pickle.import.dangerous"},
			{"cut short", good[:len(good)-3], c.id + " incomplete archive.malformed"},
		}
		for _, tt := range tests {
			t.Run(c.id+"/"+tt.name, func(t *testing.T) {
				if got := brief(scanWith(t, formats.New(), []byte(tt.content))); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		}
	}
}

// TestCompressedOddities has what only one of the compressions can have.
func TestCompressedOddities(t *testing.T) {
	named := []byte(gzipped(t, evil))
	named[3] = 4 | 8 | 16 | 2
	name := strings.Repeat("n", 3000)
	long := string(named[:10]) + "\x03\x00abc" + name + "\x00" + name + "\x00hh" + string(named[10:])
	skipped := "\x5a\x2a\x4d\x18" + le32(len(evil)) + evil
	matches := "\x04\x22\x4d\x18\x60\x40\x82" + le32(3+len(evil)) + "\xf0" +
		string([]byte{byte(len(evil) - 15)}) + evil + "\x00"
	tests := []struct{ name, content, want string }{
		{"gzip with all that a header can have", long, "gzip pickle.import.dangerous"},
		{"gzip with a wrong checksum", strings.Replace(gzipped(t, evil), gzipped(t, evil)[len(gzipped(t, evil))-8:], "abcd"+le32(len(evil)), 1),
			"gzip incomplete archive.malformed pickle.import.dangerous"},
		{"skippable frame before", skipped + zstded(t, prose), "zstd archive.entry.hidden pickle.import.dangerous"},
		{"skippable frame behind", lz4ed(t, prose) + skipped, "lz4 archive.entry.hidden pickle.import.dangerous"},
		{"legacy lz4", "\x02\x21\x4c\x18" + le32(len(evil)+2) + "\xf0" + string([]byte{byte(len(evil) - 15)}) + evil, "lz4 pickle.import.dangerous"},
		{"lz4 block of literals", matches[:11] + "\xf0" + string([]byte{byte(len(evil) - 15)}) + evil + le32(0), "lz4 incomplete archive.malformed"},
		{"lz4 with matches", "\x04\x22\x4d\x18\x60\x40\x82" + le32(8) + "\x1fa\x01\x00\x40\x20\x0a " + le32(0), "lz4"},
		{"zlib of another window", zlibWindow(t, evil), "zlib pickle.import.dangerous"},
		{"zlib that needs a dictionary", "\x78\xf9abcd", "unknown incomplete"},
		{"joblib's old framing", fmt.Sprintf("ZF%-19s", "0x1f") + zlibbed(t, evil), "zfile pickle.import.dangerous"},
		{"text that begins as zlib does", "x^2 is x times x\n", "text"},
		{"text that begins as joblib's old framing", "ZF is short for zfile, says someone\n", "text"},
		{"not lzma", "]\x00\x00\x80\x00" + strings.Repeat("\xff", 40), "unknown incomplete"},
		{"nothing compressed", gzipped(t, ""), "gzip"},
		{"pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("a", 64) + "\nsize 12345\n", "git-lfs-pointer incomplete content.pointer"},
		{"prose about a pointer", "# version https://git-lfs.github.com/spec/v1\n", "text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := brief(scanWith(t, formats.New(), []byte(tt.content))); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// zlibWindow is b with a header for the smallest window.
func zlibWindow(t testing.TB, b string) string {
	return "\x08\x1d" + zlibbed(t, b)[2:]
}
