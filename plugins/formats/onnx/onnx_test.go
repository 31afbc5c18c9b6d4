package onnx_test

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

func model(parts ...string) string {
	return number(1, 10) + field(2, "a writer") + strings.Join(parts, "")
}

func graph(parts ...string) string {
	return field(7, append(parts, field(2, "g"), field(12, field(1, "y")))...)
}

func node(domain, op string, attributes ...string) string {
	return field(1, field(1, "x"), field(2, "y"), field(4, op), strings.Join(attributes, ""), field(7, domain))
}

func attribute(name string, parts ...string) string {
	return field(5, append(parts, field(1, name))...)
}

func entry(key, value string) string { return field(13, field(1, key), field(2, value)) }

func initializer(parts ...string) string { return field(5, parts...) }

func TestScan(t *testing.T) {
	floats := number(1, 2) + number(2, 1)
	outside := func(location string) string {
		return model(graph(initializer(floats, entry("location", location), entry("offset", "0"), number(14, 1))))
	}
	deep := node("", "Identity")
	for range 20 {
		deep = node("", "If", attribute("then_branch", field(6, deep)))
	}
	deeper := node("", "Identity")
	for range 60 {
		deeper = node("", "If", attribute("then_branch", field(6, deeper)))
	}
	whole := model(graph(node("", "Relu"), initializer(floats, field(9, "01234567"))), field(8, field(1, ""), number(2, 21)))
	tests := []struct{ name, content, want string }{
		{"plain", whole, "onnx"},
		{"packed dimensions", model(graph(initializer(field(1, "\x02\x02"), number(2, 1), field(9, "0123456789abcdef")))), "onnx"},
		{"metadata and training", model(graph(), field(14, field(1, "k"), field(2, "v")), field(20, field(2, node("ai.onnx.preview.training", "Adam")))), "onnx"},
		{"large weights", model(graph(initializer(number(1, 8192), number(2, 2), field(9, strings.Repeat("x", 8192))))), "onnx"},
		{"subgraphs", model(graph(deep)), "onnx"},
		{"subgraphs without end", model(graph(deeper)), "onnx incomplete model.limit"},
		{"cut in the graph", whole[:40], "onnx incomplete onnx.malformed"},
		{"unknown field", model(graph(), field(99, "something")), "unknown incomplete"},
		{"unknown field in a node", model(graph(node("", "Relu", field(99, "something")))), "onnx incomplete"},
		{"wrong wire type in a node", model(graph(node("", "Relu", number(1, 7)))), "onnx incomplete"},
		{"broken node", model(graph(field(1, "\x0f"))), "onnx incomplete onnx.malformed"},
		{"node cut short", model(graph(field(1, "\x0a\x40abc"))), "onnx incomplete onnx.malformed"},
		{"data too short", model(graph(initializer(floats, field(9, "0123")))), "onnx onnx.malformed"},
		{"shape overflows", model(graph(initializer(number(1, 1<<40), number(1, 1<<40), number(2, 1), field(9, "0123")))), "onnx onnx.malformed"},
		{"negative dimension", model(graph(initializer(number(1, 1<<64-1), number(2, 1), field(9, "0123")))), "onnx onnx.malformed"},

		{"external", outside("weights.bin"), "onnx onnx.external.data"},
		{"external in a folder", outside("data/weights.bin"), "onnx onnx.external.data"},
		{"external that climbs", outside("../../etc/passwd"), "onnx onnx.external.path"},
		{"external that climbs later", outside("a/../../b"), "onnx onnx.external.path"},
		{"external, absolute", outside("/etc/passwd"), "onnx onnx.external.path"},
		{"external, of Windows", outside(`C:\x`), "onnx onnx.external.path"},
		{"external, backslashes", outside(`..\x`), "onnx onnx.external.path"},
		{"external, a scheme", outside("file://x"), "onnx onnx.external.path"},
		{"external, in memory", outside("*/_ORT_MEM_ADDR_/*"), "onnx onnx.external.path"},
		{"external with two locations", model(graph(initializer(entry("location", "a"), entry("location", "../b"), entry("location", "c")))), "onnx onnx.external.path"},
		{"external without a mark", model(graph(initializer(entry("location", "../a")))), "onnx onnx.external.path"},
		{"external without a location", model(graph(initializer(number(14, 1)))), "onnx onnx.malformed"},
		{"external, bad offset", model(graph(initializer(entry("location", "a"), entry("offset", "-1")))), "onnx onnx.external.data onnx.malformed"},
		{"external in an attribute", model(graph(node("", "Constant", attribute("value", field(5, entry("location", "../a")))))), "onnx onnx.external.path"},
		{"external in a function", model(graph(), field(25, field(1, "f"), field(7, field(5, field(1, "value"), field(5, entry("location", "../a")))))), "onnx onnx.external.path onnx.op.custom"},
		{"external in sparse weights", model(graph(field(15, field(1, entry("location", "../a"))))), "onnx onnx.external.path"},
		{"external in training", model(graph(), field(20, field(1, initializer(entry("location", "../a"))))), "onnx onnx.external.path"},

		{"own domain", model(graph(node("my.domain", "Mine"))), "onnx onnx.op.custom"},
		{"own operator in the standard's domain", model(graph(node("", "Mine"))), "onnx onnx.op.custom"},
		{"operator of a function", model(graph(node("my.domain", "Mine")), field(25, field(1, "Mine"), field(10, "my.domain"), field(7, field(4, "Add")))), "onnx"},
		{"own operator in a function", model(graph(), field(25, field(1, "f"), field(10, "d"), field(7, field(4, "Mine"), field(7, "e")))), "onnx onnx.op.custom"},
		{"own operator in a subgraph", model(graph(node("", "Loop", attribute("body", field(6, node("my.domain", "Mine")))))), "onnx onnx.op.custom"},
		{"onnxruntime's operator", model(graph(node("com.microsoft", "FusedMatMul"))), "onnx"},
		{"python", model(graph(node("com.microsoft", "PythonOp"))), "onnx onnx.op.python"},
		{"python of extensions", model(graph(node("ai.onnx.contrib", "PyOp"))), "onnx onnx.op.python"},
		{"compiled", model(graph(node("com.microsoft", "EPContext", attribute("ep_cache_context", field(4, "engine.bin"))))), "onnx onnx.op.custom"},
		{"compiled, elsewhere", model(graph(node("com.microsoft", "EPContext", attribute("ep_cache_context", field(4, "../engine.bin"))))), "onnx onnx.external.path onnx.op.custom"},

		{"functions alone", number(1, 10) + field(25, field(1, "f")), "onnx"},
		{"graph without a version", graph(node("", "Relu")), "onnx"},
		{"text with a colon", ": Some words\n", "text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := brief(scan(t, []byte(tt.content))); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestPolyglot has a header of safetensors that is a model as well: the length's
// bytes are the beginning of a name, and the JSON lies in the name.
func TestPolyglot(t *testing.T) {
	const name = "\x00\x00\x00\x00\x00\x00" + `{"__metadata__":{}}`
	file := "\x12" + string(rune(len(name))) + name
	n := int(binary.LittleEndian.Uint16([]byte(file)))
	file += field(6, strings.Repeat(" ", n)) + graph(node("", "Relu"))
	if got, want := brief(scan(t, []byte(file))), "safetensors incomplete content.polyglot safetensors.malformed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte(model(graph(node("a", "B", attribute("c", field(6, node("", "If"))), attribute("d", field(5, entry("location", "../a")))), initializer(number(1, 2), number(2, 1), field(9, "01234567"))))))
	f.Add([]byte(model(graph(initializer(field(1, "\x02\x02"), number(2, 1))), field(25, field(1, "f")))))
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
