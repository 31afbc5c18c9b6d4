package sign

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
)

// keyed hides every name, as the strictest namer does.
type keyed struct{}

func (keyed) Name(s string) predicate.Name { return predicate.KeyedName([]byte("k"), s) }
func (keyed) Word(s string) predicate.Name { return predicate.KeyedName([]byte("k"), s) }

func maker() Maker {
	return Maker{Names: keyed{}, Privacy: predicate.Strict, Ruleset: Ruleset{Version: "1", Digest: predicate.DigestOf([]byte("rules"))}}
}

// place gives a predicate a place, as the spool does, and marshals it.
func place(t *testing.T, p predicate.Predicate) {
	t.Helper()
	*p.Place() = predicate.Link{Tenant: "t", Agent: "a", KeyID: predicate.DigestOf(nil), Epoch: 1, Sequence: 1, Previous: predicate.ZeroDigest, SignedAt: predicate.At(time.Unix(1, 0))}
	if _, err := predicate.Marshal(p); err != nil {
		t.Fatalf("the schema refuses what was made: %v", err)
	}
}

func rule(id string, s predicate.Severity) finding.Rule {
	return finding.Rule{ID: id, Class: "code_execution_on_load", Severity: s}
}

func judged(size int64) Judged {
	at := time.Unix(100, 0)
	return Judged{
		Artifact: predicate.Artifact{Kind: predicate.File, Digest: predicate.DigestOf([]byte("x")), Size: uint64(size), Format: "pickle", Files: 1},
		Verdict:  predicate.Fail, Score: 100, Account: []coverage.Range{{Kind: predicate.Parsed, Start: 0, End: size}}, Started: at, Finished: at.Add(-time.Second),
	}
}

func TestScanCountsFindingsByRuleAndPlace(t *testing.T) {
	j := judged(10)
	for i := range 3 {
		j.Findings = append(j.Findings, Finding{finding.Finding{Location: finding.Location{Class: "pickle", Offset: int64(i)}}, rule("b.rule", predicate.High)})
	}
	j.Findings = append(j.Findings, Finding{finding.Finding{Location: finding.Location{Class: "zip", Member: "secret-name"}}, rule("a.rule", predicate.Low)})
	s := maker().Scan(j)
	place(t, s)
	want := []predicate.Finding{
		{Rule: "a.rule", Class: "code_execution_on_load", Location: "zip", Severity: predicate.Low, Count: 1},
		{Rule: "b.rule", Class: "code_execution_on_load", Location: "pickle", Severity: predicate.High, Count: 3},
	}
	if diff := cmp.Diff(want, s.Findings); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !s.FinishedAt.Equal(s.StartedAt) {
		t.Error("a clock that was set back reached the statement")
	}
}

func TestScanCutsAtItsBoundsTheLeastImportantFirst(t *testing.T) {
	const gaps = 10
	j := judged(4 * predicate.MaxRanges)
	j.Account = nil
	for i := range int64(2 * predicate.MaxRanges) {
		r := coverage.Range{Kind: predicate.Parsed, Start: 2 * i, End: 2*i + 1}
		j.Account = append(j.Account, r, coverage.Range{Kind: predicate.Inert, Start: 2*i + 1, End: 2*i + 2})
	}
	for i := range gaps {
		at := len(j.Account) - 1 - 2*i
		j.Account[at].Kind, j.Account[at].Reason = predicate.Unread, predicate.Encrypted
	}
	for i := range predicate.MaxFindings + 5 {
		severity := predicate.Low
		if i%100 == 0 {
			severity = predicate.Critical
		}
		j.Findings = append(j.Findings, Finding{finding.Finding{Location: finding.Location{Class: "pickle"}}, rule(fmt.Sprintf("r.%04d", i), severity)})
	}
	for i := range predicate.MaxImports + 7 {
		verdict := predicate.JudgedHarmless
		if i == predicate.MaxImports+6 {
			verdict = predicate.JudgedDangerous
		}
		j.Imports = append(j.Imports, finding.Import{Module: fmt.Sprintf("m%05d", i), Name: "n", How: predicate.ByGlobal, Judged: verdict})
	}
	j.Imports = append(j.Imports, j.Imports[0]) // the same again counts once
	s := maker().Scan(j)
	place(t, s)
	unread := 0
	for _, r := range s.Coverage.Ranges {
		if r.Kind == predicate.Unread {
			unread++
		}
	}
	if unread != gaps || s.Coverage.RangesOmitted == 0 || s.Coverage.Complete {
		t.Errorf("%d of %d unread ranges kept, %d omitted", unread, gaps, s.Coverage.RangesOmitted)
	}
	critical := 0
	for _, f := range s.Findings {
		if f.Severity == predicate.Critical {
			critical++
		}
	}
	if critical != 6 || s.FindingsOmitted != 5 {
		t.Errorf("%d critical findings kept of 6, %d omitted", critical, s.FindingsOmitted)
	}
	if s.ImportsOmitted != 7 || s.Imports[0].Judged != predicate.JudgedDangerous {
		t.Errorf("%d imports omitted, first is %s", s.ImportsOmitted, s.Imports[0].Judged)
	}
}

func TestInventoryComesInParts(t *testing.T) {
	for refs, want := range map[int]int{0: 1, 1: 1, predicate.MaxReferences: 1, predicate.MaxReferences + 1: 2, 3*predicate.MaxReferences - 1: 3} {
		list := make([]Reference, refs)
		for i := range list {
			list[i] = Reference{Item: artifact.Item{Path: fmt.Sprintf("p%d", i), Name: "model", Version: "1"}, Digest: predicate.DigestOf(nil), Size: 1}
		}
		parts := maker().Inventory("fs", "/models", "r-1", time.Unix(1, 0), true, list)
		total := 0
		for i, p := range parts {
			place(t, p)
			v := p.(*predicate.Inventory)
			total += len(v.References)
			if int(v.Part) != i+1 || int(v.Parts) != len(parts) || !v.Complete {
				t.Errorf("%d references: part %d of %d", refs, v.Part, v.Parts)
			}
		}
		if len(parts) != want || total != refs {
			t.Errorf("%d references: %d parts with %d, want %d", refs, len(parts), total, want)
		}
	}
}
