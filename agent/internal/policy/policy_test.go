package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	schema "github.com/cavra/cavra/schemas/report"
)

var (
	one = predicate.DigestOf([]byte("one"))
	two = predicate.DigestOf([]byte("two"))
)

// results has a warning artifact, a failing one with two rules, and one that
// could not be read.
func results() *schema.Report {
	found := func(rule string, s predicate.Severity) schema.Finding {
		return schema.Finding{Rule: rule, Severity: s, Location: schema.Location{Class: "pickle"}}
	}
	return &schema.Report{SchemaVersion: schema.Version, Artifacts: []schema.Artifact{
		{Path: "warn", Digest: one, Verdict: predicate.Warn, Score: 50, Findings: []schema.Finding{found("r.unknown", predicate.Medium)}},
		{Path: "fail", Digest: two, Verdict: predicate.Fail, Score: 100, Findings: []schema.Finding{found("r.unknown", predicate.Medium), found("r.bad", predicate.Critical)}},
		{Path: "gone", Verdict: predicate.Error, Findings: []schema.Finding{}},
		{Path: "info", Digest: predicate.DigestOf(nil), Verdict: predicate.Pass, Score: 5, Findings: []schema.Finding{found("r.info", predicate.Info)}},
	}}
}

// TestBundlesAreDecided holds what only a bundle as a whole is found to be to the
// same rules as a file's findings.
func TestBundlesAreDecided(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	r := func() *schema.Report {
		return &schema.Report{SchemaVersion: schema.Version, Bundles: []schema.Bundle{
			{Path: "whole", Digest: one, Verdict: predicate.Warn, Score: 50, Findings: []schema.Finding{{Rule: "r.missing", Severity: predicate.Medium, Location: schema.Location{Class: "bundle"}}}},
			{Path: "by its files", Digest: two, Verdict: predicate.Fail, Score: 100, Findings: []schema.Finding{}},
		}}
	}
	accepts := Policy{FailOn: FailOnWarn, MaxScore: 100, Suppressions: []Suppression{suppression(one, "r.missing", "2026-05-01")}}
	for _, tt := range []struct {
		name   string
		policy Policy
		base   *Baseline
		want   Outcome
	}{
		{"warn", Policy{FailOn: FailOnWarn, MaxScore: 100}, nil, Outcome{Failed: 1}},
		{"fail", Policy{FailOn: FailOnFail, MaxScore: 100}, nil, Outcome{}},
		{"score", Policy{FailOn: Never, MaxScore: 40}, nil, Outcome{Failed: 1}},
		{"suppressed", accepts, nil, Outcome{Accepted: 1}},
		{"in the baseline", Policy{FailOn: FailOnWarn, MaxScore: 100}, &Baseline{known: map[key]bool{{one, "r.missing", "bundle"}: true}}, Outcome{Accepted: 1}},
	} {
		report := r()
		tt.policy.Accept(report, tt.base, at)
		if diff := cmp.Diff(tt.want, tt.policy.Decide(report)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func suppression(d predicate.Digest, rule, until string) Suppression {
	return Suppression{Digest: d, Rule: rule, Reason: "known", Until: until}
}

func TestDecide(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	base := &Baseline{known: map[key]bool{{one, "r.unknown", "pickle"}: true, {two, "r.bad", "other"}: true}}
	for _, tt := range []struct {
		name   string
		policy Policy
		base   *Baseline
		want   Outcome
	}{
		{"warn", Policy{FailOn: FailOnWarn, MaxScore: 100}, nil, Outcome{Failed: 2}},
		{"fail", Policy{FailOn: FailOnFail, MaxScore: 100}, nil, Outcome{Failed: 1}},
		{"never", Policy{FailOn: Never, MaxScore: 100}, nil, Outcome{}},
		{"a denied rule fails whatever its severity", Policy{FailOn: Never, MaxScore: 100, DenyRules: []string{"r.info"}}, nil, Outcome{Failed: 1}},
		{"a score", Policy{FailOn: Never, MaxScore: 4}, nil, Outcome{Failed: 3}},
		{"the baseline accepts the same bytes, rule and kind of place only", Policy{FailOn: FailOnWarn, MaxScore: 100}, base, Outcome{Failed: 1, Accepted: 1}},
		{"a suppression accepts one rule in one artifact",
			Policy{FailOn: FailOnWarn, MaxScore: 100, Suppressions: []Suppression{suppression(two, "r.bad", "2026-05-01")}}, nil, Outcome{Failed: 2, Accepted: 1}},
		{"and not the worse one beside it",
			Policy{FailOn: FailOnFail, MaxScore: 100, Suppressions: []Suppression{suppression(two, "r.unknown", "2026-05-01")}}, nil, Outcome{Failed: 1, Accepted: 1}},
		{"both rules",
			Policy{FailOn: FailOnFail, MaxScore: 100, Suppressions: []Suppression{suppression(two, "r.unknown", "2026-05-01"), suppression(two, "r.bad", "2026-05-02")}}, nil, Outcome{Accepted: 2}},
		{"an ended one accepts nothing",
			Policy{FailOn: FailOnFail, MaxScore: 100, Suppressions: []Suppression{suppression(two, "r.bad", "2026-04-30")}}, nil, Outcome{Failed: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := results()
			tt.policy.Accept(r, tt.base, at)
			if diff := cmp.Diff(tt.want, tt.policy.Decide(r)); diff != "" {
				t.Error(diff)
			}
			for i, a := range results().Artifacts {
				if r.Artifacts[i].Verdict != a.Verdict {
					t.Errorf("%s: the verdict changed to %s", a.Path, r.Artifacts[i].Verdict)
				}
			}
		})
	}
}

func TestExpired(t *testing.T) {
	p := Policy{Suppressions: []Suppression{suppression(one, "r.a", "2026-05-01"), suppression(one, "r.b", "2026-04-30")}}
	want := []string{"suppressions[1] of rule r.b ended with 2026-04-30 and no longer counts"}
	if diff := cmp.Diff(want, p.Expired(time.Date(2026, 5, 1, 23, 59, 59, 0, time.UTC))); diff != "" {
		t.Error(diff)
	}
}

func TestLoad(t *testing.T) {
	name := filepath.Join(t.TempDir(), "policy.yaml")
	for text, want := range map[string]string{
		"":                                      "",
		"fail_on: fail\n":                       "",
		"fail_on: always\n":                     `fail_on: "always": want warn, fail or never`,
		"max_score: 101\n":                      "max_score: 101 is not within 0 and 100",
		"deny_rule: [a]\n":                      `did you mean "deny_rules"?`,
		"deny_rules: ['A b']\n":                 "deny_rules[0]",
		"suppressions: [{rule: a.b}]\n":         "suppressions[0]: digest",
		"suppressions: [{until: tomorrow}]\n":   `until: "tomorrow" is no day: write it as 2026-12-31`,
		"suppressions: [{until: 2026-12-31}]\n": "reason: say why the finding is accepted",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(name)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestExample(t *testing.T) {
	if _, err := Load("../../../deploy/examples/policy.yaml"); err != nil {
		t.Error(err)
	}
}

func FuzzBaseline(f *testing.F) {
	f.Add(`{"schema_version":"1","artifacts":[{"digest":"` + string(one) + `","findings":[{"rule":"a","location":{"class":"b"}}]}]}`)
	f.Add(`{}`)
	f.Fuzz(func(t *testing.T, s string) {
		b, err := baseline(strings.NewReader(s))
		if (b == nil) == (err == nil) {
			t.Error(b, err)
		}
	})
}
