package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cavra/cavra/testbed/stack"
)

// configured is what the API says of an agent's configuration.
type configured struct {
	IntervalSeconds uint64 `json:"interval_seconds"`
	Configuration   *struct {
		Remote  bool   `json:"remote"`
		Version uint64 `json:"version"`
		Wanted  uint64 `json:"wanted"`
		Refused string `json:"refused"`
	} `json:"configuration"`
	Troubles []struct {
		Kind string `json:"kind"`
	} `json:"troubles"`
}

func (c configured) has(trouble string) bool {
	return slices.ContainsFunc(c.Troubles, func(t struct {
		Kind string `json:"kind"`
	}) bool {
		return t.Kind == trouble
	})
}

// whenConfigured waits until the aggregator knows that an agent stands as wanted.
func (w *world) whenConfigured(agent, what string, is func(configured) bool) {
	w.t.Helper()
	w.must(stack.Poll(w.within(90*time.Second), what, func(ctx context.Context) (bool, string, error) {
		var c configured
		err := w.aggregator.Get(ctx, "/v1/agents/"+agent, nil, &c)
		if err != nil || c.Configuration == nil {
			return false, fmt.Sprintf("%+v, %v", c, err), nil
		}
		b, err := json.Marshal(c)
		return is(c), string(b), err
	}))
}

func (w *world) fleetConfig(args ...string) stack.Output {
	w.t.Helper()
	out, err := w.aggregator.CLI(w.ctx, append([]string{"fleet", "config"}, args...)...)
	w.must(err)
	return out
}

// TestConfigurationFromTheAggregator: what an administrator sets reaches the agents
// whose installation lets it, through restarts, and nothing else does.
func TestConfigurationFromTheAggregator(t *testing.T) {
	w := embedded(t, folder(t), programs(t))
	open, closed := w.enrol("open", "--remote-config"), w.enrol("closed")
	for _, a := range []*stack.Agent{open, closed} {
		w.chatty(a)
		w.must(a.Launch(nil))
	}
	of, notOf := identityOf(w, open).Agent, identityOf(w, closed).Agent
	w.whenConfigured(of, "the agent to say that it takes configurations", func(c configured) bool {
		return c.Configuration.Remote && c.Configuration.Version == 0 && c.IntervalSeconds == 300
	})
	w.whenConfigured(notOf, "the other to say that it takes none", func(c configured) bool { return !c.Configuration.Remote })

	if out := w.fleetConfig("set", "heartbeat=10s", "check_in=10s", "jobs=1"); out.Code != 0 || string(out.Stdout) != "version 1\n" {
		t.Fatalf("set: %d %s%s", out.Code, out.Stdout, out.Stderr)
	}
	w.whenConfigured(of, "version 1", func(c configured) bool {
		return c.Configuration.Version == 1 && c.Configuration.Wanted == 1 && c.IntervalSeconds == 10 && !c.has("configuration_drift")
	})

	// What is for the installation alone nobody signs.
	for _, refused := range []string{"privacy=names", "sandbox=off-unsafe", "scopes=/", "nonsense=1", "heartbeat=1s"} {
		if out := w.fleetConfig("set", refused); out.Code != 2 {
			t.Errorf("set %s: %d %s%s", refused, out.Code, out.Stdout, out.Stderr)
		}
	}
	// And what asks for more than the installation gives, the agent refuses.
	if out := w.fleetConfig("set", "heartbeat=10s", "jobs=256", "--agent", of); out.Code != 0 {
		t.Fatalf("set: %s", out.Stderr)
	}
	w.whenConfigured(of, "a refusal", func(c configured) bool {
		return c.Configuration.Version == 1 && c.Configuration.Wanted == 2 && c.Configuration.Refused == "out_of_bounds" && c.has("configuration_refused")
	})

	// What holds goes on to hold over a restart of both, without a call.
	w.must(w.aggregator.Stop())
	w.must(open.Stop())
	w.must(open.Launch(nil))
	w.must(w.aggregator.Start(w.ctx))
	if out := w.fleetConfig("clear", "--agent", of); out.Code != 0 {
		t.Fatalf("clear: %s", out.Stderr)
	}
	w.whenConfigured(of, "what holds for all", func(c configured) bool {
		return c.Configuration.Version == 3 && c.Configuration.Refused == "" && c.IntervalSeconds == 10
	})

	// An older one that is put back into the folder is taken for what it is: not
	// the one in use.
	file := filepath.Join(open.Dir(), "pushed.json")
	b, err := os.ReadFile(file)
	w.must(err)
	if !strings.Contains(string(b), `"version": 3`) {
		t.Errorf("%s holds %s", file, b)
	}
	if out := w.fleetConfig("clear"); out.Code != 0 {
		t.Fatalf("clear: %s", out.Stderr)
	}
	w.whenConfigured(of, "its own configuration", func(c configured) bool {
		return c.Configuration.Version == 4 && c.IntervalSeconds == 300
	})
	w.must(open.Stop())
	w.must(os.WriteFile(file, []byte(strings.Replace(string(b), `"version": 3`, `"version": 4`, 1)), 0o600))
	w.must(open.Launch(nil))
	w.whenConfigured(of, "version 4 again", func(c configured) bool {
		return c.Configuration.Version == 4 && c.IntervalSeconds == 300
	})
	if out := w.fleetConfig("show"); !strings.Contains(string(out.Stdout), "jobs=256") || !strings.Contains(string(out.Stdout), "taken back") {
		t.Errorf("history:\n%s", out.Stdout)
	}
	var c configured
	w.must(w.aggregator.Get(w.ctx, "/v1/agents/"+notOf, nil, &c))
	if c.Configuration.Version != 0 || c.has("configuration_drift") || c.IntervalSeconds != 300 {
		t.Errorf("the one that takes none: %+v", c)
	}
}
