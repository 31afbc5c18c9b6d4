package sign

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
)

// Reference is an item of a scope and what it pointed to.
type Reference struct {
	Item artifact.Item
	// Digest is empty exactly when Problem says why.
	Digest  predicate.Digest
	Problem predicate.Reason
	Bundle  predicate.Digest
	Size    int64
}

// Inventory makes the statements of one round over one scope: at least one, in
// parts where the references are many. They are in the order in which their paths
// are written, so that where one stands says nothing of a path that is hidden.
func (m Maker) Inventory(registry, root, round string, listed time.Time, complete bool, refs []Reference) []predicate.Predicate {
	parts := max(1, (len(refs)+predicate.MaxReferences-1)/predicate.MaxReferences)
	written := make([]predicate.Reference, len(refs))
	for i, r := range refs {
		written[i] = m.reference(r)
	}
	slices.SortStableFunc(written, func(a, b predicate.Reference) int {
		return cmp.Or(strings.Compare(a.Path.Plain, b.Path.Plain), strings.Compare(a.Path.Keyed, b.Path.Keyed))
	})
	out := make([]predicate.Predicate, parts)
	for i := range parts {
		rest := written[min(len(written), i*predicate.MaxReferences):]
		v := &predicate.Inventory{
			Scope: predicate.Scope{Registry: registry, Root: m.Names.Name(root)}, Round: round, Part: uint32(i + 1), Parts: uint32(parts),
			Complete: complete, Privacy: m.Privacy, ListedAt: predicate.At(listed), References: append([]predicate.Reference{}, rest[:min(len(rest), predicate.MaxReferences)]...),
		}
		out[i] = v
	}
	return out
}

func (m Maker) reference(r Reference) predicate.Reference {
	out := predicate.Reference{Path: m.Names.Name(r.Item.Path), Digest: r.Digest, Bundle: r.Bundle, Size: uint64(max(0, r.Size)), Problem: r.Problem}
	if r.Item.Name != "" {
		n := m.Names.Name(r.Item.Name)
		out.Name = &n
	}
	if r.Item.Version != "" {
		n := m.Names.Name(r.Item.Version)
		out.Version = &n
	}
	return out
}
