package corpus

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"strings"
)

// costlyFormats are Costly's files of formats besides containers: deep nesting,
// counts that lie, texts that expand, programs that call each other without end.
func costlyFormats(add func(name string, content func() string)) {
	add("pickle: streams without end", func() string { return strings.Repeat(proto(2)+"N.", 8_000_000) })
	add("pickle: pickles in a pickle's bytes", func() string {
		inner := strings.Repeat(proto(4)+"N.", 7_500_000)
		return proto(4) + "B" + le32(len(inner)) + inner + "."
	})
	add("pickle: marks without end", func() string { return proto(2) + strings.Repeat("(", 20_000_000) + "." })
	add("pickle: memo entries far apart", func() string {
		var b strings.Builder
		b.WriteString(proto(2) + "N")
		for i := range uint32(4_000_000) {
			b.WriteString("r" + le32(int(i*2_654_435_761)))
		}
		return b.String() + "."
	})
	add("python: functions that call each other thrice", func() string {
		var b strings.Builder
		b.WriteString("import os\ndef g0(a, b): os.system(a)\n")
		for i := 1; i < 3000; i++ {
			fmt.Fprintf(&b, "def g%d(a, b):\n    g%d(a, b)\n    g%d(b, a)\n    g%d(a + b, b)\n", i, i-1, i-1, i-1)
		}
		return b.String() + "g2999('a', 'b')\n"
	})
	add("python: a text that doubles", func() string {
		return "import os\nx = 'a'\n" + strings.Repeat("x = x + x\n", 5000) + "eval(x)\n"
	})
	add("python: parentheses", func() string {
		return "import os\nx = " + strings.Repeat("(", 100_000) + "1" + strings.Repeat(")", 100_000) + "\n"
	})
	add("python: blocks in blocks", func() string {
		var b strings.Builder
		b.WriteString("import os\n")
		for i := range 5000 {
			b.WriteString(strings.Repeat(" ", i) + "if x:\n")
		}
		return b.String() + strings.Repeat(" ", 5000) + "pass\n"
	})
	add("jinja: blocks in blocks", func() string {
		return strings.Repeat("{% if x %}", 100_000) + strings.Repeat("{% endif %}", 100_000)
	})
	add("jinja: filters without end", func() string { return "{{ x" + strings.Repeat("|lower", 1_000_000) + " }}" })
	add("jinja: a name of many", func() string {
		var b strings.Builder
		b.WriteString("{% set a = 'x' %}")
		for i := range 20_000 {
			fmt.Fprintf(&b, "{%% if y %%}{%% set a = a ~ '%d' %%}{%% endif %%}", i)
		}
		return b.String() + "{{ x[a] }}"
	})
	add("yaml: aliases of aliases", func() string {
		var b strings.Builder
		b.WriteString("a: &a [x, x, x, x, x, x, x, x, x]\n")
		for c := 'b'; c < 'v'; c++ {
			fmt.Fprintf(&b, "%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c, ", c-1), 9), ", "))
		}
		return b.String() + "_target_: *u\n"
	})
	add("yaml: tags without end", func() string { return strings.Repeat("a: !!python/object/apply:os.system [x]\n", 500_000) })
	add("xml: entities of entities", func() string {
		var b strings.Builder
		b.WriteString(`<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">`)
		for c := 'b'; c < 'v'; c++ {
			fmt.Fprintf(&b, `<!ENTITY %c "%s">`, c, strings.Repeat(fmt.Sprintf("&%c;", c-1), 10))
		}
		return b.String() + `]><PMML version="4.4">&u;</PMML>`
	})
	add("xml: elements in elements", func() string {
		return `<?xml version="1.0"?><PMML version="4.4" xmlns="http://www.dmg.org/PMML-4_4">` + strings.Repeat("<Extension>", 2_000_000)
	})
	add("json: paths that lead in circles", func() string { return `{"_target_": "` + strings.Repeat("os.path.", 1_000_000) + `x"}` })
	add("text: beginnings of private keys", func() string { return strings.Repeat("-----BEGIN PRIVATE KEY-----\n", 500_000) })
	add("gguf: arrays of arrays", func() string {
		return "GGUF" + le32(3) + le64(0) + le64(1) + le64(1) + "k" + le32(9) + strings.Repeat(le32(9)+le64(1), 2_000_000) + le32(4) + le64(0)
	})
	add("onnx: graphs in graphs", func() string {
		graph := protoField(1, protoField(4, "Add"))
		for range 2000 {
			graph = protoField(1, protoField(4, "If")+protoField(5, protoField(1, "b")+protoField(6, graph)+"\xa0\x01\x05"))
		}
		return "\x08\x08" + protoField(7, graph) + protoField(8, protoField(1, "")+"\x10\x0f")
	})
	add("msgpack: sequences in sequences", func() string { return "\x81\xa1a" + strings.Repeat("\x91", 10_000_000) })
	add("ubjson: objects in objects", func() string { return "{L\x00\x00\x00\x00\x00\x00\x00\x07learner" + strings.Repeat("{", 5_000_000) })
	add("npy: a header of brackets", func() string {
		return "\x93NUMPY\x02\x00" + le32(20_000_000) + "{'descr': " + strings.Repeat("[", 10_000_000) + strings.Repeat("]", 9_999_988) + "\n"
	})
	add("r: objects in objects", func() string {
		version := string([]byte{0, 0, 0, 3, 0, 4, 3, 0, 0, 3, 5, 0, 0, 0, 0, 5})
		return "X\n" + version + "UTF-8" + strings.Repeat("\x00\x00\x00\x13\x00\x00\x00\x01", 3_000_000)
	})
	add("matlab: zeros without end", func() string {
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		for range 256 {
			_, _ = w.Write(make([]byte, 1<<20)) // to memory
		}
		_ = w.Close()
		element := binary.LittleEndian.AppendUint32([]byte{15, 0, 0, 0}, uint32(b.Len())) //nolint:gosec // some hundred KiB
		return fmt.Sprintf("%-124s\x00\x01IM", "MATLAB 5.0 MAT-file") + strings.Repeat(string(element)+b.String(), 40)
	})
}
