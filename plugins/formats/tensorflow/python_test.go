//go:build python

package tensorflow_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// write makes files by TensorFlow itself.
const write = `
import sys, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
try:
    import numpy as np, tensorflow as tf
except ImportError as e:
    print(e); sys.exit(77)
d = sys.argv[1]
at = lambda *p: os.path.join(d, *p)
class M(tf.Module):
    def __init__(self):
        self.w = tf.Variable(np.ones((64, 64), "float32")); self.n = tf.Variable(1)
        with open(at("vocab.txt"), "w") as f: f.write("a\nb\n")
        self.asset = tf.saved_model.Asset(at("vocab.txt"))
        self.table = tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer(at("vocab.txt"), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER), -1)
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def lookup(self, x): return self.table.lookup(x)
    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32)])
    def f(self, x):
        y = tf.nn.relu(x @ self.w)
        _, y = tf.while_loop(lambda i, y: i < self.n, lambda i, y: (i + 1, y + 1), (0, y))
        return tf.cond(tf.reduce_sum(y) > 0, lambda: tf.nn.softmax(y), lambda: y)
m = M()
tf.saved_model.save(m, at("module"))
k = tf.keras.Sequential([tf.keras.layers.Input((28, 28, 1)), tf.keras.layers.Conv2D(4, 3), tf.keras.layers.BatchNormalization(), tf.keras.layers.Flatten(), tf.keras.layers.Dropout(0.1), tf.keras.layers.Dense(3)])
k.export(at("export"), verbose=False)
r = tf.keras.Sequential([tf.keras.layers.Input((7, 5)), tf.keras.layers.LSTM(4), tf.keras.layers.Dense(2)])
r.export(at("recurrent"), verbose=False)
tf.saved_model.save(k, at("saved"))
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2 as freeze
g = freeze(m.f.get_concrete_function()).graph
tf.io.write_graph(g, d, "frozen.pb", as_text=False)
with tf.Graph().as_default() as g1:
    x = tf.compat.v1.placeholder(tf.float32, [None, 3], "x")
    w = tf.compat.v1.get_variable("w", [3, 2]); y = tf.identity(x @ w, "y")
    s = tf.compat.v1.train.Saver()
    with tf.compat.v1.Session() as sess:
        sess.run(tf.compat.v1.global_variables_initializer())
        s.save(sess, at("v1", "model"))
        b = tf.compat.v1.saved_model.Builder(at("v1saved"))
        b.add_meta_graph_and_variables(sess, ["serve"], {"s": tf.compat.v1.saved_model.predict_signature_def({"x": x}, {"y": y})})
        b.save()
c = tf.lite.TFLiteConverter.from_keras_model(k)
open(at("model.tflite"), "wb").write(c.convert())
c = tf.lite.TFLiteConverter.from_keras_model(k); c.optimizations = [tf.lite.Optimize.DEFAULT]
open(at("quantized.tflite"), "wb").write(c.convert())
c = tf.lite.TFLiteConverter.from_concrete_functions([m.f.get_concrete_function()], m)
open(at("control.tflite"), "wb").write(c.convert())
class F(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([3, 3], tf.float32)])
    def f(self, x): return tf.linalg.det(x)
f = F()
c = tf.lite.TFLiteConverter.from_concrete_functions([f.f.get_concrete_function()], f)
c.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
open(at("flex.tflite"), "wb").write(c.convert())
`

// TestLibrary scans what TensorFlow writes. CAVRA_PYTHON names an interpreter
// that has it.
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
	seen := make(map[string]int)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		r := scan(t, b)
		seen[r.Format]++
		want, known := expected(path)
		if got := brief(r); known && got != want {
			t.Errorf("%s: %s, want %s: %+v", strings.TrimPrefix(path, dir), got, want, r.Findings)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v", seen)
}

// expected is what a scan must say of a file by its name.
func expected(path string) (string, bool) {
	switch name := filepath.Base(path); {
	case name == "saved_model.pb":
		return "tf-saved-model", true
	case name == "fingerprint.pb":
		return "tf-fingerprint", true
	case name == "frozen.pb":
		return "tf-graph", true
	case name == "flex.tflite":
		return "tflite tflite.op.flex", true
	case strings.HasSuffix(name, ".tflite"):
		return "tflite", true
	case strings.HasSuffix(name, ".index"):
		return "tf-checkpoint-index", true
	case strings.HasSuffix(name, ".meta"):
		return "tf-meta-graph", true
	}
	return "", false
}
