package scenario

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cavra/cavra/testbed/stack"
)

// TestEvidenceStandsInTheLog exports an agent's chain, verifies it offline with
// nothing but public keys, and sees every change to it found: in an envelope, in a
// proof, in a checkpoint, and in the log itself.
func TestEvidenceStandsInTheLog(t *testing.T) {
	w := embedded(t, folder(t), programs(t))
	w.agent = w.enrol("agent")
	w.feed(3)
	w.must(w.agent.RunOnce(w.within(time.Minute)))
	head, err := w.agent.Status(w.ctx)
	w.must(err)
	id, err := w.agent.Identity()
	w.must(err)
	w.must(w.aggregator.AwaitHead(w.within(time.Minute), id.Agent, head))

	put := func(name string, b []byte) string {
		path := filepath.Join(w.dir, name)
		w.must(os.WriteFile(path, b, 0o600))
		return path
	}
	ask := func(args ...string) string {
		t.Helper()
		out, err := w.aggregator.CLI(w.ctx, args...)
		w.must(err)
		if out.Code != 0 {
			t.Fatalf("%v: exit code %d: %s%s", args, out.Code, out.Stdout, out.Stderr)
		}
		return string(out.Stdout)
	}
	key := strings.TrimSpace(ask("log", "--key"))
	checkpoint := put("kept.checkpoint", []byte(ask("log")))
	evidence := filepath.Join(w.dir, "evidence.json")
	ask("export", "--agent", id.Agent, "--output", evidence)
	verify := func(file, logKey string) stack.Output {
		t.Helper()
		out, err := stack.Command(w.ctx, nil, w.programs.Cavra(), "verify", file, "--trust-embedded-keys-unsafe", "--complete", "--log-key", logKey)
		w.must(err)
		return out
	}
	if out := verify(evidence, key); out.Code != 0 || !bytes.Contains(out.Stdout, []byte("are in the transparency log")) {
		t.Fatalf("exit code %d: %s%s", out.Code, out.Stdout, out.Stderr)
	}
	whole, err := os.ReadFile(evidence)
	w.must(err)
	var doc map[string]any
	w.must(json.Unmarshal(whole, &doc))
	logs := doc["logs"].([]any)[0].(map[string]any)
	first := logs["entries"].([]any)[0].(map[string]any)
	for name, forge := range map[string]func(){
		"a hash of a proof": func() {
			proof := first["proof"].([]any)
			proof[0] = strings.Repeat("A", 43) + "="
		},
		"an index":     func() { first["index"] = first["index"].(float64) + 1 },
		"a checkpoint": func() { logs["checkpoint"] = strings.Replace(logs["checkpoint"].(string), "\n", "x\n", 1) },
		"no entry":     func() { logs["entries"] = logs["entries"].([]any)[1:] },
		"no log":       func() { delete(doc, "logs") },
	} {
		w.must(json.Unmarshal(whole, &doc))
		logs = doc["logs"].([]any)[0].(map[string]any)
		first = logs["entries"].([]any)[0].(map[string]any)
		forge()
		b, err := json.Marshal(doc)
		w.must(err)
		if out := verify(put("forged.json", b), key); out.Code != 1 {
			t.Errorf("%s: exit code %d: %s%s", name, out.Code, out.Stdout, out.Stderr)
		}
	}
	if out := verify(evidence, "cavra.local/log+00000001+"+strings.Repeat("A", 44)); out.Code == 0 {
		t.Error("verified by another log's key")
	}

	// The log grows through a restart, and its growth is proven.
	w.must(w.aggregator.Stop())
	w.must(w.aggregator.Start(w.ctx))
	w.feed(2)
	w.must(w.agent.RunOnce(w.within(time.Minute)))
	head, err = w.agent.Status(w.ctx)
	w.must(err)
	w.must(w.aggregator.AwaitHead(w.within(time.Minute), id.Agent, head))
	if out := ask("log", "--since", checkpoint, "--log-key", key); !strings.Contains(out, "begins with the same") {
		t.Error(out)
	}
	// A log that was made anew cannot prove it.
	w.must(w.aggregator.Stop())
	log := filepath.Join(w.aggregator.Dir(), "evidence", "log")
	w.must(os.RemoveAll(log))
	w.must(w.aggregator.Start(w.ctx))
	out, err := w.aggregator.CLI(w.ctx, "log", "--since", checkpoint, "--log-key", key)
	w.must(err)
	if out.Code == 0 {
		t.Errorf("a log that begins anew extends the old one: %s", out.Stdout)
	}
	if !bytes.Contains(whole, []byte(`"checkpoint"`)) {
		t.Error("the export had no checkpoint")
	}
}
