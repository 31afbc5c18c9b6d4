//go:build python

package pickle

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/cavra/cavra/plugins/formats/content"
)

// recorder reads batches of streams and says for each what CPython's two
// unpicklers resolve: by one load after another from the same file, each with a
// fresh unpickler, and with the same one; and torch's weights-only unpickler,
// where the interpreter has torch, with every global allowed. find_class gives inert objects that
// accept everything and do nothing, but for a few functions that compute text
// from text, so that computed names are resolved; and copyreg's registration of
// extension codes, which is undone after each stream.
const recorder = `
import sys, io, pickle, struct, copyreg, resource, codecs, base64, binascii, gc, warnings
try:
    import torch, torch._weights_only_unpickler as weights_only
    warnings.simplefilter("ignore")
except ImportError:
    weights_only = None
with open("/proc/self/statm") as f: held = int(f.read().split()[0]) * resource.getpagesize() + (700 << 20)
resource.setrlimit(resource.RLIMIT_AS, (held, held))
gc.disable()

class Meta(type):
    def __setitem__(self, k, v): pass
    def append(self, x): pass
    def extend(self, x): pass
    def add(self, x): pass
    def update(self, x): pass

class Nothing(metaclass=Meta):
    __slots__ = ()
    def __init__(self, *a, **k): pass
    def __new__(cls, *a, **k): return object.__new__(cls)
    def __call__(self, *a, **k): return NOTHING
    def __setitem__(self, k, v): pass
    def append(self, x): pass
    def extend(self, x): pass
    def add(self, x): pass
    def update(self, x): pass
    __setstate__ = staticmethod(lambda *a: None)

NOTHING = Nothing()

def small(f):
    def g(*a):
        for x in a:
            if isinstance(x, (str, bytes, list, tuple)) and len(x) > 200:
                raise ValueError
        return f(*a)
    return g

CODECS = {"rot13", "hex", "base64", "utf-8", "latin1", "ascii"}

def decode(x, codec="utf-8"):
    if codec not in CODECS: raise ValueError
    return codecs.decode(x, codec)

def encode(x, codec="utf-8"):
    if codec not in CODECS: raise ValueError
    return codecs.encode(x, codec)

def replace(s, a, b):
    if len(b) > 8: raise ValueError
    return str.replace(s, a, b)

def add_extension(m, n, c):
    if type(m) is str and type(n) is str and type(c) is int: copyreg.add_extension(m, n, c)

import operator
PURE = {
    ("builtins", "str"): small(str), ("builtins", "str.join"): small(str.join), ("builtins", "str.lower"): small(str.lower), ("builtins", "str.upper"): small(str.upper),
    ("builtins", "str.strip"): small(str.strip), ("builtins", "str.replace"): small(replace), ("builtins", "bytes.decode"): small(lambda b: bytes.decode(b)),
    ("builtins", "str.swapcase"): small(str.swapcase), ("builtins", "str.__add__"): small(str.__add__), ("operator", "add"): small(operator.add),
    ("codecs", "decode"): small(decode), ("codecs", "encode"): small(encode), ("base64", "b64decode"): small(base64.b64decode),
    ("binascii", "unhexlify"): small(binascii.unhexlify), ("builtins", "chr"): small(chr), ("builtins", "slice"): slice, ("operator", "getitem"): small(lambda a, b: a[b] if isinstance(a, (str, list, tuple)) else NOTHING),
    ("builtins", "bytes.fromhex"): small(bytes.fromhex), ("copyreg", "add_extension"): add_extension,
}
# str itself is not allowed to spell inert objects.
PURE[("builtins", "str")] = small(lambda *a: str(*a) if all(isinstance(x, (str, bytes, int)) for x in a) else NOTHING)

def recording(base):
    class U(base):
        def find_class(self, module, name):
            SEEN.add((module, name))
            return PURE.get((module, name), Nothing)
        def persistent_load(self, pid):
            return NOTHING
    return U

C, PY = recording(pickle.Unpickler), recording(pickle._Unpickler)
SEEN = set()

if weights_only is not None:
    class Everything:
        def __contains__(self, x): return True
        def values(self): return self
        def __getitem__(self, path): return Nothing
    read_global = weights_only._read_global_instruction
    def recorded(readline):
        pair = read_global(readline)
        SEEN.add(pair)
        return pair
    weights_only._read_global_instruction = recorded
    weights_only._blocklisted_modules = []
    weights_only._get_allowed_globals = Everything
    class Torch(weights_only.Unpickler):
        def __init__(self, file, fix_imports): super().__init__(file)
        def persistent_load(self, pid): return NOTHING

def run(kind, b, how):
    f = io.BytesIO(b)
    if how & 1: f = io.BufferedReader(f, 64)
    u = kind(f, fix_imports=not how & 4)
    ended = 0
    try:
        for _ in range(4):
            u.load()
            ended += 1
            if not how & 2: u = kind(f, fix_imports=not how & 4)
    except BaseException:
        pass
    if copyreg._inverted_registry or copyreg._extension_cache:
        copyreg._extension_registry.clear(); copyreg._inverted_registry.clear(); copyreg._extension_cache.clear()
    return ended

inp, out = sys.stdin.buffer, sys.stdout.buffer
batch = 0
while True:
    head = inp.read(4)
    if len(head) < 4: break
    count, = struct.unpack("<I", head)
    answer = []
    for _ in range(count):
        size, how = struct.unpack("<IB", inp.read(5))
        b = inp.read(size)
        SEEN.clear()
        c = run(C, b, how)
        py = run(PY, b, how)
        t = run(Torch, b, how) if weights_only is not None else 255
        answer.append(struct.pack("<BBBH", c, py, t, len(SEEN)))
        for m, n in SEEN:
            m, n = m.encode("utf-8", "surrogatepass"), n.encode("utf-8", "surrogatepass")
            answer.append(struct.pack("<II", len(m), len(n)) + m + n)
    out.write(b"".join(answer)); out.flush()
    batch += 1
    if batch % 50 == 0: gc.collect()
`

// resolvedBy is what CPython made of a stream.
type resolvedBy struct {
	c, py byte // loads that ended
	torch byte // noTorch where there is none
	pairs [][2]string
}

const noTorch = 255

// worker is a long-lived recorder.
type worker struct {
	in  *bufio.Writer
	out *bufio.Reader
}

func startWorker(t *testing.T) *worker {
	t.Helper()
	cmd := exec.Command(python(), "-X", "utf8", "-c", recorder)
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
	return &worker{in: bufio.NewWriterSize(in, 1<<20), out: bufio.NewReaderSize(out, 1<<20)}
}

type stream struct {
	b []byte
	// how is 1 for a file that looks ahead, 2 for one unpickler that loads stream
	// after stream, 4 for one that does not map Python 2's names.
	how byte
}

func (w *worker) send(batch []stream) error {
	head := binary.LittleEndian.AppendUint32(nil, uint32(len(batch)))
	w.in.Write(head)
	for _, s := range batch {
		w.in.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(s.b))), s.how))
		w.in.Write(s.b)
	}
	return w.in.Flush()
}

func (w *worker) receive(n int) ([]resolvedBy, error) {
	all := make([]resolvedBy, n)
	var head [8]byte
	for i := range all {
		if _, err := io.ReadFull(w.out, head[:5]); err != nil {
			return nil, err
		}
		all[i].c, all[i].py, all[i].torch = head[0], head[1], head[2]
		for range binary.LittleEndian.Uint16(head[3:5]) {
			if _, err := io.ReadFull(w.out, head[:]); err != nil {
				return nil, err
			}
			n := binary.LittleEndian.Uint32(head[:])
			words := make([]byte, n+binary.LittleEndian.Uint32(head[4:]))
			if _, err := io.ReadFull(w.out, words); err != nil {
				return nil, err
			}
			all[i].pairs = append(all[i].pairs, [2]string{string(words[:n]), string(words[n:])})
		}
	}
	return all, nil
}

// coverageOf counts opcodes, and which follows which.
type coverageOf struct {
	ops   [256]int64
	pairs [256][256]int64
}

func (c *coverageOf) add(b []byte) {
	w := newWalker(bytes.NewReader(b), 0, int64(len(b)))
	last := -1
	for w.next() {
		c.ops[w.code]++
		if last >= 0 {
			c.pairs[last][w.code]++
		}
		last = int(w.code)
	}
}

func (c *coverageOf) String() string {
	ops, known, pairs := 0, 0, 0
	for code, form := range arguments {
		if form == argUnknown {
			continue
		}
		known++
		if c.ops[code] > 0 {
			ops++
		}
		for next := range c.pairs[code] {
			if c.pairs[code][next] > 0 {
				pairs++
			}
		}
	}
	return fmt.Sprintf("%d of %d opcodes, %d of %d pairs of opcodes", ops, known, pairs, known*known)
}

// strictly resolves without looking for pickles in what is none, so that what
// the machine itself misses shows.
func strictly(t *testing.T, b []byte) *Resolution {
	t.Helper()
	ctx := context.Background()
	table, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	v, err := content.NewVisit(bytes.NewReader(b), int64(len(b)), nil, content.NewBudget(content.DefaultLimits()), nil)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(bytes.NewReader(b), 0, int64(len(b)), limitsOf(v.Budget), table)
	if _, err := m.streams(ctx, v); err != nil {
		t.Fatalf("resolve %x: %v", b, err)
	}
	if err := m.lookAside(ctx, v); err != nil {
		t.Fatalf("look aside in %x: %v", b, err)
	}
	return m.out
}

// python is the interpreter to compare with: CAVRA_FUZZ_PYTHON, or the first
// python3 in PATH.
func python() string {
	if p := os.Getenv("CAVRA_FUZZ_PYTHON"); p != "" {
		return p
	}
	return "python3"
}

// TestFuzzAgainstCPython sends structured random streams, mutated, through
// CPython's two unpicklers, and torch's where there is one, and holds that every
// pair that they resolve is in our list. CAVRA_FUZZ_STREAMS says how many,
// CAVRA_FUZZ_SEED which; half of them keep to torch's opcodes where
// CAVRA_FUZZ_TORCH is 1, and then there must be a torch.
func TestFuzzAgainstCPython(t *testing.T) {
	streams, seed := envInt(t, "CAVRA_FUZZ_STREAMS", 40_000), envInt(t, "CAVRA_FUZZ_SEED", 1)
	withTorch := envInt(t, "CAVRA_FUZZ_TORCH", 0) == 1
	w := startWorker(t)
	rng := rand.New(rand.NewPCG(uint64(seed), 7))
	begin := time.Now()
	var cover coverageOf
	compared, ended, endedTorch, unresolved, missed := 0, 0, 0, 0, 0
	const size = 500
	// Two batches are on their way, so that neither side waits.
	pending := make(chan []stream, 2)
	failed := make(chan error, 1)
	go func() {
		defer close(pending)
		for sent := 0; sent < streams; sent += size {
			batch := make([]stream, size)
			for i := range batch {
				batch[i] = stream{b: mutate(rng, generate(rng)), how: byte(rng.IntN(8))}
				if withTorch && i%2 == 0 {
					batch[i].b = generateTorch(rng)
				}
			}
			if err := w.send(batch); err != nil {
				failed <- err
				return
			}
			pending <- batch
		}
	}()
	done := 0
	for batch := range pending {
		answers, err := w.receive(len(batch))
		if err != nil {
			t.Fatalf("python3 after %d streams: %v", done, err)
		}
		for i, a := range answers {
			done++
			cover.add(batch[i].b)
			ended += int(a.c) + int(a.py)
			if a.torch != noTorch {
				endedTorch += int(a.torch)
			} else if withTorch {
				t.Fatalf("%s has no torch", python())
			}
			compared += len(a.pairs)
			r := strictly(t, batch[i].b)
			ours := make(map[[2]string]bool, len(r.Imports))
			for _, i := range r.Imports {
				ours[[2]string{i.Module, i.Name}] = true
			}
			for _, pair := range a.pairs {
				switch {
				case ours[pair]:
				case hasEvent(r, ImportUnresolved):
					unresolved++
				case missed < 20:
					missed++
					t.Errorf("a loader resolves %q (how %d), not found in %x (%q)", pair, batch[i].how, batch[i].b, brief(r))
				}
			}
			// A reading of its own may end where the bytes as they stand break.
			if (a.c > 0 || a.py > 0 || a.torch > 0 && a.torch != noTorch) && len(r.Ends) == 0 && !hasEvent(r, Malformed) {
				t.Errorf("a loader ends well (%d %d %d, how %d), we break at %+v in %x", a.c, a.py, a.torch, batch[i].how, r.Broken, batch[i].b)
			}
		}
		if missed >= 20 {
			t.FailNow()
		}
	}
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	t.Logf("%d streams in %.0f s: %d loads ended, %d by torch, %d imports compared, %d in streams with an import that is reported as unresolved, %d missed; %s",
		done, time.Since(begin).Seconds(), ended, endedTorch, compared, unresolved, missed, &cover)
}

func envInt(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
