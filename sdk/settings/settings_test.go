package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type sample struct {
	Interval string `yaml:"interval"`
	Spool    struct {
		MaxBytes int64 `yaml:"max_bytes"`
	} `yaml:"spool"`
	Scopes []struct {
		Root string `yaml:"root"`
	} `yaml:"scopes"`
}

func TestDecode(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"empty":            {"", ""},
		"comments only":    {"# nothing\n", ""},
		"known":            {"interval: 1m\nspool:\n  max_bytes: 5\nscopes:\n- root: /m\n", ""},
		"a typo":           {"intervall: 1m\n", `line 1: key "intervall" is not known; did you mean "interval"?`},
		"a typo in depth":  {"spool:\n  max_byte: 5\n", `line 2: key "max_byte" is not known; did you mean "max_bytes"?`},
		"a typo in a list": {"scopes:\n- rot: /m\n", `line 2: key "rot" is not known; did you mean "root"?`},
		"nothing near":     {"colour: red\n", `line 1: key "colour" is not known`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := sample{Interval: "default"}
			err := Decode([]byte(tt.text), &s)
			if tt.want == "" {
				if err != nil || s.Interval == "" {
					t.Fatalf("%v, %+v", err, s)
				}
				return
			}
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestReadFileNamesTheFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(name, []byte("interval: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ReadFile(name, &sample{}); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("got %v, want an error that names %s", err, name)
	}
	if err := ReadFile(name+".missing", &sample{}); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("got %v, want an error that names %s", err, name)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("spool:\n  max_bytes: 5\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s sample
		if err := Decode(b, &s); err != nil && err.Error() == "" {
			t.Fatal("an error without words")
		}
	})
}
