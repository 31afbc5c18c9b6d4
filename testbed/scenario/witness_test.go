package scenario

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cavra/cavra/testbed/stack"
)

// witness is a running `cavra witness`.
type witness struct {
	cmd      *exec.Cmd
	key, url string
	log      string
}

// startWitness starts a witness for a log.
func (w *world) startWitness(name, listen, logKey string) *witness {
	w.t.Helper()
	out := &witness{log: filepath.Join(w.dir, name+".log")}
	log, err := os.OpenFile(out.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	w.must(err)
	out.cmd = exec.Command(w.programs.Cavra(), "witness", "--dir", filepath.Join(w.dir, name), "--name", name+".test/cavra", "--log-key", logKey, "--listen", listen)
	out.cmd.Stderr, out.cmd.SysProcAttr = log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := out.cmd.StdoutPipe()
	w.must(err)
	w.must(out.cmd.Start())
	w.must(log.Close())
	w.t.Cleanup(out.kill)
	lines := bufio.NewScanner(stdout)
	for _, to := range []*string{&out.key, &out.url} {
		if !lines.Scan() {
			w.t.Fatalf("the witness says nothing: %v", lines.Err())
		}
		*to = lines.Text()
	}
	return out
}

func (p *witness) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()
}

// TestWitness: an aggregator's log is signed by a witness that runs elsewhere, and
// goes on through the witness's own death; a history that is not the one which it
// signed gets no signature, and nothing is taken in.
func TestWitness(t *testing.T) {
	dir := folder(t)
	p, data, file := programs(t), filepath.Join(dir, "data"), filepath.Join(dir, "aggregator.yaml")
	ports := [2]int{}
	for i := range ports {
		var err error
		if ports[i], err = stack.FreePort(); err != nil {
			t.Fatal(err)
		}
	}
	configure := func(more string) {
		t.Helper()
		text := fmt.Sprintf("listen: 127.0.0.1:%d\nembedded: {dir: %s, kafka_port: %d}\n%s", ports[0], data, ports[1], more)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure("")
	w := newWorld(t, dir, p, stack.AggregatorConfig{Programs: p, Dir: data, Config: file}, nil)
	a := w.enrol("agent")
	first := publicPEM(t, filepath.Join(dir, "first.pem"), w.author(a).Key.Public())
	scan := func(files int) string {
		t.Helper()
		w.feed(files)
		w.must(a.RunOnce(w.ctx))
		return w.export(a)
	}
	file1 := scan(3)
	out, err := w.aggregator.CLI(w.ctx, "log", "--key")
	w.must(err)
	logKey := strings.TrimSpace(string(out.Stdout))
	one := w.startWitness("one", "127.0.0.1:0", logKey)
	verify := func(want int, file string, more ...string) string {
		t.Helper()
		return w.cavra(want, nil, append([]string{"verify", file, "--key", first, "--log-key", logKey}, more...)...)
	}
	verify(0, file1)
	if out := verify(1, file1, "--witness-key", one.key); !strings.Contains(out, "0 of 1 witnesses") {
		t.Errorf("an export from before the witness:\n%s", out)
	}
	w.must(w.aggregator.Stop())
	configure(fmt.Sprintf("evidence:\n  witnesses:\n  - {key: %q, url: %q}\n", one.key, one.url))
	w.must(w.aggregator.Start(w.ctx))
	verify(0, scan(3), "--witness-key", one.key)
	other := w.startWitness("other", "127.0.0.1:0", logKey)
	verify(1, scan(1), "--witness-key", other.key)
	verify(0, scan(1), "--witness-key", other.key, "--witness-key", one.key, "--witnesses", "1")

	// The witness dies and comes back, and knows what it has signed.
	one.kill()
	w.feed(2)
	w.must(a.RunOnce(w.ctx))
	again := w.startWitness("one", strings.TrimPrefix(one.url, "http://"), logKey)
	if again.key != one.key {
		t.Fatalf("the witness has another key: %s, not %s", again.key, one.key)
	}
	verify(0, w.export(a), "--witness-key", one.key)

	// The aggregator's folder is put back, and goes another way.
	w.must(w.aggregator.Stop())
	backup := filepath.Join(dir, "backup")
	w.must(os.CopyFS(backup, os.DirFS(filepath.Join(data, "evidence"))))
	w.must(w.aggregator.Start(w.ctx))
	scan(3)
	w.must(w.aggregator.Stop())
	w.must(os.RemoveAll(filepath.Join(data, "evidence")))
	w.must(os.Rename(backup, filepath.Join(data, "evidence")))
	w.must(w.aggregator.Start(w.ctx))
	before, err := w.aggregator.Agents(w.ctx)
	w.must(err)
	w.feed(30)
	w.must(a.RunOnce(w.ctx))
	// How far the log comes before it waits for the signature decides which it is
	// told: that another tree was signed, or a longer one.
	w.must(stack.Poll(w.within(time.Minute), "the witness's refusal", func(context.Context) (bool, string, error) {
		mine, err := os.ReadFile(again.log)
		if err != nil {
			return false, "", err
		}
		theirs, err := os.ReadFile(w.aggregator.Log())
		refused := strings.Contains(string(mine), "does not extend what was signed") || strings.Contains(string(theirs), "larger than log size")
		return refused, "nobody refuses", err
	}))
	after, err := w.aggregator.Agents(w.ctx)
	w.must(err)
	if before[0].Statements != after[0].Statements {
		t.Errorf("%d statements were taken in, and %d before the log was put back", after[0].Statements, before[0].Statements)
	}
}
