package corpus_test

import (
	"bytes"
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/plugins/formats"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/testbed/corpus"
)

type file struct {
	*bytes.Reader
}

func (file) Close() error { return nil }

// listed holds the formats and places of a report to those that may be named
// where a report leaves the machine.
func listed(t *testing.T, r scanner.Report) {
	t.Helper()
	kinds := finding.ShippedKinds()
	if !kinds[r.Format] {
		t.Errorf("the format %s is not in sdk/finding/kinds.txt", r.Format)
	}
	for _, f := range r.Findings {
		if !kinds[f.Location.Class] {
			t.Errorf("the place %s is not in sdk/finding/kinds.txt", f.Location.Class)
		}
	}
}

// scan says of a file what its expectation says, by the shipped scanner.
func scan(t *testing.T, dir, path string) corpus.Expectation {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := formats.New().Scan(context.Background(), scanner.Target{Path: path, Content: file{bytes.NewReader(b)}})
	if err != nil {
		t.Fatalf("scan %s: %v", path, err)
	}
	listed(t, r)
	catalogue, err := finding.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	got := corpus.Expectation{
		Path: path, Digest: predicate.DigestOf(b), Size: int64(len(b)), Format: r.Format,
		Complete: coverage.Sum(r.Coverage).Complete, Rules: []string{}, Imports: []corpus.Import{},
	}
	worst := predicate.Info
	for _, f := range r.Findings {
		rule, ok := catalogue.Rule(f.Rule)
		if !ok {
			t.Fatalf("%s: rule %s is in no catalogue", path, f.Rule)
		}
		if rule.Severity.Rank() > worst.Rank() {
			worst = rule.Severity
		}
		got.Rules = append(got.Rules, f.Rule)
	}
	for _, i := range r.Imports {
		got.Imports = append(got.Imports, corpus.Import{Module: i.Module, Name: i.Name, How: i.How})
	}
	slices.Sort(got.Rules)
	got.Rules = slices.Compact(got.Rules)
	slices.SortFunc(got.Imports, func(a, b corpus.Import) int {
		return cmp.Or(cmp.Compare(a.Module, b.Module), cmp.Compare(a.Name, b.Name), cmp.Compare(a.How, b.How))
	})
	got.Imports = slices.Compact(got.Imports)
	got.Verdict = verdict(worst, got.Complete)
	return got
}

func verdict(worst predicate.Severity, complete bool) predicate.Verdict {
	switch {
	case worst.Rank() >= predicate.High.Rank():
		return predicate.Fail
	case worst == predicate.Medium:
		return predicate.Warn
	case !complete:
		return predicate.Error
	}
	return predicate.Pass
}

func check(t *testing.T, dir string, m corpus.Manifest) {
	t.Helper()
	for _, want := range m.Files {
		if diff := gocmp.Diff(want, scan(t, dir, want.Path)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.Path, diff)
		}
	}
}

func TestFormatsFindsWhatTheCorpusHolds(t *testing.T) {
	dir := t.TempDir()
	m, err := corpus.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	check(t, dir, m)
}

func TestFormatsFindsWhatManyHold(t *testing.T) {
	dir := t.TempDir()
	m, err := corpus.WriteMany(dir, 600, 7)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Files) != 600 {
		t.Fatalf("%d files, want 600", len(m.Files))
	}
	seen := make(map[predicate.Digest]bool)
	for _, f := range m.Files {
		seen[f.Digest] = true
	}
	if len(seen) != 600 {
		t.Errorf("%d different files, want 600", len(seen))
	}
	check(t, dir, m)
}

func TestTheSameCallWritesTheSameBytes(t *testing.T) {
	a, err := corpus.WriteMany(t.TempDir(), 300, 3)
	if err != nil {
		t.Fatal(err)
	}
	b, err := corpus.WriteMany(t.TempDir(), 300, 3)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(a, b); diff != "" {
		t.Errorf("two manifests (-first +second):\n%s", diff)
	}
}
