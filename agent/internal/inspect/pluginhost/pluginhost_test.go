package pluginhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/plugin"
	"github.com/cavra/cavra/sdk/safeio"
	"github.com/cavra/cavra/sdk/scanner"
)

// The test program is both plugins when a host starts it: it is a scanner
// unless it finds itself asked to be a connector, which a copy of it with
// another end is.
func TestMain(m *testing.M) {
	if plugin.Launched() {
		serve := func() error { return plugin.ServeScanner(pidScanner{}) }
		if b, err := os.ReadFile("/proc/self/exe"); err == nil && bytes.HasSuffix(b, []byte("connector")) {
			serve = func() error { return plugin.ServeConnector(pidConnector{}) }
		}
		if err := serve(); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// pidScanner tells the process that it runs in as its format, and does what
// the content says.
type pidScanner struct{}

func (pidScanner) Describe() scanner.Description {
	return scanner.Description{Name: "pid", Version: "1", RulesetVersion: "2", Rules: []string{"pickle.import.dangerous", "pickle.malformed"}}
}

func (pidScanner) Scan(_ context.Context, t scanner.Target) (scanner.Report, error) {
	b := make([]byte, t.Content.Size())
	if err := safeio.ReadFull(t.Content, b, 0, t.Path); err != nil {
		return scanner.Report{}, err
	}
	r := scanner.Report{Format: fmt.Sprintf("pid%d", os.Getpid()), Coverage: []coverage.Range{{Kind: predicate.Parsed, End: t.Content.Size()}}}
	rule, isRule := strings.CutPrefix(string(b), "rule ")
	switch {
	case isRule:
		r.AddFinding(finding.Finding{Rule: rule, Location: finding.Location{Class: "pickle"}})
	case string(b) == "crash":
		os.Exit(3)
	case string(b) == "spin":
		for { //nolint:staticcheck // on purpose
		}
	case string(b) == "allocate":
		var kept [][]byte
		for { // memory that is never touched, until there is no more
			kept = append(kept, make([]byte, 1<<30))
			_ = kept[len(kept)-1]
		}
	case string(b) == "error":
		return r, errors.New("gave up")
	}
	return r, nil
}

// pidConnector has one item, and crashes when it is asked for another.
type pidConnector struct{}

func (pidConnector) Describe() connector.Description {
	return connector.Description{Name: "pid", Version: "1"}
}

func (pidConnector) List(context.Context, string) iter.Seq2[artifact.Item, error] {
	return func(yield func(artifact.Item, error) bool) { yield(artifact.Item{Key: "k", Path: "k", Size: 1}, nil) }
}

func (pidConnector) Open(_ context.Context, _, key string) (artifact.Reader, error) {
	if key != "k" {
		os.Exit(4)
	}
	return content("x"), nil
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

func content(s string) artifact.Reader { return inMemory{bytes.NewReader([]byte(s))} }

func host(t *testing.T, cfg Config) *Host {
	t.Helper()
	if cfg.Sandbox == "" {
		cfg.Sandbox = plugin.SandboxOff // a worker is told by its process id, which is 1 in a namespace
	}
	c, err := finding.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Catalogue = c
	cfg.Distrust = func(fs []finding.Finding) bool {
		return slices.ContainsFunc(fs, func(f finding.Finding) bool { return f.Rule == "pickle.import.dangerous" })
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
		install(t, cfg.Dir, "cavra-scanner-pid", "")
		install(t, cfg.Dir, "cavra-connector-pid", "connector")
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// install copies the test program.
func install(t *testing.T, dir, name, end string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), append(b, end...), 0o755); err != nil {
		t.Fatal(err)
	}
}

func pool(t *testing.T, cfg Config) *Pool {
	t.Helper()
	pools, err := host(t, cfg).Scanners(t.Context())
	if errors.Is(err, plugin.ErrSandbox) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pools[0].Close(); err != nil {
			t.Error(err)
		}
	})
	return pools[0]
}

// TestReplacement: which scans share a worker.
func TestReplacement(t *testing.T) {
	for name, tt := range map[string]struct {
		budget Budget
		scans  []string
		// same says of each scan but the first whether it has the worker of the
		// one before.
		same []bool
	}{
		"benign":      {DefaultBudget, []string{"a", "b", "c"}, []bool{true, true}},
		"a fail":      {DefaultBudget, []string{"a", "rule pickle.import.dangerous", "b"}, []bool{true, false}},
		"a warning":   {DefaultBudget, []string{"a", "rule pickle.malformed", "b"}, []bool{true, true}},
		"an error":    {DefaultBudget, []string{"error", "b"}, []bool{false}},
		"a budget":    {Budget{Items: 2, Bytes: 100}, []string{"a", "b", "c"}, []bool{true, false}},
		"of bytes":    {Budget{Items: 9, Bytes: 10}, []string{"a", "0123456789", "c"}, []bool{true, false}},
		"a bad claim": {DefaultBudget, []string{"rule no.such", "a"}, []bool{false}},
	} {
		t.Run(name, func(t *testing.T) {
			p := pool(t, Config{Workers: 1, Budget: tt.budget})
			last := ""
			var same []bool
			for i, s := range tt.scans {
				r, err := p.Scan(t.Context(), scanner.Target{Path: "f", Content: content(s)})
				if err != nil && i > 0 {
					t.Fatal(err)
				}
				if i > 0 {
					same = append(same, r.Format == last)
				}
				last = r.Format
			}
			if diff := cmp.Diff(tt.same, same); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCrashCostsOneArtifact(t *testing.T) {
	p := pool(t, Config{Workers: 2})
	var mu sync.Mutex
	failed := map[string]bool{}
	var group sync.WaitGroup
	for i := range 20 {
		s := "fine"
		if i%5 == 0 {
			s = "crash"
		}
		group.Go(func() {
			_, err := p.Scan(t.Context(), scanner.Target{Path: "f", Content: content(s)})
			var crash *plugin.CrashError
			mu.Lock()
			defer mu.Unlock()
			if (s == "crash") != errors.As(err, &crash) || s == "crash" && crash.ExitCode != 3 {
				failed[fmt.Sprint(s, err)] = true
			}
		})
	}
	group.Wait()
	if len(failed) > 0 {
		t.Errorf("%v", failed)
	}
}

func TestIdentity(t *testing.T) {
	p := pool(t, Config{Workers: 1})
	b, err := os.ReadFile(p.program.Path)
	if err != nil {
		t.Fatal(err)
	}
	want := predicate.Scanner{Name: "cavra-scanner-pid", Version: "1", Digest: predicate.DigestOf(b)}
	if diff := cmp.Diff(want, p.Program()); diff != "" {
		t.Error(diff)
	}
	if !slices.Contains(p.Layers(), predicate.LayerProcess) || p.Describe().RulesetVersion != "2" {
		t.Errorf("%v, %+v", p.Layers(), p.Describe())
	}
	// Another program in its place is not started: the one that was measured is.
	if err := os.Remove(p.program.Path); err != nil {
		t.Fatal(err)
	}
	install(t, filepath.Dir(p.program.Path), "cavra-scanner-pid", "changed")
	var crash *plugin.CrashError
	if _, err := p.Scan(t.Context(), scanner.Target{Path: "f", Content: content("crash")}); !errors.As(err, &crash) {
		t.Fatalf("%v, want a crash", err)
	}
	if _, err := p.Scan(t.Context(), scanner.Target{Path: "f", Content: content("a")}); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, p.Program()); diff != "" {
		t.Error(diff)
	}
}

func TestConnectorComesBack(t *testing.T) {
	h := host(t, Config{Workers: 1})
	c, err := h.Connector(t.Context(), "pid", Reach{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.Open(t.Context(), "/", "other"); err == nil {
			t.Fatal("no crash")
		}
		n := 0
		for _, err := range c.List(t.Context(), "/") {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		r, err := c.Open(t.Context(), "/", "k")
		if err != nil || n != 1 || r.Size() != 1 {
			t.Fatal(n, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"cavra", "cavra-aggregator", "cavra-formats", "cavra-scanner-x", "cavra-connector-fs", "libchdb.so"} {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "cavra-scanner-notes"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range got {
		names = append(names, string(p.Kind)+" "+p.Name)
	}
	if diff := cmp.Diff([]string{"connector cavra-connector-fs", "scanner cavra-formats", "scanner cavra-scanner-x"}, names); diff != "" {
		t.Error(diff)
	}
	if _, err := Find(filepath.Join(dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	h := host(t, Config{Dir: t.TempDir(), Workers: 1})
	if _, err := h.Scanners(t.Context()); !errors.Is(err, ErrNoPlugin) {
		t.Error(err)
	}
	if _, err := h.Connector(t.Context(), "s3", Reach{}); !errors.Is(err, ErrNoPlugin) {
		t.Error(err)
	}
}
