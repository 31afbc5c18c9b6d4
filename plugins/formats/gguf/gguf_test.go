package gguf_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
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

// writer writes a file of one version and byte order.
type writer struct {
	order   binary.AppendByteOrder
	version uint32
	b       []byte
}

func (w *writer) u32(n uint32) { w.b = w.order.AppendUint32(w.b, n) }

func (w *writer) length(n uint64) {
	if w.version == 1 {
		w.u32(uint32(n))
		return
	}
	w.b = w.order.AppendUint64(w.b, n)
}

func (w *writer) text(s string) { w.length(uint64(len(s))); w.b = append(w.b, s...) }

func (w *writer) begin(tensors, entries uint64) {
	w.b = []byte("GGUF")
	w.u32(w.version)
	w.length(tensors)
	w.length(entries)
}

func (w *writer) tensor(name string, kind uint32, offset uint64, dims ...uint64) {
	w.text(name)
	w.u32(uint32(len(dims)))
	for _, d := range dims {
		w.length(d)
	}
	w.u32(kind)
	w.b = w.order.AppendUint64(w.b, offset)
}

func (w *writer) pad(alignment int) {
	for len(w.b)%alignment != 0 {
		w.b = append(w.b, 0)
	}
}

// entry begins an entry.
func (w *writer) entry(key string, kind uint32) { w.text(key); w.u32(kind) }

const evil = "\x80\x02cos\nsystem\nU\x01x\x85R."

func TestEveryVersion(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for version := uint32(1); version <= 3; version++ {
			w := &writer{order: order, version: version}
			w.begin(2, 5)
			w.entry("general.architecture", 8)
			w.text("llama")
			w.entry("general.alignment", 4)
			w.u32(64)
			w.entry("x.f", 12)
			w.b = w.order.AppendUint64(w.b, 7)
			w.entry("tokens", 9)
			w.u32(8)
			w.length(3)
			for _, s := range []string{"a", "", "\xff"} {
				w.text(s)
			}
			w.entry("nested", 9)
			w.u32(9)
			w.length(2)
			for range 2 {
				w.u32(5)
				w.length(2)
				w.b = append(w.b, "01234567"...)
			}
			w.tensor("a", 0, 0, 2, 2)
			w.tensor("b", 2, 64, 32)
			w.pad(64)
			w.b = append(w.b, strings.Repeat("x", 16)...)
			w.pad(64)
			w.b = append(w.b, strings.Repeat("y", 18)...)
			if got := brief(scan(t, w.b)); got != "gguf" {
				t.Errorf("%v %d: %s", order, version, got)
			}
			for cut := 8; cut < len(w.b); cut++ {
				if got := brief(scan(t, w.b[:cut])); got != "gguf incomplete gguf.malformed" {
					t.Fatalf("%v %d, cut to %d of %d: %s", order, version, cut, len(w.b), got)
				}
			}
		}
	}
}

func TestFaults(t *testing.T) {
	tests := []struct {
		name  string
		write func(w *writer)
		want  string
	}{
		{"nothing", func(w *writer) { w.begin(0, 0) }, "gguf"},
		{"version 4", func(w *writer) { w.version = 4; w.begin(0, 0) }, "gguf incomplete gguf.malformed"},
		{"entries overflow", func(w *writer) { w.begin(0, 1<<60) }, "gguf incomplete gguf.overflow"},
		{"tensors overflow", func(w *writer) { w.begin(math.MaxUint64/88, 0) }, "gguf incomplete gguf.overflow"},
		{"more tensors than bytes", func(w *writer) { w.begin(5, 0) }, "gguf incomplete gguf.malformed"},
		{"length of a key overflows", func(w *writer) {
			w.begin(0, 1)
			w.length(math.MaxUint64)
			w.b = append(w.b, "some more bytes"...)
		}, "gguf incomplete gguf.overflow"},
		{"length of a string overflows", func(w *writer) { w.begin(0, 1); w.entry("a", 8); w.length(math.MaxUint64) }, "gguf incomplete gguf.overflow"},
		{"array overflows", func(w *writer) { w.begin(0, 1); w.entry("a", 9); w.u32(10); w.length(1 << 61) }, "gguf incomplete gguf.overflow"},
		{"array of unknown type", func(w *writer) { w.begin(0, 1); w.entry("a", 9); w.u32(77); w.length(0) }, "gguf incomplete gguf.malformed"},
		{"value of unknown type", func(w *writer) { w.begin(0, 1); w.entry("a", 77); w.length(0) }, "gguf incomplete gguf.malformed"},
		{"nested without end", func(w *writer) {
			w.begin(0, 1)
			w.entry("a", 9)
			for range 20 {
				w.u32(9)
				w.length(1)
			}
		}, "gguf incomplete model.limit"},
		{"truth that is 2", func(w *writer) { w.begin(0, 1); w.entry("a", 7); w.b = append(w.b, 2) }, "gguf incomplete gguf.malformed"},
		{"alignment 0", func(w *writer) { w.begin(0, 1); w.entry("general.alignment", 4); w.u32(0) }, "gguf incomplete gguf.malformed"},
		{"alignment 24", func(w *writer) { w.begin(0, 1); w.entry("general.alignment", 4); w.u32(24) }, "gguf incomplete gguf.malformed"},
		{"alignment by a string", func(w *writer) { w.begin(0, 1); w.entry("general.alignment", 8); w.text("32") }, "gguf incomplete gguf.malformed"},
		{"a key twice", func(w *writer) {
			w.begin(0, 2)
			for range 2 {
				w.entry("a", 4)
				w.u32(1)
			}
		}, "gguf gguf.key.duplicate"},
		{"chat template", func(w *writer) {
			w.begin(0, 2)
			w.entry("tokenizer.chat_template", 8)
			w.text("{{ messages }}")
			w.entry("a", 4)
			w.u32(1)
		}, "gguf"},
		{"chat template that reaches out", func(w *writer) {
			w.begin(0, 1)
			w.entry("tokenizer.chat_template", 8)
			w.text("{{ ().__class__.__base__.__subclasses__() }}")
		}, "gguf template.injection"},
		{"five dimensions", func(w *writer) { w.begin(1, 0); w.tensor("a", 0, 0, 1, 1, 1, 1, 1) }, "gguf incomplete gguf.overflow"},
		{"shape overflows", func(w *writer) { w.begin(1, 0); w.tensor("a", 0, 0, 1<<32, 1<<32) }, "gguf incomplete gguf.overflow"},
		{"size overflows", func(w *writer) { w.begin(1, 0); w.tensor("a", 0, 0, 1<<62) }, "gguf incomplete gguf.overflow"},
		{"offset overflows", func(w *writer) { w.begin(1, 0); w.tensor("a", 0, math.MaxUint64-31, 8) }, "gguf incomplete gguf.overflow"},
		{"end overflows", func(w *writer) { w.begin(1, 0); w.tensor("a", 0, math.MaxInt64&^31, 8) }, "gguf incomplete gguf.overflow"},
		{"beyond the end", func(w *writer) { w.begin(1, 0); w.tensor("a", 0, 1<<40, 8); w.pad(32) }, "gguf incomplete gguf.malformed"},
		{"unaligned", func(w *writer) {
			w.begin(1, 0)
			w.tensor("a", 24, 1, 1)
			w.pad(32)
			w.b = append(w.b, "\x00x"...)
		}, "gguf gguf.malformed"},
		{"overlap", func(w *writer) {
			w.begin(2, 0)
			w.tensor("a", 24, 0, 40)
			w.tensor("b", 24, 32, 8)
			w.pad(32)
			w.b = append(w.b, strings.Repeat("x", 40)...)
		}, "gguf gguf.malformed"},
		{"unknown type", func(w *writer) {
			w.begin(1, 0)
			w.tensor("a", 99, 0, 40)
			w.pad(32)
			w.b = append(w.b, strings.Repeat("x", 40)...)
		}, "gguf incomplete gguf.malformed"},
		{"unknown type beyond the end", func(w *writer) { w.begin(1, 0); w.tensor("a", 99, 1<<40, 40); w.pad(32) }, "gguf incomplete gguf.malformed"},
		{"hole", func(w *writer) {
			w.begin(1, 0)
			w.tensor("a", 24, 64, 1)
			w.pad(32)
			w.b = append(w.b, make([]byte, 65)...)
		}, "gguf gguf.malformed"},
		{"pickle in a hole", func(w *writer) {
			w.begin(1, 0)
			w.tensor("a", 24, 32, 1)
			w.pad(32)
			w.b = append(w.b, evil+strings.Repeat("\x00", 32-len(evil))+"x"...)
		}, "gguf incomplete archive.entry.hidden gguf.malformed pickle.import.dangerous pickle.trailing.data"},
		{"pickle behind", func(w *writer) {
			w.begin(1, 0)
			w.tensor("a", 24, 0, 1)
			w.pad(32)
			w.b = append(w.b, "x"+evil...)
		}, "gguf archive.entry.hidden pickle.import.dangerous"},
		{"pickle in a tensor", func(w *writer) {
			w.begin(1, 0)
			w.tensor("a", 24, 0, uint64(len(evil)))
			w.pad(32)
			w.b = append(w.b, evil...)
		}, "gguf"},
		{"a tensor twice", func(w *writer) {
			w.begin(2, 0)
			w.tensor("a", 24, 0, 0)
			w.tensor("a", 24, 0, 0)
			w.pad(32)
		}, "gguf gguf.key.duplicate"},
		{"name that climbs", func(w *writer) { w.begin(1, 0); w.tensor("../../a", 24, 0, 0); w.pad(32) }, "gguf tensor.name.path"},
		{"half a block", func(w *writer) {
			w.begin(1, 0)
			w.tensor("a", 2, 0, 16)
			w.pad(32)
			w.b = append(w.b, make([]byte, 18)...)
		}, "gguf gguf.malformed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := &writer{order: binary.LittleEndian, version: 3}
			tt.write(w)
			if got := brief(scan(t, w.b)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTemplateIsAChild(t *testing.T) {
	w := &writer{order: binary.LittleEndian, version: 3}
	w.begin(0, 1)
	w.entry("tokenizer.chat_template.tool_use", 8)
	w.text("{{ messages }}")
	r := scan(t, w.b)
	if len(r.Children) != 1 || r.Children[0].Member != "tokenizer.chat_template.tool_use" || r.Children[0].Size != 14 {
		t.Errorf("children %+v", r.Children)
	}
}

func FuzzScan(f *testing.F) {
	w := &writer{order: binary.LittleEndian, version: 3}
	w.begin(1, 3)
	w.entry("tokenizer.chat_template", 8)
	w.text("{{ messages }}")
	w.entry("general.alignment", 4)
	w.u32(8)
	w.entry("nested", 9)
	w.u32(9)
	w.length(1)
	w.u32(5)
	w.length(2)
	w.b = append(w.b, "01234567"...)
	w.tensor("a", 0, 0, 2, 2)
	w.pad(8)
	w.b = append(w.b, strings.Repeat("x", 16)...)
	f.Add(w.b)
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
