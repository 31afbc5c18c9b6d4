package formats_test

import (
	"archive/zip"
	"strings"
	"testing"

	"github.com/cavra/cavra/sdk/conform"

	"github.com/cavra/cavra/plugins/formats"
)

func TestConformance(t *testing.T) {
	large := "\x80\x02B\x00\x00\x02\x00" + strings.Repeat("x", 128<<10) + "cos\nsystem\nU\x01x\x85R."
	header := "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}\n"
	// Archives and images are not marked as framed: their first byte or two,
	// standing alone, are text.
	conform.Scanner(t, formats.New,
		conform.Sample{Name: "pickle", Data: []byte(evil), Framed: true},
		conform.Sample{Name: "pickle of protocol 0", Data: []byte("cos\nsystem\n(S'x'\ntR.")},
		conform.Sample{Name: "pickle with a large payload", Data: []byte(large), Framed: true},
		conform.Sample{Name: "streams", Data: []byte("\x80\x02N." + evil)},
		conform.Sample{Name: "torch", Data: archive(t, zip.Store, "m/data.pkl", evil, "m/data/0", strings.Repeat("\x00\x01", 40_000))},
		conform.Sample{Name: "deflated", Data: archive(t, zip.Deflate, "m/data.pkl", large, "m/version", "3\n")},
		conform.Sample{Name: "tar", Data: []byte(tarFile("x", large) + tarFile("note", prose) + strings.Repeat("\x00", 1024))},
		conform.Sample{Name: "gzip", Data: []byte(gzipped(t, large))},
		conform.Sample{Name: "xz", Data: []byte(xzed(t, large))},
		conform.Sample{Name: "lzma", Data: []byte(lzmaed(t, evil))},
		conform.Sample{Name: "zstd", Data: []byte(zstded(t, large))},
		conform.Sample{Name: "lz4", Data: []byte(lz4ed(t, evil))},
		conform.Sample{Name: "7z", Data: []byte(sevenZip("\x01\x04\x06\x00\x01\x09\x04\x00\x07\x0b\x01\x00\x01\x01\x00\x0c\x04\x00\x00\x05\x01\x11\x05\x00x\x00\x00\x00\x00\x00", "data"))},
		conform.Sample{Name: "array", Data: []byte("\x93NUMPY\x01\x00" + string([]byte{byte(len(header)), 0}) + header + "01234567"), Framed: true},
		conform.Sample{Name: "text", Data: []byte(strings.Repeat("Some words, that's all.\n", 9000))},
		conform.Sample{Name: "json", Data: []byte(`{"a": [1, 2, 3]}`)},
		conform.Sample{Name: "python", Data: []byte("import os\nprint(1)\n")},
		conform.Sample{Name: "unknown", Data: []byte("\xff\xfe\x00\x01")},
		conform.Sample{Name: "gif", Data: []byte("GIF89a\x01\x00\x01\x00\x00\x00\x00;")},
	)
}
