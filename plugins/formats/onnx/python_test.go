//go:build python

package onnx_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// write makes models by the format's own library. Those of its own test suite
// come with it, when they were installed.
const write = `
import sys, os, glob, shutil
try:
    import numpy as np, onnx
    from onnx import helper as h, numpy_helper as nh, TensorProto as T
except ImportError as e:
    print(e); sys.exit(77)
d = sys.argv[1]
x, y = h.make_tensor_value_info("x", T.FLOAT, [None, 4]), h.make_tensor_value_info("y", T.FLOAT, ["n", 3])
def model(name, nodes, inits=(), **how):
    m = h.make_model(h.make_graph(nodes, name, [x], [y], list(inits), doc_string="doc"), **how)
    onnx.checker.check_model(m)
    onnx.save(m, os.path.join(d, name))
w = nh.from_array(np.ones((4, 3), "float32"), "w")
model("gemm", [h.make_node("MatMul", ["x", "w"], ["y"])], [w], producer_name="test")
model("large", [h.make_node("MatMul", ["x", "w"], ["a"]), h.make_node("Add", ["a", "b"], ["y"])], [w, nh.from_array(np.ones((3,), "float32"), "b"), nh.from_array(np.ones((512, 512), "float32"), "big")])
branch = h.make_graph([h.make_node("MatMul", ["x", "w"], ["z"])], "b", [], [h.make_tensor_value_info("z", T.FLOAT, None)])
model("subgraph", [h.make_node("Constant", [], ["c"], value=h.make_tensor("c", T.BOOL, [], [1])), h.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)], [w])
model("types", [h.make_node("MatMul", ["x", "w"], ["y"])], [w] + [h.make_tensor("t%d" % t, t, [2], [1, 0]) for t in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16)]
      + [nh.from_array(np.array([1, 0], h.tensor_dtype_to_np_dtype(t)), "r%d" % t) for t in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)]
      + [h.make_tensor("s", T.STRING, [2], [b"a", b"b"])])
f = h.make_function("my", "F", ["a", "b"], ["c"], [h.make_node("MatMul", ["a", "b"], ["c"])], [h.make_opsetid("", 17)])
model("function", [h.make_node("F", ["x", "w"], ["y"], domain="my")], [w], functions=[f], opset_imports=[h.make_opsetid("", 17), h.make_opsetid("my", 1)])
data = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data")
for i, p in enumerate(sorted(glob.glob(os.path.join(data, "**", "*.onnx"), recursive=True))):
    shutil.copy(p, os.path.join(d, "suite-%04d" % i))
`

// TestLibrary scans what the format's own library writes and ships. CAVRA_PYTHON
// names an interpreter that has it.
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
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if got := brief(scan(t, b)); got != "onnx" {
			t.Errorf("%s: %s, %+v", f.Name(), got, scan(t, b).Findings)
		}
	}
	t.Logf("%d files", len(files))
}
