// Package policy is what the people who scan have decided: which verdict ends a
// build, and which findings they know and accept, for how long and why. It
// changes no verdict and hides no finding: an accepted finding is reported as
// such, with its reason, and only what is not accepted decides the outcome.
package policy

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	schema "github.com/cavra/cavra/schemas/report"
	"github.com/cavra/cavra/sdk/settings"
)

// Policy is a policy file.
type Policy struct {
	// FailOn is the verdict from which on a scan fails: warn, fail or never.
	FailOn string `yaml:"fail_on"`
	// AllowIncomplete accepts what could not be looked at.
	AllowIncomplete bool `yaml:"allow_incomplete"`
	// MaxScore is the highest score of an unaccepted finding's artifact that a
	// scan may have; 100 allows all.
	MaxScore int `yaml:"max_score"`
	// DenyRules fail a scan whatever their severity.
	DenyRules []string `yaml:"deny_rules"`
	// Suppressions accept findings in single artifacts.
	Suppressions []Suppression `yaml:"suppressions"`
}

// Suppression accepts one rule's findings in one artifact, which is named by its
// digest: other bytes under the same path are not meant.
type Suppression struct {
	Digest predicate.Digest `yaml:"digest"`
	Rule   string           `yaml:"rule"`
	// Reason and Owner say why, and who answers for it.
	Reason string `yaml:"reason"`
	Owner  string `yaml:"owner"`
	// Until is the last day on which it counts, as 2006-01-02 in UTC.
	Until string `yaml:"until"`
}

// The verdicts of FailOn.
const (
	FailOnWarn = "warn"
	FailOnFail = "fail"
	Never      = "never"
)

const maxSuppressions = 10_000

// Default is the policy of those who have none.
func Default() Policy { return Policy{FailOn: FailOnWarn, MaxScore: 100} }

// Load reads a policy over the defaults. Unknown keys are errors.
func Load(name string) (Policy, error) {
	p := Default()
	if err := settings.ReadFile(name, &p); err != nil {
		return Policy{}, err
	}
	if err := p.Validate(); err != nil {
		return Policy{}, fmt.Errorf("policy %s: %w", name, err)
	}
	return p, nil
}

// Validate reports every setting that cannot work.
func (p Policy) Validate() error {
	var errs []error
	if !slices.Contains([]string{FailOnWarn, FailOnFail, Never}, p.FailOn) {
		errs = append(errs, fmt.Errorf("fail_on: %q: want warn, fail or never", p.FailOn))
	}
	if p.MaxScore < 0 || p.MaxScore > 100 {
		errs = append(errs, fmt.Errorf("max_score: %d is not within 0 and 100", p.MaxScore))
	}
	for i, id := range p.DenyRules {
		if err := predicate.ValidateID(id); err != nil {
			errs = append(errs, fmt.Errorf("deny_rules[%d]: %w", i, err))
		}
	}
	if len(p.Suppressions) > maxSuppressions {
		errs = append(errs, fmt.Errorf("suppressions: %d, at most %d", len(p.Suppressions), maxSuppressions))
	}
	for i, s := range p.Suppressions {
		if err := s.validate(); err != nil {
			errs = append(errs, fmt.Errorf("suppressions[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

func (s Suppression) validate() error {
	var errs []error
	if err := s.Digest.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("digest: %w", err))
	}
	if err := predicate.ValidateID(s.Rule); err != nil {
		errs = append(errs, fmt.Errorf("rule: %w", err))
	}
	if s.Reason == "" {
		errs = append(errs, errors.New("reason: say why the finding is accepted"))
	}
	if _, err := time.Parse(time.DateOnly, s.Until); err != nil {
		errs = append(errs, fmt.Errorf("until: %q is no day: write it as 2026-12-31", s.Until))
	}
	return errors.Join(errs...)
}

// Expired lists, in words, the suppressions that no longer count.
func (p Policy) Expired(now time.Time) []string {
	var out []string
	for i, s := range p.Suppressions {
		if s.expired(now) {
			out = append(out, fmt.Sprintf("suppressions[%d] of rule %s ended with %s and no longer counts", i, s.Rule, s.Until))
		}
	}
	return out
}

// expired is said of days in UTC. A day that is none was refused by Validate,
// and counts as over.
func (s Suppression) expired(now time.Time) bool {
	last, err := time.Parse(time.DateOnly, s.Until)
	return err != nil || !now.Before(last.AddDate(0, 0, 1))
}

// Accept marks the findings that the baseline has, and those that a suppression
// accepts; the suppression's reason is what is shown where both do.
func (p Policy) Accept(r *schema.Report, base *Baseline, now time.Time) {
	suppressed := make(map[key]Suppression, len(p.Suppressions))
	for _, s := range p.Suppressions {
		if !s.expired(now) {
			suppressed[key{s.Digest, s.Rule, ""}] = s
		}
	}
	accept := func(d predicate.Digest, findings []schema.Finding) {
		if d == "" {
			return // nothing says that it is the same
		}
		for k := range findings {
			f := &findings[k]
			if s, ok := suppressed[key{d, f.Rule, ""}]; ok {
				f.Accepted = &schema.Acceptance{By: schema.BySuppression, Reason: s.Reason, Owner: s.Owner, Until: s.Until}
			} else if base.has(key{d, f.Rule, f.Location.Class}) {
				f.Accepted = &schema.Acceptance{By: schema.ByBaseline}
			}
		}
	}
	for _, a := range r.Artifacts {
		accept(a.Digest, a.Findings)
	}
	for _, b := range r.Bundles {
		accept(b.Digest, b.Findings)
	}
}

// Outcome is what a policy makes of a report.
type Outcome struct {
	// Failed counts the artifacts that the policy does not let through, and the
	// bundles for what only the whole has.
	Failed int
	// Accepted counts the findings that it does.
	Accepted int
}

// Decide counts what the policy does not let through.
func (p Policy) Decide(r *schema.Report) Outcome {
	var out Outcome
	for _, a := range r.Artifacts {
		accepted, bad := p.weigh(a.Score, a.Findings)
		if accepted == 0 {
			bad = bad || p.fails(verdictRank[a.Verdict])
		}
		if bad {
			out.Failed++
		}
		out.Accepted += accepted
	}
	for _, b := range r.Bundles {
		accepted, bad := p.weigh(b.Score, b.Findings)
		if bad {
			out.Failed++
		}
		out.Accepted += accepted
	}
	return out
}

// weigh counts the findings that are accepted, and reports whether another one
// does not get through.
func (p Policy) weigh(score int, findings []schema.Finding) (accepted int, bad bool) {
	for _, f := range findings {
		if f.Accepted != nil {
			accepted++
			continue
		}
		bad = bad || slices.Contains(p.DenyRules, f.Rule) || score > p.MaxScore || p.fails(f.Severity.Rank())
	}
	return accepted, bad
}

// verdictRank is the least severity that gives a verdict.
var verdictRank = map[predicate.Verdict]int{predicate.Warn: predicate.Medium.Rank(), predicate.Fail: predicate.High.Rank()}

func (p Policy) fails(rank int) bool {
	switch p.FailOn {
	case FailOnWarn:
		return rank >= predicate.Medium.Rank()
	case FailOnFail:
		return rank >= predicate.High.Rank()
	}
	return false
}
