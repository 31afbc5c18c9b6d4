package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cavra/cavra/testbed/stack"
)

// running is the process that runs an agent, as its status says while it does.
func running(w *world, a *stack.Agent) int {
	w.t.Helper()
	var pid int
	w.must(stack.Poll(w.within(20*time.Second), "the status of a running agent", func(ctx context.Context) (bool, string, error) {
		head, err := a.Status(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		pid = head.Running
		return pid > 0, fmt.Sprintf("%+v", head), nil
	}))
	return pid
}

// TestAKilledAgentLeavesNoPlugin kills an agent alone, and sees its plugins end.
func TestAKilledAgentLeavesNoPlugin(t *testing.T) {
	w := embedded(t, folder(t), programs(t))
	w.agent = w.enrol("agent")
	w.must(w.agent.Launch(nil))
	pid, plugins := running(w, w.agent), []int(nil)
	w.must(stack.Poll(w.within(20*time.Second), "a connector and a scanner", func(context.Context) (bool, string, error) {
		plugins = children(t, pid)
		return len(plugins) >= 2, fmt.Sprintf("the agent has the children %v", plugins), nil
	}))
	w.agent.Kill()
	w.must(stack.Poll(w.within(10*time.Second), "the plugins' end", func(context.Context) (bool, string, error) {
		var alive []int
		for _, pid := range plugins {
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(b), ") Z ") {
				alive = append(alive, pid)
			}
		}
		return len(alive) == 0, fmt.Sprintf("%v are alive", alive), nil
	}))
}

// children are the processes that a process has started and that live.
func children(t *testing.T, pid int) []int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(b)) {
			n, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, n)
		}
	}
	return out
}
