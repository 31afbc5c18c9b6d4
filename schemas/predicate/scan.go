package predicate

import (
	"errors"
	"fmt"
)

// The bounds of a scan statement. A report past them is cut there, and the cut
// is counted in the members that end in "omitted".
const (
	MaxFindings = 500
	MaxImports  = 500
	MaxRanges   = 256
	MaxScanners = 16
)

// Scan says what was found in one artifact or bundle.
type Scan struct {
	Link            `json:"chain"`
	Artifact        Artifact  `json:"artifact"`
	Verdict         Verdict   `json:"verdict"`
	Score           int       `json:"score"`
	Coverage        Coverage  `json:"coverage"`
	Findings        []Finding `json:"findings"`
	FindingsOmitted uint64    `json:"findings_omitted"`
	Imports         []Import  `json:"imports"`
	ImportsOmitted  uint64    `json:"imports_omitted"`
	Scanners        []Scanner `json:"scanners"`
	RulesetVersion  string    `json:"ruleset_version"`
	RulesetDigest   Digest    `json:"ruleset_digest"`
	Privacy         Privacy   `json:"privacy"`
	Sandbox         []Layer   `json:"sandbox"`
	StartedAt       Time      `json:"started_at"`
	FinishedAt      Time      `json:"finished_at"`
}

// ArtifactKind tells a file from a bundle.
type ArtifactKind string

// The kinds. A bundle's digest is that of its canonical manifest.
const (
	File   ArtifactKind = "file"
	Bundle ArtifactKind = "bundle"
)

// Artifact is what was scanned: bytes, or a bundle of them.
type Artifact struct {
	Kind ArtifactKind `json:"kind"`
	// Digest is plain or keyed, and so is the statement's subject.
	Digest Digest `json:"digest"`
	// Size is in bytes; of a bundle, the sum over its files. With a keyed digest
	// it is rounded up.
	Size uint64 `json:"size"`
	// Format is an identifier of the format that the content is, such as
	// "pickle"; "unknown" where none was identified, "bundle" for a bundle.
	Format string `json:"format"`
	// Files is the number of files of a bundle, and 1 otherwise.
	Files uint64 `json:"files"`
}

// Coverage accounts for every byte of the artifact. The three counts add up to
// BytesTotal; Complete means that nothing is unread. Ranges are disjoint and
// ascending; past MaxRanges the unread ones are kept first. A bundle has counts
// and no ranges.
type Coverage struct {
	Complete      bool    `json:"complete"`
	BytesTotal    uint64  `json:"bytes_total"`
	BytesParsed   uint64  `json:"bytes_parsed"`
	BytesInert    uint64  `json:"bytes_inert"`
	BytesUnread   uint64  `json:"bytes_unread"`
	Ranges        []Range `json:"ranges"`
	RangesOmitted uint64  `json:"ranges_omitted"`
}

// Range is [Start, End) of an artifact's bytes. Only an unread range has a
// Reason. A member of an archive whose bytes could be read but not understood
// is unread at the extent it has in the artifact.
type Range struct {
	Kind   RangeKind `json:"kind"`
	Start  uint64    `json:"start"`
	End    uint64    `json:"end"`
	Reason Reason    `json:"reason,omitempty"`
}

// Finding is one rule's result at one class of location, on the wire. Its
// identity is (artifact digest, Rule, Location); the rest are attributes.
type Finding struct {
	Rule     string   `json:"rule"`
	Class    string   `json:"class"`
	Location string   `json:"location"`
	Severity Severity `json:"severity"`
	Count    uint64   `json:"count"`
}

// Import is a module and a name that loading the artifact could resolve.
type Import struct {
	Module Name   `json:"module"`
	Name   Name   `json:"name"`
	How    How    `json:"how"`
	Judged string `json:"judged"`
}

// What an import was judged to be.
const (
	JudgedHarmless  = "harmless"
	JudgedUnknown   = "unknown"
	JudgedDangerous = "dangerous"
)

// Scanner is a program that took part, by its own digest.
type Scanner struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  Digest `json:"digest"`
}

// PredicateType implements Predicate.
func (*Scan) PredicateType() string { return ScanType }

// Subjects implements Predicate: the artifact's digest.
func (s *Scan) Subjects() []Subject { return subject("artifact", s.Artifact.Digest) }

// Validate implements Predicate.
func (s *Scan) Validate() error {
	if err := s.Link.Validate(); err != nil {
		return err
	}
	if err := s.Artifact.Validate(); err != nil {
		return fmt.Errorf("artifact: %w", err)
	}
	if err := s.Verdict.Validate(); err != nil {
		return err
	}
	if s.Score < 0 || s.Score > 100 {
		return fmt.Errorf("score: %d is not within 0 and 100", s.Score)
	}
	if err := s.Coverage.Validate(); err != nil {
		return fmt.Errorf("coverage: %w", err)
	}
	if s.Coverage.BytesTotal != s.Artifact.Size {
		return fmt.Errorf("coverage.bytes_total: %d is not the artifact's size %d", s.Coverage.BytesTotal, s.Artifact.Size)
	}
	if s.Verdict == Pass && !s.Coverage.Complete {
		return errors.New("verdict: pass without complete coverage")
	}
	if err := s.validateLists(); err != nil {
		return err
	}
	return s.validateRun()
}

func (s *Scan) validateLists() error {
	if s.Findings == nil || s.Imports == nil || s.Scanners == nil || s.Sandbox == nil {
		return errors.New("findings, imports, scanners and sandbox must be lists, if empty ones")
	}
	if len(s.Findings) > MaxFindings || len(s.Imports) > MaxImports || len(s.Scanners) > MaxScanners {
		return fmt.Errorf("%d findings, %d imports, %d scanners: at most %d, %d, %d",
			len(s.Findings), len(s.Imports), len(s.Scanners), MaxFindings, MaxImports, MaxScanners)
	}
	for i := range s.Findings {
		if err := s.Findings[i].Validate(); err != nil {
			return fmt.Errorf("findings[%d]: %w", i, err)
		}
		if i > 0 && !s.Findings[i-1].before(&s.Findings[i]) {
			return fmt.Errorf("findings[%d]: not in ascending order of rule and location", i)
		}
	}
	for i := range s.Imports {
		if err := s.Imports[i].Validate(); err != nil {
			return fmt.Errorf("imports[%d]: %w", i, err)
		}
	}
	for i, sc := range s.Scanners {
		if err := sc.Validate(); err != nil {
			return fmt.Errorf("scanners[%d]: %w", i, err)
		}
	}
	return nil
}

func (s *Scan) validateRun() error {
	if s.FindingsOmitted > maxCounter || s.ImportsOmitted > maxCounter {
		return errors.New("omitted: out of range")
	}
	if err := ValidateID(s.RulesetVersion); err != nil {
		return fmt.Errorf("ruleset_version: %w", err)
	}
	if err := s.RulesetDigest.Validate(); err != nil {
		return fmt.Errorf("ruleset_digest: %w", err)
	}
	if err := s.Privacy.Validate(); err != nil {
		return err
	}
	if err := validateLayers(s.Sandbox); err != nil {
		return err
	}
	if s.StartedAt.IsZero() || s.FinishedAt.IsZero() || s.FinishedAt.Time().Before(s.StartedAt.Time()) {
		return errors.New("started_at, finished_at: missing or out of order")
	}
	return nil
}

func validateLayers(ls []Layer) error {
	for i, l := range ls {
		if err := oneOf("sandbox layer", l, layers); err != nil {
			return err
		}
		if i > 0 && ls[i-1] >= l {
			return fmt.Errorf("sandbox[%d]: not in ascending order", i)
		}
	}
	return nil
}

// Validate reports whether the artifact is well described.
func (a *Artifact) Validate() error {
	if a.Kind != File && a.Kind != Bundle {
		return fmt.Errorf("kind %q: want file or bundle", clip(string(a.Kind)))
	}
	if err := a.Digest.ValidateArtifact(); err != nil {
		return err
	}
	if a.Size > maxCounter {
		return fmt.Errorf("size: %d is out of range", a.Size)
	}
	if err := ValidateID(a.Format); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	if a.Files > maxCounter || a.Kind == File && a.Files != 1 {
		return fmt.Errorf("files: %d is out of range", a.Files)
	}
	return nil
}

// Validate reports whether the account adds up.
func (c *Coverage) Validate() error {
	if c.BytesTotal > maxCounter || c.BytesParsed > maxCounter || c.BytesInert > maxCounter || c.BytesUnread > maxCounter || c.RangesOmitted > maxCounter {
		return errors.New("a count is out of range")
	}
	if c.BytesParsed+c.BytesInert+c.BytesUnread != c.BytesTotal {
		return fmt.Errorf("parsed %d, inert %d and unread %d do not add up to %d", c.BytesParsed, c.BytesInert, c.BytesUnread, c.BytesTotal)
	}
	if c.Complete && c.BytesUnread != 0 {
		return errors.New("complete, with unread bytes")
	}
	if c.Ranges == nil || len(c.Ranges) > MaxRanges {
		return fmt.Errorf("ranges: want a list of at most %d", MaxRanges)
	}
	var end uint64
	for i, r := range c.Ranges {
		if err := r.validate(c.Complete); err != nil {
			return fmt.Errorf("ranges[%d]: %w", i, err)
		}
		if r.Start < end || r.End > c.BytesTotal {
			return fmt.Errorf("ranges[%d]: overlaps, or is out of order or bounds", i)
		}
		end = r.End
	}
	return nil
}

func (r Range) validate(complete bool) error {
	// An empty range marks a place where something could not be looked at
	// without a byte of its own, such as a member past a truncated end.
	if r.End < r.Start || r.End == r.Start && r.Kind != Unread {
		return fmt.Errorf("[%d, %d) is empty", r.Start, r.End)
	}
	switch r.Kind {
	case Parsed, Inert:
		if r.Reason != "" {
			return fmt.Errorf("%s, with a reason", r.Kind)
		}
	case Unread:
		if complete {
			return errors.New("unread, in complete coverage")
		}
		return r.Reason.Validate()
	default:
		return fmt.Errorf("kind %q: want parsed, inert or unread", clip(string(r.Kind)))
	}
	return nil
}

func (f *Finding) before(g *Finding) bool {
	return f.Rule < g.Rule || f.Rule == g.Rule && f.Location < g.Location
}

// Validate reports whether the finding is within the schema.
func (f *Finding) Validate() error {
	for what, v := range map[string]string{"rule": f.Rule, "class": f.Class, "location": f.Location} {
		if err := ValidateID(v); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if f.Count == 0 || f.Count > maxCounter {
		return fmt.Errorf("count: %d is out of range", f.Count)
	}
	return f.Severity.Validate()
}

// Validate reports whether the import is within the schema.
func (i *Import) Validate() error {
	if err := i.Module.Validate(); err != nil {
		return fmt.Errorf("module: %w", err)
	}
	if err := i.Name.Validate(); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if err := oneOf("judged", i.Judged, []string{JudgedHarmless, JudgedUnknown, JudgedDangerous}); err != nil {
		return err
	}
	return oneOf("how", i.How, hows)
}

// Validate reports whether the scanner is named and pinned.
func (s Scanner) Validate() error {
	if err := ValidateID(s.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if err := ValidateID(s.Version); err != nil {
		return fmt.Errorf("version: %w", err)
	}
	return s.Digest.Validate()
}
