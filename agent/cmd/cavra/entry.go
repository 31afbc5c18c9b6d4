package main

import (
	"fmt"

	"github.com/cavra/cavra/agent/internal/inspect"
	"github.com/cavra/cavra/agent/internal/judge"
	"github.com/cavra/cavra/schemas/predicate"
	schema "github.com/cavra/cavra/schemas/report"
	"github.com/cavra/cavra/sdk/coverage"
)

// entry writes a judged result in the report's words.
func entry(shown string, r inspect.Result, j judge.Judgement) schema.Artifact {
	a := schema.Artifact{
		Path: shown, Digest: r.Digest, Size: r.Size, Format: r.Format, Verdict: j.Verdict, Score: j.Score,
		Problem: r.Problem, Message: r.Message, Coverage: cover(r.Coverage),
		Imports: make([]schema.Import, 0, len(r.Imports)), ImportsOmitted: r.ImportsOmitted,
		Findings: make([]schema.Finding, 0, len(j.Findings)), FindingsOmitted: j.Omitted,
	}
	for _, i := range r.Imports {
		a.Imports = append(a.Imports, schema.Import{Module: i.Module, Name: i.Name, How: i.How, Judged: i.Judged})
	}
	for _, f := range j.Findings {
		a.Findings = append(a.Findings, findingEntry(f))
	}
	for _, c := range r.Children {
		a.Children = append(a.Children, schema.Child{Member: c.Member, Format: c.Format, Size: c.Size})
	}
	return a
}

func findingEntry(f judge.Finding) schema.Finding {
	return schema.Finding{
		Rule: f.By.ID, Class: f.By.Class, Severity: f.By.Severity, Title: f.By.Title, Evidence: f.Evidence,
		Location: schema.Location{Member: f.Location.Member, Offset: f.Location.Offset, Class: f.Location.Class},
	}
}

// bundleEntry writes a judged bundle in the report's words, with the gaps of what
// was looked at as a whole.
func bundleEntry(b judge.BundleJudgement, gaps []schema.Gap) schema.Bundle {
	out := schema.Bundle{
		Path: b.Path, Digest: b.Digest, Files: b.Files, Size: b.Size, Verdict: b.Verdict, Score: b.Score, Complete: b.Complete,
		Members: make([]schema.Member, 0, len(b.Members)), Findings: make([]schema.Finding, 0, len(b.Findings)), FindingsOmitted: b.Omitted, Gaps: gaps,
	}
	for _, m := range b.Members {
		out.Members = append(out.Members, schema.Member{Path: m.Path, Digest: m.Digest, Verdict: m.Verdict})
	}
	for _, f := range b.Findings {
		out.Findings = append(out.Findings, findingEntry(f))
	}
	return out
}

func cover(account []coverage.Range) schema.Coverage {
	total := coverage.Sum(account)
	out := schema.Coverage{
		Complete: total.Complete, BytesTotal: total.Bytes, BytesParsed: total.Parsed, BytesInert: total.Inert, Gaps: []schema.Gap{},
	}
	for _, r := range account {
		if r.Kind != predicate.Unread {
			continue
		}
		if len(out.Gaps) >= schema.MaxGaps {
			out.GapsOmitted++
			continue
		}
		where := r.Member
		if where == "" {
			where = fmt.Sprintf("%d-%d", r.Start, r.End)
		}
		out.Gaps = append(out.Gaps, schema.Gap{Reason: r.Reason, Where: where})
	}
	return out
}

// summarise counts files; a bundle as a whole can make the verdict worse. listed
// says that every path was listed to its end.
func summarise(artifacts []schema.Artifact, bundles []schema.Bundle, listed bool) schema.Summary {
	s := schema.Summary{Artifacts: len(artifacts), Complete: listed, Verdict: predicate.Pass}
	for _, b := range bundles {
		s.Score = max(s.Score, b.Score)
		s.Verdict = judge.Worse(s.Verdict, b.Verdict)
		s.Complete = s.Complete && b.Complete
	}
	for _, a := range artifacts {
		s.BytesTotal += a.Size
		s.Score = max(s.Score, a.Score)
		s.Verdict = judge.Worse(s.Verdict, a.Verdict)
		if !a.Coverage.Complete || a.Verdict == predicate.Error {
			s.Incomplete++
			s.Complete = false
		}
		switch a.Verdict {
		case predicate.Pass:
			s.Pass++
		case predicate.Warn:
			s.Warn++
		case predicate.Fail:
			s.Fail++
		default:
			s.Error++
		}
	}
	if !listed {
		s.Verdict = judge.Worse(s.Verdict, predicate.Error)
	}
	return s
}
