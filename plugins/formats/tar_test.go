package formats_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/cavra/cavra/plugins/formats"
)

// tarHeader is a header of version 7, with edits before the checksum is made.
func tarHeader(name string, kind byte, size int, edits ...string) string {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x00%011o\x00        ", size, 0))
	b[156] = kind
	for i := 0; i+1 < len(edits); i += 2 {
		var at int
		if _, err := fmt.Sscan(edits[i], &at); err != nil {
			panic(err)
		}
		copy(b[at:], edits[i+1])
	}
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return string(b)
}

func padded(s string) string { return s + strings.Repeat("\x00", (512-len(s)%512)%512) }

func tarFile(name, data string) string { return tarHeader(name, '0', len(data)) + padded(data) }

func paxOf(key, value string) string {
	record := ""
	for n := 0; len(record) != n || n == 0; {
		n = len(record)
		record = fmt.Sprintf("%d %s=%s\n", n, key, value)
	}
	return tarHeader("pax", 'x', len(record)) + padded(record)
}

func TestTar(t *testing.T) {
	end := strings.Repeat("\x00", 1024)
	note, bad := tarFile("note.txt", prose), tarFile("x", evil)
	half := len(evil) / 2
	old := tarHeader("s", 'S', len(evil), "386", fmt.Sprintf("%011o\x00%011o\x00%011o\x00%011o\x00", 0, half, half, len(evil)-half), "483", fmt.Sprintf("%011o\x00", len(evil)))
	map10 := padded("2\n0\n5\n5\n" + fmt.Sprint(len(evil)-5) + "\n")
	pax10 := "GNU.sparse.major=1\n"
	tests := []struct{ name, content, want string }{
		{"prose", note + end, "tar"},
		{"without an end", note, "tar"},
		{"old, with a pickle", bad + end, "tar pickle.import.dangerous"},
		{"torch's legacy archive", tarFile("storages", "\x80\x02K\x00.") + tarFile("tensors", "\x80\x02K\x00.") + tarFile("pickle", evil) + end,
			"torch-tar format.unsafe.pickle pickle.import.dangerous"},
		{"entry behind the end", note + end + bad + end, "tar archive.entry.hidden pickle.import.dangerous"},
		{"pickle behind the end", note + end + evil, "tar archive.entry.hidden pickle.import.dangerous"},
		{"junk between entries", note + padded("\xff\xfe") + note + end, "tar incomplete archive.entry.duplicate archive.entry.hidden"},
		{"cut short", note + bad[:512+8], "tar incomplete archive.malformed pickle.import.dangerous pickle.malformed"},
		{"absolute name", tarFile("/etc/x", prose) + end, "tar archive.entry.path"},
		{"link that leaves", tarHeader("a/l", '2', 0, "157", "../../x") + end, "tar archive.entry.path"},
		{"link that stays", tarHeader("a/l", '2', 0, "157", "../x") + end, "tar"},
		{"hard link that leaves", tarHeader("l", '1', 0, "157", "/etc/passwd") + end, "tar archive.entry.path"},
		{"device", tarHeader("d", '3', 0) + end, "tar archive.entry.path"},
		{"same name twice", note + note + end, "tar archive.entry.duplicate"},
		{"folder with content", tarHeader("d", '5', len(evil)) + padded(evil) + end, "tar incomplete archive.entry.hidden archive.malformed pickle.import.dangerous pickle.trailing.data"},
		{"old folder with content", tarHeader("d/", 0, len(evil)) + padded(evil) + end, "tar archive.malformed pickle.import.dangerous"},
		{"unknown kind", tarHeader("d", 'Q', len(evil)) + padded(evil) + end, "tar pickle.import.dangerous"},
		{"long name that leaves", tarHeader("L", 'L', 5) + padded("../x\x00") + note + end, "tar archive.entry.path"},
		{"extended name that leaves", paxOf("path", "../x") + note + end, "tar archive.entry.path"},
		{"extended size of more", paxOf("size", "1536") + tarHeader("x", '0', 0) + bad + padded("x") + end, "tar incomplete archive.entry.hidden archive.malformed pickle.import.dangerous"},
		{"extended header that is broken", tarHeader("p", 'x', 9) + padded("99 a=b\nxx") + note + end, "tar incomplete archive.malformed"},
		{"size with an underscore", tarHeader("x", '0', len(evil), "124", fmt.Sprintf("0_%09o\x00", len(evil))) + padded(evil) + end, "tar archive.malformed pickle.import.dangerous"},
		{"size below zero", tarHeader("x", '0', 0, "124", strings.Repeat("\xff", 12)) + end, "tar archive.malformed"},
		{"size beyond all", tarHeader("x", '0', 0, "124", "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff") + padded(evil), "tar incomplete archive.malformed pickle.import.dangerous pickle.trailing.data"},
		{"sparse", old + padded(evil) + end, "tar pickle.import.dangerous"},
		{"sparse that does not fit", tarHeader("s", 'S', len(evil), "386", fmt.Sprintf("%011o\x00%011o\x00", 9, 9999)) + padded(evil) + end,
			"tar incomplete archive.malformed pickle.import.dangerous"},
		{"sparse and huge", tarHeader("s", 'S', 1, "386", fmt.Sprintf("%011o\x00%011o\x00", 0, 1), "483", "\x80\x00\x00\x00\x70\x00\x00\x00\x00\x00\x00\x00") + padded("x") + end,
			"tar incomplete archive.limit"},
		{"sparse of version 1.0", tarHeader("p", 'x', len(pax10)+3+len("GNU.sparse.minor=0\n")+3+len("GNU.sparse.realsize=99\n")+3) +
			padded("22 "+pax10+"22 GNU.sparse.minor=0\n"+fmt.Sprintf("26 GNU.sparse.realsize=%d\n", len(evil))) +
			tarHeader("s", '0', len(map10)+len(evil)) + map10 + padded(evil) + end, "tar pickle.import.dangerous"},
		{"tar that is a pickle", tarFile("cos\nsystem\n(S'x'\ntR.", prose) + end, "tar incomplete content.polyglot pickle.import.dangerous pickle.trailing.data"},
		{"archive at the end", tarFile("m.zip", string(archive(t, 0, "note", prose))) + end, "tar"},
		{"archive at the end of a tar at the end", tarFile("m.tar", tarFile("m.zip", string(archive(t, 0, "note", prose)))+end) + end, "tar"},
		{"gzipped", gzipped(t, bad+end), "gzip pickle.import.dangerous"},
		{"tar in tar in zip", string(archive(t, 8, "a.tar", tarFile("b.tar", bad+end)+end)), "zip pickle.import.dangerous"},
		{"wrong checksum", strings.Replace(note, "note.txt", "note.txx", 1) + end, "unknown incomplete"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := brief(scanWith(t, formats.New(), []byte(tt.content))); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestTarByTheLibrary has what the standard library writes.
func TestTarByTheLibrary(t *testing.T) {
	for _, f := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		names := []string{"dir/", "dir/" + strings.Repeat("n", 90), strings.Repeat("d/", 60) + "x"}
		for _, name := range names {
			h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(prose)), Format: f, Typeflag: tar.TypeReg}
			if strings.HasSuffix(name, "/") {
				h.Size, h.Typeflag = 0, tar.TypeDir
			}
			err := w.WriteHeader(h)
			if err == nil && h.Size > 0 {
				_, err = io.WriteString(w, prose)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r := scanWith(t, formats.New(), out.Bytes())
		if got := brief(r); got != "tar" {
			t.Errorf("%s: %s", f, got)
		}
		if len(r.Children) != 2 || r.Children[1].Member != names[2] {
			t.Errorf("%s: children %+v", f, r.Children)
		}
	}
}
