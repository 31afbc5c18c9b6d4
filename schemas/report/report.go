// Package report is the contract of a local scan's JSON: what `cavra scan
// --format json` writes and other programs read. Unlike a statement it stays on
// the machine, so it holds names, members and evidence in the clear. Members
// may be added within a version; none is renamed or removed. The JSON Schema is
// beside this file.
package report

import (
	_ "embed"

	"github.com/cavra/cavra/schemas/predicate"
)

// Version is the contract's version.
const Version = "1"

// MaxGaps bounds the gaps that one artifact lists; the rest is counted.
const MaxGaps = 1000

//go:embed scan-report.schema.json
var schemaJSON []byte

// Schema returns the JSON Schema (2020-12) of a Report.
func Schema() []byte { return append([]byte(nil), schemaJSON...) }

// Report is one run of a scan.
type Report struct {
	SchemaVersion string         `json:"schema_version"`
	Tool          Tool           `json:"tool"`
	Ruleset       Ruleset        `json:"ruleset"`
	StartedAt     predicate.Time `json:"started_at"`
	FinishedAt    predicate.Time `json:"finished_at"`
	Summary       Summary        `json:"summary"`
	// Artifacts has an entry for every file under the scanned paths, in
	// ascending order of Path.
	Artifacts []Artifact `json:"artifacts"`
	// Bundles are the groups of files that are loaded as one.
	Bundles []Bundle `json:"bundles"`
	// Problems say in words what kept the listing from being complete.
	Problems []string `json:"problems"`
}

// Tool is the program that scanned, and what it ran.
type Tool struct {
	Name     string              `json:"name"`
	Version  string              `json:"version"`
	Scanners []predicate.Scanner `json:"scanners"`
	// Sandbox are the layers that were in force around every scanner.
	Sandbox []predicate.Layer `json:"sandbox"`
}

// Ruleset is the rule catalogue that gave severities and scores.
type Ruleset struct {
	Version string           `json:"version"`
	Digest  predicate.Digest `json:"digest"`
}

// Summary counts the artifacts by verdict.
type Summary struct {
	Artifacts  int   `json:"artifacts"`
	BytesTotal int64 `json:"bytes_total"`
	Pass       int   `json:"pass"`
	Warn       int   `json:"warn"`
	Fail       int   `json:"fail"`
	Error      int   `json:"error"`
	// Incomplete counts the artifacts that were not covered in full, whatever
	// their verdict.
	Incomplete int `json:"incomplete"`
	// Complete says that every path was listed to its end and every artifact
	// covered in full.
	Complete bool `json:"complete"`
	// Verdict is the worst: fail, then warn, then error, then pass.
	Verdict predicate.Verdict `json:"verdict"`
	// Score is the highest.
	Score int `json:"score"`
}

// Artifact is one file.
type Artifact struct {
	Path string `json:"path"`
	// Digest is empty when the file could not be read, or changed meanwhile.
	Digest  predicate.Digest  `json:"digest"`
	Size    int64             `json:"size"`
	Format  string            `json:"format"`
	Verdict predicate.Verdict `json:"verdict"`
	Score   int               `json:"score"`
	// Problem is why the file could not be read, if it could not; Message says
	// so in words.
	Problem  predicate.Reason `json:"problem,omitempty"`
	Message  string           `json:"message,omitempty"`
	Coverage Coverage         `json:"coverage"`
	// Imports are the module and name pairs that loading could resolve,
	// whether judged harmless or not, each once.
	Imports         []Import  `json:"imports"`
	ImportsOmitted  uint64    `json:"imports_omitted"`
	Findings        []Finding `json:"findings"`
	FindingsOmitted uint64    `json:"findings_omitted"`
	Children        []Child   `json:"children,omitempty"`
}

// Coverage says how much of an artifact was looked at, in bytes.
type Coverage struct {
	Complete    bool   `json:"complete"`
	BytesTotal  int64  `json:"bytes_total"`
	BytesParsed int64  `json:"bytes_parsed"`
	BytesInert  int64  `json:"bytes_inert"`
	Gaps        []Gap  `json:"gaps"`
	GapsOmitted uint64 `json:"gaps_omitted"`
}

// Gap is a place that was not looked at.
type Gap struct {
	Reason predicate.Reason `json:"reason"`
	// Where is a container's member, or a byte range "start-end" of the
	// artifact with the end excluded.
	Where string `json:"where"`
}

// Import is a module and a name that loading could resolve.
type Import struct {
	Module string        `json:"module"`
	Name   string        `json:"name"`
	How    predicate.How `json:"how"`
	Judged string        `json:"judged"`
}

// Finding is a rule's result at a place.
type Finding struct {
	Rule     string             `json:"rule"`
	Class    string             `json:"class"`
	Severity predicate.Severity `json:"severity"`
	Title    string             `json:"title"`
	Location Location           `json:"location"`
	Evidence []string           `json:"evidence,omitempty"`
	// Accepted is set when the people who scan know the finding and accept it;
	// the artifact's verdict is the same with and without it.
	Accepted *Acceptance `json:"accepted,omitempty"`
}

// By is what accepts a finding.
type By string

// What accepts findings: an earlier report, or an entry of a policy file.
const (
	ByBaseline    By = "baseline"
	BySuppression By = "suppression"
)

// Acceptance says by what a finding is accepted; a suppression also why, by
// whom, and until which day (2006-01-02, UTC).
type Acceptance struct {
	By     By     `json:"by"`
	Reason string `json:"reason,omitempty"`
	Owner  string `json:"owner,omitempty"`
	Until  string `json:"until,omitempty"`
}

// Location is a place in an artifact: a member, empty for the artifact itself,
// and an offset in bytes of the member's or the artifact's content.
type Location struct {
	Member string `json:"member"`
	Offset int64  `json:"offset"`
	Class  string `json:"class"`
}

// Child is an artifact inside an artifact.
type Child struct {
	Member string `json:"member"`
	Format string `json:"format"`
	Size   int64  `json:"size"`
}

// Bundle is a group of files that is loaded as one.
type Bundle struct {
	Path string `json:"path"`
	// Digest is that of the bundle's canonical manifest, and empty when a file
	// of it has none.
	Digest  predicate.Digest  `json:"digest"`
	Files   int               `json:"files"`
	Size    int64             `json:"size"`
	Verdict predicate.Verdict `json:"verdict"`
	Score   int               `json:"score"`
	// Complete says that every file was covered in full.
	Complete bool `json:"complete"`
	// Members are its files, in ascending order of path.
	Members []Member `json:"members,omitempty"`
	// Findings are those that only the bundle as a whole has; those of its files
	// are with the artifacts.
	Findings        []Finding `json:"findings,omitempty"`
	FindingsOmitted uint64    `json:"findings_omitted,omitempty"`
	// Gaps say what of the bundle as a whole was not looked at; those of its files
	// are with the artifacts. Where is a byte range of the bundle's manifest.
	Gaps []Gap `json:"gaps,omitempty"`
}

// Member is a file of a bundle, by its path in it.
type Member struct {
	Path string `json:"path"`
	// Digest is empty when the file could not be read.
	Digest  predicate.Digest  `json:"digest"`
	Verdict predicate.Verdict `json:"verdict"`
}
