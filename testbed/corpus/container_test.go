package corpus_test

import (
	"bytes"
	"context"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/plugins/formats"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/testbed/corpus"
)

// look says of a container what the shipped scanner says of its bytes.
func look(t *testing.T, c corpus.Container) corpus.Container {
	t.Helper()
	r, err := formats.New().Scan(context.Background(), scanner.Target{Content: file{bytes.NewReader(c.Content)}})
	if err != nil {
		t.Fatal(err)
	}
	listed(t, r)
	catalogue, err := finding.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	got := corpus.Container{Name: c.Name, Content: c.Content, Format: r.Format, Complete: coverage.Sum(r.Coverage).Complete}
	worst := predicate.Info
	for _, f := range r.Findings {
		rule, ok := catalogue.Rule(f.Rule)
		if !ok {
			t.Fatalf("rule %s is in no catalogue", f.Rule)
		}
		if rule.Severity.Rank() > worst.Rank() {
			worst = rule.Severity
		}
		if area, _, _ := strings.Cut(f.Rule, "."); area == "archive" || area == "content" || f.Rule == "pickle.import.dangerous" {
			got.Rules = append(got.Rules, f.Rule)
		}
	}
	slices.Sort(got.Rules)
	got.Rules = slices.Compact(got.Rules)
	got.Verdict = verdict(worst, got.Complete)
	return got
}

func TestFormatsSeesThroughContainers(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range corpus.Containers() {
		if seen[c.Name] {
			t.Errorf("two cases are called %q", c.Name)
		}
		seen[c.Name] = true
		t.Run(c.Name, func(t *testing.T) {
			if diff := gocmp.Diff(c, look(t, c), gocmp.FilterPath(func(p gocmp.Path) bool { return p.String() == "Content" }, gocmp.Ignore())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestCostlyFilesEndSoon holds the scanner to its promise of what a hostile
// file may cost: 5 seconds of a processor, and memory that does not grow with the file.
func TestCostlyFilesEndSoon(t *testing.T) {
	if testing.Short() {
		t.Skip("costly on purpose")
	}
	for _, make := range corpus.Costly() {
		c := make()
		t.Run(c.Name, func(t *testing.T) {
			debug.FreeOSMemory()
			peak := watch(t)
			keepTo(t, formats.SoftMemory)
			start := worked(t)
			got := look(t, c)
			took := worked(t) - start
			t.Logf("%d bytes: %s, %s, %v, %.2f s, %d MiB", len(c.Content), got.Format, got.Verdict, got.Rules, took.Seconds(), peak()>>20)
			if got.Verdict == predicate.Pass {
				t.Errorf("verdict %s", got.Verdict)
			}
			if took > 5*time.Second {
				t.Errorf("took %s", took)
			}
			if n := peak(); n > 256<<20 {
				t.Errorf("%d MiB of memory", n>>20)
			}
		})
	}
}

// worked is the processor time of this process so far: what else runs on the
// machine has no part in it.
func worked(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// keepTo has this process keep to so much memory beyond what it has, as the
// program does.
func keepTo(t *testing.T, most uint64) {
	t.Helper()
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	was := debug.SetMemoryLimit(int64(s[0].Value.Uint64() - s[1].Value.Uint64() + most)) //nolint:gosec // some hundred MiB
	t.Cleanup(func() { debug.SetMemoryLimit(was) })
}

// watch measures how far the heap grows, until what it returns is called.
func watch(t *testing.T) func() uint64 {
	t.Helper()
	read := func() uint64 {
		s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64() + s[1].Value.Uint64()
	}
	before, highest := read(), uint64(0)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				highest = max(highest, read())
			}
		}
	}()
	var once sync.Once
	return func() uint64 {
		once.Do(func() { close(stop); <-done })
		return highest - min(highest, before)
	}
}
