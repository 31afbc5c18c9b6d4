package scenario

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/testbed/ledger"
	"github.com/cavra/cavra/testbed/stack"
	"github.com/cavra/cavra/testbed/wire"
)

// fault is something that happens to a running fleet. do causes it, keeps it up
// for a while, and ends it.
type fault struct {
	name string
	do   func(w *world, away time.Duration)
}

// chaosFaults happen to the embedded installation, one after the other.
var chaosFaults = []fault{
	{"nothing", func(*world, time.Duration) {}},
	{"agent killed", func(w *world, away time.Duration) {
		w.agent.Kill()
		w.pause(away)
		w.must(w.agent.Launch(nil))
	}},
	{"database engine killed", func(w *world, away time.Duration) {
		for range 3 {
			signalEngine(w, unix.SIGKILL)
			w.pause(away / 3)
		}
	}},
	{"database engine hangs", func(w *world, away time.Duration) {
		signalEngine(w, unix.SIGSTOP)
		w.pause(away)
		signalEngine(w, unix.SIGCONT)
	}},
	{"broker, ingest and database killed together", func(w *world, away time.Duration) {
		w.aggregator.Kill()
		w.pause(away)
		w.must(w.aggregator.Start(w.ctx))
	}},
	{"every statement delivered again, in reverse", func(w *world, _ time.Duration) { w.deliverAgain() }},
	{"everything killed", func(w *world, away time.Duration) {
		w.agent.Kill()
		w.aggregator.Kill()
		w.pause(away)
		w.must(w.aggregator.Start(w.ctx))
		w.must(w.agent.Launch(nil))
	}},
}

// networkCut takes the namespace's one interface down: whatever talks to
// something else waits.
var networkCut = fault{"network cut between all", func(w *world, away time.Duration) {
	w.must(wire.Cut())
	w.pause(away)
	w.must(wire.Mend())
}}

// signalEngine sends the database's process a signal.
func signalEngine(w *world, s unix.Signal) {
	w.t.Helper()
	for _, pid := range children(w.t, w.aggregator.Pid()) {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !strings.Contains(string(line), "clickhouse") {
			continue
		}
		if err := unix.Kill(pid, s); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	// It may be between two lives; then there is nobody to be told.
}

// deliverAgain publishes all that the agent has sent once more, the latest first.
func (w *world) deliverAgain() {
	w.t.Helper()
	author := w.author(w.agent)
	out, err := stack.Command(w.ctx, nil, w.programs.Cavra(), "agent", "sent", "--dir", w.agent.Dir(), "--format", "envelope")
	w.must(err)
	if out.Code != 0 {
		w.t.Fatalf("list what was sent: %s%s", out.Stdout, out.Stderr)
	}
	var all [][]byte
	for line := range strings.Lines(string(out.Stdout)) {
		all = append(all, []byte(strings.TrimSuffix(line, "\n")))
	}
	slices.Reverse(all)
	w.must(author.Publish(w.within(time.Minute), all...))
}

// effect is what became of the reports that were signed while a fault went on.
type effect struct {
	fault                       string
	signed, present, duplicates uint64
	recovered                   time.Duration
}

// TestChaos lets faults happen to a running fleet, and after each counts the
// reports that were signed, and those that are there: each once in effect.
func TestChaos(t *testing.T) {
	chaosAsked(t)
	if os.Getenv(wire.Namespace) == "" {
		t.Parallel()
		wire.Rerun(t)
		return
	}
	dir := folder(t)
	f := newFailing(t, dir)
	w := inChaos(t, func() *world { return f.embedded(t, dir, armed(t, dir)) })
	w.agent.Env = []string{clockOf(f.agentClock)}
	w.smallSpool(w.agent)
	rounds, away := chaosTimes()
	book := chaos(w, slices.Concat(chaosFaults, []fault{networkCut}, f.faults()), rounds, away)
	f.judge(w, book, rounds)
}

// chaosAsked skips where chaos is not what is run: it takes minutes.
func chaosAsked(t *testing.T) {
	t.Helper()
	if os.Getenv("CAVRA_CHAOS") == "" && os.Getenv("CAVRA_SCENARIO_LONG") == "" {
		t.Skip("make chaos runs this")
	}
}

func inChaos(t *testing.T, start func() *world) *world {
	t.Helper()
	if os.Getenv(wire.Namespace) != "" {
		if err := wire.Mend(); err != nil {
			t.Fatal(err)
		}
	}
	w := start()
	w.agent = w.enrol("agent")
	w.hurry(w.agent)
	return w
}

// chaosTimes are how often all faults happen and how long each lasts: little,
// unless the long run is asked for.
func chaosTimes() (rounds int, away time.Duration) {
	if os.Getenv("CAVRA_SCENARIO_LONG") != "" {
		return 2, 30 * time.Second
	}
	return 1, 2 * time.Second
}

func chaos(w *world, faults []fault, rounds int, away time.Duration) *ledger.Book {
	w.t.Helper()
	var effects []effect
	for range rounds {
		for _, f := range faults {
			effects = append(effects, w.suffer(f, away))
		}
	}
	w.t.Log("\n" + chaosTable(effects))
	return w.judge(w.agent)
}

// suffer has the agent work while a fault happens, waits until the reports of all
// files are there, and then counts what was signed and what is there.
func (w *world) suffer(f fault, away time.Duration) effect {
	w.t.Helper()
	id, err := w.agent.Identity()
	w.must(err)
	before, err := w.agent.Status(w.ctx)
	w.must(err)
	w.must(w.agent.Launch(nil))
	w.feed(15)
	w.pause(300 * time.Millisecond)
	f.do(w, away)
	w.feed(15)
	ended := time.Now()
	w.must(stack.Poll(w.within(10*time.Minute), "every file's report", func(ctx context.Context) (bool, string, error) {
		p, err := w.aggregator.Posture(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		var known uint64
		for _, n := range p.Artifacts {
			known += n
		}
		return known >= w.distinct(), fmt.Sprintf("%d of %d artifacts", known, w.distinct()), nil
	}))
	out := effect{fault: f.name, recovered: time.Since(ended)}
	w.must(w.agent.Stop())
	w.must(w.agent.RunOnce(w.within(5 * time.Minute)))
	head, err := w.agent.Status(w.ctx)
	w.must(err)
	w.must(w.aggregator.AwaitHead(w.within(2*time.Minute), id.Agent, head))
	there, twice := w.exported(id.Agent)
	out.signed, out.present, out.duplicates = head.Sequence-before.Sequence, uint64(len(there))-before.Sequence, twice
	if out.present != out.signed || out.duplicates > 0 {
		w.t.Errorf("%s: %d reports signed, %d present, %d twice", f.name, out.signed, out.present, out.duplicates)
	}
	return out
}

// distinct counts the files' contents.
func (w *world) distinct() uint64 {
	once := map[string]bool{}
	for _, f := range w.files {
		once[string(f.Digest)] = true
	}
	return uint64(len(once))
}

func chaosTable(effects []effect) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 2, 0, 2, ' ', 0)
	fmt.Fprintln(t, "fault\treports signed\treports present\tduplicates\tseconds to recover")
	for _, e := range effects {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%.1f\n", e.fault, e.signed, e.present, e.duplicates, e.recovered.Seconds())
	}
	_ = t.Flush() // a strings.Builder takes everything
	return b.String()
}
