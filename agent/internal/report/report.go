// Package report writes a scan's results: JSON by the contract in
// schemas/report, a table and a page for eyes, SARIF 2.1.0 and CycloneDX 1.6.
// The same results give the same bytes, in order of path, and no name from an
// artifact or a disk reaches a terminal or a page with a character that does
// not print.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/cavra/cavra/schemas/predicate"
	schema "github.com/cavra/cavra/schemas/report"
)

// Sort puts artifacts and bundles in ascending order of path, as every writer
// expects.
func Sort(r *schema.Report) {
	slices.SortFunc(r.Artifacts, func(a, b schema.Artifact) int { return strings.Compare(a.Path, b.Path) })
	slices.SortFunc(r.Bundles, func(a, b schema.Bundle) int { return strings.Compare(a.Path, b.Path) })
}

// WriteJSON writes the contract's form, indented.
func WriteJSON(w io.Writer, r *schema.Report) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("write JSON report: %w", err)
	}
	return nil
}

// Printable returns s with every character that does not print, and every byte
// that is not UTF-8, as a Go escape sequence.
func Printable(s string) string {
	// Not only control characters: one that turns the direction of writing makes
	// a name look like another.
	if strings.IndexFunc(s, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }) < 0 {
		return s
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// clip bounds what one name takes of a line, in characters.
func clip(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	// The end of a path tells more than its middle.
	head := most / 3
	return string(r[:head]) + "…" + string(r[len(r)-(most-head-1):])
}

// size writes a number of bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, exp := float64(n)/unit, 0
	for f >= unit && exp < 4 {
		f /= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[exp])
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// wholeFormat is the format of a bundle where it stands among artifacts.
const wholeFormat = "bundle"

// subjects are the artifacts, and behind them each bundle that has findings or
// gaps of its own as one more. Its digest is that of a list and of no bytes.
func subjects(r *schema.Report, rules Catalogue) []schema.Artifact {
	all := slices.Clip(r.Artifacts)
	for _, b := range r.Bundles {
		if len(b.Findings) == 0 && len(b.Gaps) == 0 {
			continue
		}
		a := schema.Artifact{Path: b.Path, Digest: b.Digest, Size: b.Size, Format: wholeFormat, Verdict: predicate.Pass, Findings: b.Findings}
		a.Coverage.Complete, a.Coverage.Gaps = len(b.Gaps) == 0, b.Gaps
		if !a.Coverage.Complete {
			a.Verdict = predicate.Error
		}
		for _, f := range b.Findings {
			a.Score = max(a.Score, ruleOf(rules, f.Rule).Score)
			switch rank := f.Severity.Rank(); {
			case rank >= predicate.High.Rank():
				a.Verdict = predicate.Fail
			case rank == predicate.Medium.Rank() && a.Verdict != predicate.Fail:
				a.Verdict = predicate.Warn
			}
		}
		all = append(all, a)
	}
	return all
}
