package formats_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/cavra/cavra/plugins/formats"
	"github.com/cavra/cavra/plugins/formats/hdf5"
)

func le(n, size int) string {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	return string(b[:size])
}

func pad8(s string) string { return s + strings.Repeat("\x00", -len(s)&7) }

// vlenType and scalarSpace describe one text of its own length.
var (
	vlenType    = "\x19\x01\x00\x00" + le(16, 4) + "\x13\x00\x00\x00" + le(1, 4)
	scalarSpace = "\x01\x00\x00\x00\x00\x00\x00\x00"
)

// hdf5File is a file whose root group has one attribute in a heap, with a
// superblock and header of the first version, the message in a block that
// continues the header.
func hdf5File(name, text string) string {
	const header, heap = 96, 512
	attribute := "\x01\x00" + le(len(name)+1, 2) + le(len(vlenType), 2) + le(len(scalarSpace), 2) +
		pad8(name+"\x00") + pad8(vlenType) + pad8(scalarSpace) + le(len(text), 4) + le(heap, 8) + le(1, 4)
	message := le(0x0c, 2) + le(len(pad8(attribute)), 2) + le(0, 4) + pad8(attribute)
	file := "\x89HDF\r\n\x1a\n" + "\x00\x00\x00\x00\x00\x08\x08\x00" + le(0, 8) + le(0, 8) + le(-1, 8) + le(-1, 8) + le(-1, 8) +
		le(0, 8) + le(header, 8)
	file += strings.Repeat("\x00", header-len(file))
	file += "\x01\x00" + le(2, 2) + le(1, 4) + le(24, 4) + le(0, 4) + le(0x10, 2) + le(16, 2) + le(0, 4) + le(200, 8) + le(len(message), 8)
	file += strings.Repeat("\x00", 200-len(file)) + message
	file += strings.Repeat("\x00", heap-len(file))
	return file + "GCOL\x01\x00\x00\x00" + le(16+16+len(pad8(text)), 8) + le(1, 2) + le(0, 2) + le(0, 4) + le(len(text), 8) + pad8(text)
}

// hdf5New is a file of the second version, with a text of fixed length.
func hdf5New(name, text string) string {
	dataType := "\x13\x00\x00\x00" + le(len(text)+8, 4)
	attribute := "\x03\x00" + le(len(name), 2) + le(len(dataType), 2) + le(len(scalarSpace), 2) + "\x00" + name + dataType + scalarSpace + text + strings.Repeat("\x00", 8)
	message := "\x0c" + le(len(attribute), 2) + "\x00" + attribute
	return "\x89HDF\r\n\x1a\n\x02\x08\x08\x00" + le(0, 8) + le(-1, 8) + le(-1, 8) + le(48, 8) + "sum4" +
		"OHDR\x02\x02" + le(len(message), 4) + message + "sum4"
}

func TestHDF5(t *testing.T) {
	lambda := `{"class_name": "Sequential", "config": {"layers": [{"class_name": "Lambda", "config": {"function": ["4wEAAAA=", null, null], "function_type": "lambda"}}]}}`
	plain := `{"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {"units": 1}}]}}`
	tests := []struct{ name, content, want string }{
		{"lambda", hdf5File("model_config", lambda), "hdf5 keras.code.embedded"},
		{"lambda, second version", hdf5New("model_config", lambda), "hdf5 keras.code.embedded"},
		{"lambda behind a block of the user's", strings.Repeat("\x00", 512) + hdf5File("model_config", lambda), "hdf5 keras.code.embedded"},
		{"lambda under another name", hdf5File("training_config", lambda), "hdf5 keras.code.embedded"},
		{"plain", hdf5File("model_config", plain), "hdf5"},
		{"plain, second version", hdf5New("model_config", plain), "hdf5"},
		{"cut", hdf5File("model_config", lambda)[:300], "hdf5 incomplete hdf5.malformed"},
		{"nothing", "\x89HDF\r\n\x1a\n" + strings.Repeat("\x00", 32), "hdf5 incomplete hdf5.malformed"},
	}
	for _, tt := range tests {
		if got := brief(scanWith(t, formats.New(), []byte(tt.content))); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzHDF5(f *testing.F) {
	fuzzFormat(f, hdf5.Format{Settings: taken{}.Open}, hdf5File("a", "{}"), hdf5New("a", "{}"))
}
