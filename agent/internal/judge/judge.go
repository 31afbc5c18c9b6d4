// Package judge turns findings and coverage into a verdict and a score. It is
// pure: what a finding is worth comes from the rule catalogue alone, a rule
// that the catalogue does not know counts as a broken contract and is never
// dropped, and nothing passes that was not covered in full.
package judge

import (
	"errors"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
)

// MaxPerRule bounds the findings that are kept of one rule in one artifact. The
// rest is counted; the verdict is that of all of them.
const MaxPerRule = 100

// contractRule stands in for a rule that the catalogue does not know.
const contractRule = "scanner.contract"

// Catalogue tells what a rule is worth.
type Catalogue interface {
	Rule(id string) (finding.Rule, bool)
}

// Judge judges by one catalogue.
type Judge struct{ rules Catalogue }

// New returns a judge by rules, which must know the rule scanner.contract.
func New(rules Catalogue) (*Judge, error) {
	if rules == nil {
		return nil, errors.New("new judge: no rule catalogue")
	}
	if _, ok := rules.Rule(contractRule); !ok {
		return nil, errors.New("new judge: the rule catalogue lacks " + contractRule)
	}
	return &Judge{rules: rules}, nil
}

// Finding is a finding and the rule that it met.
type Finding struct {
	finding.Finding
	// By is the rule as the catalogue has it; its id differs from Finding.Rule
	// where that is not known.
	By finding.Rule
}

// Judgement is what an artifact is worth.
type Judgement struct {
	Verdict predicate.Verdict
	// Score is the highest among the findings' rules, 0 to 100.
	Score int
	// Findings are in ascending order of rule and place, at most MaxPerRule of
	// a rule.
	Findings []Finding
	// Omitted counts those that were cut, here or by a scanner.
	Omitted uint64
	// Counts are all findings that were handed in, by rule.
	Counts map[string]uint64
}

// Artifact judges one artifact by its findings, the number of findings that a
// scanner dropped at its own bound, and its account.
func (j *Judge) Artifact(findings []finding.Finding, dropped uint64, account []coverage.Range) Judgement {
	out := Judgement{Omitted: dropped, Counts: make(map[string]uint64), Findings: []Finding{}}
	worst := predicate.Info
	for _, f := range slices.SortedFunc(slices.Values(findings), finding.Compare) {
		rule := j.rule(f.Rule)
		if rule.Severity.Rank() > worst.Rank() {
			worst = rule.Severity
		}
		out.Score = max(out.Score, rule.Score)
		out.Counts[rule.ID]++
		if out.Counts[rule.ID] > MaxPerRule {
			out.Omitted++
			continue
		}
		out.Findings = append(out.Findings, Finding{Finding: f, By: rule})
	}
	// What a scanner dropped may be worse than what it kept.
	out.Verdict = verdict(worst, dropped == 0 && coverage.Sum(account).Complete)
	return out
}

// Distrusts reports whether the findings make an artifact fail, so that the
// process that read it is not used for another.
func (j *Judge) Distrusts(findings []finding.Finding) bool {
	return slices.ContainsFunc(findings, func(f finding.Finding) bool {
		return j.rule(f.Rule).Severity.Rank() >= predicate.High.Rank()
	})
}

func (j *Judge) rule(id string) finding.Rule {
	if r, ok := j.rules.Rule(id); ok {
		return r
	}
	// New has seen that it is there.
	r, _ := j.rules.Rule(contractRule)
	return r
}

func verdict(worst predicate.Severity, complete bool) predicate.Verdict {
	switch {
	case worst.Rank() >= predicate.High.Rank():
		return predicate.Fail
	case worst.Rank() >= predicate.Medium.Rank():
		return predicate.Warn
	case !complete:
		return predicate.Error
	}
	return predicate.Pass
}

// rank orders verdicts: fail, then warn, then error, then pass.
func rank(v predicate.Verdict) int {
	return slices.Index([]predicate.Verdict{predicate.Pass, predicate.Error, predicate.Warn, predicate.Fail}, v)
}

// Worse returns the worse of two verdicts.
func Worse(a, b predicate.Verdict) predicate.Verdict {
	if rank(b) > rank(a) {
		return b
	}
	return a
}

// Compare orders verdicts from the worst to pass.
func Compare(a, b predicate.Verdict) int { return rank(b) - rank(a) }
