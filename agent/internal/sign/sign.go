// Package sign makes statements of what was inspected and judged: it brings a
// result, which may hold any string of an artifact, down to the closed schema
// that may leave the machine. The spool gives each its place and its signature.
package sign

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
)

// Names writes names: one that came from a registry, and a word that came from an
// artifact.
type Names interface {
	Name(s string) predicate.Name
	Word(s string) predicate.Name
}

// Ruleset is what the verdicts rest on: the rule catalogue, and what the
// scanners know.
type Ruleset struct {
	Version string
	Digest  predicate.Digest
}

// Maker makes statements for one agent.
type Maker struct {
	Names   Names
	Privacy predicate.Privacy
	Ruleset Ruleset
}

// Judged is an artifact or a bundle with everything that a scan says of it.
type Judged struct {
	Artifact predicate.Artifact
	Verdict  predicate.Verdict
	Score    int
	// Account covers the artifact's bytes; nil for a bundle, which has Total.
	Account []coverage.Range
	Total   coverage.Total
	// Findings are each with what the catalogue says of its rule.
	Findings []Finding
	// FindingsOmitted counts what was cut before.
	FindingsOmitted uint64
	Imports         []finding.Import
	ImportsOmitted  uint64
	Scanners        []predicate.Scanner
	Sandbox         []predicate.Layer
	Started         time.Time
	Finished        time.Time
}

// Finding is a finding and its rule.
type Finding struct {
	finding.Finding
	Rule finding.Rule
}

// Scan makes the scan statement.
func (m Maker) Scan(j Judged) *predicate.Scan {
	s := &predicate.Scan{
		Artifact: j.Artifact, Verdict: j.Verdict, Score: j.Score, FindingsOmitted: j.FindingsOmitted, ImportsOmitted: j.ImportsOmitted,
		Scanners: append([]predicate.Scanner{}, j.Scanners...), RulesetVersion: m.Ruleset.Version, RulesetDigest: m.Ruleset.Digest,
		Privacy: m.Privacy, Sandbox: slices.Compact(slices.Sorted(slices.Values(j.Sandbox))),
		StartedAt: predicate.At(j.Started), FinishedAt: predicate.At(j.Finished),
	}
	if s.Sandbox == nil {
		s.Sandbox = []predicate.Layer{}
	}
	if s.FinishedAt.Time().Before(s.StartedAt.Time()) {
		// The clock was set back meanwhile.
		s.FinishedAt = s.StartedAt
	}
	s.Coverage = coverageOf(j)
	findings, omitted := findingsOf(j.Findings)
	s.Findings = findings
	s.FindingsOmitted += omitted
	s.Imports, omitted = m.imports(j.Imports)
	s.ImportsOmitted += omitted
	return s
}

// coverageOf keeps the counts whole and cuts the ranges at their bound, the
// unread ones kept first.
func coverageOf(j Judged) predicate.Coverage {
	total := j.Total
	if j.Account != nil {
		total = coverage.Sum(j.Account)
	}
	c := predicate.Coverage{
		Complete: total.Complete, BytesTotal: uint64(total.Bytes), BytesParsed: uint64(total.Parsed),
		BytesInert: uint64(total.Inert), BytesUnread: uint64(total.Unread), Ranges: []predicate.Range{},
	}
	ranges := make([]predicate.Range, 0, len(j.Account))
	for _, r := range j.Account {
		next := predicate.Range{Kind: r.Kind, Start: uint64(r.Start), End: uint64(r.End), Reason: r.Reason}
		if n := len(ranges); n > 0 && next.Start < next.End && ranges[n-1].Start < ranges[n-1].End &&
			ranges[n-1].End == next.Start && ranges[n-1].Kind == next.Kind && ranges[n-1].Reason == next.Reason {
			// They differ only in the member, which stays here.
			ranges[n-1].End = next.End
			continue
		}
		ranges = append(ranges, next)
	}
	if len(ranges) > predicate.MaxRanges {
		slices.SortStableFunc(ranges, func(a, b predicate.Range) int { return cmp.Compare(keep(a), keep(b)) })
		c.RangesOmitted = uint64(len(ranges) - predicate.MaxRanges)
		ranges = ranges[:predicate.MaxRanges]
		slices.SortStableFunc(ranges, func(a, b predicate.Range) int {
			return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End))
		})
	}
	c.Ranges = append(c.Ranges, ranges...)
	return c
}

func keep(r predicate.Range) int {
	if r.Kind == predicate.Unread {
		return 0
	}
	return 1
}

// findingsOf counts findings by rule and class of location: a finding's
// identity on the wire. Past the bound the least severe are cut.
func findingsOf(found []Finding) ([]predicate.Finding, uint64) {
	type key struct{ rule, location string }
	at := map[key]int{}
	out := []predicate.Finding{}
	for _, f := range found {
		k := key{f.Rule.ID, f.Location.Class}
		i, ok := at[k]
		if !ok {
			i = len(out)
			at[k] = i
			out = append(out, predicate.Finding{Rule: f.Rule.ID, Class: f.Rule.Class, Location: f.Location.Class, Severity: f.Rule.Severity})
		}
		out[i].Count++
	}
	var omitted uint64
	if len(out) > predicate.MaxFindings {
		slices.SortStableFunc(out, func(a, b predicate.Finding) int { return cmp.Compare(b.Severity.Rank(), a.Severity.Rank()) })
		for _, f := range out[predicate.MaxFindings:] {
			omitted += f.Count
		}
		out = out[:predicate.MaxFindings]
	}
	slices.SortFunc(out, func(a, b predicate.Finding) int {
		return cmp.Or(strings.Compare(a.Rule, b.Rule), strings.Compare(a.Location, b.Location))
	})
	return out, omitted
}

var judgedRank = map[string]int{predicate.JudgedDangerous: 0, predicate.JudgedUnknown: 1, predicate.JudgedHarmless: 2}

// imports names each module and name once a way, the worst first where they
// have to be cut.
func (m Maker) imports(list []finding.Import) ([]predicate.Import, uint64) {
	type key struct {
		module, name string
		how          predicate.How
	}
	once := map[key]bool{}
	var kept []finding.Import
	for _, i := range list {
		k := key{i.Module, i.Name, i.How}
		if !once[k] {
			once[k] = true
			kept = append(kept, i)
		}
	}
	slices.SortStableFunc(kept, func(a, b finding.Import) int {
		return cmp.Or(cmp.Compare(judgedRank[a.Judged], judgedRank[b.Judged]), finding.CompareImports(a, b))
	})
	var omitted uint64
	if len(kept) > predicate.MaxImports {
		omitted = uint64(len(kept) - predicate.MaxImports)
		kept = kept[:predicate.MaxImports]
	}
	out := make([]predicate.Import, len(kept))
	for n, i := range kept {
		out[n] = predicate.Import{Module: m.Names.Word(i.Module), Name: m.Names.Word(i.Name), How: i.How, Judged: i.Judged}
	}
	return out, omitted
}
