//go:build python

package gguf_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// write makes files by the format's own library.
const write = `
import sys, os
try:
    import numpy as np, gguf
except ImportError as e:
    print(e); sys.exit(77)
d = sys.argv[1]
def file(name, fill, **how):
    w = gguf.GGUFWriter(os.path.join(d, name), "llama", **how)
    fill(w)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
def vocabulary(w):
    w.add_token_list(["tok%d" % i for i in range(50000)]); w.add_token_scores([float(i) for i in range(50000)]); w.add_array("mixed", [True, False])
    w.add_tensor("blk.0.attn_q.weight", np.ones((8, 33), "float16"))
def types(w):
    w.add_bool("b", True); w.add_uint8("u", 3); w.add_float64("d", 1.5); w.add_int64("i", -1); w.add_string("s", "é")
    for t in ["float32", "float16", "float64", "int8", "int16", "int32", "int64"]:
        w.add_tensor(t, np.ones((3, 5), t))
def quantized(w):
    for t in gguf.GGMLQuantizationType:
        try:
            q = gguf.quants.quantize(np.linspace(-1, 1, 512, dtype="float32").reshape(2, 256), t)
        except NotImplementedError:
            continue
        w.add_tensor(t.name, q, raw_dtype=t)
def aligned(w):
    w.add_custom_alignment(128); types(w)
for name, fill in [("vocabulary", vocabulary), ("types", types), ("quantized", quantized), ("aligned", aligned), ("none", lambda w: None)]:
    file(name, fill)
    file(name + "-big", fill, endianess=gguf.GGUFEndian.BIG)
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
	if err != nil || len(files) != 10 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if got := brief(scan(t, b)); got != "gguf" {
			t.Errorf("%s: %s, %+v", f.Name(), got, scan(t, b).Findings)
		}
	}
}
