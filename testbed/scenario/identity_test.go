package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
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
	write(t, file, fmt.Sprintf("listen: 127.0.0.1:%d\nembedded:\n  dir: %s\n  kafka_port: %d\nagents:\n  certificate_life: %s\n", listen, data, kafka, life))
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
