package agent

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/agent/internal/egress"
	"github.com/cavra/cavra/agent/internal/spool"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
)

// told is what rounds have said.
type told struct {
	// Scanned are the contents that were scanned, by their first letter.
	Scanned []string
	// Listed are the references of the inventory, if there was one: path, first
	// letter of the content, problem.
	Listed   []string
	Complete bool
	Gaps     []predicate.GapCause
}

// rounds runs rounds over a tree, with the real plugins and the real spool.
type rounds struct {
	*world
	tree string
	// names call contents by a letter.
	names map[predicate.Digest]string
	// payloads are those of the last round.
	payloads [][]byte
}

func newRounds(t *testing.T) *rounds {
	r := &rounds{world: newWorld(t), tree: t.TempDir(), names: map[predicate.Digest]string{}}
	r.cfg.Settings.Privacy = predicate.Names
	r.looksAfter(r.tree)
	return r
}

func (r *rounds) put(path, content string) {
	r.t.Helper()
	name := filepath.Join(r.tree, path)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.know(content)
}

// know calls a content by its first letter, under both of its digests.
func (r *rounds) know(content string) {
	r.t.Helper()
	plain := predicate.DigestOf([]byte(content))
	r.names[plain], r.names[r.reducer().Digest(predicate.File, plain, uint64(len(content)))] = content[:1], content[:1]
}

func (r *rounds) reducer() *egress.Reducer {
	r.t.Helper()
	out, err := egress.NewReducer(r.id.NameKey, r.cfg.Settings.KeyedBelow)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func (r *rounds) open() *Agent {
	r.t.Helper()
	a, err := Open(r.t.Context(), r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

func (r *rounds) close(a *Agent) {
	r.t.Helper()
	if err := a.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.id.Begun = true
}

// once runs an agent for one round, and returns what it said.
func (r *rounds) once() told {
	r.t.Helper()
	a := r.open()
	defer r.close(a)
	if err := a.round(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	over, end := context.WithCancel(r.t.Context())
	end()
	return r.drain(over, a)
}

// drain acknowledges what waits until nothing does and the round is over.
func (r *rounds) drain(round context.Context, a *Agent) told {
	r.t.Helper()
	var out told
	r.payloads = nil
	for round.Err() == nil || a.spool.Stats().Statements > 0 {
		entries, err := a.spool.Next(round, 1000, 1<<20)
		if err != nil && round.Err() != nil {
			continue
		}
		if err != nil {
			r.t.Fatal(err)
		}
		for _, e := range entries {
			r.read(e, &out)
		}
		if err := a.spool.Ack(entries[len(entries)-1].Place); err != nil {
			r.t.Fatal(err)
		}
	}
	slices.Sort(out.Scanned)
	slices.Sort(out.Listed)
	return out
}

func (r *rounds) read(e spool.Entry, out *told) {
	r.t.Helper()
	envelope, err := attest.Open(e.Envelope)
	if err != nil {
		r.t.Fatal(err)
	}
	payload, err := envelope.Verify(r.id.Key.Public())
	if err != nil {
		r.t.Fatal(err)
	}
	p, err := predicate.Parse(payload)
	if err != nil {
		r.t.Fatal(err)
	}
	r.payloads = append(r.payloads, payload)
	switch p := p.(type) {
	case *predicate.Gap:
		out.Gaps = append(out.Gaps, p.Cause)
	case *predicate.Scan:
		out.Scanned = append(out.Scanned, r.names[p.Artifact.Digest])
	case *predicate.Inventory:
		out.Complete, out.Listed = p.Complete, nil
		for _, ref := range p.References {
			out.Listed = append(out.Listed, strings.TrimSpace(fmt.Sprintln(ref.Path.Plain, r.names[ref.Digest], ref.Problem)))
		}
	}
}

// copyPrograms makes programs of other digests that do the same.
func (r *rounds) copyPrograms() {
	r.t.Helper()
	dir := r.t.TempDir()
	for _, name := range []string{"cavra-connector-fs", "cavra-formats"} {
		b, err := os.ReadFile(filepath.Join(r.cfg.Settings.PluginDir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), append(b, 0), 0o700) //nolint:gosec // a program has to be one that may be run
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
	r.cfg.Settings.PluginDir = dir
}

// TestRounds changes the tree between rounds: what is new or changed is scanned
// and nothing else is, unless the scanners are others; only a listing that is
// whole makes an inventory that is complete.
func TestRounds(t *testing.T) {
	r := newRounds(t)
	r.put("a.txt", "a text\n")
	r.put("sub/b.txt", "b text\n")
	all := []string{"a.txt a", "sub/b.txt b"}
	away := r.tree + ".away"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		what   string
		before func()
		want   told
	}{
		{"the first", func() {}, told{Scanned: []string{"a", "b"}, Listed: all, Complete: true}},
		{"nothing new", func() {}, told{}},
		{"a new file", func() { r.put("c.txt", "c text\n") }, told{Scanned: []string{"c"}, Listed: []string{"a.txt a", "c.txt c", "sub/b.txt b"}, Complete: true}},
		{"a changed file", func() { r.put("c.txt", "d text\n") }, told{Scanned: []string{"d"}, Listed: []string{"a.txt a", "c.txt d", "sub/b.txt b"}, Complete: true}},
		{"a removed file", func() { must(os.Remove(filepath.Join(r.tree, "c.txt"))) }, told{Listed: all, Complete: true}},
		{"known bytes elsewhere", func() { r.put("e.txt", "a text\n") }, told{Listed: []string{"a.txt a", "e.txt a", "sub/b.txt b"}, Complete: true}},
		{"what is no file", func() {
			must(os.Remove(filepath.Join(r.tree, "e.txt")))
			must(syscall.Mkfifo(filepath.Join(r.tree, "pipe"), 0o600))
		}, told{Listed: []string{"a.txt a", "pipe  not_regular", "sub/b.txt b"}, Complete: true}},
		{"no tree", func() {
			must(os.Remove(filepath.Join(r.tree, "pipe")))
			must(os.Rename(r.tree, away))
		}, told{}},
		{"the tree again", func() { must(os.Rename(away, r.tree)) }, told{Listed: all, Complete: true}},
		{"other scanners", func() { r.copyPrograms() }, told{Scanned: []string{"a", "b"}, Listed: all, Complete: true}},
	} {
		step.before()
		if diff := cmp.Diff(step.want, r.once()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.what, diff)
		}
	}
}

// TestABundleIsToldAsAWhole holds that what only the whole of a bundle is found to
// be is in its own statement, and makes its verdict worse than that of its files.
func TestABundleIsToldAsAWhole(t *testing.T) {
	r := newRounds(t)
	r.put("m/model.safetensors.index.json", `{"weight_map": {"a": "../../w.safetensors"}}`+"\n")
	r.put("m/README.md", "some words\n")
	r.once()
	type told struct {
		Kind     predicate.ArtifactKind
		Verdict  predicate.Verdict
		Rules    []string
		Files    uint64
		Complete bool
	}
	var got []told
	for _, payload := range r.payloads {
		p, err := predicate.Parse(payload)
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := p.(*predicate.Scan); ok {
			next := told{Kind: s.Artifact.Kind, Verdict: s.Verdict, Files: s.Artifact.Files, Complete: s.Coverage.Complete}
			for _, f := range s.Findings {
				next.Rules = append(next.Rules, f.Rule)
			}
			got = append(got, next)
		}
	}
	file := told{Kind: predicate.File, Verdict: predicate.Pass, Files: 1, Complete: true}
	want := []told{file, file, {Kind: predicate.Bundle, Verdict: predicate.Fail, Files: 2, Complete: true, Rules: []string{"repository.path.outside"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// binVar names the plugins' folder to a test that runs as another user.
const binVar = "CAVRA_TEST_BIN"

// asNobody runs a test as a user for whom permissions hold, and reports whether
// that was done, so that this process has nothing left to do.
func asNobody(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(bin, "agent.test")
	if err := os.WriteFile(program, b, 0o755); err != nil { //nolint:gosec // another user runs it
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = []string{binVar + "=" + bin}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("as another user: %v\n%s", err, out)
	}
	t.Logf("as another user:\n%s", out)
	return true
}

// TestALockedFolderClosesNothing takes the right to look into a folder away and
// gives it back: what is below it is neither gone nor scanned again.
func TestALockedFolderClosesNothing(t *testing.T) {
	if asNobody(t) {
		return
	}
	r := newRounds(t)
	r.put("a.txt", "a text\n")
	r.put("sub/b.txt", "b text\n")
	r.put("sub/deep/c.txt", "c text\n")
	all := []string{"a.txt a", "sub/b.txt b", "sub/deep/c.txt c"}
	sub := filepath.Join(r.tree, "sub")
	for _, step := range []struct {
		what string
		mode os.FileMode
		file os.FileMode
		want told
	}{
		{"all of it", 0o700, 0o600, told{Scanned: []string{"a", "b", "c"}, Listed: all, Complete: true}},
		{"a locked folder", 0, 0o600, told{Listed: []string{"a.txt a", "sub  permission_denied"}}},
		{"it is open again", 0o700, 0o600, told{Listed: all, Complete: true}},
		{"a locked file hides nothing", 0o700, 0, told{Listed: []string{"a.txt  permission_denied", "sub/b.txt b", "sub/deep/c.txt c"}, Complete: true}},
	} {
		if err := os.Chmod(sub, step.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(r.tree, "a.txt"), step.file); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, r.once()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.what, diff)
		}
	}
	if err := os.Chmod(sub, 0o700); err != nil {
		t.Fatal(err)
	}
}

// TestPrivacyOfARound looks for names in what would leave.
func TestPrivacyOfARound(t *testing.T) {
	for privacy, shown := range map[predicate.Privacy]bool{predicate.Strict: false, predicate.Names: true} {
		r := newRounds(t)
		r.cfg.Settings.Privacy = privacy
		r.put("acme-codename/model.pkl", "cacme_internal\nlaunch\n(tR.")
		r.once()
		all := bytes.Join(r.payloads, []byte("\n"))
		for _, name := range []string{"acme-codename", "acme_internal", "launch", filepath.Base(filepath.Dir(r.tree))} {
			if bytes.Contains(all, []byte(name)) != shown {
				t.Errorf("privacy %s: %q leaves: %t", privacy, name, !shown)
			}
		}
		if !bytes.Contains(all, []byte(`"privacy":"`+string(privacy)+`"`)) {
			t.Errorf("no statement says that its privacy is %s", privacy)
		}
	}
}

// TestALossIsToldAndMadeGood damages a statement that may be public.
func TestALossIsToldAndMadeGood(t *testing.T) {
	r := newRounds(t)
	r.put("a.txt", "a text\n")
	r.put("b.txt", "b text\n")
	a := r.open()
	if err := a.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := a.spool.Next(t.Context(), 1000, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	r.close(a)
	segments, err := filepath.Glob(filepath.Join(r.cfg.Dir, SpoolDir, "*.seg"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, entries[1].Envelope)
	if at < 0 {
		t.Fatal("the second statement is not where it is kept")
	}
	b[at+100] ^= 1
	if err := os.WriteFile(segments[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	got := r.once()
	if diff := cmp.Diff([]predicate.GapCause{predicate.SpoolCorrupt}, got.Gaps); diff != "" {
		t.Error(diff)
	}
	// Of the first round's scans one is left, and the second has both again.
	if len(got.Scanned) != 3 || !slices.Contains(got.Scanned, "a") || !slices.Contains(got.Scanned, "b") {
		t.Errorf("scanned %q: what was lost is not told again", got.Scanned)
	}
	if diff := cmp.Diff([]string{"a.txt a", "b.txt b"}, got.Listed); diff != "" || !got.Complete {
		t.Error(diff)
	}
	if diff := cmp.Diff(told{}, r.once()); diff != "" {
		t.Errorf("the loss is told again:\n%s", diff)
	}
}

// TestAFullSpoolHoldsTheRound fills the spool before a round: it waits, and goes
// on when the brokers take statements, and nothing is missing.
func TestAFullSpoolHoldsTheRound(t *testing.T) {
	r := newRounds(t)
	r.cfg.Settings.Spool.MaxBytes = spool.MinMaxBytes
	var want []string
	for _, letter := range "abcdefghij" {
		r.put(string(letter)+".txt", string(letter)+" text\n")
		want = append(want, string(letter))
	}
	a := r.open()
	defer r.close(a)
	name := strings.Repeat("x", predicate.MaxID)
	for a.spool.Stats().Disk < spool.MinMaxBytes-(4<<20) {
		p := beat().(*predicate.Heartbeat)
		p.Privacy = r.cfg.Settings.Privacy
		for range predicate.MaxScanners {
			p.Plugins = append(p.Plugins, predicate.Scanner{Name: name, Version: "1", Digest: predicate.ZeroDigest})
		}
		if _, err := a.spool.Append(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan error, 1)
	running, over := context.WithCancel(ctx)
	go func() {
		defer over()
		done <- a.round(ctx)
	}()
	eventually(t, "the round waits for room", func() bool { return !a.spool.Stats().FullSince.IsZero() })
	got := r.drain(running, a)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got.Scanned); diff != "" || !got.Complete || len(got.Listed) != len(want) {
		t.Errorf("%d references, complete %t (-want +got):\n%s", len(got.Listed), got.Complete, diff)
	}
}
