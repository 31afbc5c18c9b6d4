package tflite_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"slices"
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

// table is a flatbuffer's table: uint8, uint32, uint64, string, []byte, []uint32,
// table or []table by slot.
type table map[int]any

// buffer is a flatbuffer that is written front to back.
type buffer struct{ b []byte }

func (w *buffer) align(n int) {
	for len(w.b)%n != 0 {
		w.b = append(w.b, 0)
	}
}

func (w *buffer) u32(n int) { w.b = binary.LittleEndian.AppendUint32(w.b, uint32(n)) }

// point makes the offset at a place lead to the end.
func (w *buffer) point(at int) { binary.LittleEndian.PutUint32(w.b[at:], uint32(len(w.b)-at)) }

func (w *buffer) table(t table) {
	slots := 0
	for slot := range t {
		slots = max(slots, slot+1)
	}
	at := len(w.b)
	w.u32(0)
	w.u32(0)
	where := make(map[int]int)
	for slot := range slots {
		switch x := t[slot].(type) {
		case nil:
			continue
		case uint8:
			where[slot] = len(w.b)
			w.b = append(w.b, x, 0, 0, 0, 0, 0, 0, 0)
		case uint32:
			where[slot] = len(w.b)
			w.u32(int(x))
			w.u32(0)
		case uint64:
			where[slot] = len(w.b)
			w.b = binary.LittleEndian.AppendUint64(w.b, x)
		default:
			where[slot] = len(w.b)
			w.u32(0)
			w.u32(0)
		}
	}
	size := len(w.b) - at
	binary.LittleEndian.PutUint32(w.b[at:], uint32(int32(at-len(w.b))))
	w.b = binary.LittleEndian.AppendUint16(w.b, uint16(4+2*slots))
	w.b = binary.LittleEndian.AppendUint16(w.b, uint16(size))
	for slot := range slots {
		offset := 0
		if where[slot] > 0 {
			offset = where[slot] - at
		}
		w.b = binary.LittleEndian.AppendUint16(w.b, uint16(offset))
	}
	w.align(8)
	for slot := range slots {
		w.child(where[slot], t[slot])
	}
}

func (w *buffer) child(at int, value any) {
	w.align(8)
	switch x := value.(type) {
	case string:
		w.point(at)
		w.u32(len(x))
		w.b = append(append(w.b, x...), 0)
	case []byte:
		w.point(at)
		w.u32(len(x))
		w.b = append(w.b, x...)
	case []uint32:
		w.point(at)
		w.u32(len(x))
		for _, n := range x {
			w.u32(int(n))
		}
	case table:
		w.point(at)
		w.table(x)
	case []table:
		w.point(at)
		w.u32(len(x))
		first := len(w.b)
		w.b = append(w.b, make([]byte, 4*len(x))...)
		for i, item := range x {
			w.align(8)
			w.point(first + 4*i)
			w.table(item)
		}
	}
	w.align(8)
}

// model is a whole file.
func model(t table) []byte {
	w := &buffer{b: []byte("\x00\x00\x00\x00TFL3")}
	w.point(0)
	w.table(t)
	return w.b
}

// plain is a model of one operator.
func plain(code, operator table) table {
	return table{
		0: uint32(3), 1: []table{code}, 3: "made",
		2: []table{{0: []table{{0: []uint32{1, 4}, 2: uint32(1), 3: "x"}}, 1: []uint32{0}, 2: []uint32{0}, 3: []table{operator}, 4: "main"}},
		4: []table{{}, {0: []byte("0123456789abcdef")}},
		6: []table{{0: "min_runtime_version", 1: uint32(0)}},
	}
}

func custom(name string) table { return table{0: uint8(32), 1: name, 3: uint32(32)} }

// field is a field of text or messages of protobuf.
func field(number int, text string) string {
	return string([]byte{byte(number<<3 | 2), byte(len(text))}) + text
}

// options are those of a TensorFlow operator: a FlexBuffer of name and node.
func options(name, op string) []byte {
	node := field(1, "n") + field(2, op)
	b := append([]byte{byte(len(name))}, name+"\x00"...)
	b = append(append(b, byte(len(node))), node+"\x00"...)
	vector := len(b) + 1
	b = append(b, 2, byte(vector-1), byte(vector+1-(len(name)+3)), 5<<2, 5<<2)
	return append(b, byte(len(b)-vector), 10<<2, 1)
}

const evil = "\x80\x02cos\nsystem\nU\x01x\x85R."

func TestScan(t *testing.T) {
	add := table{0: uint8(0), 3: uint32(0)}
	one := table{0: uint32(0), 1: []uint32{0, 0}, 2: []uint32{0}, 3: uint8(11), 4: table{0: uint8(1)}}
	flex := func(listed, inNode string) []byte {
		return model(plain(custom("Flex"+listed), table{0: uint32(0), 5: options(listed, inNode)}))
	}
	with := func(slot int, value any) []byte {
		m := plain(add, one)
		m[slot] = value
		return model(m)
	}
	whole := model(plain(add, one))
	far := with(4, []table{{1: uint64(1 << 40), 2: uint64(8)}})
	tests := []struct {
		name    string
		content []byte
		want    string
	}{
		{"plain", whole, "tflite"},
		{"large weights", with(4, []table{{0: bytes.Repeat([]byte("w"), 10_000)}}), "tflite"},
		{"pickle as weights", with(4, []table{{0: []byte(evil)}}), "tflite"},
		{"custom", model(plain(custom("MyOp"), one)), "tflite tflite.op.custom"},
		{"custom, by the old field", model(plain(table{0: uint8(32), 1: "MyOp"}, one)), "tflite tflite.op.custom"},
		{"custom, of the runtime", model(plain(custom("TFLite_Detection_PostProcess"), one)), "tflite"},
		{"named and not custom", model(plain(table{0: uint8(0), 1: "MyOp"}, one)), "tflite"},
		{"of TensorFlow", flex("Relu", "Relu"), "tflite tflite.op.flex"},
		{"of TensorFlow, reads", flex("ReadFile", "ReadFile"), "tflite tf.op.file.read tflite.op.flex"},
		{"of TensorFlow, another inside", flex("Relu", "WriteFile"), "tflite tf.op.file.write tflite.malformed tflite.op.flex"},
		{"of TensorFlow, unreadable", model(plain(custom("FlexRelu"), table{0: uint32(0), 5: []byte("something")})), "tflite incomplete tflite.malformed tflite.op.flex"},
		{"of TensorFlow, unknown", flex("Mine", "Mine"), "tflite tf.op.custom tflite.op.flex"},
		{"weights elsewhere", with(8, []table{{0: "weights.bin"}}), "tflite"},
		{"weights outside", with(8, []table{{0: "../../weights.bin"}}), "tflite tflite.external.path"},
		{"weights beyond the end", far, "tflite incomplete tflite.malformed"},
		{"unknown field", with(30, uint32(7)), "tflite incomplete"},
		{"unknown options", model(plain(add, table{0: uint32(0), 3: uint8(250), 4: table{0: uint8(1)}})), "tflite incomplete"},
		{"bytes behind", append(bytes.Clone(whole), "\xff\x00\x01more"...), "tflite incomplete archive.entry.hidden"},
		{"pickle behind", append(bytes.Clone(whole), evil...), "tflite archive.entry.hidden pickle.import.dangerous"},
		{"zeros behind", append(bytes.Clone(whole), make([]byte, 40)...), "tflite"},
		{"root beyond the end", []byte("\xff\xff\xff\x7fTFL3"), "tflite incomplete tflite.malformed"},
		{"root at itself", []byte("\x00\x00\x00\x00TFL3aaaaaaaa"), "tflite incomplete tflite.malformed"},
		{"no table", []byte("\x08\x00\x00\x00TFL3aaaaaaaa"), "tflite incomplete tflite.malformed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if r := scan(t, tt.content); brief(r) != tt.want {
				t.Errorf("got %q, want %q: %+v %+v", brief(r), tt.want, r.Findings, r.Coverage)
			}
		})
	}
}

// TestWeightsBehind has weights behind the flatbuffer, as models of more than
// 2 GiB do, and a pickle between.
func TestWeightsBehind(t *testing.T) {
	m := plain(table{0: uint8(0)}, table{0: uint32(0)})
	m[4] = []table{{1: uint64(1 << 20), 2: uint64(8)}}
	b := model(m)
	at := bytes.Index(b, binary.LittleEndian.AppendUint64(nil, 1<<20))
	binary.LittleEndian.PutUint64(b[at:], uint64(len(b)))
	if got := brief(scan(t, append(bytes.Clone(b), "weights!"...))); got != "tflite" {
		t.Error(got)
	}
	binary.LittleEndian.PutUint64(b[at:], uint64(len(b)+len(evil)))
	if got, want := brief(scan(t, append(append(bytes.Clone(b), evil...), "weights!"...))), "tflite archive.entry.hidden pickle.import.dangerous"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestAssociatedFiles has a zip archive behind the model, as the metadata tools
// append it.
func TestAssociatedFiles(t *testing.T) {
	b := model(plain(table{0: uint8(0)}, table{0: uint32(0)}))
	archive := func(name, text string) []byte {
		out := bytes.NewBuffer(bytes.Clone(b))
		z := zip.NewWriter(out)
		z.SetOffset(int64(len(b)))
		m, err := z.Create(name)
		if err == nil {
			_, err = io.WriteString(m, text)
		}
		if err == nil {
			err = z.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	if got := brief(scan(t, archive("labels.txt", "cat\ndog\n"))); got != "tflite" {
		t.Error(got)
	}
	if got, want := brief(scan(t, archive("x", evil))), "tflite pickle.import.dangerous"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSharedListsAreBounded has many graphs that all have the same long list of
// tensors, which without a bound would be gone through nine million times.
func TestSharedListsAreBounded(t *testing.T) {
	const graphs, items = 3000, 3000
	w := &buffer{b: []byte("\x0c\x00\x00\x00TFL3")}
	layout := func(fields ...uint16) {
		w.b = binary.LittleEndian.AppendUint16(w.b, uint16(4+2*len(fields)))
		w.b = binary.LittleEndian.AppendUint16(w.b, 8)
		for _, f := range fields {
			w.b = binary.LittleEndian.AppendUint16(w.b, f)
		}
	}
	// The root at 12 has its layout at 20, and its graphs in a list at 32.
	w.u32(0)
	w.u32(12 - 20)
	w.u32(16)
	layout(0, 0, 4)
	w.align(4)
	w.u32(graphs)
	lists := len(w.b) + 4*graphs
	for i := range graphs {
		w.u32(lists + 8*i - len(w.b))
	}
	end := lists + 8*graphs // a graph's layout, then the long list
	for range graphs {
		w.u32(len(w.b) - end)
		w.u32(end + 8 - len(w.b))
	}
	layout(4)
	w.align(4)
	w.u32(items)
	tensor := len(w.b) + 4*items
	for range items {
		w.u32(tensor + 4 - len(w.b))
	}
	layout()
	w.u32(4)
	w.u32(0)
	if got, want := brief(scan(t, w.b)), "tflite incomplete model.limit"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzScan(f *testing.F) {
	f.Add(model(plain(custom("FlexRelu"), table{0: uint32(0), 5: options("Relu", "WriteFile")})))
	f.Add(model(plain(table{0: uint8(0)}, table{0: uint32(0), 3: uint8(11), 4: table{0: uint8(1)}})))
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
