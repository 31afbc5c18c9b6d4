package spool

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// copied reads the copy of what was sent, as places.
func copied(t *testing.T, dir string) (out []Place) {
	t.Helper()
	if err := Sent(dir, func(e Entry) error { out = append(out, e.Place); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func places(from, to uint64) (out []Place) {
	for n := from; n <= to; n++ {
		out = append(out, Place{1, n})
	}
	return out
}

// TestSentIsWhatWasAcknowledged: no more and no less, while the spool is open,
// after it was closed, and after a crash between the cursor and the move.
func TestSentIsWhatWasAcknowledged(t *testing.T) {
	cfg := config(t, t.TempDir())
	cfg.SegmentBytes, cfg.SentBytes = 4000, 1<<20
	s := mustOpen(t, cfg, true)
	if got := copied(t, cfg.Dir); got != nil {
		t.Errorf("an empty spool has sent %v", got)
	}
	mustAppend(t, s, beats(1, 4)...)
	for id := uint64(5); id <= 20; id++ {
		mustAppend(t, s, beat(id))
	}
	if got := copied(t, cfg.Dir); got != nil {
		t.Errorf("nothing was acknowledged, and %v was sent", got)
	}
	var acked uint64
	for acked < 13 {
		entries, err := s.Next(t.Context(), 3, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		acked = entries[len(entries)-1].Sequence
		if err := s.Ack(entries[len(entries)-1].Place); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(places(1, acked), copied(t, cfg.Dir)); diff != "" {
			t.Fatalf("after %d (-want +got):\n%s", acked, diff)
		}
	}
	if kept, err := filepath.Glob(filepath.Join(cfg.Dir, sentDir, "*"+segmentSuffix)); err != nil || len(kept) == 0 {
		t.Fatalf("%d segments were moved into the copy, %v", len(kept), err)
	}
	mustClose(t, s)
	if diff := cmp.Diff(places(1, acked), copied(t, cfg.Dir)); diff != "" {
		t.Errorf("closed (-want +got):\n%s", diff)
	}
	// A crash after the cursor was written leaves the segment where it was.
	moved, err := filepath.Glob(filepath.Join(cfg.Dir, sentDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	last := moved[len(moved)-1]
	if err := os.Rename(last, filepath.Join(cfg.Dir, filepath.Base(last))); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(places(1, acked), copied(t, cfg.Dir)); diff != "" {
		t.Errorf("before the move (-want +got):\n%s", diff)
	}
	s = mustOpen(t, cfg, false)
	if _, err := os.Stat(last); err != nil {
		t.Errorf("opening did not move it: %v", err)
	}
	drain(t, s, 100)
	mustClose(t, s)
	if diff := cmp.Diff(places(1, 20), copied(t, cfg.Dir)); diff != "" {
		t.Errorf("drained (-want +got):\n%s", diff)
	}
}

func TestSentIsBounded(t *testing.T) {
	for name, tt := range map[string]struct {
		bytes int64
		most  int
	}{"none": {0, 0}, "some": {10_000, 2}} {
		cfg := config(t, t.TempDir())
		cfg.SegmentBytes, cfg.SentBytes = 4000, tt.bytes
		s := mustOpen(t, cfg, true)
		for id := uint64(1); id <= 40; id++ {
			mustAppend(t, s, beat(id))
		}
		drain(t, s, 100)
		mustClose(t, s)
		kept, err := filepath.Glob(filepath.Join(cfg.Dir, sentDir, "*"))
		if err != nil || len(kept) > tt.most || (tt.most > 0) != (len(kept) > 0) {
			t.Errorf("%s: %d segments are kept, %v", name, len(kept), err)
		}
		got := copied(t, cfg.Dir)
		if len(got) == 0 || got[len(got)-1] != (Place{1, 40}) {
			t.Errorf("%s: the last that was sent is missing: %v", name, got)
		}
	}
}

func TestSentNamesWhatIsDamaged(t *testing.T) {
	cfg := config(t, t.TempDir())
	cfg.SentBytes = 1 << 20
	s := mustOpen(t, cfg, true)
	mustAppend(t, s, beats(1, 5)...)
	drain(t, s, 100)
	mustClose(t, s)
	name := filepath.Join(cfg.Dir, segmentName(1, 1))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Sent(cfg.Dir, func(Entry) error { return nil }); !errors.Is(err, errFrame) {
		t.Errorf("a damaged copy was read: %v", err)
	}
}
