package report

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/cavra/cavra/schemas/predicate"
)

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("scan-report.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("scan-report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sample() Report {
	var at predicate.Time
	if err := at.UnmarshalText([]byte("2026-01-02T03:04:05.678Z")); err != nil {
		panic(err)
	}
	return Report{
		SchemaVersion: Version, StartedAt: at, FinishedAt: at,
		Tool:    Tool{Name: "cavra", Version: "1", Scanners: []predicate.Scanner{}, Sandbox: []predicate.Layer{}},
		Ruleset: Ruleset{Version: "1", Digest: predicate.ZeroDigest},
		Summary: Summary{Artifacts: 1, Pass: 1, Complete: true, Verdict: predicate.Pass},
		Artifacts: []Artifact{{
			Path: "a", Digest: predicate.ZeroDigest, Format: "pickle", Verdict: predicate.Pass,
			Coverage: Coverage{Complete: true, Gaps: []Gap{}},
			Imports:  []Import{{Module: "m", Name: "n", How: predicate.ByGlobal, Judged: predicate.JudgedHarmless}},
			Findings: []Finding{{
				Rule: "r", Class: "c", Severity: predicate.Low, Title: "t", Location: Location{Class: "pickle"},
				Accepted: &Acceptance{By: BySuppression, Reason: "known", Owner: "ml", Until: "2026-12-31"},
			}},
			Children: []Child{{Member: "m", Format: "pickle", Size: 1}},
		}},
		Bundles:  []Bundle{{Path: "b", Digest: predicate.ZeroDigest, Files: 1, Verdict: predicate.Pass}},
		Problems: []string{},
	}
}

func check(t *testing.T, s *jsonschema.Schema, r Report) error {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

// TestSchema holds what other programs may rely on.
func TestSchema(t *testing.T) {
	s := compiled(t)
	if err := check(t, s, sample()); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(a *Artifact){
		"pass, not complete":           func(a *Artifact) { a.Coverage = Coverage{Gaps: []Gap{{Reason: predicate.Truncated, Where: "0-1"}}} },
		"complete, with a gap":         func(a *Artifact) { a.Coverage.Gaps = []Gap{{Reason: predicate.Truncated, Where: "0-1"}} },
		"not complete, without a gap":  func(a *Artifact) { a.Verdict, a.Coverage.Complete = predicate.Error, false },
		"pass without a digest":        func(a *Artifact) { a.Digest, a.Problem = "", predicate.Changed },
		"neither a digest nor problem": func(a *Artifact) { a.Digest, a.Verdict = "", predicate.Fail },
		"a gap for no known reason": func(a *Artifact) {
			a.Verdict, a.Coverage = predicate.Error, Coverage{Gaps: []Gap{{Reason: "tired", Where: "0-1"}}}
		},
		"a list that is null":  func(a *Artifact) { a.Imports = nil },
		"a verdict of its own": func(a *Artifact) { a.Verdict = "fine" },
	} {
		r := sample()
		edit(&r.Artifacts[0])
		if check(t, s, r) == nil {
			t.Errorf("%s: valid", name)
		}
	}
}

// TestSchemaKnowsTheVocabulary keeps the lists in the schema those of the code.
func TestSchemaKnowsTheVocabulary(t *testing.T) {
	s := compiled(t)
	for _, why := range predicate.Reasons() {
		r := sample()
		a := &r.Artifacts[0]
		a.Digest, a.Problem, a.Verdict = "", why, predicate.Error
		a.Coverage = Coverage{Gaps: []Gap{{Reason: why, Where: "0-0"}}}
		if err := check(t, s, r); err != nil {
			t.Errorf("%s: %v", why, err)
		}
	}
	r := sample()
	r.Tool.Sandbox = []predicate.Layer{
		predicate.LayerEmptyEnv, predicate.LayerLandlock, predicate.LayerNetwork, predicate.LayerNoNewPrivs,
		predicate.LayerProcess, predicate.LayerRlimits, predicate.LayerSeccomp, predicate.LayerUID,
	}
	for _, how := range []predicate.How{predicate.ByGlobal, predicate.ByStackGlobal, predicate.ByInst, predicate.ByExtension, predicate.ByComputed} {
		r.Artifacts[0].Imports = append(r.Artifacts[0].Imports, Import{How: how, Judged: predicate.JudgedDangerous}, Import{How: how, Judged: predicate.JudgedUnknown})
	}
	for _, sev := range []predicate.Severity{predicate.Info, predicate.Low, predicate.Medium, predicate.High, predicate.Critical} {
		r.Artifacts[0].Findings = append(r.Artifacts[0].Findings, Finding{Rule: "r", Class: "c", Severity: sev, Title: "t", Location: Location{Class: "c"}})
	}
	if err := check(t, s, r); err != nil {
		t.Error(err)
	}
}
