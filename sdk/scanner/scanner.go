// Package scanner is the contract of a scanner: it is handed one artifact's
// bytes, says what format they are, what it found, and what it covered. It has
// no network and no files but what it is handed.
package scanner

import (
	"context"
	"errors"
	"io/fs"

	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
)

// Unknown is the format of content that no scanner identifies.
const Unknown = "unknown"

// Description is what a scanner says of itself. All members are identifiers
// (predicate.ValidateID).
type Description struct {
	Name, Version string
	// RulesetVersion changes with the rules and tables; the agent then scans
	// everything again.
	RulesetVersion string
	// Rules are the ids of the rules that the scanner may name.
	Rules []string
}

// Scanner inspects artifacts. Scan may be called from several goroutines at
// once, each with a target of its own.
type Scanner interface {
	Describe() Description
	// Scan inspects one artifact. An error says that the scanner gave up; what
	// the report holds then still stands, and what it does not claim counts as
	// unread. A malformed artifact is no error but a finding and a gap.
	Scan(ctx context.Context, target Target) (Report, error)
}

// Target is the artifact to inspect.
type Target struct {
	// Path is for siblings and display. It never decides what the content is.
	Path string
	// Content is a file's, or the canonical manifest of a bundle as a whole
	// (artifact.Manifest), which comes after the bundle's files.
	Content artifact.Reader
	// Siblings opens other files of the same bundle by their path in it, and
	// returns an error that is fs.ErrNotExist for what is not there. It is nil
	// when the artifact belongs to no bundle.
	Siblings func(ctx context.Context, path string) (artifact.Reader, error)
}

// Sibling opens another file of the target's bundle.
func (t Target) Sibling(ctx context.Context, path string) (artifact.Reader, error) {
	if t.Siblings == nil {
		return nil, errors.Join(errors.New("open sibling: the artifact is in no bundle"), fs.ErrNotExist)
	}
	return t.Siblings(ctx, path)
}

// The bounds of a report. A scanner stops adding at them and counts the rest.
const (
	MaxFindings  = 10_000
	MaxImports   = 100_000
	MaxRanges    = 200_000
	MaxChildren  = 100_000
	MaxNameBytes = 64 << 10
)

// Report is what a scanner says of an artifact.
type Report struct {
	// Format is an identifier of what the content is, or Unknown.
	Format   string
	Findings []finding.Finding
	Imports  []finding.Import
	// Coverage are claims over the artifact's bytes, in any order; see
	// coverage.Account for how they combine.
	Coverage []coverage.Range
	Children []Child

	FindingsOmitted, ImportsOmitted uint64
}

// Child is an artifact found inside the artifact. The scanner has looked into
// it already; it is named so that people see what a container holds.
type Child struct {
	// Member is its name, "a.zip!b.pkl" when nested.
	Member string
	Format string
	// Size is that of its own content; Start and End its extent in the artifact.
	Size, Start, End int64
}

// AddFinding adds f, or counts it as omitted at the bound.
func (r *Report) AddFinding(f finding.Finding) {
	if len(r.Findings) >= MaxFindings {
		r.FindingsOmitted++
		return
	}
	r.Findings = append(r.Findings, f)
}

// AddImport adds i, or counts it as omitted at the bound.
func (r *Report) AddImport(i finding.Import) {
	if len(r.Imports) >= MaxImports {
		r.ImportsOmitted++
		return
	}
	r.Imports = append(r.Imports, i)
}
