package inspect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/plugin"
	"github.com/cavra/cavra/sdk/scanner"
)

// The rules by which the host reports of its scanners.
const (
	ruleFailed   = "scanner.failed"
	ruleTimeout  = "scanner.timeout"
	ruleContract = "scanner.contract"
)

// errTimeout is the cause of a scan's end by its time limit.
var errTimeout = errors.New("the time limit of one artifact is over")

// scan has every scanner look at the target and merges what they say. An error
// says that ctx has ended.
func (n *Inspector) scan(ctx context.Context, target scanner.Target, out *Result) error {
	size := target.Content.Size()
	accounts := make([][]coverage.Range, 0, len(n.cfg.Scanners))
	var gaps []predicate.Reason
	for i, s := range n.cfg.Scanners {
		report, err := n.scanOne(ctx, s, target)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		program := s.Program()
		account, gap := out.settle(&report, err, program.Name, size, n.cfg.Timeout)
		accounts = append(accounts, account)
		if gap != "" {
			gaps = append(gaps, gap)
		}
		out.Scanners = append(out.Scanners, program)
		if i == 0 {
			out.Sandbox = slices.Clone(s.Layers())
		}
		out.Sandbox = slices.DeleteFunc(out.Sandbox, func(l predicate.Layer) bool { return !slices.Contains(s.Layers(), l) })
		out.merge(&report)
	}
	account, err := coverage.Combine(accounts, size)
	if err != nil {
		return fmt.Errorf("merge coverage: %w", err)
	}
	out.Coverage = markGaps(account, gaps, size)
	slices.SortFunc(out.Findings, finding.Compare)
	out.Imports = once(out.Imports)
	return nil
}

func (n *Inspector) scanOne(ctx context.Context, s Scanner, target scanner.Target) (scanner.Report, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, n.cfg.Timeout, errTimeout)
	defer cancel()
	report, err := s.Scan(ctx, target)
	if errors.Is(context.Cause(ctx), errTimeout) {
		err = errTimeout // also for a report: what ended the scan may have been the time
	}
	return report, err
}

// markGaps keeps an artifact from counting as complete that a scanner gave up
// on, even where another one covered all of it.
func markGaps(account []coverage.Range, gaps []predicate.Reason, size int64) []coverage.Range {
	for _, why := range gaps {
		if !slices.ContainsFunc(account, func(r coverage.Range) bool { return r.Reason == why }) {
			account = append(account, coverage.Range{Kind: predicate.Unread, Start: size, End: size, Reason: why})
		}
	}
	return account
}

// settle turns a scanner's failure into a finding and a gap, and returns its
// account of the artifact.
func (r *Result) settle(report *scanner.Report, err error, name string, size int64, limit time.Duration) (account []coverage.Range, gap predicate.Reason) {
	claims := report.Coverage
	var failed *plugin.FailedError
	var broke *plugin.ContractError
	switch {
	case err == nil:
	case errors.Is(err, errTimeout):
		r.note(report, ruleTimeout, fmt.Sprintf("%s did not finish within %s", name, limit))
		claims, gap = nil, predicate.LimitTime
	case errors.As(err, &broke):
		r.note(report, ruleContract, name+": "+err.Error())
		claims, gap = nil, predicate.ScannerFailed
	case errors.As(err, &failed):
		// It stands by what it said; only the rest is its failure.
		r.note(report, ruleFailed, name+": "+err.Error())
		gap = predicate.ScannerFailed
	default:
		r.note(report, ruleFailed, name+": "+err.Error())
		claims, gap = nil, predicate.ScannerFailed
	}
	account, err = coverage.Account(claims, size)
	if err != nil {
		// The host's side of the wire has checked it; a scanner that is none of
		// its may still say anything.
		r.note(report, ruleContract, name+": "+err.Error())
		gap = predicate.ScannerFailed
		account = []coverage.Range{{Kind: predicate.Unread, End: size, Reason: predicate.Unclaimed}}
	}
	for i := range account {
		if gap != "" && account[i].Reason == predicate.Unclaimed {
			account[i].Reason = gap
		}
	}
	return account, gap
}

// note adds a finding of the host's own. Bounds do not cut it.
func (r *Result) note(report *scanner.Report, rule, words string) {
	if r.Message == "" {
		r.Message = words
	}
	report.Findings = append(report.Findings, finding.Finding{
		Rule:     rule,
		Location: finding.Location{Class: "artifact"},
		Evidence: []string{cut(words, finding.MaxEvidenceBytes)},
	})
}

func cut(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "")
}

func (r *Result) merge(report *scanner.Report) {
	if r.Format == scanner.Unknown && report.Format != "" {
		r.Format = report.Format
	}
	r.Findings = append(r.Findings, report.Findings...)
	r.Imports = append(r.Imports, report.Imports...)
	r.Children = append(r.Children, report.Children...)
	r.FindingsOmitted += report.FindingsOmitted
	r.ImportsOmitted += report.ImportsOmitted
}

// once sorts imports and keeps the first place of each.
func once(in []finding.Import) []finding.Import {
	slices.SortFunc(in, finding.CompareImports)
	return slices.CompactFunc(in, func(a, b finding.Import) bool {
		return a.Module == b.Module && a.Name == b.Name && a.How == b.How && a.Judged == b.Judged
	})
}
