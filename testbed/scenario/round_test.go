package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
)

// told is what one round has said of the tree.
type told struct {
	// Scanned are the contents that were scanned, by what we call them.
	Scanned []string
	// Listed are the paths of the inventory, if there was one.
	Listed   []string
	Complete bool
	Gaps     int
}

// rounds runs one round at a time and reads from the topic what it said.
type rounds struct {
	*world
	seen int
	// names call contents by a name.
	names map[predicate.Digest]string
}

func (r *rounds) put(path, content string) {
	r.t.Helper()
	write(r.t, filepath.Join(r.tree, path), content)
	r.names[predicate.DigestOf([]byte(content))] = content[:1]
}

// once runs a round, and returns what is new in the topic.
func (r *rounds) once() told {
	r.t.Helper()
	r.must(r.agent.RunOnce(r.ctx))
	messages, err := r.tail.Whole(r.within(30 * time.Second))
	r.must(err)
	var out told
	for _, m := range messages[r.seen:] {
		envelope, err := attest.Open(m.Value)
		r.must(err)
		payload, err := envelope.Verify(r.keys[0].Public)
		r.must(err)
		p, err := predicate.Parse(payload)
		r.must(err)
		switch p := p.(type) {
		case *predicate.Scan:
			out.Scanned = append(out.Scanned, r.names[p.Artifact.Digest])
		case *predicate.Inventory:
			out.Complete = p.Complete
			for _, ref := range p.References {
				out.Listed = append(out.Listed, fmt.Sprint(ref.Path.Plain, r.names[ref.Digest], ref.Problem))
			}
		case *predicate.Gap:
			out.Gaps++
		}
	}
	r.seen = len(messages)
	slices.Sort(out.Scanned)
	slices.Sort(out.Listed)
	return out
}

// TestRounds changes a tree between rounds, and reads what each round says: what
// is new or changed, all of it again under other scanners, and nothing closed by
// a listing that was not whole.
func TestRounds(t *testing.T) {
	w := embedded(t, folder(t), programs(t))
	r := &rounds{world: w, names: map[predicate.Digest]string{}}
	r.put("one.txt", "a plain text\n")
	r.put("two.txt", "b plain text\n")
	r.put("bad.pkl", "cos\nsystem\n(S'true'\ntR.")
	w.agent = w.enrol("agent")
	for _, step := range []struct {
		what   string
		before func()
		want   told
	}{
		{"the first round", func() {}, told{Scanned: []string{"a", "b", "c"}, Listed: []string{"bad.pklc", "one.txta", "two.txtb"}, Complete: true}},
		{"nothing has changed", func() {}, told{}},
		{"one file has", func() { r.put("one.txt", "d other text\n") }, told{Scanned: []string{"d"}, Listed: []string{"bad.pklc", "one.txtd", "two.txtb"}, Complete: true}},
		{"known bytes under another name", func() { r.put("three.txt", "b plain text\n") },
			told{Listed: []string{"bad.pklc", "one.txtd", "three.txtb", "two.txtb"}, Complete: true}},
		{"a file is gone", func() { w.must(os.Remove(filepath.Join(w.tree, "three.txt"))) },
			told{Listed: []string{"bad.pklc", "one.txtd", "two.txtb"}, Complete: true}},
		{"the whole tree is gone: that is not known to be for good", func() { w.must(os.Rename(w.tree, w.tree+".away")) }, told{}},
		{"it is back", func() { w.must(os.Rename(w.tree+".away", w.tree)) }, told{Listed: []string{"bad.pklc", "one.txtd", "two.txtb"}, Complete: true}},
		{"other scanners", func() { w.otherScanners() },
			told{Scanned: []string{"b", "c", "d"}, Listed: []string{"bad.pklc", "one.txtd", "two.txtb"}, Complete: true}},
	} {
		step.before()
		if diff := cmp.Diff(step.want, r.once()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.what, diff)
		}
	}
}

var pluginDir = regexp.MustCompile(`(?m)^plugin_dir:.*$`)

// otherScanners gives the agent programs of another digest.
func (w *world) otherScanners() {
	w.t.Helper()
	bin := filepath.Join(w.dir, "other")
	w.must(os.Mkdir(bin, 0o755))
	for _, name := range []string{"cavra-connector-fs", "cavra-formats"} {
		b, err := os.ReadFile(filepath.Join(string(w.programs), name))
		w.must(err)
		// A byte after its end changes what a program is, and not what it does.
		w.must(os.WriteFile(filepath.Join(bin, name), append(b, '\n'), 0o755))
	}
	name := filepath.Join(w.agent.Dir(), "agent.yaml")
	b, err := os.ReadFile(name)
	w.must(err)
	if !pluginDir.Match(b) {
		w.t.Fatalf("%s says nothing of plugin_dir:\n%s", name, b)
	}
	w.must(os.WriteFile(name, pluginDir.ReplaceAll(b, []byte("plugin_dir: "+bin)), 0o600))
}
