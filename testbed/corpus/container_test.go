package corpus_test

import (
	"bytes"
	"context"
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

// look says of a container what the shipped scanner says of its bytes.
func look(t *testing.T, c corpus.Container) corpus.Container {
	t.Helper()
	r, err := formats.New().Scan(context.Background(), scanner.Target{Content: file{bytes.NewReader(c.Content)}})
	if err != nil {
		t.Fatal(err)
	}
	catalogue, err := finding.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	got := corpus.Container{Name: c.Name, Content: c.Content, Format: r.Format, Complete: coverage.Sum(r.Coverage).Complete}
	worst := predicate.Info
	for _, f := range r.Findings {
		rule, ok := catalogue.Rule(f.Rule)
		if !ok {
			t.Fatalf("rule %s is in no catalogue", f.Rule)
		}
		if rule.Severity.Rank() > worst.Rank() {
			worst = rule.Severity
		}
		got.Rules = append(got.Rules, f.Rule)
	}
	slices.Sort(got.Rules)
	got.Rules = slices.Compact(got.Rules)
	got.Verdict = verdict(worst, got.Complete)
	return got
}

func TestFormatsSeesThroughContainers(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range corpus.Containers() {
		if seen[c.Name] {
			t.Errorf("two cases are called %q", c.Name)
		}
		seen[c.Name] = true
		t.Run(c.Name, func(t *testing.T) {
			if diff := gocmp.Diff(c, look(t, c), gocmp.FilterPath(func(p gocmp.Path) bool { return p.String() == "Content" }, gocmp.Ignore())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
