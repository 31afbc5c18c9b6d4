package scenario

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/testbed/hostile"
	"github.com/cavra/cavra/testbed/stack"
	"github.com/cavra/cavra/testbed/wire"
)

// secret is a canary that an identifier can be, too.
func (f *flock) secret(where string) string {
	c := wire.Canary{Where: where, Word: strings.ToLower(wire.NewCanary(where).Word)}
	f.all = append(f.all, c)
	return c.Word
}

// senders builds the hostile plugins, each with a secret of its own, into a folder
// with the shipped ones.
func (f *flock) senders(p stack.Programs, dir string) (connector string) {
	f.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		f.t.Fatal(err)
	}
	connector = f.secret("connector: name, version, keys, paths, names, revisions, errors")
	for name, secret := range map[string]string{"cavra-scanner-hostile": f.secret("scanner: name, version, ruleset"), "cavra-connector-hostile": connector} {
		build := exec.Command("go", "build", "-ldflags", "-X main.secret="+secret, "-o", filepath.Join(dir, name), "../hostile/cmd/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			f.t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	for _, name := range []string{"cavra-connector-fs", "cavra-formats"} {
		b, err := os.ReadFile(filepath.Join(string(p), name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o755)
		}
		if err != nil {
			f.t.Fatal(err)
		}
	}
	return connector
}

var scopes = regexp.MustCompile(`(?m)^scopes:$`)

// listens has an agent use the plugins of a folder, and look after roots by the
// hostile connector too.
func (w *world) listens(a *stack.Agent, plugins string, roots []string) {
	w.t.Helper()
	name := filepath.Join(a.Dir(), "agent.yaml")
	b, err := os.ReadFile(name)
	w.must(err)
	if !pluginDir.Match(b) || !scopes.Match(b) {
		w.t.Fatalf("%s is of another form:\n%s", name, b)
	}
	b = pluginDir.ReplaceAll(b, []byte("plugin_dir: "+plugins))
	list := "scopes:"
	for _, root := range roots {
		w.must(os.MkdirAll(root, 0o755))
		list += "\n- connector: hostile\n  root: " + root
	}
	w.must(os.WriteFile(name, scopes.ReplaceAll(b, []byte(list)), 0o600))
}

// TestHostileSenders has a scanner and a connector try everything that their
// contracts let them say to get a secret out, in processes that the shipped agent
// has started, and looks for the secrets in what was captured and decrypted. At
// the level names, those that were said as names are seen, so the test can see.
func TestHostileSenders(t *testing.T) {
	if os.Getenv("CAVRA_ZERO_TRUST") == "" {
		t.Skip("make zero-trust runs this")
	}
	if os.Getenv(wire.Namespace) == "" {
		wire.Rerun(t)
		return
	}
	p := logged(t)
	for _, privacy := range []string{"strict", "names"} {
		t.Run(privacy, func(t *testing.T) { senders(t, p, privacy) })
	}
}

func senders(t *testing.T, p stack.Programs, privacy string) {
	w := tap(t, p)
	f := &flock{t: t}
	plugins := filepath.Join(w.dir, "plugins")
	connector := f.senders(p, plugins)
	routes := map[predicate.Digest]string{}
	numbers := map[string]string{fmt.Sprint(hostile.Number(connector)): "connector: size of an item"}
	w.must(os.WriteFile(filepath.Join(w.tree, "config.json"), []byte("{}"), 0o644))
	for i, route := range hostile.Routes() {
		secret := f.secret("scanner: " + route)
		order := hostile.Order(route, secret)
		routes[predicate.DigestOf(order)] = route
		numbers[fmt.Sprint(hostile.Number(secret))], numbers[fmt.Sprint(hostile.Number(secret[6:]))] = route, route
		w.must(os.WriteFile(filepath.Join(w.tree, fmt.Sprintf("%02d.bin", i)), order, 0o644))
	}
	a := w.enrol("agent", "--privacy", privacy, "--keyed-below", "4096")
	var roots []string
	for _, root := range []string{hostile.RootItems, hostile.RootProblem, hostile.RootOrder, hostile.RootError} {
		roots = append(roots, filepath.Join(w.dir, "registry", root))
	}
	w.listens(a, plugins, roots)
	traffic := w.sent(a)

	outcomes := map[string]string{}
	var listed []string
	for _, s := range signed(t, traffic) {
		w.coarse(s, numbers)
		if v, ok := s.(*predicate.Inventory); ok && v.Scope.Registry == "hostile" {
			listed = append(listed, inventoried(v))
		}
		if s, ok := s.(*predicate.Scan); ok && routes[s.Artifact.Digest] != "" {
			outcomes[routes[s.Artifact.Digest]] = summed(s)
		}
	}
	if len(listed) != len(roots) {
		t.Errorf("the hostile connector was asked for %d roots, and told of in %d inventories: %q", len(roots), len(listed), listed)
	}
	said := map[string]bool{}
	for _, s := range wire.Sight(traffic, f.all) {
		if privacy == "names" && (s.Canary.Word == connector || slices.Contains([]string{"scanner: module and attribute", "scanner: everything, without end"}, s.Canary.Where)) {
			said[s.Canary.Where] = true
			continue
		}
		t.Errorf("left the machine: %s", s)
	}
	if privacy == "names" {
		if len(said) != 3 {
			t.Errorf("what is sent in the clear at this level was not seen: %v", said)
		}
		return
	}
	var table strings.Builder
	for _, route := range hostile.Routes() {
		fmt.Fprintf(&table, "%-28s %s\n", route, cmp.Or(outcomes[route], "nothing was told"))
		if outcomes[route] == "" {
			t.Errorf("%s: no statement speaks of it", route)
		}
	}
	t.Logf("a scanner's routes, and what left of each at the level strict:\n%s\na connector's roots (items, reasons, order, errors):\n%s", table.String(), strings.Join(listed, "\n"))
}

// inventoried sums up what an inventory says.
func inventoried(v *predicate.Inventory) string {
	out := fmt.Sprintf("%d references, complete: %t", len(v.References), v.Complete)
	for _, r := range v.References {
		if r.Problem != "" {
			out += ", " + string(r.Problem)
		}
	}
	return out
}

// summed sums up what a statement says.
func summed(s *predicate.Scan) string {
	var found []string
	for _, f := range s.Findings {
		found = append(found, fmt.Sprintf("%s at %s, %d or more", f.Rule, f.Location, f.Count))
	}
	if n := len(found); n > 3 {
		found = append(found[:2], fmt.Sprintf("and %d more", n-2))
	}
	out := string(s.Verdict) + ", " + s.Artifact.Format
	for _, r := range s.Coverage.Ranges {
		out += ", " + string(r.Reason)
	}
	if n := len(s.Imports); n > 0 {
		out += fmt.Sprintf(", %d imports", n)
	}
	if len(found) > 0 {
		out += ": " + strings.Join(found, "; ")
	}
	return out
}

// coarse holds the numbers of a statement: none is one that somebody has chosen.
func (w *world) coarse(p predicate.Predicate, numbers map[string]string) {
	w.t.Helper()
	b, err := predicate.Marshal(p)
	w.must(err)
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.UseNumber()
	for {
		token, err := decoder.Token()
		if err != nil {
			break
		}
		if n, ok := token.(json.Number); ok && numbers[n.String()] != "" {
			w.t.Errorf("left the machine: %s, as the number %s", numbers[n.String()], n)
		}
	}
	s, ok := p.(*predicate.Scan)
	if !ok {
		return
	}
	for _, f := range s.Findings {
		if !slices.Contains([]uint64{1, 10, 100, 1000}, f.Count) {
			w.t.Errorf("a count of %d left the machine", f.Count)
		}
	}
	for _, r := range s.Coverage.Ranges {
		if r.Start != 0 || r.End != 0 {
			w.t.Errorf("a range from %d to %d left the machine", r.Start, r.End)
		}
	}
}
