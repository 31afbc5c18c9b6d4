package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/agent/internal/egress"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/finding"
)

// listing is every file below a folder with its content.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.IsDir() {
			out[f.Name()] = "a folder"
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[f.Name()] = string(b)
	}
	return out
}

func (r *rounds) preview() (types []string, all []byte) {
	r.t.Helper()
	rules, err := finding.Shipped()
	if err != nil {
		r.t.Fatal(err)
	}
	gate, err := egress.NewGate(egress.GateConfig{Privacy: r.cfg.Settings.Privacy, Vocabulary: egress.Shipped(), Rules: rules, Reducer: r.reducer()})
	if err != nil {
		r.t.Fatal(err)
	}
	err = Preview(r.t.Context(), r.cfg, func(o Outbound) error {
		types, all = append(types, predicate.Short(o.Type)), append(append(all, o.Payload...), '\n')
		return gate.Check(o.Payload)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	slices.Sort(types)
	return types, all
}

// TestPreviewIsWhatARoundSends, but for the key, the places and the times, and
// leaves the agent's folder as it is.
func TestPreviewIsWhatARoundSends(t *testing.T) {
	r := newRounds(t)
	r.cfg.Settings.Privacy = predicate.Strict
	r.put("merger-target.pkl", "cposix\nsystem\n(S'payload-marker'\ntR.")
	r.put("in-house.pkl", "cacme_internal\nthing\n.")
	before := listing(t, r.cfg.Dir)
	types, all := r.preview()
	if want := []string{"epoch", "heartbeat", "inventory", "scan", "scan"}; !slices.Equal(types, want) {
		t.Errorf("previewed %v, want %v", types, want)
	}
	for _, secret := range []string{"merger", "acme", "payload-marker", r.tree} {
		if bytes.Contains(all, []byte(secret)) {
			t.Errorf("%q would leave in the clear", secret)
		}
	}
	after := listing(t, r.cfg.Dir)
	if len(before) != len(after) {
		t.Errorf("the agent's folder has changed: %d files, then %d", len(before), len(after))
	}
	for name, content := range before {
		if after[name] != content {
			t.Errorf("%s has changed", name)
		}
	}
	// What then goes has the same artifacts, names and findings.
	r.once()
	for _, payload := range r.payloads {
		_, tail, ok := strings.Cut(string(payload), `"artifact":`)
		if !ok {
			continue
		}
		body, _, _ := strings.Cut(tail, `"started_at"`)
		if !bytes.Contains(all, []byte(body)) {
			t.Errorf("the preview did not show %s", body)
		}
	}
}

// TestSentIsWhatTheBrokerHas, byte for byte, and shown of no other key.
func TestSentIsWhatTheBrokerHas(t *testing.T) {
	r := newRounds(t)
	r.put("a.pkl", "N.")
	r.once()
	var sent [][]byte
	show := func(o Outbound) error { sent = append(sent, bytes.Clone(o.Payload)); return nil }
	if err := Sent(r.cfg.Dir, show); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.payloads, sent); diff != "" {
		t.Errorf("(-acknowledged +shown):\n%s", diff)
	}
	if err := os.Remove(filepath.Join(r.cfg.Dir, r.id.KeyFile)); err != nil {
		t.Fatal(err)
	}
	if err := Sent(r.cfg.Dir, show); err == nil {
		t.Error("statements of a key that is not in the folder were shown")
	}
}

func TestPreviewWithoutAnAgent(t *testing.T) {
	r := newRounds(t)
	r.cfg.Dir = ""
	r.put("a.pkl", "N.")
	if types, all := r.preview(); len(types) != 4 || !bytes.Contains(all, []byte(`"plain":"a.pkl"`)) {
		t.Errorf("%v\n%s", types, all)
	}
}
