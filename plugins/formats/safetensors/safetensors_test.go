package safetensors_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats"
)

type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

func scan(t testing.TB, b []byte) scanner.Report {
	t.Helper()
	r, err := formats.New().Scan(context.Background(), scanner.Target{Content: reader{bytes.NewReader(b)}})
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	return r
}

// brief is a report in one line: format, whether complete, and the rules.
func brief(r scanner.Report) string {
	var rules []string
	for _, f := range r.Findings {
		rules = append(rules, f.Rule)
	}
	slices.Sort(rules)
	s := r.Format
	if !coverage.Sum(r.Coverage).Complete {
		s += " incomplete"
	}
	for _, rule := range slices.Compact(rules) {
		s += " " + rule
	}
	return s
}

func file(header, data string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header+data...)
}

const evil = "\x80\x02cos\nsystem\nU\x01x\x85R."

func TestScan(t *testing.T) {
	const w = `"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`
	const x = `"x":{"dtype":"U8","shape":[2,2],"data_offsets":[8,12]}`
	malformed := "safetensors safetensors.malformed"
	tests := []struct{ name, header, data, want string }{
		{"one tensor", "{" + w + "}", "01234567", "safetensors"},
		{"two", "{" + x + "," + w + "}", "0123456789ab", "safetensors"},
		{"padded", "{" + w + "}     ", "01234567", "safetensors"},
		{"metadata", `{"__metadata__":{"format":"pt","note":"\u00e9"},` + w + "}", "01234567", "safetensors"},
		{"nothing", "{}", "", "safetensors"},
		{"scalar", `{"w":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}`, "01234567", "safetensors"},
		{"no items", `{"w":{"dtype":"F64","shape":[0,3],"data_offsets":[0,0]}}`, "", "safetensors"},
		{"half bytes", `{"w":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}`, "01", "safetensors"},
		{"tensor that is a pickle", "{" + w + "," + `"p":{"dtype":"U8","shape":[19],"data_offsets":[8,27]}}`, "01234567" + evil, "safetensors"},

		{"half a byte", `{"w":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}`, "0", malformed},
		{"hole", `{"w":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, "\x00\x00\x00\x0001234567", malformed},
		{"hole with a pickle", `{"w":{"dtype":"F32","shape":[2],"data_offsets":[19,27]}}`, evil + "01234567", "safetensors pickle.import.dangerous safetensors.malformed"},
		{"trailing pickle", "{" + w + "}", "01234567" + evil, "safetensors pickle.import.dangerous safetensors.malformed"},
		{"trailing noise", "{" + w + "}", "01234567\xff\x01", "safetensors incomplete safetensors.malformed"},
		{"overlap", "{" + w + `,"x":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}}`, "0123456789ab", malformed},
		{"same extent twice", "{" + w + `,"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, "01234567", malformed},
		{"too short", "{" + w + "}", "0123", "safetensors incomplete safetensors.malformed"},
		{"beyond everything", `{"w":{"dtype":"U8","shape":[1],"data_offsets":[9223372036854775806,9223372036854775807]}}`, "0", "safetensors incomplete safetensors.malformed"},
		{"offsets backwards", `{"w":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}`, "0", "safetensors incomplete safetensors.malformed"},
		{"offset too large", `{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551615]}}`, "0", "safetensors incomplete safetensors.malformed"},
		{"negative", `{"w":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, "0", "safetensors incomplete safetensors.malformed"},
		{"fraction", `{"w":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}`, "0", "safetensors incomplete safetensors.malformed"},
		{"shape overflows", `{"w":{"dtype":"U8","shape":[4294967296,4294967297],"data_offsets":[0,1]}}`, "0", malformed},
		{"shape disagrees", `{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, "01234567", malformed},
		{"unknown type", `{"w":{"dtype":"OBJECT","shape":[2],"data_offsets":[0,8]}}`, "01234567", malformed},
		{"unknown key", `{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"code":[{}]}}`, "01234567", malformed},
		{"missing key", `{"w":{"dtype":"F32","data_offsets":[0,8]}}`, "01234567", "safetensors incomplete safetensors.malformed"},
		{"metadata that is no string", `{"__metadata__":{"a":1},` + w + "}", "01234567", "safetensors incomplete safetensors.malformed"},
		{"broken JSON", `{"w":{"dtype":"F32"`, "", "safetensors incomplete safetensors.malformed"},
		{"blank before", " {" + w + "}", "01234567", malformed},
		{"padding of newlines", "{" + w + "}\n\n", "01234567", malformed},
		{"pickle in the padding", "{" + w + "}" + evil, "01234567", "safetensors pickle.import.dangerous safetensors.malformed"},
		{"a name twice", "{" + w + "," + w + "}", "01234567", "safetensors safetensors.key.duplicate safetensors.malformed"},
		{"a name twice, escaped", "{" + w + `,"\u0077":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, "01234567", "safetensors safetensors.key.duplicate"},
		{"a key twice", `{"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, "01234567", "safetensors safetensors.key.duplicate"},
		{"metadata twice", `{"__metadata__":{},"__metadata__":{},` + w + "}", "01234567", "safetensors safetensors.key.duplicate"},
		{"name that climbs", `{"../../w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, "01234567", "safetensors tensor.name.path"},
		{"name with a hidden character", `{"w\u202e":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, "01234567", "safetensors tensor.name.odd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := brief(scan(t, file(tt.header, tt.data))); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestHeaderLength(t *testing.T) {
	const text = `{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`
	long := "{" + strings.Repeat(" ", 33<<20) + "}"
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"longer than the file": {append([]byte("\xff\x00\x00\x00\x00\x00\x00\x00"), text...), "safetensors incomplete safetensors.malformed"},
		"beyond any":           {append([]byte("\xff\x00\x00\x00\x00\x00\x00\x01"), text...), "unknown incomplete"},
		"beyond the limit":     {file(long, ""), "safetensors incomplete model.limit"},
	} {
		if got := brief(scan(t, c.content)); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add(file(`{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, "01234567"))
	f.Add(file(`{"w":{"dtype":"U8","shape":[1,2],"data_offsets":[4,6]}} `, "01234567"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := scan(t, b)
		if coverage.Sum(r.Coverage).Bytes != int64(len(b)) {
			t.Errorf("coverage %+v of %d bytes", r.Coverage, len(b))
		}
		for _, x := range r.Findings {
			if err := x.Validate(); err != nil {
				t.Error(err)
			}
		}
	})
}
