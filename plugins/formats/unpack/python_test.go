//go:build python

package unpack

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/cavra/cavra/plugins/formats/content"
)

// compress reads bytes and writes them compressed as the argument says.
const compress = `
import sys, zlib, gzip, bz2, lzma
how, data = sys.argv[1], sys.stdin.buffer.read()
x = {
    "gzip": lambda: gzip.compress(data, 6),
    "zlib": lambda: zlib.compress(data, 9),
    "bzip2": lambda: bz2.compress(data, 1),
    "lzma": lambda: lzma.compress(data, lzma.FORMAT_ALONE, preset=6),
    "xz": lambda: lzma.compress(data, preset=9),
    "xz none": lambda: lzma.compress(data, check=lzma.CHECK_NONE, preset=0),
    "xz crc32": lambda: lzma.compress(data, check=lzma.CHECK_CRC32, preset=1),
    "xz sha256": lambda: lzma.compress(data, check=lzma.CHECK_SHA256, preset=1),
    "xz delta": lambda: lzma.compress(data, filters=[{"id": lzma.FILTER_DELTA, "dist": 4}, {"id": lzma.FILTER_LZMA2, "preset": 3}]),
    "xz lc0 lp2 pb0": lambda: lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "lc": 0, "lp": 2, "pb": 0, "dict_size": 4096}]),
    "lzma lc1 lp4 pb4": lambda: lzma.compress(data, lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "lc": 1, "lp": 3, "pb": 4, "dict_size": 12288}]),
    "xz twice": lambda: lzma.compress(data[:99], preset=1) + b"\0" * 8 + lzma.compress(data[99:], preset=1),
}[how]()
sys.stdout.buffer.write(x)
`

// contents are of kinds that take different paths through a decoder.
func contents() map[string][]byte {
	noise := make([]byte, 300_000)
	x := uint32(1)
	for i := range noise {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		noise[i] = byte(x)
	}
	words := []byte(strings.Repeat("layer.weight layer.bias model.norm ", 40_000))
	for i := 0; i < len(words); i += 97 {
		words[i] = noise[i%len(noise)]
	}
	return map[string][]byte{
		"nothing": {}, "a byte": {7}, "zeros": make([]byte, 3_000_000), "noise": noise, "words": words,
		"mixed": bytes.Join([][]byte{noise, words, noise, make([]byte, 70_000), words}, nil),
	}
}

func TestPythonsCompressors(t *testing.T) {
	codecs := map[string]Codec{"gzip": Gzip(), "zlib": Zlib(), "bzip2": Bzip2(), "lzma": LZMA(), "xz": XZ()}
	hows := []string{"gzip", "zlib", "bzip2", "lzma", "xz", "xz none", "xz crc32", "xz sha256", "xz delta", "xz lc0 lp2 pb0", "lzma lc1 lp4 pb4", "xz twice"}
	for _, how := range hows {
		for name, data := range contents() {
			t.Run(how+"/"+name, func(t *testing.T) {
				cmd := exec.Command("python3", "-c", compress, how)
				cmd.Stdin = bytes.NewReader(data)
				packed, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				id, _, _ := strings.Cut(how, " ")
				same(t, codecs[id], packed, data)
			})
		}
	}
}

func TestToolsCompressors(t *testing.T) {
	for _, c := range []struct {
		codec Codec
		args  []string
	}{
		{LZ4(), []string{"lz4", "-c"}}, {LZ4(), []string{"lz4", "-9", "-B4", "-BD", "-c"}}, {LZ4(), []string{"lz4", "-l", "-c"}},
		{LZ4(), []string{"lz4", "-BX", "--content-size", "-c"}},
		{Zstd(), []string{"zstd", "-c"}}, {Zstd(), []string{"zstd", "-19", "--no-check", "-c"}},
	} {
		for name, data := range contents() {
			t.Run(strings.Join(c.args, " ")+"/"+name, func(t *testing.T) {
				if _, err := exec.LookPath(c.args[0]); err != nil {
					t.Skip(err)
				}
				cmd := exec.Command(c.args[0], c.args[1:]...)
				cmd.Stdin = bytes.NewReader(data)
				packed, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				same(t, c.codec, packed, data)
			})
		}
	}
}

func same(t *testing.T, codec Codec, packed, data []byte) {
	t.Helper()
	if !codec.Is(packed) {
		t.Error("not identified")
	}
	for _, held := range []int64{96 << 20, 30 << 20} {
		l := content.DefaultLimits()
		l.Held, l.Ratio = held, 1<<20
		c, err := Read(context.Background(), content.NewBudget(l), codec, bytes.NewReader(packed), int64(len(packed)), -1)
		if err != nil {
			t.Fatal(err)
		}
		if c.Fault != nil || c.Size != int64(len(data)) || c.End != int64(len(packed)) {
			t.Fatalf("size %d of %d, end %d of %d, fault %v", c.Size, len(data), c.End, len(packed), c.Fault)
		}
		got := make([]byte, len(data))
		if n, err := c.ReadAt(got, 0); n != len(data) && err != nil || !bytes.Equal(got, data) {
			t.Fatalf("content differs after %d bytes: %v", n, err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
