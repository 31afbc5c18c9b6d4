package pickle

import (
	"bytes"
	"context"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/cavra/cavra/plugins/formats/content"
)

// repeated is content that repeats a piece, made as it is read.
type repeated struct {
	head, piece []byte
}

func (r repeated) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	if off < int64(len(r.head)) {
		n = copy(p, r.head[off:])
	}
	for n < len(p) {
		at := int(off+int64(n)-int64(len(r.head))) % len(r.piece)
		n += copy(p[n:], r.piece[at:])
	}
	return n, nil
}

// TestMemory holds what a pickle can make the machine keep to 256 MiB.
func TestMemory(t *testing.T) {
	const size = 48 << 20
	for name, src := range map[string]repeated{
		"stack":      {nil, bytes.Repeat([]byte("N"), 4096)},
		"marks":      {nil, bytes.Repeat([]byte("("), 4096)},
		"memo":       {[]byte("\x80\x04N"), bytes.Repeat([]byte("\x94"), 4096)},
		"both":       {[]byte("\x80\x04"), bytes.Repeat([]byte("N\x94"), 64)},
		"containers": {[]byte("\x80\x04"), bytes.Repeat([]byte("]\x94"), 2048)},
		"imports":    {nil, bytes.Repeat([]byte("cos\nsystem\n)R0"), 300)},
	} {
		debug.FreeOSMemory()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := Resolve(context.Background(), src, size, content.DefaultLimits()); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		// What was asked of the system is given back later than the scan ends.
		grown := (int64(after.HeapSys-after.HeapReleased) - int64(before.HeapSys-before.HeapReleased)) >> 20
		t.Logf("%s: %d MiB", name, grown)
		if grown > 256 {
			t.Errorf("%s: %d MiB", name, grown)
		}
	}
}
