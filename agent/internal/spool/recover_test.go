package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
)

// unsynced is a file system for tests that damage files themselves: without
// fsync they are done in seconds.
type unsynced struct{ diskio.OS }

func (unsynced) SyncDir(string) error { return nil }

func (u unsynced) OpenFile(name string, flag int, perm fs.FileMode) (diskio.File, error) {
	f, err := u.OS.OpenFile(name, flag, perm)
	return unsyncedFile{f}, err
}

type unsyncedFile struct{ diskio.File }

func (unsyncedFile) Sync() error { return nil }

func quick(t testing.TB, dir string) Config {
	cfg := config(t, dir)
	cfg.FS = unsynced{}
	return cfg
}

// folder is a spool's files by name, without the lock.
type folder map[string][]byte

func readFolder(t testing.TB, dir string) folder {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := folder{}
	for _, e := range entries {
		if e.Name() == "lock" {
			continue
		}
		if out[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// at writes the files into a new folder.
func (f folder) at(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range f {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (f folder) segments() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(f)), func(n string) bool { return !strings.HasSuffix(n, segmentSuffix) })
}

// made is a spool of 8 statements in groups of 2, the first 3 of which may be
// public and the first acknowledged, in segments of so many bytes.
func made(t testing.TB, segmentBytes int64) (folder, []sent) {
	t.Helper()
	cfg := quick(t, t.TempDir())
	cfg.SegmentBytes = segmentBytes
	s := mustOpen(t, cfg, true)
	mustAppend(t, s, beats(1, 2)...)
	mustAppend(t, s, beat(3))
	if _, err := s.Next(t.Context(), 10, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := s.Ack(Place{1, 1}); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, beats(4, 6)...)
	mustAppend(t, s, beats(7, 8)...)
	mustClose(t, s)
	before := readFolder(t, cfg.Dir)
	s = mustOpen(t, cfg, false)
	all := drain(t, s, 10)
	mustClose(t, s)
	return before, all
}

// frames are the offsets at which a segment's frames begin, and its end.
func frames(t testing.TB, b []byte) (out []int64) {
	t.Helper()
	buf := make([]byte, maxFrame)
	for off := int64(segmentHeader); ; {
		out = append(out, off)
		f, _, err := readFrame(bytes.NewReader(b), off, buf)
		if err != nil {
			return out
		}
		off += f.size()
	}
}

// public is the last statement of made that may be public.
const public = 3

// TestTornAtEveryByte cuts the last segment at every byte: what is whole
// before the cut stays, and the chain goes on; what may be public is never
// signed again.
func TestTornAtEveryByte(t *testing.T) {
	files, all := made(t, 0)
	name := files.segments()[0]
	whole := files[name]
	edges := frames(t, whole)
	for cut := edges[public]; cut <= int64(len(whole)); cut++ {
		for n, rest := range [][]byte{nil, make([]byte, 300), []byte("CVFRgarbage")} {
			// Every byte of the last frame, and samples of those before.
			if (cut < edges[7] || n > 0) && cut%61 != 0 || n > 0 && cut == int64(len(whole)) {
				continue
			}
			kept := uint64(0)
			for edges[kept+1] <= cut && int(kept+2) < len(edges) {
				kept++
			}
			if cut == int64(len(whole)) {
				kept = 8
			}
			torn := maps.Clone(files)
			torn[name] = append(slices.Clone(whole[:cut]), rest...)
			cfg := quick(t, torn.at(t))
			s := mustOpen(t, cfg, false)
			mustAppend(t, s, beat(100))
			if lost, err := s.ReportLoss(t.Context()); err != nil || lost != 0 {
				t.Fatalf("cut at %d: %d losses, %v: a torn write is none", cut, lost, err)
			}
			got := drain(t, s, 10)
			mustClose(t, s)
			want := append(numbers(2, kept), 100)
			if diff := cmp.Diff(want, ids(got)); diff != "" {
				t.Fatalf("cut at %d, then %d bytes: %s", cut, len(rest), diff)
			}
			if got[0].digest != all[0].digest || got[len(got)-1].Sequence != kept+1 {
				t.Fatalf("cut at %d: the chain goes on at %d", cut, got[len(got)-1].Sequence)
			}
		}
	}
}

// TestDamageAtAnyByte changes one byte or cuts the file, at samples of all places,
// and at every one with CAVRA_TEST_EXHAUSTIVE set.
// The spool then either says that the head is lost, or goes on without giving
// anything that may be public another content, and a gap statement says what
// is missing.
func TestDamageAtAnyByte(t *testing.T) {
	stride := 41
	if os.Getenv("CAVRA_TEST_EXHAUSTIVE") != "" {
		stride = 1 // some minutes
	}
	for _, segmentBytes := range []int64{0, 1000} {
		files, all := made(t, segmentBytes)
		for _, name := range slices.Sorted(maps.Keys(files)) {
			for at := range files[name] {
				if at%stride != 0 {
					continue
				}
				bad := maps.Clone(files)
				bad[name] = slices.Clone(bad[name])
				bad[name][at] ^= 0x40
				damaged(t, fmt.Sprintf("%s, byte %d changed", name, at), bad, all)
				if at%(2*stride) == 0 {
					bad[name] = files[name][:at]
					damaged(t, fmt.Sprintf("%s, cut at %d", name, at), bad, all)
				}
			}
			bad := maps.Clone(files)
			delete(bad, name)
			damaged(t, name+" deleted", bad, all)
		}
	}
}

// damaged opens a damaged spool and judges what comes out of it. all are the
// statements from 2 on.
func damaged(t *testing.T, what string, files folder, all []sent) {
	t.Helper()
	cfg := quick(t, files.at(t))
	s, err := Open(cfg, false)
	if errors.Is(err, ErrHeadLost) {
		return
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if _, err := s.ReportLoss(t.Context()); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	mustAppend(t, s, beat(100))
	mustClose(t, s)
	s = mustOpen(t, cfg, false)
	if again, err := s.ReportLoss(t.Context()); err != nil || again != 0 {
		t.Fatalf("%s: %d losses are told a second time, %v", what, again, err)
	}
	got := drain(t, s, 10)
	mustClose(t, s)

	lost, shown := false, false
	last := uint64(1)
	for _, m := range got {
		if m.Sequence <= public && m.Sequence >= 2 && m.digest != all[m.Sequence-2].digest {
			t.Fatalf("%s: %d may be public and has another content", what, m.Sequence)
		}
		if m.Sequence > last+1 && last >= 1 {
			lost = true
		}
		last = m.Sequence
		if _, ok := m.p.(*predicate.Gap); ok {
			shown = true
		}
	}
	if last <= public {
		t.Fatalf("%s: the chain ends at %d", what, last)
	}
	if lost && !shown {
		t.Fatalf("%s: statements are missing and no gap statement says so: %v", what, ids(got))
	}
}

// TestDamageInTheMiddleLosesOneFrame keeps what is whole behind the damage.
func TestDamageInTheMiddleLosesOneFrame(t *testing.T) {
	files, all := made(t, 0)
	name := files.segments()[0]
	edges := frames(t, files[name])
	files[name][edges[4]+200] ^= 1 // the fifth frame, in the group before the last
	cfg := quick(t, files.at(t))
	s := mustOpen(t, cfg, false)
	if n, err := s.ReportLoss(t.Context()); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	got := drain(t, s, 3)
	mustClose(t, s)
	if diff := cmp.Diff([]uint64{2, 3, 4, 6, 7, 8}, ids(got)); diff != "" {
		t.Error(diff)
	}
	gap, ok := got[len(got)-1].p.(*predicate.Gap)
	if !ok || gap.Cause != predicate.SpoolCorrupt || gap.Frames != 1 || gap.Bytes != uint64(edges[5]-edges[4]) || gap.Sequence != 9 || gap.Previous != all[6].digest {
		t.Errorf("%+v", got[len(got)-1].p)
	}
	told, err := os.ReadFile(filepath.Join(cfg.Dir, fmt.Sprintf("%012d-%016d-1%s", 1, 5, toldSuffix)))
	if err != nil || !bytes.Equal(told, files[name][edges[4]:edges[5]]) {
		t.Errorf("the damaged bytes are not put aside: %d, %v", len(told), err)
	}
}

// TestLostFramesThatMayBePublic goes on behind them.
func TestLostFramesThatMayBePublic(t *testing.T) {
	files, all := made(t, 0)
	name := files.segments()[0]
	files[name] = files[name][:frames(t, files[name])[1]] // one statement is left
	cfg := quick(t, files.at(t))
	s := mustOpen(t, cfg, false)
	if n, err := s.ReportLoss(t.Context()); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	got := drain(t, s, 10)
	mustClose(t, s)
	if len(got) != 1 {
		t.Fatalf("%d statements", len(got))
	}
	gap, ok := got[0].p.(*predicate.Gap)
	if !ok || gap.Cause != predicate.SpoolLost || gap.Frames != 2 || gap.Sequence != public+1 || gap.Previous != all[public-2].digest {
		t.Errorf("%+v", got[0].p)
	}
}

// TestLostCursor sends everything again, and nothing else is wrong.
func TestLostCursor(t *testing.T) {
	files, _ := made(t, 0)
	delete(files, cursorName)
	cfg := quick(t, files.at(t))
	s := mustOpen(t, cfg, false)
	got := drain(t, s, 10)
	mustClose(t, s)
	unbroken(t, got)
	if diff := cmp.Diff(numbers(1, 8), ids(got)); diff != "" {
		t.Error(diff)
	}
}

func TestForeignFilesAreNamed(t *testing.T) {
	for _, name := range []string{"x.seg", "1-2.seg", "x.corrupt"} {
		files, _ := made(t, 0)
		files[name] = []byte("?")
		if _, err := Open(quick(t, files.at(t)), false); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPutAsideIsBounded(t *testing.T) {
	cfg := quick(t, t.TempDir())
	cfg.MaxBytes = MinMaxBytes
	mustClose(t, mustOpen(t, cfg, true))
	for n := range 40 {
		name := fmt.Sprintf("%012d-%016d-1%s", 0, n+1, toldSuffix)
		if err := os.WriteFile(filepath.Join(cfg.Dir, name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := mustOpen(t, cfg, false)
	defer mustClose(t, s)
	all, err := s.losses()
	if err != nil || len(all) != maxTold {
		t.Errorf("%d losses are kept, %v", len(all), err)
	}
	if s.aside > cfg.MaxBytes/asideShare || s.aside == 0 {
		t.Errorf("they take %d bytes", s.aside)
	}
}

func FuzzReadFrame(f *testing.F) {
	files, _ := made(f, 0)
	segment := files[files.segments()[0]]
	edges := frames(f, segment)
	f.Add(segment[edges[0]:], uint16(0))
	f.Add(segment, uint16(segmentHeader))
	f.Add(segment[edges[1]:edges[2]-1], uint16(0))
	f.Add([]byte("CVFR"), uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, from uint16) {
		buf := make([]byte, maxFrame)
		r := bytes.NewReader(b)
		off := int64(from)
		got, envelope, err := readFrame(r, off, buf)
		if err == nil {
			again := appendFrame(nil, got, envelope)
			if !bytes.Equal(again, b[off:off+got.size()]) {
				t.Fatal("a frame has two spellings")
			}
		}
		at, found, err := findFrame(r, off, 0, buf)
		if err != nil {
			t.Fatal(err)
		}
		if at >= 0 && (at < off || at+found.size() > int64(len(b))) {
			t.Fatalf("found a frame at %d of %d, from %d on", at, len(b), off)
		}
	})
}

// FuzzOpen opens a folder whose segment is made of arbitrary bytes.
func FuzzOpen(f *testing.F) {
	files, all := made(f, 0)
	name := files.segments()[0]
	segment := files[name]
	f.Add(segment)
	f.Add(segment[:len(segment)/2])
	f.Add(append(slices.Clone(segment[:700]), segment[900:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		bad := maps.Clone(files)
		bad[name] = b
		cfg := quick(t, bad.at(t))
		s, err := Open(cfg, false)
		if err != nil {
			return
		}
		defer mustClose(t, s)
		if head := s.Stats().Head; head.Sequence < public || head.Sequence == public && head.Digest != all[public-2].digest {
			t.Fatalf("the head is %+v, and %d may be public", head, public)
		}
	})
}
