package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio/syscallfault"
	faults "github.com/cavra/cavra/testbed/fault"
	"github.com/cavra/cavra/testbed/ledger"
	"github.com/cavra/cavra/testbed/stack"
)

// TestMain lets the test's program start others over a disk that fails.
func TestMain(m *testing.M) {
	if err := syscallfault.Launch(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// failing is what an embedded world stands on that can fail in part: its disks, the
// single directions of its network, and its clocks.
type failing struct {
	agentDisk, aggregatorDisk   *faults.Disk
	agentClock, aggregatorClock string
	network                     *faults.Network
}

const (
	agentDisk      = 64 << 20
	aggregatorDisk = 1 << 30
	// clockNoticed is how long an agent needs to notice that its clock was set.
	clockNoticed = 7 * time.Second
)

func newFailing(t *testing.T, dir string) *failing {
	t.Helper()
	f := &failing{agentClock: filepath.Join(dir, "agent.clock"), aggregatorClock: filepath.Join(dir, "aggregator.clock")}
	disk := func(name string, size int64) *faults.Disk {
		d, err := faults.Mount(filepath.Join(dir, name), size)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Unmount(); err != nil {
				t.Error(err)
			}
		})
		return d
	}
	f.agentDisk, f.aggregatorDisk = disk("agent", agentDisk), disk("data", aggregatorDisk)
	var err error
	if f.network, err = faults.NewNetwork(); errors.Is(err, faults.ErrNoRules) {
		t.Logf("left out: one direction of the network: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *failing) embedded(t *testing.T, dir string, p stack.Programs) *world {
	t.Helper()
	return newWorld(t, dir, p, stack.AggregatorConfig{Programs: p, Dir: filepath.Join(dir, "data"), Env: []string{clockOf(f.aggregatorClock)}}, nil)
}

// clockOf has an armed program ask a file by how much its clock is off.
func clockOf(file string) string { return "CAVRA_CLOCK=" + file }

func (f *failing) faults() []fault {
	out := []fault{
		{"agent's disk full, then freed", func(w *world, away time.Duration) { w.must(f.agentDisk.Full(away)) }},
		{"agent's disk fails every call, then is back", func(w *world, away time.Duration) { w.ail(unix.EIO, "fails", away) }},
		{"agent's disk read-only, then writable", func(w *world, away time.Duration) { w.ail(unix.EROFS, "is read-only", away) }},
		{"aggregator's disk full, then freed", func(w *world, away time.Duration) { w.must(f.aggregatorDisk.Full(away)) }},
		{"aggregator stopped in the middle of a plan", func(w *world, away time.Duration) { w.stopInPlan(func() { w.pause(away) }) }},
		{"agent's clock a day ahead, a day behind, right", func(w *world, _ time.Duration) {
			running(w, w.agent) // a clock that is set before it starts is none that was set
			w.pause(2 * time.Second)
			w.setClock(f.agentClock, clockNoticed)
		}},
		{"aggregator's clock a day ahead, a day behind, right", func(w *world, away time.Duration) { w.setClock(f.aggregatorClock, away) }},
	}
	if os.Getenv("CAVRA_SCENARIO_LONG") != "" {
		out = append(out, fault{"brokers away until the agent's spool is full", func(w *world, away time.Duration) { w.fillSpool(away) }})
	}
	if f.network == nil {
		return out
	}
	return append(out,
		fault{"what the broker answers is lost", func(w *world, away time.Duration) { w.oneWay(f.network, faults.Answers, away) }},
		fault{"what the broker is asked is lost", func(w *world, away time.Duration) { w.oneWay(f.network, faults.Requests, away) }})
}

// judge counts what the agent told of: that its clock was set, each time, and no
// loss.
func (f *failing) judge(w *world, book *ledger.Book, rounds int) {
	w.t.Helper()
	id, err := w.agent.Identity()
	w.must(err)
	told := map[predicate.GapCause]int{}
	for _, entries := range book.Chains[chainOf(id)].At {
		for _, e := range entries {
			if g, ok := e.Statement.(*predicate.Gap); ok {
				told[g.Cause]++
			}
		}
	}
	w.t.Logf("gap statements: %v", told)
	if told[predicate.ClockStepped] != 3*rounds || len(told) > 1 {
		w.t.Errorf("want %d of clocks that were set, and none of what was lost", 3*rounds)
	}
}

// ail lets every call of the agent's that changes its folder fail, until the agent
// has said so and for a while longer.
func (w *world) ail(errno unix.Errno, says string, away time.Duration) {
	w.t.Helper()
	w.must(w.agent.Stop())
	var sick atomic.Bool
	w.agent.Through = func(c *exec.Cmd) error {
		_, err := syscallfault.Start(c, w.agent.Dir(), func(syscallfault.Call) syscallfault.Fate {
			if sick.Load() {
				return syscallfault.Fate{Errno: errno}
			}
			return syscallfault.Fate{}
		})
		return err
	}
	w.must(w.agent.Launch(nil))
	w.agent.Through = nil
	w.feed(5)
	w.pause(time.Second)
	sick.Store(true)
	w.feed(5)
	w.said(fmt.Sprintf("the disk of %s %s", w.agent.Dir(), says))
	w.pause(away)
	sick.Store(false)
	if !w.agent.Running() {
		w.t.Error("the agent has ended")
	}
}

// said waits for words in the agent's log.
func (w *world) said(words string) {
	w.t.Helper()
	w.must(stack.Poll(w.within(time.Minute), "the agent's word", func(context.Context) (bool, string, error) {
		b, err := os.ReadFile(w.agent.Log())
		return strings.Contains(string(b), words), words, err
	}))
}

var maxBytes = regexp.MustCompile(`max_bytes: \d+`)

// smallSpool lets an agent have the smallest spool that there is.
func (w *world) smallSpool(a *stack.Agent) {
	w.t.Helper()
	name := filepath.Join(a.Dir(), "agent.yaml")
	b, err := os.ReadFile(name)
	w.must(err)
	if !maxBytes.Match(b) {
		w.t.Fatalf("%s says nothing of the spool's size:\n%s", name, b)
	}
	w.must(os.WriteFile(name, maxBytes.ReplaceAll(b, []byte("max_bytes: 16777216")), 0o600))
}

// fillSpool takes the brokers away until nothing more can be signed, and for a
// while longer.
func (w *world) fillSpool(away time.Duration) {
	w.t.Helper()
	w.aggregator.Kill()
	var full stack.Head
	w.must(stack.Poll(w.within(10*time.Minute), "a full spool", func(ctx context.Context) (bool, string, error) {
		if w.distinct() < full.Sequence+1000 { // the agent has scanned most of what is there
			w.feed(500)
		}
		w.pause(time.Second)
		var err error
		full, err = w.agent.Status(ctx)
		return full.FullSince != "", fmt.Sprintf("%+v", full), err
	}))
	w.pause(away)
	now, err := w.agent.Status(w.ctx)
	w.must(err)
	if now.FullSince != full.FullSince || now.Sequence > full.Sequence+64 || !w.agent.Running() {
		w.t.Errorf("a full spool is no reason to wait: %+v, then %+v", full, now)
	}
	w.t.Logf("the spool was full with %d statements; %d files waited to be scanned", now.Waiting, len(w.files))
	w.must(w.aggregator.Start(w.ctx))
}

// stopInPlan stops the aggregator between its insert and its commit, and lets it go
// on after what happens meanwhile.
func (w *world) stopInPlan(meanwhile func()) {
	w.t.Helper()
	w.must(w.aggregator.Stop())
	w.must(w.aggregator.Start(w.ctx, "CAVRA_FAULTPOINT=inserted:1:stop"))
	w.feed(5)
	w.must(stack.Poll(w.within(time.Minute), "the stop", func(context.Context) (bool, string, error) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.aggregator.Pid()))
		return strings.Contains(string(b), ") T "), "it runs", err
	}))
	meanwhile()
	w.must(unix.Kill(w.aggregator.Pid(), unix.SIGCONT))
}

// setClock sets a program's clock ahead, back behind, and right.
func (w *world) setClock(file string, each time.Duration) {
	w.t.Helper()
	for _, off := range []string{"24h", "-24h", "0s"} {
		w.must(os.WriteFile(file, []byte(off), 0o600))
		w.feed(3)
		w.pause(each)
	}
}

// oneWay loses one direction of all connections with the broker.
func (w *world) oneWay(n *faults.Network, d faults.Direction, away time.Duration) {
	w.t.Helper()
	w.must(n.Drop(w.aggregator.KafkaPort(), d))
	w.feed(5)
	w.pause(away)
	w.must(n.Mend(w.aggregator.KafkaPort(), d))
}
