package predicate

import (
	"errors"
	"fmt"
)

// MaxReferences bounds one part of an inventory; a longer one has more parts.
const MaxReferences = 400

// Inventory says what a scope held at a time: its references and the digests
// that they pointed to. A round is complete once all its parts are there and
// each says Complete; only then may it close an exposure.
type Inventory struct {
	Link       `json:"chain"`
	Scope      Scope       `json:"scope"`
	Round      string      `json:"round"`
	Part       uint32      `json:"part"`
	Parts      uint32      `json:"parts"`
	Complete   bool        `json:"complete"`
	Privacy    Privacy     `json:"privacy"`
	ListedAt   Time        `json:"listed_at"`
	References []Reference `json:"references"`
}

// Scope is what an inventory covers: a registry of a kind, from a root on.
type Scope struct {
	// Registry is the connector's kind, such as "fs" or "mlflow".
	Registry string `json:"registry"`
	Root     Name   `json:"root"`
}

// Reference is a place that points to a digest at a time. The registry is the
// scope's. Digest is empty exactly when Problem says why it could not be read.
type Reference struct {
	Name    *Name `json:"name,omitempty"`
	Version *Name `json:"version,omitempty"`
	Path    Name  `json:"path"`
	// Digest and Bundle are plain or keyed.
	Digest Digest `json:"digest,omitempty"`
	// Bundle is the digest of the bundle that the path is a file of.
	Bundle  Digest `json:"bundle,omitempty"`
	Size    uint64 `json:"size"`
	Problem Reason `json:"problem,omitempty"`
}

// PredicateType implements Predicate.
func (*Inventory) PredicateType() string { return InventoryType }

// Subjects implements Predicate: the key that signs, since an inventory speaks
// of many artifacts and in-toto wants a digest.
func (v *Inventory) Subjects() []Subject { return subject("agent-key", v.KeyID) }

// Validate implements Predicate.
func (v *Inventory) Validate() error {
	if err := v.Link.Validate(); err != nil {
		return err
	}
	if err := ValidateID(v.Scope.Registry); err != nil {
		return fmt.Errorf("scope.registry: %w", err)
	}
	if err := v.Scope.Root.Validate(); err != nil {
		return fmt.Errorf("scope.root: %w", err)
	}
	if err := ValidateID(v.Round); err != nil {
		return fmt.Errorf("round: %w", err)
	}
	if v.Part == 0 || v.Part > v.Parts {
		return fmt.Errorf("part: %d of %d", v.Part, v.Parts)
	}
	if err := v.Privacy.Validate(); err != nil {
		return err
	}
	if v.ListedAt.IsZero() {
		return errors.New("listed_at: missing")
	}
	if v.References == nil || len(v.References) > MaxReferences {
		return fmt.Errorf("references: want a list of at most %d", MaxReferences)
	}
	for i := range v.References {
		if err := v.References[i].Validate(); err != nil {
			return fmt.Errorf("references[%d]: %w", i, err)
		}
	}
	return nil
}

// Validate reports whether the reference is within the schema.
func (r *Reference) Validate() error {
	for what, n := range map[string]*Name{"name": r.Name, "version": r.Version} {
		if n == nil {
			continue
		}
		if err := n.Validate(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if err := r.Path.Validate(); err != nil {
		return fmt.Errorf("path: %w", err)
	}
	if r.Size > maxCounter {
		return fmt.Errorf("size: %d is out of range", r.Size)
	}
	if r.Bundle != "" {
		if err := r.Bundle.ValidateArtifact(); err != nil {
			return fmt.Errorf("bundle: %w", err)
		}
	}
	if (r.Digest == "") != (r.Problem != "") {
		return errors.New("want either a digest or a problem")
	}
	if r.Problem != "" {
		return r.Problem.Validate()
	}
	return r.Digest.ValidateArtifact()
}
