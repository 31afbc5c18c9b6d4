package scenario

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cavra/cavra/testbed/stack"
)

// ask runs a program that has to end by itself with a code, saying every word
// on standard error.
func ask(t *testing.T, code int, words []string, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, fmt.Errorf("it goes on for a minute"))
	defer cancel()
	out, err := stack.Command(ctx, nil, name, args...)
	if err != nil {
		t.Errorf("%s %s: %v", filepath.Base(name), strings.Join(args, " "), err)
		return
	}
	if out.Code != code {
		t.Errorf("%s %s: exit code %d, want %d: %s", filepath.Base(name), strings.Join(args, " "), out.Code, code, out.Stderr)
	}
	for _, word := range words {
		if !strings.Contains(string(out.Stderr), word) {
			t.Errorf("%s %s: the error does not say %q: %s", filepath.Base(name), strings.Join(args, " "), word, out.Stderr)
		}
	}
	if strings.Contains(string(out.Stderr), "goroutine ") {
		t.Errorf("%s %s: it panicked: %s", filepath.Base(name), strings.Join(args, " "), out.Stderr)
	}
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// busy is a port that somebody listens on.
func busy(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// TestWrongInputOfTheAggregator starts it as it cannot run: it says what is
// wrong, names it, and says what to do.
func TestWrongInputOfTheAggregator(t *testing.T) {
	p := programs(t)
	dir := folder(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	taken := busy(t)
	_, port, err := net.SplitHostPort(taken)
	if err != nil {
		t.Fatal(err)
	}
	bare := in("bare")
	if err := os.Mkdir(bare, 0o755); err != nil {
		t.Fatal(err)
	}
	// The program without the library beside it.
	program, err := os.ReadFile(p.Aggregator())
	if err == nil {
		err = os.WriteFile(filepath.Join(bare, "cavra-aggregator"), program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	const free = "127.0.0.1:0"
	for _, c := range []struct {
		name    string
		program string
		code    int
		words   []string
		args    []string
	}{
		{"nothing said", "", 2, []string{"--embedded", "--config"}, []string{"serve"}},
		{"missing library", filepath.Join(bare, "cavra-aggregator"), 1, []string{"libchdb.so", "make engine", "--engine-library"},
			[]string{"serve", "--embedded", in("a"), "--listen", free, "--kafka-port", "0"}},
		{"no library there", "", 1, []string{in("no.so")},
			[]string{"serve", "--embedded", in("b"), "--listen", free, "--kafka-port", "0", "--engine-library", in("no.so")}},
		{"not a library", "", 1, []string{in("text.so")},
			[]string{"serve", "--embedded", in("c"), "--listen", free, "--kafka-port", "0", "--engine-library", write(t, in("text.so"), "no library")}},
		{"port in use", "", 1, []string{taken, "in use", "--listen"},
			[]string{"serve", "--embedded", in("d"), "--listen", taken, "--kafka-port", "0"}},
		{"broker's port in use", "", 1, []string{port, "in use"},
			[]string{"serve", "--embedded", in("e"), "--listen", free, "--kafka-port", port}},
		{"wrong key", "", 2, []string{in("typo.yaml"), "retention_day", "retention_days"},
			[]string{"serve", "--config", write(t, in("typo.yaml"), "retention_day: 3\nembedded:\n  dir: "+in("f")+"\n")}},
		{"wrong value", "", 2, []string{in("value.yaml"), "retention_days"},
			[]string{"serve", "--config", write(t, in("value.yaml"), "retention_days: -3\nembedded:\n  dir: "+in("g")+"\n")}},
		{"no configuration", "", 2, []string{in("none.yaml")}, []string{"serve", "--config", in("none.yaml")}},
		{"open to the network", "", 2, []string{"loopback", "tls.certificate"},
			[]string{"serve", "--embedded", in("h"), "--listen", "0.0.0.0:0"}},
		{"no token", "", 2, []string{"--token-file"}, []string{"posture"}},
		{"nobody there", "", 1, []string{"--server", "running"},
			[]string{"posture", "--server", "http://127.0.0.1:1", "--token-file", write(t, in("token"), "cavra_api_nothing")}},
		{"a folder that is a file", "", 1, []string{in("token")},
			[]string{"serve", "--embedded", in("token"), "--listen", free, "--kafka-port", "0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			program := c.program
			if program == "" {
				program = p.Aggregator()
			}
			ask(t, c.code, c.words, program, c.args...)
		})
	}
}

// TestWrongInputOfTheAgent enrols and runs it as it cannot be, and an aggregator
// over a folder that is in use.
func TestWrongInputOfTheAgent(t *testing.T) {
	w := embedded(t, folder(t), programs(t))
	in := func(name string) string { return filepath.Join(w.dir, name) }
	cavra := w.programs.Cavra()
	enrol := func(token, dir string, more ...string) []string {
		return append([]string{"agent", "enroll", "--server", w.aggregator.URL(), "--token-file", token, "--dir", dir, "--scan", w.tree}, more...)
	}
	used, short, good := in("used.token"), in("short.token"), in("good.token")
	w.must(w.aggregator.JoinToken(w.ctx, used))
	w.must(w.aggregator.JoinToken(w.ctx, short, "--ttl", "1s"))
	w.must(w.aggregator.JoinToken(w.ctx, good))
	agent, err := stack.NewAgent(w.programs, in("agent"))
	w.must(err)
	w.must(agent.Enrol(w.ctx, w.aggregator.URL(), used, "--scan", w.tree))
	w.pause(1100 * time.Millisecond) // the short token's life

	const notGood = "the join token is not good"
	ask(t, 1, []string{notGood}, cavra, enrol(used, in("second"))...)
	ask(t, 1, []string{notGood}, cavra, enrol(short, in("third"))...)
	ask(t, 1, []string{"cavra_join_"}, cavra, enrol(write(t, in("garbage.token"), "garbage"), in("fourth"))...)
	ask(t, 1, []string{"enrolled already", "--reenroll"}, cavra, enrol(good, in("agent"))...)
	ask(t, 2, []string{in("no.token")}, cavra, enrol(in("no.token"), in("fifth"))...)
	ask(t, 2, []string{in("nowhere")}, cavra, "agent", "enroll", "--server", w.aggregator.URL(), "--token-file", good, "--dir", in("sixth"), "--scan", in("nowhere"))
	ask(t, 1, []string{"127.0.0.1:1", "running"}, cavra, "agent", "enroll", "--server", "http://127.0.0.1:1", "--token-file", good, "--dir", in("seventh"), "--scan", w.tree)
	ask(t, 1, []string{"in the clear"}, cavra, "agent", "enroll", "--server", "http://192.0.2.1:80", "--token-file", good, "--dir", in("eighth"), "--scan", w.tree)
	ask(t, 2, []string{"agent.yaml"}, cavra, "agent", "run", "--dir", in("nowhere"))
	ask(t, 1, []string{w.aggregator.Dir(), "another aggregator"}, w.programs.Aggregator(),
		"serve", "--embedded", w.aggregator.Dir(), "--listen", "127.0.0.1:0", "--kafka-port", "0", "--agents-listen", "127.0.0.1:0")

	settings := filepath.Join(agent.Dir(), "agent.yaml")
	b, err := os.ReadFile(settings)
	w.must(err)
	write(t, settings, strings.Replace(string(b), "interval:", "intervall:", 1))
	ask(t, 2, []string{settings, "intervall", "interval"}, cavra, "agent", "run", "--dir", agent.Dir())
	write(t, settings, string(b))
	w.must(agent.Launch(nil))
	w.chain(identityOf(w, agent), "the agent runs", func(c stack.Chain) bool { return c.HeadSequence > 0 })
	ask(t, 1, []string{fmt.Sprintf("process %d runs an agent", running(w, agent)), "cavra agent status"}, cavra, "agent", "run", "--dir", agent.Dir())
	w.must(agent.Stop())
	// What was refused has not used the token up.
	ask(t, 0, nil, cavra, enrol(good, in("ninth"))...)
}

func identityOf(w *world, a *stack.Agent) stack.Identity {
	w.t.Helper()
	id, err := a.Identity()
	w.must(err)
	return id
}
