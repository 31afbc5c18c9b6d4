//go:build python

package pickle

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/plugins/formats/content"
)

// oracle reads streams in hexadecimal, one a line, and says for each what
// CPython makes of it: the opcodes and positions of pickletools.genops, and what
// the C and the Python Unpickler resolve. Nothing is executed: find_class and
// persistent_load give objects that accept everything and do nothing.
const oracle = `
import sys, io, json, pickle, pickletools, copyreg

class Nothing:
    def __init__(self, *a, **k): pass
    def __new__(cls, *a, **k): return object.__new__(cls)
    def __call__(self, *a, **k): return Nothing()
    def __setstate__(self, s): pass
    def __setitem__(self, k, v): pass
    def append(self, x): pass
    def extend(self, x): pass
    def add(self, x): pass
    def update(self, x): pass
    def __hash__(self): return 0

def recording(base):
    class U(base):
        def find_class(self, module, name):
            self.seen.append([module, name])
            return type("Stub", (Nothing,), {})
        def persistent_load(self, pid):
            return Nothing()
    return U

def run(base, b):
    u = recording(base)(io.BytesIO(b))
    u.seen = []
    try:
        u.load()
        ended = True
    except BaseException as e:
        ended = False
    return {"seen": u.seen, "ended": ended}

for line in sys.stdin:
    b = bytes.fromhex(line.strip())
    ops = []
    try:
        for op, arg, pos in pickletools.genops(b):
            ops.append([ord(op.code), pos])
        whole = True
    except Exception:
        whole = False
    print(json.dumps({"ops": ops, "whole": whole, "c": run(pickle.Unpickler, b), "py": run(pickle._Unpickler, b)}), flush=True)
`

type ran struct {
	Seen  [][2]string `json:"seen"`
	Ended bool        `json:"ended"`
}

type said struct {
	Ops   [][2]int64 `json:"ops"`
	Whole bool       `json:"whole"`
	C     ran        `json:"c"`
	Py    ran        `json:"py"`
}

func startOracle(t *testing.T) func([]byte) said {
	t.Helper()
	cmd := exec.Command("python3", "-c", oracle)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Skipf("python3: %v", err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("python3: %v\n%s", err, &stderr)
		}
	})
	answers := bufio.NewReaderSize(out, 1<<20)
	return func(b []byte) said {
		fmt.Fprintln(in, hex.EncodeToString(b))
		line, err := answers.ReadBytes('\n')
		if err != nil {
			t.Fatalf("python3: %v\n%s", err, &stderr)
		}
		var s said
		if err := json.Unmarshal(line, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestAgainstCPython(t *testing.T) {
	ask := startOracle(t)
	rng := rand.New(rand.NewPCG(1, 5))
	const streams = 5_000
	compared, ended := 0, 0
	for range streams {
		b := generate(rng)
		s := ask(b)
		compareOps(t, b, s)
		r, err := Resolve(context.Background(), bytes.NewReader(b), int64(len(b)), content.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		ours := make(map[[2]string]bool)
		for _, i := range r.Imports {
			ours[[2]string{i.Module, i.Name}] = true
		}
		for who, ran := range map[string]ran{"C": s.C, "Python": s.Py} {
			for _, pair := range ran.Seen {
				compared++
				if !ours[pair] && !hasEvent(r, ImportUnresolved) {
					t.Errorf("%s resolves %q, not found in %x (%q)", who, pair, b, brief(r))
				}
			}
			if ran.Ended {
				ended++
				if len(r.Ends) == 0 {
					t.Errorf("%s ends well, we break at %+v in %x", who, r.Broken, b)
				}
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("%d streams, %d runs to the end, %d imports compared", streams, ended, compared)
	if ended < streams/10 || compared < streams {
		t.Errorf("the generator reaches too little")
	}
}

func hasEvent(r *Resolution, kind string) bool {
	for _, e := range r.Events {
		if e.Kind == kind {
			return true
		}
	}
	return false
}

// compareOps compares opcodes and positions as far as genops goes.
func compareOps(t *testing.T, b []byte, s said) {
	t.Helper()
	w := newWalker(bytes.NewReader(b), 0, int64(len(b)))
	var got [][2]int64
	for len(got) < len(s.Ops) && w.next() {
		got = append(got, [2]int64{int64(w.code), w.at})
	}
	if diff := cmp.Diff(s.Ops, got); diff != "" && len(s.Ops) > 0 {
		t.Errorf("opcodes of %x (-genops +ours):\n%s", b, diff)
	}
}

// generate makes a stream that is mostly right: a random walk that knows how
// high the stack is, with a mistake now and then.
func generate(rng *rand.Rand) []byte {
	g := &generator{Rand: rng}
	if p := rng.IntN(7); p <= 5 {
		g.proto(p)
	}
	for range rng.IntN(35) {
		g.op()
		if rng.IntN(200) == 0 {
			g.out.WriteByte(byte(rng.IntN(256)))
		}
	}
	for len(g.marks) > 0 {
		g.close()
	}
	if g.height == 0 {
		g.leaf()
	}
	g.out.WriteByte('.')
	b := g.out.Bytes()
	switch rng.IntN(25) {
	case 0:
		b = b[:rng.IntN(len(b))]
	case 1:
		b[rng.IntN(len(b))] = byte(rng.IntN(256))
	}
	return b
}

type generator struct {
	*rand.Rand
	out    bytes.Buffer
	height int
	marks  []int
	puts   int
}

func (g *generator) proto(p int) { g.out.Write([]byte{opProto, byte(p)}) }

var someNames = []string{"os", "system", "collections", "OrderedDict", "a.b.c", "__builtin__", "eval", "x", "naïve", "torch._utils"}

func (g *generator) word() string { return someNames[g.IntN(len(someNames))] }

func ascii(s string) string { return strings.ReplaceAll(s, "ï", "i") }

func (g *generator) leaf() {
	w := g.word()
	leaves := []string{
		"N", "\x88", "\x89", "K\x05", "M\x01\x02", "J\x01\x02\x03\x04", "I42\n", "I01\n", "I-0x1F\n", "L12345L\n", "L5\n",
		"F1.5\n", "F-inf\n", "G\x3f\xf0\x00\x00\x00\x00\x00\x00", "\x8a\x01\x7f", "\x8b\x02\x00\x00\x00\x01\x02", ")", "]", "}", "\x8f",
		"X" + le32(uint32(len(w))) + w, "\x8c" + string([]byte{byte(len(w))}) + w, "\x8d" + le64(uint64(len(w))) + w,
		"V" + ascii(w) + "\n", "V\\u006fs\n", "S'" + ascii(w) + "'\n", "S\"o\\x73\"\n", "U" + string([]byte{byte(len(ascii(w)))}) + ascii(w),
		"T" + le32(uint32(len(ascii(w)))) + ascii(w), "C\x02os", "B" + le32(2) + "os", "\x8e" + le64(2) + "os", "\x96" + le64(2) + "os",
		"c" + w + "\n" + g.word() + "\n", "c" + w + "\n" + g.word() + "\n", "Pid\n", "\x82\x01",
		"\x8c" + string([]byte{byte(len(w))}) + w, "\x8c" + string([]byte{byte(len(w))}) + w, "\x8c" + string([]byte{byte(len(w))}) + w,
	}
	// Extension codes are not registered, so that they end a load.
	pick := leaves[g.IntN(len(leaves))]
	if pick[0] == opExt1 && g.IntN(20) > 0 {
		pick = "N"
	}
	g.out.WriteString(pick)
	g.height++
}

// free is how much of the stack is above the last mark.
func (g *generator) free() int {
	if n := len(g.marks); n > 0 {
		return g.height - g.marks[n-1]
	}
	return g.height
}

func (g *generator) close() {
	at := g.marks[len(g.marks)-1]
	g.marks = g.marks[:len(g.marks)-1]
	n := g.height - at
	g.height = at
	switch {
	case n > 0 && g.IntN(3) == 0:
		g.out.WriteByte('o')
	case g.IntN(3) == 0:
		g.out.WriteString("i" + g.word() + "\n" + g.word() + "\n")
	default:
		g.out.WriteByte("tl"[g.IntN(2)])
	}
	g.height++
}

func (g *generator) op() {
	n := g.free()
	switch k := g.IntN(30); {
	case k == 0:
		g.out.WriteByte('(')
		g.marks = append(g.marks, g.height)
	case k == 1 && len(g.marks) > 0:
		g.close()
	case k <= 3 && n >= 1:
		g.put()
	case k <= 5 && g.puts > 0:
		g.get()
	case k == 6 && n >= 2:
		g.out.WriteByte(opStackGlobal)
		g.height--
	case k == 7 && n >= 2:
		g.out.WriteString("0\x8c\x02os\x8c\x06system\x93")
		g.height++
		g.height--
	case k == 8 && n >= 1:
		g.out.WriteString(")R")
	case k == 9 && n >= 1:
		g.out.WriteString(")\x81")
	case k == 10 && n >= 1:
		g.out.WriteString(")}\x92")
	case k == 11 && n >= 1:
		g.out.WriteString("}b")
	case k == 12 && n >= 1:
		g.out.WriteByte('0')
		g.height--
	case k == 13 && n >= 1:
		g.out.WriteByte('2')
		g.height++
	case k == 14 && n >= 2:
		g.out.WriteString("\x86")
		g.height--
	case k == 15:
		g.out.WriteString("](K\x01Ne")
		g.height++
	case k == 16:
		g.out.WriteString("}(K\x01Nu")
		g.height++
	case k == 17:
		g.out.WriteString("\x8f(K\x01\x90")
		g.height++
	case k == 18 && n >= 1:
		g.out.WriteString("Q")
	case k == 19 && g.IntN(10) == 0:
		g.proto(g.IntN(6))
	case k == 20:
		w := g.word()
		fmt.Fprintf(&g.out, "c%s\n%s\n)R", w, g.word())
		g.height++
	default:
		g.leaf()
	}
}

func (g *generator) put() {
	switch g.IntN(4) {
	case 0:
		fmt.Fprintf(&g.out, "p%d\n", g.puts)
	case 1:
		g.out.Write([]byte{'q', byte(g.puts)})
	case 2:
		g.out.WriteString("r" + le32(uint32(g.puts)))
	case 3:
		g.out.WriteByte(opMemoize)
	}
	g.puts++
}

func (g *generator) get() {
	i := g.IntN(g.puts)
	switch g.IntN(3) {
	case 0:
		fmt.Fprintf(&g.out, "g%d\n", i)
	case 1:
		g.out.Write([]byte{'h', byte(i)})
	case 2:
		g.out.WriteString("j" + le32(uint32(i)))
	}
	g.height++
}
