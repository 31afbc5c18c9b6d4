package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/cavra/cavra/schemas/predicate"
	schema "github.com/cavra/cavra/schemas/report"
	"github.com/cavra/cavra/sdk/finding"
)

// The bounds of the table, in rows, lines and characters.
const (
	maxRows    = 200
	maxReasons = 6
	maxAdvice  = 8
	// minWidth is the narrowest that the table still fits; fixedWidth is what
	// all but the file and the reasons take of it.
	minWidth    = 72
	fixedWidth  = 38
	maxFormat   = 14
	maxNameRune = 400
)

// Catalogue explains rules.
type Catalogue interface {
	Rule(id string) (finding.Rule, bool)
}

// TableOptions fit the table to where it is shown.
type TableOptions struct {
	// Width is in columns.
	Width int
	Color bool
}

// WriteTable writes a table for eyes: what is bad first, the worst at the top,
// and what passes in one line.
func WriteTable(w io.Writer, r *schema.Report, rules Catalogue, o TableOptions) error {
	var b strings.Builder
	bad := badOnes(subjects(r, rules))
	if len(bad) > 0 {
		writeRows(&b, bad, o)
	}
	if n := len(bad) - maxRows; n > 0 {
		fmt.Fprintf(&b, "%d more are not shown here: use --format json.\n", n)
	}
	writeBundles(&b, r.Bundles, o)
	writeTotals(&b, r)
	writeAdvice(&b, bad, rules, o)
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "The listing is not complete: %s\n", Printable(p))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// badOnes returns what does not pass: fail, warn, error, each by falling score
// and then by path.
func badOnes(all []schema.Artifact) []schema.Artifact {
	order := []predicate.Verdict{predicate.Fail, predicate.Warn, predicate.Error}
	var bad []schema.Artifact
	for _, a := range all {
		if a.Verdict != predicate.Pass {
			bad = append(bad, a)
		}
	}
	slices.SortStableFunc(bad, func(a, b schema.Artifact) int {
		if c := slices.Index(order, a.Verdict) - slices.Index(order, b.Verdict); c != 0 {
			return c
		}
		return b.Score - a.Score
	})
	return bad
}

func writeRows(b *strings.Builder, bad []schema.Artifact, o TableOptions) {
	t := table.NewWriter()
	style := table.StyleLight
	style.Options.DrawBorder = false
	style.Options.SeparateColumns = false
	style.Options.SeparateRows = false
	style.Format.Header = text.FormatUpper
	t.SetStyle(style)
	room := max(o.Width, minWidth) - fixedWidth
	name := room * 2 / 5
	t.SetColumnConfigs([]table.ColumnConfig{
		{Number: 1}, {Number: 2, Align: text.AlignRight},
		{Number: 3, WidthMax: name, WidthMaxEnforcer: text.WrapHard},
		{Number: 4},
		{Number: 5},
	})
	t.AppendHeader(table.Row{"verdict", "score", "file", "format", "why"})
	for _, a := range bad[:min(len(bad), maxRows)] {
		t.AppendRow(table.Row{paint(a.Verdict, o.Color), a.Score, clip(Printable(a.Path), maxNameRune), clip(a.Format, maxFormat), wrap(why(a), room-name)})
	}
	for line := range strings.Lines(t.Render()) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	b.WriteString("\n")
}

// wrap fits lines to a width and marks what continues one.
func wrap(lines []string, width int) string {
	var out []string
	for _, l := range lines {
		for i, part := range strings.Split(text.WrapSoft(l, width-2), "\n") {
			if i > 0 {
				part = "  " + part
			}
			out = append(out, strings.TrimRight(part, " "))
		}
	}
	return strings.Join(out, "\n")
}

func paint(v predicate.Verdict, color bool) string {
	if !color {
		return string(v)
	}
	return map[predicate.Verdict]text.Color{
		predicate.Fail: text.FgRed, predicate.Warn: text.FgYellow, predicate.Error: text.FgMagenta, predicate.Pass: text.FgGreen,
	}[v].Sprint(string(v))
}

// why says what is wrong with an artifact: its findings by rule, the worst
// first, then what was not looked at.
func why(a schema.Artifact) []string {
	var lines []string
	if a.Problem != "" {
		lines = append(lines, Printable(a.Message))
	}
	for _, g := range byRule(a.Findings) {
		lines = append(lines, g.line())
	}
	if a.Problem == "" {
		lines = append(lines, gapLines(a.Coverage)...)
	}
	if n := len(lines) - maxReasons; n > 0 {
		lines = append(lines[:maxReasons], fmt.Sprintf("… and %d more", n))
	}
	return lines
}

type group struct {
	first schema.Finding
	// said are the different pieces of evidence, where there is any.
	said            []string
	count, accepted int
}

func byRule(fs []schema.Finding) []group {
	var out []group
	at := map[string]int{}
	for _, f := range fs {
		i, ok := at[f.Rule]
		if !ok {
			i = len(out)
			at[f.Rule] = i
			out = append(out, group{first: f})
		}
		out[i].count++
		if f.Accepted != nil {
			out[i].accepted++
		}
		if e := evidence(f); e != "" && !slices.Contains(out[i].said, e) {
			out[i].said = append(out[i].said, e)
		}
	}
	slices.SortStableFunc(out, func(a, b group) int { return b.first.Severity.Rank() - a.first.Severity.Rank() })
	return out
}

func evidence(f schema.Finding) string {
	const most = 100
	return clip(Printable(strings.Join(f.Evidence, ", ")), most)
}

func (g group) line() string {
	const most = 3
	s := string(g.first.Severity) + ": " + g.first.Title
	switch {
	case len(g.said) > most:
		s += fmt.Sprintf(" (%s and %d more)", strings.Join(g.said[:most], "; "), len(g.said)-most)
	case len(g.said) > 0:
		s += " (" + strings.Join(g.said, "; ") + ")"
	}
	if g.first.Location.Member != "" {
		const member = 60
		s += " in " + clip(Printable(g.first.Location.Member), member)
	}
	if g.count > 1 {
		s += fmt.Sprintf(" ×%d", g.count)
	}
	if g.accepted == g.count {
		s += " [" + accepted(g.first.Accepted) + "]"
	}
	return s
}

// accepted says by what a finding is accepted.
func accepted(a *schema.Acceptance) string {
	if a.By == schema.ByBaseline {
		return "in the baseline"
	}
	words := "accepted until " + a.Until + ": " + Printable(a.Reason)
	if a.Owner != "" {
		words += " (" + Printable(a.Owner) + ")"
	}
	return words
}

// gapLines says what was not looked at, one line a reason.
func gapLines(c schema.Coverage) []string {
	counts := map[predicate.Reason]int{}
	first := map[predicate.Reason]string{}
	for _, g := range c.Gaps {
		if counts[g.Reason]++; counts[g.Reason] == 1 {
			first[g.Reason] = g.Where
		}
	}
	var out []string
	for _, r := range predicate.Reasons() {
		if counts[r] == 0 {
			continue
		}
		const most = 60
		s := "not looked at: " + strings.ReplaceAll(string(r), "_", " ") + " (" + clip(Printable(first[r]), most)
		if counts[r] > 1 {
			s += fmt.Sprintf(" and %d more", counts[r]-1)
		}
		out = append(out, s+")")
	}
	return out
}

// bundleWords is how many columns a bundle's line has beside its path, at most.
const bundleWords = 60

// writeBundles says of each bundle that does not pass which files made it. What
// only the whole of it is found to be stands among the artifacts.
func writeBundles(b *strings.Builder, bundles []schema.Bundle, o TableOptions) {
	for _, u := range bundles {
		if u.Verdict == predicate.Pass {
			continue
		}
		fmt.Fprintf(b, "Bundle %s: %s, score %d, %s, %s.\n",
			clip(Printable(u.Path), min(maxNameRune, max(1, o.Width-bundleWords))), u.Verdict, u.Score, plural(u.Files, "file", "files"), size(u.Size))
		if made := madeBy(u); made != "" {
			b.WriteString(clip("  made by "+made, o.Width) + "\n")
		}
	}
}

// madeBy names the files that have the bundle's verdict.
func madeBy(u schema.Bundle) string {
	const most = 3
	var names []string
	for _, m := range u.Members {
		if m.Verdict == u.Verdict {
			names = append(names, Printable(m.Path))
		}
	}
	if n := len(names) - most; n > 0 {
		names = append(names[:most:most], fmt.Sprintf("%d more", n))
	}
	return strings.Join(names, ", ")
}

func writeTotals(b *strings.Builder, r *schema.Report) {
	s := r.Summary
	fmt.Fprintf(b, "%s, %s: %d fail, %d warn, %d error, %d pass.\n",
		plural(s.Artifacts, "file", "files"), size(s.BytesTotal), s.Fail, s.Warn, s.Error, s.Pass)
	if s.Incomplete > 0 {
		fmt.Fprintf(b, "%s not fully looked at.\n", plural(s.Incomplete, "file was", "files were"))
	}
	remarks := 0
	for _, a := range r.Artifacts {
		if a.Verdict == predicate.Pass && len(a.Findings) > 0 {
			remarks++
		}
	}
	if remarks > 0 {
		fmt.Fprintf(b, "%s with remarks of low severity: see --format json.\n", plural(remarks, "file passes", "files pass"))
	}
}

// writeAdvice says what to do about the rules that were met, the worst first.
func writeAdvice(b *strings.Builder, bad []schema.Artifact, rules Catalogue, o TableOptions) {
	var met []finding.Rule
	seen := map[string]bool{}
	for _, a := range bad {
		for _, f := range a.Findings {
			if rule, ok := rules.Rule(f.Rule); ok && !seen[f.Rule] && rule.Severity.Rank() >= predicate.Medium.Rank() {
				seen[f.Rule] = true
				met = append(met, rule)
			}
		}
	}
	if len(met) == 0 {
		return
	}
	slices.SortStableFunc(met, func(x, y finding.Rule) int {
		if c := y.Score - x.Score; c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	b.WriteString("\nWhat to do:\n")
	for _, rule := range met[:min(len(met), maxAdvice)] {
		for i, line := range strings.Split(text.WrapSoft(rule.ID+": "+rule.Fix, max(o.Width, minWidth)-4), "\n") {
			lead := "  "
			if i > 0 {
				lead = "    "
			}
			b.WriteString(lead + strings.TrimRight(line, " ") + "\n")
		}
	}
	if n := len(met) - maxAdvice; n > 0 {
		fmt.Fprintf(b, "  and %d more: cavra rules show RULE\n", n)
	}
}
