package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/chain"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/diskio/diskfault"
	"github.com/cavra/cavra/sdk/diskio/syscallfault"
	"github.com/cavra/cavra/sdk/identity"
)

// gateFunc is a gate that is a function.
type gateFunc func([]byte) error

func (g gateFunc) Check(payload []byte) error { return g(payload) }

func parses(payload []byte) error {
	_, err := predicate.Parse(payload)
	return err
}

func key(t testing.TB, seed byte) *identity.Key {
	t.Helper()
	k, err := identity.FromSeed([32]byte{seed})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func config(t testing.TB, dir string) Config {
	return Config{
		Dir: dir, Chain: Chain{Tenant: "default", Agent: "a-1", Epoch: 1}, Signer: key(t, 1), Gate: gateFunc(parses),
		Now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
	}
}

func mustOpen(t testing.TB, cfg Config, fresh bool) *Spool {
	t.Helper()
	s, err := Open(cfg, fresh)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t testing.TB, s *Spool) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// beat is a statement that carries a number by which a test knows it again.
func beat(id uint64) predicate.Predicate {
	return &predicate.Heartbeat{
		AgentVersion: "0.1.0", RulesetVersion: "1.0.0", Plugins: []predicate.Scanner{}, Sandbox: []predicate.Layer{},
		StartedAt: predicate.At(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), SpoolBytes: id,
	}
}

func beats(from, to uint64) (out []predicate.Predicate) {
	for id := from; id <= to; id++ {
		out = append(out, beat(id))
	}
	return out
}

func mustAppend(t testing.TB, s *Spool, ps ...predicate.Predicate) []chain.Head {
	t.Helper()
	heads, err := s.Append(t.Context(), ps...)
	if err != nil {
		t.Fatal(err)
	}
	if len(heads) != len(ps) {
		t.Fatalf("%d of %d are kept", len(heads), len(ps))
	}
	return heads
}

// sent is a statement as a broker would see it.
type sent struct {
	Place
	digest   predicate.Digest
	p        predicate.Predicate
	envelope []byte
}

// drain takes everything out of the spool, as a publisher would.
func drain(t testing.TB, s *Spool, most int) (out []sent) {
	t.Helper()
	for s.Stats().Statements > 0 {
		entries, err := s.Next(t.Context(), most, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, open(t, e, key(t, byte(e.Epoch))))
		}
		if err := s.Ack(entries[len(entries)-1].Place); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// open verifies an entry and checks that it is what it is said to be.
func open(t testing.TB, e Entry, k *identity.Key) sent {
	t.Helper()
	envelope, err := attest.Open(e.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := envelope.Verify(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	p, err := predicate.Parse(payload)
	if err != nil {
		t.Fatal(err)
	}
	l := p.Place()
	if e.Digest != envelope.Digest() || e.PredicateType != p.PredicateType() || e.Sequence != l.Sequence || e.Epoch != l.Epoch {
		t.Fatalf("entry %d/%d %s %s holds %d/%d %s", e.Epoch, e.Sequence, e.PredicateType, e.Digest, l.Epoch, l.Sequence, envelope.Digest())
	}
	return sent{e.Place, e.Digest, p, e.Envelope}
}

// unbroken checks that statements are one whole chain from its first on.
func unbroken(t testing.TB, all []sent) {
	t.Helper()
	head := chain.Head{}
	epoch := uint64(0)
	for _, m := range all {
		if m.Epoch != epoch {
			head, epoch = chain.Head{}, m.Epoch
		}
		sequence, previous := head.Next()
		if l := m.p.Place(); l.Sequence != sequence || l.Previous != previous {
			t.Fatalf("%d/%d after %s: want %d after %s", l.Epoch, l.Sequence, l.Previous, sequence, previous)
		}
		head = chain.Head{Sequence: m.Sequence, Digest: m.digest}
	}
}

func ids(all []sent) (out []uint64) {
	for _, m := range all {
		if h, ok := m.p.(*predicate.Heartbeat); ok {
			out = append(out, h.SpoolBytes)
		}
	}
	return out
}

func numbers(from, to uint64) (out []uint64) {
	for n := from; n <= to; n++ {
		out = append(out, n)
	}
	return out
}

func TestMain(m *testing.M) {
	err := syscallfault.Launch()
	roles := map[string]func([]string) error{crashRole: crashChild, diskRole: diskChild}
	role := roles[os.Args[min(1, len(os.Args)-1)]]
	if err == nil && role != nil {
		err = role(os.Args[2:])
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if role != nil {
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func TestWhatGoesInComesOutInOrder(t *testing.T) {
	cfg := config(t, filepath.Join(t.TempDir(), "spool"))
	cfg.MaxBytes, cfg.SegmentBytes = MinMaxBytes, 20_000
	s := mustOpen(t, cfg, true)
	if s.Begun() {
		t.Error("a new spool says that its epoch has begun")
	}
	heads := mustAppend(t, s, beats(1, 3)...)
	mustAppend(t, s, beats(4, 300)...)
	if got := s.Stats(); got.Statements != 300 || got.Head.Sequence != 300 || got.Bytes == 0 || got.Disk < int64(got.Bytes) {
		t.Errorf("%+v", got)
	}
	first, err := s.Next(t.Context(), 2, 1<<20)
	if err != nil || len(first) != 2 || first[1].Digest != heads[1].Digest {
		t.Fatalf("%v, %v", first, err)
	}
	again, err := s.Next(t.Context(), 1000, 1)
	if err != nil || len(again) != 1 || again[0].Digest != heads[0].Digest {
		t.Errorf("what was not acknowledged is not handed out again: %v, %v", again, err)
	}
	if err := s.Ack(Place{1, 1}); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)

	s = mustOpen(t, cfg, false)
	mustAppend(t, s, beats(301, 310)...)
	all := drain(t, s, 7)
	if diff := cmp.Diff(numbers(2, 310), ids(all)); diff != "" {
		t.Error(diff)
	}
	if err := s.Drained(t.Context()); err != nil {
		t.Error(err)
	}
	mustClose(t, s)
	names, err := listSegments(cfg.Dir)
	if err != nil || len(names) != 1 {
		t.Errorf("segments %v, %v: want the active one alone", names, err)
	}
	s = mustOpen(t, cfg, false)
	if got := s.Stats(); got.Statements != 0 || got.Head.Sequence != 310 {
		t.Errorf("%+v", got)
	}
	mustAppend(t, s, beat(311))
	unbroken(t, append([]sent{{Place: Place{1, 1}, digest: heads[0].Digest, p: first0(t, first[0])}}, append(all, drain(t, s, 7)...)...))
	mustClose(t, s)
}

func first0(t *testing.T, e Entry) predicate.Predicate { return open(t, e, key(t, 1)).p }

func TestARefusedStatementTakesNoNumber(t *testing.T) {
	cfg := config(t, t.TempDir())
	refused := errors.New("not this one")
	cfg.Gate = gateFunc(func(payload []byte) error {
		p, err := predicate.Parse(payload)
		if err != nil {
			return err
		}
		if h, ok := p.(*predicate.Heartbeat); ok && h.SpoolBytes == 3 {
			return refused
		}
		return nil
	})
	s := mustOpen(t, cfg, true)
	defer mustClose(t, s)
	heads, err := s.Append(t.Context(), beats(1, 5)...)
	if !errors.Is(err, refused) || len(heads) != 2 {
		t.Fatalf("%d kept, %v", len(heads), err)
	}
	if heads, err = s.Append(t.Context(), &predicate.Heartbeat{}); err == nil || len(heads) != 0 {
		t.Fatalf("a statement outside the schema: %d kept, %v", len(heads), err)
	}
	mustAppend(t, s, beats(4, 5)...)
	all := drain(t, s, 100)
	unbroken(t, all)
	if diff := cmp.Diff([]uint64{1, 2, 4, 5}, ids(all)); diff != "" {
		t.Error(diff)
	}
}

func TestTwoAgentsOnOneFolder(t *testing.T) {
	cfg := config(t, t.TempDir())
	s := mustOpen(t, cfg, true)
	defer mustClose(t, s)
	if _, err := Open(cfg, false); !errors.Is(err, diskio.ErrLocked) || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("%v", err)
	}
}

func TestAppendFromManyAtOnce(t *testing.T) {
	s := mustOpen(t, config(t, t.TempDir()), true)
	defer mustClose(t, s)
	var wg sync.WaitGroup
	for n := range uint64(8) {
		wg.Go(func() {
			for i := range uint64(20) {
				if _, err := s.Append(t.Context(), beat(n*100+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	all := drain(t, s, 50)
	unbroken(t, all)
	if len(all) != 160 {
		t.Errorf("%d statements", len(all))
	}
}

func TestNextWaitsAndAckOfTheUnseen(t *testing.T) {
	s := mustOpen(t, config(t, t.TempDir()), true)
	defer mustClose(t, s)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("no more")
	cancel(gone)
	if _, err := s.Next(ctx, 1, 1); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
	mustAppend(t, s, beat(1))
	if err := s.Ack(Place{1, 1}); err == nil || !strings.Contains(err.Error(), "never handed out") {
		t.Errorf("%v", err)
	}
	if _, err := s.Append(ctx, beat(2)); !errors.Is(err, gone) && err != nil {
		t.Errorf("%v", err)
	}
}

// TestAFullSpoolWaits fills the spool: Append waits until segments are free,
// and nothing is dropped.
func TestAFullSpoolWaits(t *testing.T) {
	cfg := config(t, t.TempDir())
	cfg.MaxBytes, cfg.SegmentBytes = MinMaxBytes, 1<<20
	s := mustOpen(t, cfg, true)
	defer mustClose(t, s)
	big := func(id uint64) predicate.Predicate {
		p := beat(id).(*predicate.Heartbeat)
		for range predicate.MaxScanners {
			name := strings.Repeat("x", predicate.MaxID)
			p.Plugins = append(p.Plugins, predicate.Scanner{Name: name, Version: name, Digest: predicate.ZeroDigest})
		}
		return p
	}
	const total = 4000
	done := make(chan error, 1)
	go func() {
		for id := uint64(1); id <= total; id += 50 {
			var group []predicate.Predicate
			for n := range uint64(50) {
				group = append(group, big(id+n))
			}
			if _, err := s.Append(t.Context(), group...); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	if err := s.await(t.Context(), func() bool { return !s.full.IsZero() }); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.FullSince.IsZero() || st.Disk > st.MaxBytes {
		t.Errorf("%+v", st)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Append(ctx, big(total+1)); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that goes away while it waits: %v", err)
	}
	var all []sent
	for len(all) < total {
		entries, err := s.Next(t.Context(), 500, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, open(t, e, key(t, 1)))
		}
		if err := s.Ack(entries[len(entries)-1].Place); err != nil {
			t.Fatal(err)
		}
		if st := s.Stats(); st.Disk > st.MaxBytes {
			t.Fatalf("%+v", st)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	unbroken(t, all)
	if diff := cmp.Diff(numbers(1, total), ids(all)); diff != "" {
		t.Error(diff)
	}
}

// TestAFullDiskWaits has the disk full for a while.
func TestAFullDiskWaits(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t, dir)
		full, tries := 0, 0
		cfg.FS = diskfault.FS{Under: diskio.OS{}, Fail: func(op diskfault.Op, name string) error {
			if op != diskfault.Write || !strings.HasSuffix(strings.TrimSuffix(name, diskio.TempSuffix), segmentSuffix) || full == 0 {
				return nil
			}
			full--
			tries++
			return syscall.ENOSPC
		}}
		cfg.SegmentBytes = 3000
		s := mustOpen(t, cfg, true)
		defer mustClose(t, s)
		var all []sent
		for id := uint64(1); id <= 20; id++ {
			full = int(id % 4)
			began := time.Now()
			want := time.Duration(full) * time.Second
			mustAppend(t, s, beat(id))
			if took := time.Since(began); took != want {
				t.Errorf("append %d took %s, want %s", id, took, want)
			}
			// What is there can be sent and freed meanwhile.
			full = 99
			all = append(all, drain(t, s, 10)...)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := s.Append(ctx, beat(21)); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v: want the deadline and why it was waited for", err)
		}
		full = 0
		mustAppend(t, s, beat(21))
		unbroken(t, append(all, drain(t, s, 10)...))
		if tries < 40 {
			t.Errorf("only %d tries", tries)
		}
	})
}

// TestADiskThatFailsEndsTheSpool fails an fsync: nothing is appended any more,
// and the spool that is opened again has what was confirmed.
func TestADiskThatFailsEndsTheSpool(t *testing.T) {
	cfg := config(t, t.TempDir())
	broken := false
	cfg.FS = diskfault.FS{Under: diskio.OS{}, Fail: func(op diskfault.Op, name string) error {
		if broken && op == diskfault.Sync && strings.HasSuffix(name, segmentSuffix) {
			return syscall.EIO
		}
		return nil
	}}
	s := mustOpen(t, cfg, true)
	mustAppend(t, s, beats(1, 5)...)
	broken = true
	for range 2 {
		if _, err := s.Append(t.Context(), beat(6)); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "opened again") {
			t.Errorf("%v", err)
		}
	}
	broken = false
	if _, err := s.Append(t.Context(), beat(6)); !errors.Is(err, syscall.EIO) {
		t.Errorf("the disk cannot be believed any more, but: %v", err)
	}
	if entries, err := s.Next(t.Context(), 10, 1<<20); err != nil || len(entries) != 5 {
		t.Errorf("what was confirmed goes on: %d, %v", len(entries), err)
	}
	mustClose(t, s)
	s = mustOpen(t, cfg, false)
	defer mustClose(t, s)
	mustAppend(t, s, beat(7))
	all := drain(t, s, 10)
	unbroken(t, all)
	if got := ids(all); got[4] != 5 || got[len(got)-1] != 7 {
		t.Errorf("%v", got)
	}
}

func TestANewEpochFollowsInTheSameFolder(t *testing.T) {
	cfg := config(t, t.TempDir())
	s := mustOpen(t, cfg, true)
	mustAppend(t, s, beats(1, 3)...)
	mustClose(t, s)
	next := cfg
	next.Chain.Epoch, next.Signer = 2, key(t, 2)
	s = mustOpen(t, next, true)
	if s.Begun() {
		t.Error("the new epoch has begun by itself")
	}
	mustAppend(t, s, &predicate.Epoch{Cause: predicate.Reenrolled, Algorithm: predicate.Ed25519}, beat(4))
	mustClose(t, s)
	if _, err := Open(cfg, false); !errors.Is(err, ErrHeadLost) || !strings.Contains(err.Error(), "restored from a backup") {
		t.Errorf("the identity of the epoch before: %v", err)
	}
	s = mustOpen(t, next, false)
	defer mustClose(t, s)
	all := drain(t, s, 2)
	unbroken(t, all)
	if diff := cmp.Diff(numbers(1, 4), ids(all)); diff != "" {
		t.Error(diff)
	}
}

func TestAnotherKey(t *testing.T) {
	cfg := config(t, t.TempDir())
	s := mustOpen(t, cfg, true)
	mustAppend(t, s, beat(1))
	mustClose(t, s)
	cfg.Signer = key(t, 9)
	if _, err := Open(cfg, false); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("%v", err)
	}
}

func TestAnEmptyFolderIsALostHead(t *testing.T) {
	cfg := config(t, t.TempDir())
	for range 2 {
		if _, err := Open(cfg, false); !errors.Is(err, ErrHeadLost) || !strings.Contains(err.Error(), "--reenroll") {
			t.Fatalf("%v", err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no folder":      func(c *Config) { c.Dir = "" },
		"signer":         func(c *Config) { c.Signer = nil },
		"egress gate":    func(c *Config) { c.Gate = nil },
		"bound of":       func(c *Config) { c.MaxBytes = 1 },
		"segments of":    func(c *Config) { c.SegmentBytes = DefaultMaxBytes },
		"segments of -1": func(c *Config) { c.SegmentBytes = -1 },
	} {
		cfg := config(t, t.TempDir())
		change(&cfg)
		if _, err := Open(cfg, true); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, group := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("group=%d", group), func(b *testing.B) {
			cfg := config(b, b.TempDir())
			cfg.MaxBytes = 8 << 30
			s := mustOpen(b, cfg, true)
			defer mustClose(b, s)
			for n := 0; n < b.N; n += group {
				mustAppend(b, s, beats(1, uint64(group))...)
			}
		})
	}
}
