package evidence

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/logproof"
)

func open(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := Open(t.Context(), Config{Dir: dir, Origin: "cavra.test/log", Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func digests(from, to int) (out []predicate.Digest) {
	for n := from; n < to; n++ {
		out = append(out, predicate.DigestOf(fmt.Appendf(nil, "statement %d", n)))
	}
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func checkpoint(t testing.TB, l *Log, b []byte) logproof.Checkpoint {
	t.Helper()
	c, err := logproof.Open(b, l.Key())
	must(t, err)
	return c
}

// TestAppendAfterFailure: entries that a failing disk has kept out of the log are
// put there by the first try once it is back, all of them.
func TestAppendAfterFailure(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	_, err := l.Append(t.Context(), digests(0, 1))
	must(t, err)
	tiles := filepath.Join(dir, tilesDir, "tile")
	must(t, os.Rename(tiles, tiles+".away"))
	must(t, os.WriteFile(tiles, nil, 0o600))
	for range 3 {
		if _, err := l.Append(t.Context(), digests(1, 40)); err == nil {
			t.Fatal("entries were appended to nowhere")
		}
	}
	must(t, os.Remove(tiles))
	must(t, os.Rename(tiles+".away", tiles))
	indexes, err := l.Append(t.Context(), digests(1, 40))
	must(t, err)
	p, err := l.Include(t.Context(), indexes)
	must(t, err)
	tree := checkpoint(t, l, p.Checkpoint)
	for i, d := range digests(1, 40) {
		must(t, tree.Includes(d, indexes[i], p.Hashes[i]))
	}
	must(t, l.Close())
}

// TestLog: what was appended is proven, before and after the log was closed, and
// each tree extends the ones before it.
func TestLog(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	empty, err := l.Checkpoint(t.Context())
	must(t, err)
	if c := checkpoint(t, l, empty); c.Size != 0 {
		t.Errorf("a new log has %d entries", c.Size)
	}
	all := digests(0, 700)
	var indexes []uint64
	var trees []logproof.Checkpoint
	for i := 0; i < len(all); i += 100 {
		got, err := l.Append(t.Context(), all[i:i+100])
		must(t, err)
		indexes = append(indexes, got...)
		b, err := l.Checkpoint(t.Context())
		must(t, err)
		trees = append(trees, checkpoint(t, l, b))
		if trees[len(trees)-1].Size < uint64(len(indexes)) {
			t.Fatalf("after %d entries the checkpoint has %d", len(indexes), trees[len(trees)-1].Size)
		}
	}
	key := l.Key()
	must(t, l.Close())
	l = open(t, dir)
	if l.Key() != key {
		t.Error("the log has another key after a start")
	}
	_, err = l.Append(t.Context(), digests(700, 701))
	must(t, err)
	p, err := l.Include(t.Context(), indexes)
	must(t, err)
	last := checkpoint(t, l, p.Checkpoint)
	for i, d := range all {
		if err := last.Includes(d, indexes[i], p.Hashes[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := last.Includes(digests(900, 901)[0], indexes[5], p.Hashes[5]); !errors.Is(err, logproof.ErrProof) {
		t.Errorf("a statement that is not in the log was proven: %v", err)
	}
	if err := last.Includes(all[5], indexes[6], p.Hashes[6]); !errors.Is(err, logproof.ErrProof) {
		t.Errorf("a statement was proven at another's place: %v", err)
	}
	for _, old := range trees {
		b, hashes, err := l.Extend(t.Context(), old.Size)
		must(t, err)
		if err := checkpoint(t, l, b).Extends(old, hashes); err != nil {
			t.Error(err)
		}
		forged := old
		forged.Root[0] ^= 1
		if err := checkpoint(t, l, b).Extends(forged, hashes); !errors.Is(err, logproof.ErrProof) {
			t.Errorf("a tree that never was is extended: %v", err)
		}
	}
	if _, err := l.Include(t.Context(), []uint64{last.Size + 9}); !errors.Is(err, ErrRange) {
		t.Errorf("an entry past the end: %v", err)
	}
	must(t, l.Close())
}

// TestAnotherKey: a log whose key was replaced signs, and is not believed by who
// knows the first.
func TestAnotherKey(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	_, err := l.Append(t.Context(), digests(0, 3))
	must(t, err)
	known := l.Key()
	must(t, l.Close())
	must(t, os.Remove(filepath.Join(dir, keyFile)))
	l, err = Open(t.Context(), Config{Dir: dir, Origin: "cavra.test/log", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return // it does not even open
	}
	if _, err := l.Append(t.Context(), digests(3, 4)); err == nil {
		b, err := l.Checkpoint(t.Context())
		must(t, err)
		if _, err := logproof.Open(b, known); err == nil {
			t.Error("a checkpoint of another key opens with the first")
		}
	}
	must(t, l.Close())
}

func BenchmarkAppend(b *testing.B) {
	l := open(b, b.TempDir())
	all := digests(0, 10_000)
	b.ResetTimer()
	for b.Loop() {
		if _, err := l.Append(b.Context(), all); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(all))/b.Elapsed().Seconds(), "entries/s")
	must(b, l.Close())
}
