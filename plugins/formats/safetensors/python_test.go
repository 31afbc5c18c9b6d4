//go:build python

package safetensors_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// write makes files by the format's own library.
const write = `
import sys, os, json
try:
    import numpy as np
    from safetensors.numpy import save_file
except ImportError as e:
    print(e); sys.exit(77)
d = sys.argv[1]
for i, t in enumerate(["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool", "complex64"]):
    save_file({"a": np.ones((3, 5), t), "b.c": np.zeros((), t), "none": np.zeros((0, 4), t)}, os.path.join(d, t), metadata={"format": "np", "x": "é\n\u202e"} if i % 2 else None)
save_file({}, os.path.join(d, "empty"))
save_file({"layers.%d.weight" % i: np.full((i % 7, 3), i, "float32") for i in range(2000)}, os.path.join(d, "many"))
`

// TestLibrary scans what the format's own library writes. CAVRA_PYTHON names an
// interpreter that has it.
func TestLibrary(t *testing.T) {
	python := os.Getenv("CAVRA_PYTHON")
	if python == "" {
		python = "python3"
	}
	dir := t.TempDir()
	out, err := exec.Command(python, "-c", write, dir).CombinedOutput()
	if e, ok := err.(*exec.ExitError); ok && e.ExitCode() == 77 {
		t.Skipf("the library is not there: %s", out)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if got := brief(scan(t, b)); got != "safetensors" {
			t.Errorf("%s: %s", f.Name(), got)
		}
	}
}
