package fleet

import (
	"testing"
	"time"

	"github.com/cavra/cavra/testbed/stack"
)

// TestTwoHundredAgents is `make fleet` in small: Run fails when a statement is
// missing, doubled or refused.
func TestTwoHundredAgents(t *testing.T) {
	programs, err := stack.FindPrograms(".")
	if err != nil {
		t.Fatal(err)
	}
	const agents, backlog = 200, 5
	r, err := Run(t.Context(), Config{
		Programs: programs, Dir: t.TempDir(), Agents: agents, Heartbeat: 3 * time.Second, CheckIn: 3 * time.Second, Steady: 6 * time.Second,
		Load: 8, LoadTime: 4 * time.Second, Backlog: backlog, Limit: 5 * time.Minute, Progress: t.Logf,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Print(t.Output()); err != nil {
		t.Fatal(err)
	}
	if want := uint64(2*agents + r.Steady.Count + r.Load.Count + agents*backlog); r.Signed != want || r.Present != want {
		t.Errorf("signed %d and present %d, want %d", r.Signed, r.Present, want)
	}
	if r.Steady.Count < agents || r.Load.Count == 0 || len(r.Latencies) == 0 || r.Peak.Connections < agents || r.Idle.Program == 0 || r.Idle.Engine == 0 {
		t.Errorf("something was not measured: %+v", r)
	}
	if r.Calls < agents || r.FailedCalls > 0 {
		t.Errorf("%d calls, and %d that failed", r.Calls, r.FailedCalls)
	}
	if r.Percentile(50) > r.Percentile(99) || r.Percentile(100) < r.Percentile(99) {
		t.Error("the percentiles are not in order")
	}
}
