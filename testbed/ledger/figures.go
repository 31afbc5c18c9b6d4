// Package ledger keeps the books that CAVRA is judged by, outside of it: what a
// tree of files implies for the posture, and what was published implies for
// statements, chains and receipts. Its rules are written down here a second
// time on purpose and share no code with the programs.
package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/report"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/testbed/corpus"
	"github.com/cavra/cavra/testbed/stack"
)

// File is what a scan of one file must come to.
type File struct {
	Path string
	// Digest is empty for a file that cannot be read.
	Digest   predicate.Digest
	Verdict  predicate.Verdict
	Complete bool
	// Rules are severities by rule and class of location: one exposure each.
	Rules map[string]predicate.Severity
}

// FromManifest are the files of a generated tree. In such a tree a rule is met
// at one class of location a file.
func FromManifest(m corpus.Manifest, rules *finding.Catalogue) ([]File, error) {
	out := make([]File, 0, len(m.Files))
	for _, e := range m.Files {
		f := File{Path: e.Path, Digest: e.Digest, Verdict: e.Verdict, Complete: e.Complete, Rules: map[string]predicate.Severity{}}
		for _, id := range e.Rules {
			rule, ok := rules.Rule(id)
			if !ok {
				return nil, fmt.Errorf("the manifest expects rule %q of %s, which the catalogue does not have", id, e.Path)
			}
			f.Rules[id] = rule.Severity
		}
		out = append(out, f)
	}
	return out, nil
}

// FromReport are the files of a folder by the report of `cavra scan`.
func FromReport(r report.Report, root string) []File {
	out := make([]File, 0, len(r.Artifacts))
	for _, a := range r.Artifacts {
		f := File{
			Path: strings.TrimPrefix(a.Path, strings.TrimSuffix(root, "/")+"/"), Digest: a.Digest, Verdict: a.Verdict,
			Complete: a.Coverage.Complete, Rules: map[string]predicate.Severity{},
		}
		for _, found := range a.Findings {
			f.Rules[found.Rule+" at "+found.Location.Class] = found.Severity
		}
		out = append(out, f)
	}
	return out
}

// Figures are the counts of a posture.
type Figures struct {
	Artifacts, References, Exposures map[string]uint64
}

// Of counts what the files imply: an artifact is a digest and counts once, a
// reference is a path, and an exposure is a rule at a path. What could not be
// read, or not wholly, is an exposure of medium severity.
func Of(files []File) Figures {
	f := Figures{
		Artifacts:  map[string]uint64{"total": 0, "pass": 0, "warn": 0, "fail": 0, "error": 0, "unassessed": 0},
		References: map[string]uint64{"total": 0, "unreadable": 0},
		Exposures:  map[string]uint64{"total": 0, "critical": 0, "high": 0, "medium": 0, "low": 0, "info": 0},
	}
	expose := func(s predicate.Severity) {
		f.Exposures["total"]++
		f.Exposures[string(s)]++
	}
	once := map[predicate.Digest]bool{}
	for _, file := range files {
		f.References["total"]++
		for _, severity := range file.Rules {
			if file.Digest != "" {
				expose(severity)
			}
		}
		if file.Digest == "" || !file.Complete {
			expose(predicate.Medium)
		}
		if file.Digest == "" {
			f.References["unreadable"]++
			continue
		}
		if !once[file.Digest] {
			once[file.Digest] = true
			f.Artifacts["total"]++
			f.Artifacts[string(file.Verdict)]++
		}
	}
	return f
}

// Differences compares a posture with the figures, a line for each that is not
// as it must be.
func (f Figures) Differences(p stack.Posture) []string {
	var out []string
	for _, part := range []struct {
		name      string
		want, got map[string]uint64
	}{{"artifacts", f.Artifacts, p.Artifacts}, {"references", f.References, p.References}, {"exposures", f.Exposures, p.Exposures}} {
		words := maps.Clone(part.want)
		maps.Copy(words, part.got)
		for _, word := range slices.Sorted(maps.Keys(words)) {
			if part.want[word] != part.got[word] {
				out = append(out, fmt.Sprintf("%s %s: the tree implies %d, the posture says %d", part.name, word, part.want[word], part.got[word]))
			}
		}
	}
	return out
}

// Differing compares artifacts and open exposures one by one with the files, a
// line for each that is missing, wrong or too many.
func Differing(files []File, artifacts []stack.Artifact, exposures []stack.Exposure) []string {
	want, got := map[string]int{}, map[string]int{}
	verdicts := map[predicate.Digest]predicate.Verdict{}
	for _, f := range files {
		for rule := range f.Rules {
			if f.Digest != "" {
				want["exposure "+f.Path+" "+rule]++
			}
		}
		switch {
		case f.Digest == "":
			want["exposure "+f.Path+" reference.unreadable"]++
		case !f.Complete:
			want["exposure "+f.Path+" artifact.incomplete"]++
		}
		if f.Digest != "" {
			verdicts[f.Digest] = f.Verdict
		}
	}
	for d, v := range verdicts {
		want[fmt.Sprintf("artifact %s %s", d, v)]++
	}
	for _, a := range artifacts {
		if a.Kind != string(predicate.Bundle) {
			got[fmt.Sprintf("artifact %s %s", a.Digest, a.Verdict)]++
		}
	}
	for _, e := range exposures {
		rule := e.Rule
		if want["exposure "+e.Path+" "+rule] == 0 && want["exposure "+e.Path+" "+rule+" at "+e.Location] > 0 {
			rule += " at " + e.Location
		}
		got["exposure "+e.Path+" "+rule]++
	}
	all := maps.Clone(want)
	maps.Copy(all, got)
	var out []string
	for _, line := range slices.Sorted(maps.Keys(all)) {
		if want[line] != got[line] {
			out = append(out, fmt.Sprintf("%s: the tree implies %d, the API lists %d", line, want[line], got[line]))
		}
	}
	return out
}
