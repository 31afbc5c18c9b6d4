package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/cavra/cavra/schemas/gen/cavra/plugin/v1"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/scanner"
)

// itemCost is what an element of a report counts beside its strings, in bytes.
const itemCost = 32

func findingCost(f finding.Finding) int {
	n := itemCost + len(f.Rule) + len(f.Location.Class) + len(f.Location.Member)
	for _, e := range f.Evidence {
		n += len(e)
	}
	return n
}

func importCost(i finding.Import) int {
	return itemCost + len(i.Module) + len(i.Name) + len(i.Location.Class) + len(i.Location.Member)
}

func rangeCost(r coverage.Range) int { return itemCost + len(r.Member) }
func childCost(c scanner.Child) int  { return itemCost + len(c.Member) + len(c.Format) }

func locationOut(l finding.Location) *pb.Location {
	return &pb.Location{Class: text(l.Class, predicate.MaxID), Member: text(l.Member, finding.MaxMemberBytes), Offset: l.Offset}
}

func locationIn(l *pb.Location) finding.Location {
	return finding.Location{Class: l.GetClass(), Member: l.GetMember(), Offset: l.GetOffset()}
}

func findingOut(f finding.Finding) *pb.Finding {
	out := &pb.Finding{Rule: text(f.Rule, predicate.MaxID), Location: locationOut(f.Location)}
	for _, e := range f.Evidence[:min(len(f.Evidence), finding.MaxEvidence)] {
		out.Evidence = append(out.Evidence, text(e, finding.MaxEvidenceBytes))
	}
	return out
}

func importOut(i finding.Import) *pb.Import {
	return &pb.Import{
		Module: text(i.Module, scanner.MaxNameBytes), Name: text(i.Name, scanner.MaxNameBytes),
		How: text(string(i.How), predicate.MaxID), Judged: text(i.Judged, predicate.MaxID), Location: locationOut(i.Location),
	}
}

func rangeOut(r coverage.Range) *pb.Range {
	return &pb.Range{
		Kind: text(string(r.Kind), predicate.MaxID), Start: r.Start, End: r.End,
		Reason: text(string(r.Reason), predicate.MaxID), Member: text(r.Member, scanner.MaxNameBytes),
	}
}

func childOut(c scanner.Child) *pb.Child {
	return &pb.Child{Member: text(c.Member, scanner.MaxNameBytes), Format: text(c.Format, predicate.MaxID), Size: c.Size, Start: c.Start, End: c.End}
}

// collector gathers a scan's report on the host's side and checks every word of
// it.
type collector struct {
	rules  map[string]bool
	size   int64
	report scanner.Report
	used   int
}

func (c *collector) add(r *pb.Report) error {
	for _, f := range r.GetFindings() {
		if err := c.finding(f); err != nil {
			return err
		}
	}
	for _, i := range r.GetImports() {
		if err := c.imported(i); err != nil {
			return err
		}
	}
	for _, g := range r.GetRanges() {
		if err := c.covered(g); err != nil {
			return err
		}
	}
	for _, ch := range r.GetChildren() {
		if err := c.child(ch); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) count(what string, n, limit, cost int) error {
	c.used += cost
	if n >= limit {
		return contractf("more than %d %s", limit, what)
	}
	if c.used > maxReportBytes {
		return contractf("report of more than %d bytes", maxReportBytes)
	}
	return nil
}

func (c *collector) finding(in *pb.Finding) error {
	f := finding.Finding{Rule: in.GetRule(), Location: locationIn(in.GetLocation()), Evidence: in.GetEvidence()}
	if err := f.Validate(); err != nil {
		return contractf("finding: %w", err)
	}
	if !c.rules[f.Rule] {
		return contractf("finding: rule %s is not among those that the scanner described", f.Rule)
	}
	if err := c.count("findings", len(c.report.Findings), scanner.MaxFindings, findingCost(f)); err != nil {
		return err
	}
	c.report.Findings = append(c.report.Findings, f)
	return nil
}

func (c *collector) imported(in *pb.Import) error {
	i := finding.Import{Module: in.GetModule(), Name: in.GetName(), How: predicate.How(in.GetHow()), Judged: in.GetJudged(), Location: locationIn(in.GetLocation())}
	if err := ValidateImport(i); err != nil {
		return contractf("import: %w", err)
	}
	if err := c.count("imports", len(c.report.Imports), scanner.MaxImports, importCost(i)); err != nil {
		return err
	}
	c.report.Imports = append(c.report.Imports, i)
	return nil
}

func (c *collector) covered(in *pb.Range) error {
	r := coverage.Range{Kind: predicate.RangeKind(in.GetKind()), Start: in.GetStart(), End: in.GetEnd(), Reason: predicate.Reason(in.GetReason()), Member: in.GetMember()}
	if err := ValidateRange(r, c.size); err != nil {
		return contractf("coverage: %w", err)
	}
	if err := c.count("ranges", len(c.report.Coverage), scanner.MaxRanges, rangeCost(r)); err != nil {
		return err
	}
	c.report.Coverage = append(c.report.Coverage, r)
	return nil
}

func (c *collector) child(in *pb.Child) error {
	ch := scanner.Child{Member: in.GetMember(), Format: in.GetFormat(), Size: in.GetSize(), Start: in.GetStart(), End: in.GetEnd()}
	if err := ValidateChild(ch, c.size); err != nil {
		return contractf("child: %w", err)
	}
	if err := c.count("children", len(c.report.Children), scanner.MaxChildren, childCost(ch)); err != nil {
		return err
	}
	c.report.Children = append(c.report.Children, ch)
	return nil
}

var hows = []predicate.How{predicate.ByGlobal, predicate.ByStackGlobal, predicate.ByInst, predicate.ByExtension, predicate.ByComputed}

// ValidateImport reports whether a host accepts the import.
func ValidateImport(i finding.Import) error {
	if len(i.Module) > scanner.MaxNameBytes || len(i.Name) > scanner.MaxNameBytes {
		return fmt.Errorf("names of %d and %d bytes, at most %d", len(i.Module), len(i.Name), scanner.MaxNameBytes)
	}
	if !slices.Contains(hows, i.How) {
		return fmt.Errorf("how %s is not known", words(string(i.How)))
	}
	if !slices.Contains([]string{predicate.JudgedHarmless, predicate.JudgedUnknown, predicate.JudgedDangerous}, i.Judged) {
		return fmt.Errorf("judged %s is not known", words(i.Judged))
	}
	return i.Location.Validate()
}

// ValidateRange reports whether a host accepts the claim over an artifact of
// size bytes.
func ValidateRange(r coverage.Range, size int64) error {
	if len(r.Member) > scanner.MaxNameBytes {
		return fmt.Errorf("member of %d bytes, at most %d", len(r.Member), scanner.MaxNameBytes)
	}
	return r.Validate(size)
}

// ValidateChild reports whether a host accepts the child of an artifact of size
// bytes.
func ValidateChild(c scanner.Child, size int64) error {
	if len(c.Member) > scanner.MaxNameBytes {
		return fmt.Errorf("member of %d bytes, at most %d", len(c.Member), scanner.MaxNameBytes)
	}
	if err := predicate.ValidateID(c.Format); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	if c.Size < 0 || c.Start < 0 || c.End < c.Start || c.End > size {
		return fmt.Errorf("size %d in [%d, %d) of %d bytes", c.Size, c.Start, c.End, size)
	}
	return nil
}

// ValidateDescription reports whether a host accepts a scanner's description.
func ValidateDescription(d scanner.Description) error {
	for _, id := range []struct{ member, value string }{{"name", d.Name}, {"version", d.Version}, {"ruleset version", d.RulesetVersion}} {
		if err := predicate.ValidateID(id.value); err != nil {
			return fmt.Errorf("%s: %w", id.member, err)
		}
	}
	if len(d.Rules) > maxRules {
		return fmt.Errorf("%d rules, at most %d", len(d.Rules), maxRules)
	}
	seen := make(map[string]bool, len(d.Rules))
	for _, r := range d.Rules {
		if err := predicate.ValidateID(r); err != nil {
			return fmt.Errorf("rule: %w", err)
		}
		if seen[r] {
			return fmt.Errorf("rule %s is there twice", r)
		}
		seen[r] = true
	}
	return nil
}

// ValidateItem reports whether a host accepts a listed item.
func ValidateItem(i artifact.Item) error {
	switch {
	case i.Key == "" || len(i.Key) > maxPathBytes:
		return fmt.Errorf("key of %d bytes, want 1 to %d", len(i.Key), maxPathBytes)
	case len(i.Path) > maxPathBytes || !fs.ValidPath(i.Path):
		return fmt.Errorf("path %s is not clean and relative, of at most %d bytes", words(i.Path), maxPathBytes)
	case len(i.Name) > maxItemText || len(i.Version) > maxItemText || len(i.Revision) > maxItemText:
		return fmt.Errorf("name, version or revision of more than %d bytes", maxItemText)
	case i.Size < 0:
		return fmt.Errorf("size %d", i.Size)
	case i.Bundle != "" && !within(i.Bundle, i.Path):
		return fmt.Errorf("path %s is not within its bundle %s", words(i.Path), words(i.Bundle))
	case i.Problem != "":
		return i.Problem.Validate()
	}
	return nil
}

// within reports whether p is below the folder dir, both clean and relative.
func within(dir, p string) bool {
	return dir == "." && p != "." || len(p) > len(dir) && p[:len(dir)] == dir && p[len(dir)] == '/'
}

func itemOut(i artifact.Item) *pb.Item {
	return &pb.Item{Key: i.Key, Path: i.Path, Name: i.Name, Version: i.Version, Bundle: i.Bundle, Size: i.Size, Revision: i.Revision, Problem: string(i.Problem)}
}

func itemIn(i *pb.Item) artifact.Item {
	return artifact.Item{
		Key: i.GetKey(), Path: i.GetPath(), Name: i.GetName(), Version: i.GetVersion(), Bundle: i.GetBundle(),
		Size: i.GetSize(), Revision: i.GetRevision(), Problem: predicate.Reason(i.GetProblem()),
	}
}

// The codes that carry a connector's reason. An error of the transport uses
// none of them but by mistake, and then says less, not more.
var reasonCodes = map[predicate.Reason]codes.Code{
	predicate.NotFound:         codes.NotFound,
	predicate.PermissionDenied: codes.PermissionDenied,
	predicate.NotRegular:       codes.FailedPrecondition,
	predicate.Changed:          codes.Aborted,
	predicate.ReadFailed:       codes.DataLoss,
}

// failure turns a connector's error into a status.
func failure(err error) error {
	code, ok := reasonCodes[connector.ReasonOf(err)]
	if !ok {
		code = codes.DataLoss
	}
	return status.Error(code, text(err.Error(), maxErrorBytes))
}

// failureOf is its inverse, and nil for a status that is no connector's.
func failureOf(st *status.Status) *FailedError {
	for reason, code := range reasonCodes {
		if st.Code() != code {
			continue
		}
		e := &FailedError{Words: words(st.Message())}
		switch reason {
		case predicate.NotFound:
			e.Err = fs.ErrNotExist
		case predicate.PermissionDenied:
			e.Err = fs.ErrPermission
		default:
			e.Err = &connector.Problem{Reason: reason, Err: errors.New(string(reason))}
		}
		return e
	}
	return nil
}
