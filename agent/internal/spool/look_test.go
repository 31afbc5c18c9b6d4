package spool

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cavra/cavra/sdk/diskio"
)

// TestLookSeesWhatOpenFinds cuts the segment wherever a crash could, and more:
// looking changes no byte, and tells what opening then comes to.
func TestLookSeesWhatOpenFinds(t *testing.T) {
	files, _ := made(t, 0)
	name := files.segments()[0]
	whole := files[name]
	edges := frames(t, whole)
	cuts := []int{len(whole)}
	for _, e := range edges {
		cuts = append(cuts, int(e)-1, int(e), int(e)+1, int(e)+frameHeader)
	}
	for _, cut := range cuts {
		if cut < segmentHeader || cut > len(whole) {
			continue
		}
		files[name] = whole[:cut]
		cfg := quick(t, files.at(t))
		unlock, err := diskio.Lock(filepath.Join(cfg.Dir, lockName)) // as an agent that has ended has left it
		if err != nil {
			t.Fatal(err)
		}
		if err := unlock(); err != nil {
			t.Fatal(err)
		}
		got, err := Look(cfg.Dir, DefaultMaxBytes)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if diff := cmp.Diff(files, readFolder(t, cfg.Dir)); diff != "" {
			t.Fatalf("cut at %d: looking has changed the folder: %s", cut, diff)
		}
		s := mustOpen(t, cfg, false)
		want := s.Stats()
		mustClose(t, s)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Stats{}, "Disk", "Damaged")); diff != "" {
			t.Errorf("cut at %d (-opened +looked):\n%s", cut, diff)
		}
		if int64(cut) >= edges[public] && got.Damaged > 0 {
			t.Errorf("cut at %d: a write that a crash cut short is told as damage", cut)
		}
	}
}

func TestLookCountsDamage(t *testing.T) {
	files, _ := made(t, 0)
	name := files.segments()[0]
	files[name][frames(t, files[name])[4]+200] ^= 1
	cfg := quick(t, files.at(t))
	unlock, err := diskio.Lock(filepath.Join(cfg.Dir, lockName))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Look(cfg.Dir, 0); !errors.Is(err, diskio.ErrLocked) {
		t.Errorf("a spool that is open was looked at: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	got, err := Look(cfg.Dir, DefaultMaxBytes)
	if err != nil || got.Damaged != 1 || got.Head.Sequence != 4 || got.Statements != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if diff := cmp.Diff(files, readFolder(t, cfg.Dir)); diff != "" {
		t.Errorf("looking has changed the folder: %s", diff)
	}
}

func TestLookAtNothing(t *testing.T) {
	got, err := Look(filepath.Join(t.TempDir(), "none"), 7)
	if diff := cmp.Diff(Stats{MaxBytes: 7}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}
