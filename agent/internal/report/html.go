package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"

	"github.com/cavra/cavra/schemas/predicate"
	schema "github.com/cavra/cavra/schemas/report"
	"github.com/cavra/cavra/sdk/finding"
)

//go:embed report.html
var pageHTML string

// page is parsed once; it holds no state.
var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"printable": Printable, "size": size, "plural": plural,
}).Parse(pageHTML))

// maxShown bounds the artifacts that the page shows one by one, maxListed the
// findings and imports of each; the rest is counted.
const (
	maxShown  = 2000
	maxListed = 100
)

type htmlPage struct {
	Report *schema.Report
	// Bad are the artifacts that do not pass, the worst first; Omitted counts
	// those that are not shown.
	Bad     []htmlArtifact
	Omitted int
	// Rules are those that were met, ascending by id.
	Rules []finding.Rule
	Tiles []htmlTile
}

type htmlTile struct {
	Verdict predicate.Verdict
	Count   int
}

type htmlArtifact struct {
	schema.Artifact
	Groups []htmlGroup
	Gaps   []string
	// Imports are those that are not harmless.
	Imports []schema.Import
	More    int
}

type htmlGroup struct {
	Rule  finding.Rule
	Count int
	Said  []string
	// Accepted says by what all of them are accepted.
	Accepted string
	// At says where the first is.
	At schema.Location
}

// WriteHTML writes a page that stands alone: no script, nothing to fetch, and
// every name with what does not print written out.
func WriteHTML(w io.Writer, r *schema.Report, rules Catalogue) error {
	p := htmlPage{Report: r, Tiles: []htmlTile{
		{predicate.Fail, r.Summary.Fail}, {predicate.Warn, r.Summary.Warn}, {predicate.Error, r.Summary.Error}, {predicate.Pass, r.Summary.Pass},
	}}
	all := subjects(r, rules)
	bad := badOnes(all)
	for _, a := range bad[:min(len(bad), maxShown)] {
		p.Bad = append(p.Bad, htmlFile(a, rules))
	}
	p.Omitted = len(bad) - len(p.Bad)
	met, _ := metRules(all, rules)
	for _, m := range met {
		p.Rules = append(p.Rules, ruleOf(rules, m.ID))
	}
	if err := page.Execute(w, p); err != nil {
		return fmt.Errorf("write HTML report: %w", err)
	}
	return nil
}

func htmlFile(a schema.Artifact, rules Catalogue) htmlArtifact {
	out := htmlArtifact{Artifact: a, Gaps: gapLines(a.Coverage)}
	for _, g := range byRule(a.Findings) {
		h := htmlGroup{Rule: ruleOf(rules, g.first.Rule), Count: g.count, At: g.first.Location}
		h.Said = append(h.Said, g.said[:min(len(g.said), maxListed)]...)
		out.More += len(g.said) - len(h.Said)
		if g.accepted == g.count {
			h.Accepted = accepted(g.first.Accepted)
		}
		out.Groups = append(out.Groups, h)
	}
	for _, i := range a.Imports {
		switch {
		case i.Judged == predicate.JudgedHarmless:
		case len(out.Imports) >= maxListed:
			out.More++
		default:
			out.Imports = append(out.Imports, i)
		}
	}
	return out
}
