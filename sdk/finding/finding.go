// Package finding holds the finding type and the rule catalogue. A finding says
// that a rule met its case at a place; what the rule is worth (severity, score,
// title) comes from the catalogue and never from whoever found it.
package finding

import (
	"cmp"
	"fmt"

	"github.com/cavra/cavra/schemas/predicate"
)

// Severity ranks a rule.
type Severity = predicate.Severity

// The bounds on what a scanner may say of one finding, in bytes and counts.
const (
	MaxEvidence      = 8
	MaxEvidenceBytes = 256
	MaxMemberBytes   = 1024
)

// Finding is a rule's result at one place of an artifact. Its identity is the
// artifact's digest, Rule and Location.Class.
type Finding struct {
	// Rule is a rule's id in the catalogue.
	Rule     string
	Location Location
	// Evidence are short strings for the person at this machine, such as
	// "posix.system". They never leave it.
	Evidence []string
}

// Location is a place in an artifact.
type Location struct {
	// Class is an identifier of the kind of place, such as "pickle" or
	// "zip.member"; it is all that leaves the machine.
	Class string
	// Member is the member of a container, "a.zip!b.pkl" when nested.
	Member string
	// Offset is in bytes of the artifact, or of the member's own content.
	Offset int64
}

// Import is a module and a name that loading the artifact could resolve.
type Import struct {
	Module, Name string
	How          predicate.How
	// Judged is predicate.JudgedHarmless, JudgedUnknown or JudgedDangerous.
	Judged   string
	Location Location
}

// Compare orders findings by rule, then by place.
func Compare(a, b Finding) int {
	return cmp.Or(cmp.Compare(a.Rule, b.Rule), compareLocation(a.Location, b.Location))
}

// CompareImports orders imports by module and name, then by place.
func CompareImports(a, b Import) int {
	return cmp.Or(cmp.Compare(a.Module, b.Module), cmp.Compare(a.Name, b.Name),
		cmp.Compare(a.How, b.How), compareLocation(a.Location, b.Location))
}

func compareLocation(a, b Location) int {
	return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Member, b.Member), cmp.Compare(a.Offset, b.Offset))
}

// Validate reports whether the finding is within bounds.
func (f Finding) Validate() error {
	if err := predicate.ValidateID(f.Rule); err != nil {
		return fmt.Errorf("rule: %w", err)
	}
	if len(f.Evidence) > MaxEvidence {
		return fmt.Errorf("rule %s: %d pieces of evidence, at most %d", f.Rule, len(f.Evidence), MaxEvidence)
	}
	for _, e := range f.Evidence {
		if len(e) > MaxEvidenceBytes {
			return fmt.Errorf("rule %s: evidence of %d bytes, at most %d", f.Rule, len(e), MaxEvidenceBytes)
		}
	}
	return f.Location.Validate()
}

// Validate reports whether the location is within bounds.
func (l Location) Validate() error {
	if err := predicate.ValidateID(l.Class); err != nil {
		return fmt.Errorf("location class: %w", err)
	}
	if len(l.Member) > MaxMemberBytes || l.Offset < 0 {
		return fmt.Errorf("location: member of %d bytes, offset %d", len(l.Member), l.Offset)
	}
	return nil
}
