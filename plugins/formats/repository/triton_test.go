package repository

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadTriton(t *testing.T) {
	tests := []struct {
		name, src string
		want      tritonConfig
	}{
		{"nothing", "", tritonConfig{}},
		{"plain", "name: \"m\"\nbackend: \"python\"\ndefault_model_filename: 'a.py'\n", tritonConfig{backend: "python", file: "a.py"}},
		{"side by side", "backend: \"py\" 'th' # a comment with \"\n\"on\"", tritonConfig{backend: "python"}},
		{"escapes", `backend: "\x70\171\u0074hon"`, tritonConfig{backend: "python"}},
		{"the last one holds", "backend: 'a' backend: 'b'", tritonConfig{backend: "b"}},
		{"in a message of another", "x { backend: 'a' } y < backend: 'b' >", tritonConfig{}},
		{"in a comment", "# backend: 'a'\n", tritonConfig{}},
		{"in a string", `name: "backend: 'a'"`, tritonConfig{}},
		{"environment", `parameters: { key: "EXECUTION_ENV_PATH", value: { string_value: "/e.tar" } }`, tritonConfig{environment: "/e.tar"}},
		{"environment, the value first", `parameters { value < string_value: "/e.tar" > key: "EXECUTION_ENV_PATH" }`, tritonConfig{environment: "/e.tar"}},
		{"libraries", `runtime: "r.so" model_operations { op_library_filename: ["a.so", 'b.so'] }`, tritonConfig{libraries: []string{"r.so", "a.so", "b.so"}}},
		{"another parameter", `parameters { key: "x" value { string_value: "/e.tar" } }`, tritonConfig{}},
		{"cut short", `backend: "pyth`, tritonConfig{backend: "pyth"}},
		{"cut in an escape", `backend: "a\`, tritonConfig{backend: "a"}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, readTriton(tt.src), cmp.AllowUnexported(tritonConfig{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func FuzzReadTriton(f *testing.F) {
	f.Add("backend: \"py\" 'th' # a\n\"on\"\nparameters: { key: \"EXECUTION_ENV_PATH\", value: { string_value: \"\\x41\" } }")
	f.Fuzz(func(t *testing.T, s string) {
		got := readTriton(s)
		if strings.Contains(s, "#") || strings.ContainsAny(s, "\"'\\") {
			return
		}
		if got.backend+got.file+got.environment != "" || len(got.libraries) > 0 {
			t.Errorf("%q without a string gives %+v", s, got)
		}
		if got := readTriton(s + " backend: 'a'"); got.backend != "a" && !strings.ContainsAny(s, "{<") {
			t.Errorf("%q hides what follows it", s)
		}
	})
}
