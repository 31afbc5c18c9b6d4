package corpus_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/cavra/cavra/plugins/formats"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/testbed/corpus"
)

// judged scans bytes with the shipped scanner, and gives the verdict besides.
func judged(t *testing.T, b []byte) (scanner.Report, predicate.Verdict) {
	t.Helper()
	return judgedIn(t, b, nil)
}

// judgedIn scans and judges content that can open other files.
func judgedIn(t *testing.T, b []byte, siblings func(context.Context, string) (artifact.Reader, error)) (scanner.Report, predicate.Verdict) {
	t.Helper()
	r, err := formats.New().Scan(context.Background(), scanner.Target{Path: "x", Content: file{bytes.NewReader(b)}, Siblings: siblings})
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	listed(t, r)
	catalogue, err := finding.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	worst := predicate.Info
	for _, f := range r.Findings {
		if err := f.Validate(); err != nil {
			t.Error(err)
		}
		rule, ok := catalogue.Rule(f.Rule)
		if !ok {
			t.Fatalf("rule %s is in no catalogue", f.Rule)
		}
		if rule.Severity.Rank() > worst.Rank() {
			worst = rule.Severity
		}
	}
	return r, verdict(worst, coverage.Sum(r.Coverage).Complete)
}

func TestNoAttackPasses(t *testing.T) {
	names := make(map[string]bool)
	for _, a := range corpus.PickleAttacks() {
		if names[a.Class+a.Name] {
			t.Errorf("%s: %s is there twice", a.Class, a.Name)
		}
		names[a.Class+a.Name] = true
		t.Run(a.Class+": "+a.Name, func(t *testing.T) {
			r, got := judged(t, a.Content)
			if got != predicate.Fail && (got != predicate.Warn || a.Verdict == predicate.Fail) {
				t.Errorf("verdict %s, want %s", got, a.Verdict)
			}
			listed := make(map[[2]string]bool)
			for _, i := range r.Imports {
				listed[[2]string{i.Module, i.Name}] = true
			}
			for _, p := range a.Pairs {
				if !listed[p] {
					t.Errorf("%q is not listed", p)
				}
			}
			if t.Failed() {
				t.Logf("format %s, findings %+v, imports %+v", r.Format, r.Findings, r.Imports)
			}
		})
	}
	t.Logf("%d attacks", len(names))
}

// TestStructureFixesExtents scans honest files whose raw parts only the format's
// structure delimits.
func TestStructureFixesExtents(t *testing.T) {
	for name, b := range map[string][]byte{
		"legacy torch":      corpus.LegacyTorch("", "", "", "", ""),
		"joblib":            corpus.Joblib("", "e.", true),
		"joblib, unaligned": corpus.Joblib("", "e.", false),
	} {
		r, got := judged(t, b)
		if got != predicate.Pass || !coverage.Sum(r.Coverage).Complete || r.Format != "pickle" {
			t.Errorf("%s: verdict %s, format %s, findings %+v, coverage %+v", name, got, r.Format, r.Findings, r.Coverage)
		}
	}
}
