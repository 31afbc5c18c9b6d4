package tensorflow_test

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

// field is a field of text, data or messages.
func field(number int, parts ...string) string {
	payload := strings.Join(parts, "")
	b := binary.AppendUvarint(nil, uint64(number)<<3|2)
	return string(binary.AppendUvarint(b, uint64(len(payload)))) + payload
}

func number(number int, n uint64) string {
	return string(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(number)<<3), n))
}

// node is a NodeDef; parts are inputs and attributes.
func node(name, op string, parts ...string) string {
	return field(1, field(1, name), field(2, op), strings.Join(parts, ""))
}

func input(name string) string { return field(3, name) }

func attr(key string, value ...string) string { return field(5, field(1, key), field(2, value...)) }

func constant(name, text string) string {
	return node(name, "Const", attr("dtype", number(6, 7)), attr("value", field(8, number(1, 7), field(2), field(8, text))))
}

func function(name string, nodes ...string) string {
	parts := []string{field(1, field(1, name))}
	for _, n := range nodes {
		parts = append(parts, "\x1a"+n[1:])
	}
	return field(2, field(1, parts...))
}

func metaGraph(graph string, more ...string) string {
	return field(1, field(4, "serve"), field(5, "2.21.0")) + field(2, graph) + strings.Join(more, "")
}

func saved(graph string, more ...string) string {
	return number(1, 1) + field(2, metaGraph(graph, more...))
}

func TestScan(t *testing.T) {
	plain := node("x", "Placeholder", attr("dtype", number(6, 1))) + node("y", "Relu", input("x")) + field(4, number(1, 1000))
	keras := func(text string) string {
		return field(1, number(2, 1), field(3, "root.layer"), field(4, "_tf_keras_layer"), field(5, text))
	}
	tests := []struct{ name, content, want string }{
		{"saved model", saved(plain), "tf-saved-model"},
		{"meta graph", metaGraph(plain), "tf-meta-graph"},
		{"frozen graph", plain, "tf-graph"},
		{"keras metadata", keras(`{"class_name":"Dense"}`) + keras(`{"config":{"layers":[{"class_name":"TFOpLambda"}]}}`), "keras-metadata"},
		{"fingerprint", number(1, 1<<60) + number(2, 1<<61) + number(3, 5) + field(6, number(1, 1)), "tf-fingerprint"},
		{"saved model, cut", saved(plain)[:30], "tf-saved-model incomplete tf.malformed"},
		{"frozen graph, cut", plain[:len(plain)-10], "tf-graph incomplete tf.malformed"},
		{"large constant", node("c", "Const", attr("value", field(8, number(1, 1), field(4, strings.Repeat("x", 10_000))))), "tf-graph"},
		{"functions", plain + function("f", node("z", "Relu", input("x"))) + node("call", "f"), "tf-graph"},
		{"unknown field in a node", plain + field(1, field(1, "a"), field(2, "Relu"), field(99, "x")), "tf-graph incomplete"},
		{"broken node", plain + field(1, field(1, "a"), "\x0f"), "tf-graph incomplete tf.malformed"},

		{"python", saved(plain + node("p", "PyFunc", attr("token", field(2, "pyfunc_0")))), "tf-saved-model tf.op.python"},
		{"python, eager", metaGraph(node("p", "EagerPyFunc")), "tf-meta-graph tf.op.python"},
		{"python in a frozen graph", node("p", "PyFuncStateless"), "tf-graph tf.op.python"},
		{"python in a function", saved(plain + function("f", node("p", "PyFunc"))), "tf-saved-model tf.op.python"},
		{"python as a function", saved(plain + node("p", "PartitionedCall", attr("f", field(10, field(1, "PyFunc"))))), "tf-saved-model tf.op.python"},
		{"python behind a broken node", plain + node("p", "PyFunc") + field(1, "\x0f"), "tf-graph incomplete tf.malformed tf.op.python"},
		{"writes", saved(plain + node("w", "WriteFile", input("x"), input("y"))), "tf-saved-model tf.op.file.write"},
		{"reads", saved(plain + node("r", "ReadFile", input("x"))), "tf-saved-model tf.op.file.read"},
		{"prints to a file", saved(plain + node("r", "PrintV2", attr("output_stream", field(2, "file:///tmp/x")))), "tf-saved-model tf.op.file.write"},
		{"prints to a file, value first", saved(plain + node("r", "PrintV2", field(5, field(2, field(2, "file:///tmp/x")), field(1, "output_stream")))), "tf-saved-model tf.op.file.write"},
		{"prints", saved(plain + node("r", "PrintV2", attr("output_stream", field(2, "stderr")))), "tf-saved-model"},
		{"debugs to a server", saved(plain + node("r", "DebugIdentityV3", attr("debug_urls", field(1, field(2, "grpc://x"))))), "tf-saved-model tf.op.file.write"},
		{"serves", saved(plain + node("r", "RpcServer")), "tf-saved-model tf.op.network"},
		{"custom", saved(plain + node("r", "MyOwnOp")), "tf-saved-model tf.op.custom"},
		{"custom, of the compiler", saved(plain + node("r", "XlaCustomCallV2")), "tf-saved-model tf.op.custom"},
		{"compiled module", saved(plain + node("r", "XlaCallModule", attr("module", field(2, "MLxR...")))), "tf-saved-model incomplete"},
		{"reader of an absolute path", saved(constant("c", "/etc/passwd") + node("r", "ReadFile", input("c"))), "tf-saved-model tf.op.file.read tf.path.outside"},
		{"restore of a relative path", saved(constant("c", "model") + node("r", "RestoreV2", input("c"))), "tf-saved-model"},
		{"restore of an absolute path", saved(constant("c", "/tmp/model") + node("r", "RestoreV2", input("c:0"))), "tf-saved-model tf.path.outside"},
		{"save through others", saved(constant("c", "../x") + node("j", "StringJoin", input("x"), input("c")) + node("s", "ShardedFilename", input("j")) + node("r", "SaveV2", input("s"))), "tf-saved-model tf.path.outside"},
		{"save through themselves", saved(node("j", "StringJoin", input("j"), input("j")) + node("r", "SaveV2", input("j"))), "tf-saved-model"},
		{"save in a function", saved(plain + function("f", constant("c", "/x"), node("r", "SaveV2", input("c")))), "tf-saved-model tf.path.outside"},
		{"path in packed content", saved(node("c", "Const", attr("value", field(8, number(1, 7), field(4, "\x04/etc")))) + node("r", "SaveV2", input("c"))), "tf-saved-model tf.path.outside"},
		{"asset outside", saved(plain, field(6, field(2, "../../x"))), "tf-saved-model tf.path.outside"},
		{"lambda", keras(`{"config":{"layers":[{"a":[{"class_name":"Lambda","config":{}}]}]}}`), "keras-metadata keras.code.embedded"},
		{"lambda, escaped", keras(`{"class\u005fname":"L\u0061mbda"}`), "keras-metadata keras.code.embedded"},
		{"lambda in a saved model", saved(plain, field(7, field(1, field(4, field(1, "_tf_keras_layer"), field(3, `{"class_name":"Lambda"}`))))), "tf-saved-model keras.code.embedded"},
		{"broken configuration", keras(`{"class_name":`), "keras-metadata incomplete"},

		{"text", "node {\n  name: \"p\"\n  op: \"PyFunc\"\n}\n", "tf-text incomplete"},
		{"text of a saved model", "# a comment\nsaved_model_schema_version: 1\nmeta_graphs {\n}\n", "tf-text incomplete"},
		{"settings", "version: 3\nservices:\n  a: b\n", "text"},
		{"line that begins with a newline", "\nSome words\n", "text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := brief(scan(t, []byte(tt.content))); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte(saved(constant("c", "/x")+node("r", "SaveV2", input("c"))+function("f", node("p", "PyFunc")), field(6, field(2, "../x")))))
	f.Add([]byte(field(1, number(2, 1), field(3, "root"), field(4, "_tf_keras_layer"), field(5, `{"class_name":"Lambda"}`))))
	f.Add([]byte(table(block("", number(1, 1), "w", number(1, 1)+number(5, 8)), "")))
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
