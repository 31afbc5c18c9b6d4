package spool

import (
	"strings"
	"testing"

	"github.com/cavra/cavra/schemas/predicate"
)

// kept reads the sequences of what is kept.
func kept(t *testing.T, dir string) (out []uint64) {
	t.Helper()
	if err := Kept(dir, func(e Entry) error { out = append(out, e.Sequence); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestWhatIsKeptStaysWithinItsBound by letting the oldest go: what is there is
// always the end of the chain, also after it was opened again.
func TestWhatIsKeptStaysWithinItsBound(t *testing.T) {
	cfg := config(t, t.TempDir())
	cfg.MaxBytes, cfg.SegmentBytes, cfg.Keep = MinMaxBytes, 1<<20, true
	s := mustOpen(t, cfg, true)
	id := uint64(0)
	fill := func(groups int) {
		t.Helper()
		for range groups {
			var group []predicate.Predicate
			for range 50 {
				id++
				p := beat(id).(*predicate.Heartbeat)
				for range predicate.MaxScanners {
					name := strings.Repeat("x", predicate.MaxID)
					p.Plugins = append(p.Plugins, predicate.Scanner{Name: name, Version: name, Digest: predicate.ZeroDigest})
				}
				group = append(group, p)
			}
			mustAppend(t, s, group...)
		}
	}
	end := func(what string) uint64 {
		t.Helper()
		got := kept(t, cfg.Dir)
		for i, n := range got {
			if n != got[0]+uint64(i) {
				t.Fatalf("%s: %d stands behind %d", what, n, got[i-1])
			}
		}
		if st := s.Stats(); got[len(got)-1] != id || st.Disk > st.MaxBytes || st.Statements != uint64(len(got)) {
			t.Fatalf("%s: %d to %d are kept of %d: %+v", what, got[0], got[len(got)-1], id, st)
		}
		return got[0]
	}
	fill(2)
	if first := end("little"); first != 1 {
		t.Errorf("the oldest went without need: it begins at %d", first)
	}
	fill(100)
	before := end("much")
	if before == 1 {
		t.Error("nothing went")
	}
	mustClose(t, s)
	s = mustOpen(t, cfg, false)
	defer mustClose(t, s)
	if n, err := s.ReportLoss(t.Context()); n != 0 || err != nil {
		t.Errorf("what went on purpose counts as lost: %d, %v", n, err)
	}
	if first := end("opened again"); first != before {
		t.Errorf("it begins at %d, and began at %d", first, before)
	}
	fill(1)
	end("and on")
}
