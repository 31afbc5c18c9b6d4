package formats_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats"
	"github.com/cavra/cavra/plugins/formats/content"
)

type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

func scanWith(t testing.TB, s scanner.Scanner, b []byte) scanner.Report {
	t.Helper()
	r, err := s.Scan(context.Background(), scanner.Target{Content: reader{bytes.NewReader(b)}})
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	listed(t, r)
	return r
}

// listed holds the formats and places of a report to those that may be named
// where a report leaves the machine.
func listed(t testing.TB, r scanner.Report) {
	t.Helper()
	kinds := finding.ShippedKinds()
	if !kinds[r.Format] {
		t.Errorf("the format %s is not in sdk/finding/kinds.txt: reports would call it %s", r.Format, finding.OtherKind)
	}
	for _, f := range r.Findings {
		if !kinds[f.Location.Class] {
			t.Errorf("the place %s is not in sdk/finding/kinds.txt: reports would call it %s", f.Location.Class, finding.OtherKind)
		}
	}
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

func TestText(t *testing.T) {
	tests := []struct{ name, content, want string }{
		{"prose", "This model is good. It isn't bad (really).\n", "text"},
		{"words", "cat\ndog\ncold\n", "text"},
		{"word list that reads as GLOBAL", "cat\ndog\nNone\n", "text"},
		{"umlauts", "Größe\nSchön ist es\n", "text"},
		{"byte order mark", "\ufeffSome words here\n", "text"},
		{"licence with calls in it", "Permission is granted to f(x) and to g(y)\n", "text"},
		{"markdown with code", "# Use\n\nCall it like so:\n\n```python\nimport torch\ntorch.load('x')\n```\n", "text"},
		{"requirements", "torch>=2.0\nnumpy==1.26\n", "text"},
		{"control character", "some words\x1b[0m\n", "unknown incomplete"},
		{"not UTF-8", "caf\xe9 words\n", "unknown incomplete"},
		{"UTF-8 cut at the end", "words \xe2\x82", "unknown incomplete"},
		{"python", "import os\nos.system('x')\n", "python python.call.dangerous"},
		{"python that starts like INST", "import os\nsys.path\nprint('x')\n", "python"},
		{"python without imports", "__import__('os').system('x')\n", "python python.call.dangerous"},
		{"python call over two lines", "(print\n\n('x'))\n", "python"},
		{"python behind prose in a docstring", "\"\"\"\nThis model is good. It isn't bad?\n```\n\"\"\"\nimport os\n", "python"},
		{"python behind prose in comments", "# This model is good?\nimport os\n", "python"},
		{"python after a carriage return", "# This model is good\rimport os\n", "python"},
		{"python with a continued string", "x = 'a\\\r\nb'\nimport os\n", "python"},
		{"python with strings nested in an f-string", "x = f\"{d[\"a b\"]}\"\nimport os\n", "python"},
		{"python with a declared encoding", "# coding: utf-7\nThis is prose\n", "python incomplete"},
		{"python with odd names", "ﬁle = open\nﬁle('x')\n", "python python.name.disguised"},
		{"python with a label in brackets", "d = {a:\n1}\nf(d)\n", "python"},
		{"python with a continued line", "x\\\n:\\\n int = f(1)\n", "python"},
		{"python in Latin-1 by its word", "# coding: latin-1\nimport os\nos.system('x')\n", "python python.call.dangerous"},
		{"python by its first line", "#!/usr/bin/env python3\nimport os\nos.system('x')\n", "python python.call.dangerous"},
		{"python with a key of settings", "import os\nx = {\"auto_map\": 1}\nos.system('x')\n", "python python.call.dangerous"},
		{"python that is settings too", "_target_: os.system\nx: f(1)\n", "python repository.target.dangerous"},
		{"python that is not understood", "import os\nx = = 1\n", "python incomplete python.unparsed"},
		{"settings with calls in them", "model:\n  class: Tiny\n  note: f(x)\n", "text"},
		{"text with a smile", "f(x) :)\n", "text"},
		{"declared UTF-8", "# -*- coding: utf-8 -*-\nThis is prose\n", "text"},
		{"docstring that never ends", "\"\"\"\nimport os\n", "text"},
		{"shebang", "#!/usr/bin/env python\nThis is prose\n", "script incomplete executable.script"},
		{"markup", "Some words <SCRIPT>x</SCRIPT> more words\n", "html incomplete"},
		{"svg", "<svg xmlns='x'></svg>\n", "svg incomplete"},
		{"template", "Hello {% if x %} world\n", "jinja incomplete template.unparsed"},
		{"template of expressions", "Hello {{ ''.__class__ }} world\n", "jinja template.injection"},
		{"long template of expressions", "Hello {{ ''.__class__ }} world\n" + strings.Repeat("words ", 1<<20), "jinja template.injection"},
		{"template of very many expressions", strings.Repeat("{{ x }}", 100_000) + "{{ ''.__class__ }}", "jinja incomplete template.unparsed"},
		{"very long text with an expression", "{{ x }}" + strings.Repeat("words ", 3<<20), "jinja incomplete template.unparsed"},
		{"text with doubled braces", "\\newcommand{\\x}{{a} b}}\n", "text"},
		{"yaml that constructs", "a: !!python/object/apply:os.system [x]\nb: some words\n", "yaml repository.yaml.tag"},
		{"settings that name code", "model:\n  _target_: a.b.C\n  note: some words\n", "config repository.target.unknown"},
		{"settings that name a package's own module", "model:\n  _target_: src.code.Net\n  note: some words\n", "config repository.target.unknown"},
		{"settings that walk to a function", "model:\n  _target_: src.code.interact\n  note: some words\n", "config repository.target.dangerous"},
		{"settings that walk to a module", "model:\n  _target_: src.os.Popen\n  note: some words\n", "config repository.target.dangerous"},
		{"prose that names a function", "Use tokenizer.apply_chat_template to do it.\n", "text"},
		{"json", `{"a": [1, -2.5e+3, "x\u00e9\n", {}, [], null], "b": NaN}`, "json"},
		{"json lines", "{\"a\": 1}\n{\"a\": 2}\n", "json"},
		{"json with code", `{"x": {"auto_map": {"A": "m.A"}}}`, "json repository.code.custom"},
		{"json with code, escaped", `{"x": [{"_t\u0061rget_": "a.b"}]}`, "json repository.target.unknown"},
		{"json with a chat template", `{"chat_template": "x"}`, "json"},
		{"json with a lambda layer", `{"class_name": "Lambda", "config": {}}`, "json keras.code.embedded"},
		{"json value that is a key elsewhere", `{"a": "auto_map"}`, "json"},
		{"broken json", `{"a": [1, 2}`, "text"},
		{"deep json", strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "text"},
		{"empty", "", "empty"},
		{"protocol 0 pickle in prose's clothes", "cos\nsystem\n(S'echo'\ntR.", "pickle pickle.import.dangerous"},
		{"GIF that is a pickle", "GIF89a\x01\x00\x01cos\nsystem\n(S'x'\ntR.", "pickle pickle.import.dangerous"},
		{"safetensors", "\x02\x00\x00\x00\x00\x00\x00\x00{}", "safetensors"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := brief(scanWith(t, formats.New(), []byte(tt.content))); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestTextAcrossChunks puts a marker and a broken byte at every place around the
// size of a chunk.
func TestTextAcrossChunks(t *testing.T) {
	for shift := -80; shift < 80; shift++ {
		head := strings.Repeat("word after word\n", (64<<10+shift)/16) + strings.Repeat("é", 20)
		if got := brief(scanWith(t, formats.New(), []byte(head+"{% x %}"))); got != "jinja incomplete template.unparsed" {
			t.Fatalf("shift %d: %s", shift, got)
		}
		if got := brief(scanWith(t, formats.New(), []byte(head+"\x00"+head))); got != "unknown incomplete" {
			t.Fatalf("shift %d: %s", shift, got)
		}
	}
}

func TestImages(t *testing.T) {
	gif := "GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00;"
	jpeg := "\xff\xd8\xff\xe0\x00\x04ab\xff\xda\x00\x04ab\x12\xff\x00\x34\xff\xd0\x56\xff\xd9"
	webp := "RIFF\x0e\x00\x00\x00WEBPVP8 \x01\x00\x00\x00a\x00"
	tests := []struct{ name, content, want string }{
		{"gif", gif, "gif"}, {"gif and more", gif + "x", "gif incomplete"}, {"gif cut", gif[:30], "gif incomplete"},
		{"jpeg", jpeg, "jpeg"}, {"jpeg and more", jpeg + "PK", "jpeg incomplete"}, {"jpeg cut", jpeg[:14], "jpeg incomplete"},
		{"webp", webp, "webp"}, {"webp and more", webp + "x", "webp incomplete"}, {"webp cut", webp[:20], "webp incomplete"},
		{"png of nothing", "\x89PNG\r\n\x1a\n", "png incomplete"},
	}
	for _, tt := range tests {
		if got := brief(scanWith(t, formats.New(), []byte(tt.content))); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// archive writes a zip by the standard library.
func archive(t testing.TB, method uint16, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(members); i += 2 {
		m, err := w.CreateHeader(&zip.FileHeader{Name: members[i], Method: method})
		if err == nil {
			_, err = io.WriteString(m, members[i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const evil = "\x80\x02cos\nsystem\nU\x01x\x85R."

func TestArchives(t *testing.T) {
	good := archive(t, zip.Deflate, "m/data.pkl", "\x80\x02N.", "m/version", "3\n")
	stored := archive(t, zip.Store, "note.txt", "Some words here\n")
	patch := func(b []byte, sig string, at int, to string) []byte {
		b = bytes.Clone(b)
		copy(b[bytes.Index(b, []byte(sig))+at:], to)
		return b
	}
	tests := []struct {
		name    string
		content []byte
		want    string
	}{
		{"deflated torch", good, "torch-zip format.unsafe.pickle"},
		{"deflated payload", archive(t, zip.Deflate, "m/data.pkl", evil), "torch-zip pickle.import.dangerous"},
		{"deflated payload, deep", archive(t, zip.Deflate, "a.zip", string(archive(t, zip.Deflate, "b.zip", string(archive(t, zip.Store, "x", evil))))), "zip pickle.import.dangerous"},
		{"plain", stored, "zip"},
		{"empty archive", archive(t, zip.Store), "zip"},
		{"torchscript", archive(t, zip.Store, "m/data.pkl", "\x80\x02N.", "m/code/x.py", "def f(): pass\n", "m/constants.pkl", "\x80\x02)."), "torchscript format.unsafe.pickle"},
		{"code beside a pickle", archive(t, zip.Store, "m/data.pkl", "\x80\x02N.", "m/code/x.py", "def f(): pass\n"), "torch-zip format.unsafe.pickle"},
		{"bytes before", append([]byte("before"), stored...), "unknown incomplete archive.entry.hidden archive.malformed"},
		{"bytes after", append(bytes.Clone(stored), "after"...), "zip archive.entry.hidden"},
		{"encrypted", patch(patch(stored, "PK\x03\x04", 6, "\x09\x00"), "PK\x01\x02", 8, "\x09\x00"), "zip incomplete archive.entry.encrypted"},
		{"encrypted by one header", patch(stored, "PK\x03\x04", 6, "\x09\x00"), "zip incomplete archive.entry.encrypted archive.malformed"},
		{"two names", patch(stored, "PK\x03\x04", 30, "NOTE"), "zip archive.malformed"},
		{"unknown method", patch(patch(stored, "PK\x03\x04", 8, "\x09\x00"), "PK\x01\x02", 10, "\x09\x00"), "zip incomplete"},
		{"LZMA that is none", patch(patch(stored, "PK\x03\x04", 8, "\x0e\x00"), "PK\x01\x02", 10, "\x0e\x00"), "zip incomplete archive.malformed"},
		{"wrong checksum", patch(patch(stored, "PK\x01\x02", 16, "abcd"), "PK\x07\x08", 4, "abcd"), "zip archive.entry.checksum"},
		{"no directory", stored[:40], "zip incomplete archive.malformed"},
		{"absolute name", archive(t, zip.Store, "/etc/x", "Some words here\n"), "zip archive.entry.path"},
		{"name of a drive", archive(t, zip.Store, `C:\x`, "Some words here\n"), "zip archive.entry.path"},
		{"names that differ in case", archive(t, zip.Store, "m/data.pkl", "\x80\x02N.", "m/DATA.pkl", "\x80\x02N."), "torch-zip archive.entry.duplicate format.unsafe.pickle"},
		{"count is wrong", patch(stored, "PK\x05\x06", 10, "\x07\x00"), "zip incomplete archive.malformed"},
		{"storage that is not one", archive(t, zip.Store, "m/data/0", "\x80\x02N."), "zip format.unsafe.pickle"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := brief(scanWith(t, formats.New(), tt.content)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	zeros := strings.Repeat("\x00", 1<<20)
	bomb := archive(t, zip.Deflate, "zeros", zeros)
	nest := []byte(evil)
	for range 12 {
		nest = archive(t, zip.Store, "x", string(nest))
	}
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprint(i), "Some words here\n")
	}
	many := archive(t, zip.Store, names...)
	l := content.DefaultLimits()
	l.Members, l.Inflated, l.Held = 40, 1<<19, 1<<18
	ratio := content.DefaultLimits()
	ratio.Ratio, ratio.RatioFrom = 10, 1<<10
	tests := []struct {
		name    string
		limits  content.Limits
		content []byte
		reason  predicate.Reason
	}{
		{"bytes", l, bomb, predicate.LimitBytes},
		{"members", l, many, predicate.LimitMembers},
		{"ratio", ratio, bomb, predicate.LimitRatio},
		{"depth", content.DefaultLimits(), nest, predicate.LimitDepth},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := scanWith(t, formats.WithLimits(tt.limits), tt.content)
			if !slices.ContainsFunc(r.Coverage, func(c coverage.Range) bool { return c.Reason == tt.reason }) {
				t.Errorf("no gap for %s: %+v", tt.reason, r.Coverage)
			}
			if !strings.Contains(brief(r), "archive.limit") {
				t.Errorf("no finding: %s", brief(r))
			}
		})
	}
}

// TestStreamedMember has a deflated pickle that is too large to be held in
// memory, and names an import by strings far apart, so that reads go back.
func TestStreamedMember(t *testing.T) {
	pad := strings.Repeat("0123456789abcdef", 1<<16)
	pkl := "\x80\x04\x8c\x02os\x94\x8c\x06system\x94X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(pad)))) + pad + "h\x00h\x01\x93\x8c\x01x\x85R."
	l := content.DefaultLimits()
	l.Held = 1 << 16
	got := brief(scanWith(t, formats.WithLimits(l), archive(t, zip.Deflate, "x", pkl)))
	if want := "zip pickle.import.dangerous"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestArrays(t *testing.T) {
	npy := func(version byte, header, data string) []byte {
		n := string(binary.LittleEndian.AppendUint16(nil, uint16(len(header))))
		if version > 1 {
			n += "\x00\x00"
		}
		return []byte("\x93NUMPY" + string([]byte{version, 0}) + n + header + data)
	}
	tests := []struct{ name, header, data, want string }{
		{"floats", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "01234567", "npy"},
		{"scalar", "{'descr': '<f8', 'fortran_order': True, 'shape': ()}\n", "01234567", "npy"},
		{"structured", "{'descr': [('a', '<i2'), ('b', '|S3', (2,))], 'fortran_order': False, 'shape': (1,)}", "01234567", "npy"},
		{"text", "{'descr': '<U2', 'fortran_order': False, 'shape': (1L,)}", "01234567", "npy"},
		{"dates", "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (1,)}", "01234567", "npy"},
		{"too little", "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", "01234567", "npy incomplete numpy.malformed"},
		{"too much", "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", "01234567", "npy incomplete numpy.malformed"},
		{"overflow", "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4611686018427387904)}", "", "npy incomplete numpy.malformed"},
		{"call in the header", "{'descr': f(), 'fortran_order': False, 'shape': (1,)}", "", "npy incomplete numpy.malformed"},
		{"key twice", "{'descr': '<f4', 'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "0123", "npy incomplete numpy.malformed"},
		{"objects", "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", evil, "npy numpy.object.array pickle.import.dangerous"},
		{"object in a field", "{'descr': [('a', '<i2'), ('b', [('c', '|O')])], 'fortran_order': False, 'shape': (1,)}", evil, "npy numpy.object.array pickle.import.dangerous"},
		{"objects that are none", "{'descr': 'O', 'fortran_order': False, 'shape': (1,)}", "\xff\xff", "npy incomplete numpy.object.array pickle.malformed"},
	}
	for _, tt := range tests {
		for version := byte(1); version <= 3; version++ {
			if got := brief(scanWith(t, formats.New(), npy(version, tt.header, tt.data))); got != tt.want {
				t.Errorf("%s, version %d: got %q, want %q", tt.name, version, got, tt.want)
			}
		}
	}
}

func TestDescribedRulesAreInTheCatalogue(t *testing.T) {
	catalogue, err := finding.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range formats.New().Describe().Rules {
		if _, ok := catalogue.Rule(id); !ok {
			t.Errorf("rule %s is in no catalogue", id)
		}
	}
}

// FuzzScan holds the laws of any report: rules that were announced, locations
// and ranges that fit, the same report for the same bytes.
func FuzzScan(f *testing.F) {
	for _, s := range []string{
		evil, "Some words\n", `{"a": [1, "x"]}`, "import os\n", "\x93NUMPY\x01\x00\x02\x00{}",
		"\xff\xd8\xff\xd9", "GIF89a\x01\x00\x01\x00\x00\x00\x00;", "\x89PNG\r\n\x1a\n", "RIFF\x04\x00\x00\x00WEBP",
	} {
		f.Add([]byte(s))
	}
	f.Add(archive(f, zip.Deflate, "m/data.pkl", evil, "m/data/0", "0123"))
	f.Add(archive(f, zip.Store, "m/data.pkl", "\x80\x02N.", "m/data/0", "0123", "x.npy", "\x93NUMPY"))
	l := content.DefaultLimits()
	l.Inflated, l.Held, l.Opcodes, l.Members = 1<<20, 1<<18, 100_000, 200
	s := formats.WithLimits(l)
	rules := s.Describe().Rules
	f.Fuzz(func(t *testing.T, b []byte) {
		r := scanWith(t, s, b)
		for _, x := range r.Findings {
			if err := x.Validate(); err != nil || !slices.Contains(rules, x.Rule) {
				t.Errorf("finding %+v: %v", x, err)
			}
		}
		account, err := coverage.Account(r.Coverage, int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if total := coverage.Sum(account); total.Bytes != int64(len(b)) {
			t.Errorf("coverage of %d bytes, of %d", total.Bytes, len(b))
		}
		if r.Format == scanner.Unknown && coverage.Sum(account).Complete {
			t.Error("unknown and complete")
		}
		if diff := cmp.Diff(r, scanWith(t, s, b)); diff != "" {
			t.Errorf("two scans of the same bytes differ:\n%s", diff)
		}
	})
}

type broken struct{ reader }

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errGone }

var errGone = errors.New("gone")

func TestReadErrorIsAnError(t *testing.T) {
	_, err := formats.New().Scan(context.Background(), scanner.Target{Content: broken{reader{bytes.NewReader([]byte(evil))}}})
	if !errors.Is(err, errGone) {
		t.Errorf("error %v, want %v", err, errGone)
	}
}

func BenchmarkSmallFiles(b *testing.B) {
	s := formats.New()
	for name, c := range map[string][]byte{
		"pickle": []byte(evil), "text": []byte("This model is good. It isn't bad (really).\n"),
		"json": []byte(`{"a": [1, -2.5e+3, "x", {}, [], null]}`),
		"zip":  archive(b, zip.Deflate, "m/data.pkl", "\x80\x02N.", "m/version", "3\n"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				scanWith(b, s, c)
			}
		})
	}
}

func BenchmarkText(b *testing.B) {
	text := []byte(strings.Repeat("This model is good, is it not? Some (more) words here.\n", 1<<18))
	json := []byte(`{"vocab": {"x": 0` + strings.Repeat(`, "abcdef": 123456`, 1<<19) + "}}")
	for name, c := range map[string][]byte{"prose": text, "json": json} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(c)))
			for b.Loop() {
				scanWith(b, formats.New(), c)
			}
		})
	}
}
