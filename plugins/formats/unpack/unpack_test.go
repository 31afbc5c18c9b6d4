package unpack

import (
	"bytes"
	stdgzip "compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/cavra/cavra/plugins/formats/content"
)

// encoders write what the codecs read; bzip2 and LZ4 have none in Go that is
// needed for anything else.
var encoders = map[string]func(io.Writer) (io.WriteCloser, error){
	"gzip": func(w io.Writer) (io.WriteCloser, error) { return stdgzip.NewWriter(w), nil },
	"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	"lzma": func(w io.Writer) (io.WriteCloser, error) { return lzma.NewWriter(w) },
	"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
}

var codecs = map[string]Codec{"gzip": Gzip(), "zlib": Zlib(), "bzip2": Bzip2(), "lzma": LZMA(), "xz": XZ(), "zstd": Zstd(), "lz4": LZ4(), "deflate": Deflate()}

func pack(t testing.TB, id string, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := encoders[id](&out)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func sample(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n+40)
	for len(b) < n {
		if rng.IntN(3) == 0 {
			b = append(b, byte(rng.Uint32()), byte(rng.Uint32()))
		}
		b = append(b, "model.layer.weight"[rng.IntN(9):]...)
	}
	return b[:n]
}

// TestReadAnywhere reads forwards and backwards from content that is held in
// full, in part, and hardly at all.
func TestReadAnywhere(t *testing.T) {
	data := sample(5 << 20)
	for id := range encoders {
		packed := pack(t, id, data)
		for _, held := range []int64{96 << 20, 24 << 20, 12 << 20} {
			l := content.DefaultLimits()
			l.Held, l.Inflated = held, 1<<40
			c, err := Read(context.Background(), content.NewBudget(l), codecs[id], bytes.NewReader(packed), int64(len(packed)), -1)
			if err != nil {
				t.Fatal(err)
			}
			if c.Fault != nil || c.Size != int64(len(data)) {
				t.Fatalf("%s: size %d, fault %v", id, c.Size, c.Fault)
			}
			rng := rand.New(rand.NewPCG(3, 4))
			at := 0
			for range 60 {
				n := rng.IntN(1 << 18)
				switch rng.IntN(4) {
				case 0:
					at = rng.IntN(len(data))
				case 1:
					at = max(0, at-rng.IntN(1<<19))
				}
				want := data[at:min(len(data), at+n)]
				got := make([]byte, n)
				k, err := c.ReadAt(got, int64(at))
				if !bytes.Equal(got[:k], want) || err != nil && !errors.Is(err, io.EOF) {
					t.Fatalf("%s, held %d: %d bytes at %d: %d, %v", id, held, n, at, k, err)
				}
				at = min(len(data)-1, at+n)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestBrokenGivesWhatIsBefore cuts streams and changes a byte in them: what a
// loader would have seen before the break is there.
func TestBrokenGivesWhatIsBefore(t *testing.T) {
	data := sample(1 << 20)
	for id := range encoders {
		packed := pack(t, id, data)
		flipped := bytes.Clone(packed)
		flipped[len(flipped)/2] ^= 0x55
		for name, b := range map[string][]byte{"cut": packed[:len(packed)/2], "changed": flipped} {
			c, err := Read(context.Background(), content.NewBudget(content.DefaultLimits()), codecs[id], bytes.NewReader(b), int64(len(b)), -1)
			if err != nil {
				t.Fatal(err)
			}
			if c.Fault == nil {
				t.Errorf("%s, %s: no fault", id, name)
			}
			if c.Size < int64(len(data)/8) {
				t.Errorf("%s, %s: only %d bytes before the break", id, name, c.Size)
			}
		}
	}
}

func TestBounds(t *testing.T) {
	zeros := pack(t, "gzip", make([]byte, 8<<20))
	small := content.DefaultLimits()
	small.Inflated = 1 << 20
	ratio := content.DefaultLimits()
	ratio.RatioFrom = 1 << 20
	for _, tt := range []struct {
		name   string
		limits content.Limits
		most   int64
		want   string
	}{
		{"bytes", small, -1, "limit_bytes"}, {"ratio", ratio, -1, "limit_ratio"}, {"more than is stated", content.DefaultLimits(), 100, "malformed"},
	} {
		c, err := Read(context.Background(), content.NewBudget(tt.limits), Gzip(), bytes.NewReader(zeros), int64(len(zeros)), tt.most)
		if err != nil {
			t.Fatal(err)
		}
		if c.Fault == nil || string(c.Fault.Reason) != tt.want {
			t.Errorf("%s: fault %v", tt.name, c.Fault)
		}
	}
}

// TestReadErrorIsNoFault has a source that cannot be read.
func TestReadErrorIsNoFault(t *testing.T) {
	for id := range encoders {
		packed := pack(t, id, sample(1<<20))
		_, err := Read(context.Background(), content.NewBudget(content.DefaultLimits()), codecs[id], failing{bytes.NewReader(packed), int64(len(packed) / 2)}, int64(len(packed)), -1)
		if !errors.Is(err, errGone) {
			t.Errorf("%s: error %v", id, err)
		}
	}
}

var errGone = errors.New("gone")

type failing struct {
	r  io.ReaderAt
	at int64
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		return 0, errGone
	}
	return f.r.ReadAt(p, off)
}

// FuzzCodecs holds that no bytes make a decoder panic, run without end, or give
// another content when they are read again.
func FuzzCodecs(f *testing.F) {
	for id := range encoders {
		f.Add(id, pack(f, id, []byte(strings.Repeat("some words ", 50))))
	}
	for id, h := range map[string]string{
		"bzip2": "425a6839314159265359a31b448c000008d3c030100001120 00a028c60420020003 14c0013429a683d2369a9aa8f0401992b705a97c5dc914e142428c6d12300",
		"lz4":   "04224d186040821f000000" + "1f61010040200a2000000000",
		"zlib":  "789c2bcecf4d5528cf2f4a290600 1a0b0444",
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(h, " ", ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(id, b)
	}
	l := content.DefaultLimits()
	l.Inflated, l.Held = 1<<20, 1<<19
	f.Fuzz(func(t *testing.T, id string, b []byte) {
		codec, ok := codecs[id]
		if !ok {
			return
		}
		codec.Is(b)
		c, err := Read(context.Background(), content.NewBudget(l), codec, bytes.NewReader(b), int64(len(b)), -1)
		if err != nil {
			t.Fatal(err)
		}
		if c.End < 0 || c.End > int64(len(b)) {
			t.Errorf("end %d of %d", c.End, len(b))
		}
		first, second := make([]byte, min(c.Size, 4096)), make([]byte, min(c.Size, 4096))
		at := max(0, c.Size-4096)
		if _, err := c.ReadAt(first, at); err != nil && !errors.Is(err, ErrSpent) && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if _, err := c.ReadAt(second, at); err == nil && !bytes.Equal(first, second) {
			t.Error("two reads of the same bytes differ")
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkCodecs(b *testing.B) {
	data := sample(16 << 20)
	for id := range encoders {
		packed := pack(b, id, data)
		b.Run(id, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				c, err := Read(context.Background(), content.NewBudget(content.DefaultLimits()), codecs[id], bytes.NewReader(packed), int64(len(packed)), -1)
				if err != nil || c.Fault != nil {
					b.Fatal(err, c.Fault)
				}
				if err := c.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
