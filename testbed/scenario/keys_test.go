package scenario

import (
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/testbed/stack"
)

// publicPEM writes a public key where `cavra verify --key` reads it.
func publicPEM(t *testing.T, name string, key identity.PublicKey) string {
	t.Helper()
	der, err := key.DER()
	if err == nil {
		err = os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// cavra runs the agent's program and returns what it printed.
func (w *world) cavra(want int, env []string, args ...string) string {
	w.t.Helper()
	out, err := stack.Command(w.ctx, env, w.programs.Cavra(), args...)
	w.must(err)
	if out.Code != want {
		w.t.Fatalf("cavra %s: exit code %d, want %d:\n%s%s", strings.Join(args, " "), out.Code, want, out.Stdout, out.Stderr)
	}
	return string(out.Stdout) + string(out.Stderr)
}

// export writes an agent's chain into a file, once the aggregator has all of it.
func (w *world) export(a *stack.Agent) string {
	w.t.Helper()
	head, err := a.Status(w.ctx)
	w.must(err)
	id, err := a.Identity()
	w.must(err)
	w.must(w.aggregator.AwaitHead(w.within(2*time.Minute), id.Agent, head))
	file := filepath.Join(w.dir, id.Agent+"-chain.json")
	out, err := w.aggregator.CLI(w.ctx, "export", "--agent", id.Agent, "--output", file)
	w.must(err)
	if out.Code != 0 {
		w.t.Fatalf("export: %s", out.Stderr)
	}
	return file
}

// TestRotationKilledAnywhere kills an agent at every step of a change to a new key,
// while one runs and while none does: it goes on in an epoch that the aggregator
// takes in, nothing that it signed is refused or missing, and all of it verifies
// from the first key alone.
func TestRotationKilledAnywhere(t *testing.T) {
	dir := folder(t)
	w := embedded(t, dir, armed(t, dir))
	a := w.enrol("agent")
	first := publicPEM(t, filepath.Join(dir, "first.pem"), w.author(a).Key.Public())
	w.feed(5)
	w.must(a.RunOnce(w.ctx))
	epochs, began := uint64(1), time.Now()
	lap := func(what string) { t.Logf("%6.1fs: %s", time.Since(began).Seconds(), what) }
	for _, mark := range []string{"rotation-prepared", "rotation-answered", "rotation-saved", "rotation-begun"} {
		w.cavra(-1, []string{"CAVRA_FAULTPOINT=" + mark + ":1"}, "agent", "rotate", "--dir", a.Dir())
		lap("killed at " + mark)
		w.feed(3)
		w.must(a.RunOnce(w.ctx))
		epochs++
		lap("gone on")
		if head, err := a.Status(w.ctx); err != nil || head.Epoch != epochs || head.Waiting != 0 {
			t.Fatalf("after a kill at %s: %+v, %v; want epoch %d", mark, head, err, epochs)
		}
		w.hurry(a)
		w.must(a.Launch([]string{"CAVRA_FAULTPOINT=" + mark + ":1"}))
		w.must(os.WriteFile(filepath.Join(a.Dir(), "rotate.request"), nil, 0o600))
		if died, err := a.Killed(w.within(time.Minute)); err != nil || !died {
			t.Fatalf("the running agent did not die at %s: %v", mark, err)
		}
		lap("the running agent killed at " + mark)
		w.must(a.RunOnce(w.ctx))
		epochs++
		lap("gone on")
		if head, err := a.Status(w.ctx); err != nil || head.Epoch != epochs {
			t.Fatalf("after a kill of the running agent at %s: %+v, %v; want epoch %d", mark, head, err, epochs)
		}
	}
	w.must(a.Launch(nil))
	if out := w.cavra(0, nil, "agent", "rotate", "--dir", a.Dir()); !strings.Contains(out, fmt.Sprintf("epoch %d", epochs+1)) {
		t.Errorf("rotated while it ran: %s", out)
	}
	w.must(a.Stop())
	w.must(a.RunOnce(w.ctx))
	for _, unattributed := range []bool{false, true} {
		if refused, err := w.aggregator.Quarantine(w.ctx, unattributed); err != nil || len(refused) > 0 {
			t.Errorf("refused: %+v, %v", refused, err)
		}
	}
	file := w.export(a)
	key, err := w.aggregator.CLI(w.ctx, "log", "--key")
	w.must(err)
	out := w.cavra(0, nil, "verify", file, "--key", first, "--complete", "--log-key", strings.TrimSpace(string(key.Stdout)))
	if n := strings.Count(out, "in the log: certified at "); n != int(epochs) {
		t.Errorf("the log has %d rotations, want %d:\n%s", n, epochs, out)
	}
	if n := strings.Count(out, "the first of its chain"); n != int(epochs)+1 {
		t.Errorf("%d epochs verify, want %d:\n%s", n, epochs+1, out)
	}
	// The former private keys are gone.
	if files, err := filepath.Glob(filepath.Join(a.Dir(), "key-*.pem")); err != nil || len(files) != 1 {
		t.Errorf("private keys in the folder: %q, %v", files, err)
	}
	t.Logf("%d changes of key, %d of them killed: %s", epochs, 2*4, out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])
}
