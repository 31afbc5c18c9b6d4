package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cavra/cavra/testbed/stack"
)

// shortLived is an aggregator whose agents' certificates are good for some
// seconds.
func shortLived(t *testing.T, dir string, p stack.Programs, life time.Duration) *world {
	t.Helper()
	return withSettings(t, dir, p, fmt.Sprintf("agents:\n  certificate_life: %s\n", life))
}

// withSettings is an aggregator with everything embedded and more settings.
func withSettings(t *testing.T, dir string, p stack.Programs, more string) *world {
	t.Helper()
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	listen, err := stack.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	kafka, err := stack.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "aggregator.yaml")
	write(t, file, fmt.Sprintf("listen: 127.0.0.1:%d\nembedded:\n  dir: %s\n  kafka_port: %d\n", listen, data, kafka)+more)
	return newWorld(t, dir, p, stack.AggregatorConfig{Programs: p, Dir: data, Config: file}, nil)
}

var checkIn = regexp.MustCompile(`(?m)^check_in:.*$`)

// chatty makes an agent call the aggregator every second.
func (w *world) chatty(a *stack.Agent) {
	w.t.Helper()
	name := filepath.Join(a.Dir(), "agent.yaml")
	b, err := os.ReadFile(name)
	w.must(err)
	if !checkIn.Match(b) {
		w.t.Fatalf("%s says nothing of check_in:\n%s", name, b)
	}
	w.must(os.WriteFile(name, checkIn.ReplaceAll(b, []byte("check_in: 1s")), 0o600))
}

// contact is what cavra agent status says of the certificate.
type contact struct {
	Generation uint64    `json:"generation"`
	NotAfter   time.Time `json:"not_after"`
	LastCall   time.Time `json:"last_check_in_at"`
	Problems   []string  `json:"problems"`
	Error      string    `json:"error"`
}

func (w *world) contact(ctx context.Context, a *stack.Agent) (contact, error) {
	out, err := stack.Command(ctx, nil, w.programs.Cavra(), "agent", "status", "--dir", a.Dir(), "--format", "json")
	if err != nil || out.Code != 0 {
		return contact{}, fmt.Errorf("exit code %d: %s: %w", out.Code, out.Stderr, err)
	}
	var s struct {
		Contact contact `json:"contact"`
	}
	return s.Contact, json.Unmarshal(out.Stdout, &s)
}

// whenContact waits until an agent's contact is as wanted.
func (w *world) whenContact(a *stack.Agent, what string, is func(contact) bool) contact {
	w.t.Helper()
	var last contact
	w.must(stack.Poll(w.within(90*time.Second), what, func(ctx context.Context) (bool, string, error) {
		c, err := w.contact(ctx, a)
		if err != nil {
			return false, err.Error(), nil
		}
		last = c
		return is(c), fmt.Sprintf("%+v", c), nil
	}))
	return last
}

// TestCertificatesRotate: an agent outlives its certificates, through a restart
// of either side, and one that is revoked is out within a minute.
func TestCertificatesRotate(t *testing.T) {
	t.Parallel()
	w := shortLived(t, folder(t), programs(t), 20*time.Second)
	a := w.enrol("agent")
	w.chatty(a)
	first, err := w.contact(w.ctx, a)
	w.must(err)
	if first.Generation != 1 || time.Until(first.NotAfter) > 20*time.Second {
		t.Errorf("after the enrolment: %+v", first)
	}
	w.must(a.Launch(nil))
	w.whenContact(a, "a third certificate", func(c contact) bool { return c.Generation >= 3 })
	w.must(w.aggregator.Stop())
	w.whenContact(a, "that the aggregator is away", func(c contact) bool { return c.Error != "" })
	w.must(w.aggregator.Start(w.ctx))
	back := w.whenContact(a, "contact again", func(c contact) bool { return c.Error == "" })
	w.must(a.Stop())
	w.must(a.Launch(nil))
	w.whenContact(a, "another certificate after a restart", func(c contact) bool { return c.Generation > back.Generation })

	keys, err := filepath.Glob(filepath.Join(a.Dir(), "tls-*"))
	w.must(err)
	if len(keys) > 2 {
		t.Errorf("keys of connections that are over lie about: %v", keys)
	}
	id := identityOf(w, a)
	out, err := w.aggregator.CLI(w.ctx, "agents", "revoke", id.Agent)
	w.must(err)
	if out.Code != 0 {
		t.Fatalf("revoke: %s", out.Stderr)
	}
	from := time.Now()
	w.whenContact(a, "the revocation", func(c contact) bool { return strings.Contains(c.Error, "revoked") })
	if took := time.Since(from); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	if !a.Running() {
		t.Error("the agent has ended for it")
	}
}

// rotationMarks are the steps of a rotation, in order.
var rotationMarks = []string{
	"tls-key-written", "tls-candidate-noted", "tls-renew-answered", "tls-candidate-certified",
	"tls-confirm-answered", "tls-switched", "tls-former-deleted",
}

// rotationKills is how often the program is killed at each step of a rotation,
// how often at any moment of one, and how often while it comes back by its
// enrolled key.
type rotationKills struct{ each, random, back int }

func rotationPlan() rotationKills {
	if os.Getenv("CAVRA_SCENARIO_LONG") != "" {
		return rotationKills{each: 115, random: 191, back: 4} // 1,000 in all
	}
	return rotationKills{each: 2, random: 6, back: 1}
}

// TestKilledWhileCertificatesRotate kills the program at every step of a rotation
// and at any moment of one, and calls with what it left: the agent is never
// locked out, its certificates follow each other without one that is lost or
// doubled, and nothing of it looks like a clone or a snapshot.
func TestKilledWhileCertificatesRotate(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	p := armed(t, dir)
	plan := rotationPlan()
	w := shortLived(t, dir, p, time.Hour)
	a := w.enrol("agent")
	k := &killed{world: w, agent: a, generation: 1}
	for range plan.each {
		for _, mark := range rotationMarks {
			k.at(mark)
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range plan.random {
		k.soon(time.Duration(rnd.Int64N(int64(k.took + k.took/2))))
	}
	t.Logf("killed %d times in %s, %d of them before the rotation was over", k.kills, time.Since(k.began).Round(time.Second), k.dead)
	w.nothingOdd(a)

	// Certificates that have ended: it comes back by its enrolled key.
	short := shortLived(t, filepath.Join(dir, "short"), p, 10*time.Second)
	b := short.enrol("agent")
	s := &killed{world: short, agent: b, generation: 1}
	for range plan.back {
		for _, mark := range []string{"tls-return-answered", "tls-candidate-certified", "tls-confirm-answered"} {
			short.pause(11 * time.Second)
			s.at(mark)
		}
	}
	t.Logf("killed %d times while it came back", s.kills)
	short.nothingOdd(b)
}

// killed is an agent that is killed while it calls.
type killed struct {
	*world
	agent       *stack.Agent
	generation  uint64
	kills, dead int
	began       time.Time
	// took is how long a call takes that nobody ends.
	took time.Duration
}

func (k *killed) command(env []string, args ...string) (stack.Output, error) {
	if k.began.IsZero() {
		k.began = time.Now()
	}
	ctx, cancel := context.WithTimeout(k.ctx, time.Minute)
	defer cancel()
	return stack.Command(ctx, env, k.programs.Cavra(),
		append([]string{"agent", "check-in", "--dir", k.agent.Dir(), "--format", "json"}, args...)...)
}

// at kills the program at a mark, and calls.
func (k *killed) at(mark string) {
	k.t.Helper()
	out, err := k.command([]string{"CAVRA_FAULTPOINT=" + mark + ":1"}, "--renew")
	k.must(err)
	if out.Code != -1 {
		k.t.Fatalf("armed at %s it ended with code %d: %s", mark, out.Code, out.Stderr)
	}
	k.kills++
	k.dead++
	k.after("killed at " + mark)
}

// soon kills the program after some time, and calls.
func (k *killed) soon(d time.Duration) {
	k.t.Helper()
	cmd := exec.Command(k.programs.Cavra(), "agent", "check-in", "--dir", k.agent.Dir(), "--renew")
	k.must(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	select {
	case err = <-ended:
	case <-time.After(d):
		k.must(cmd.Process.Kill())
		err = <-ended
	}
	k.kills++
	if err != nil {
		k.dead++
	}
	k.after(fmt.Sprintf("killed after %s", d))
}

// nothingOdd holds that the aggregator has seen nothing odd about an agent.
func (w *world) nothingOdd(a *stack.Agent) {
	w.t.Helper()
	if odd := w.odd(); len(odd) > 0 {
		w.t.Errorf("events of agent %s: %+v", identityOf(w, a).Agent, odd)
	}
}

// odd is what the aggregator has seen that is odd.
func (w *world) odd() []stack.AgentEvent {
	w.t.Helper()
	var list stack.AgentEvents
	w.must(w.aggregator.Get(w.ctx, "/v1/agent-events", nil, &list))
	return list.Events
}

// after calls with what a kill has left. A further call, which rotates, finds
// the generation that follows.
func (k *killed) after(what string) {
	k.t.Helper()
	for _, args := range [][]string{nil, {"--renew"}} {
		from := time.Now()
		out, err := k.command(nil, args...)
		k.must(err)
		if out.Code != 0 {
			k.t.Fatalf("%s: locked out: %s", what, out.Stderr)
		}
		var c contact
		k.must(json.Unmarshal(out.Stdout, &c))
		if c.Generation < k.generation || c.Generation > k.generation+2 || len(args) > 0 && c.Generation <= k.generation {
			k.t.Fatalf("%s: generation %d after %d", what, c.Generation, k.generation)
		}
		if len(c.Problems) > 0 {
			k.t.Fatalf("%s: %v", what, c.Problems)
		}
		k.generation, k.took = c.Generation, time.Since(from)
	}
	if keys, err := filepath.Glob(filepath.Join(k.agent.Dir(), "tls-*")); err != nil || len(keys) != 1 {
		k.t.Fatalf("%s: %d keys are left, want the one in use: %v, %v", what, len(keys), keys, err)
	}
}
