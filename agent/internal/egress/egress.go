// Package egress is the one gate through which everything outbound passes. What
// goes by it is a statement of the closed schema, in its one spelling, with no
// name in the clear that the customer's privacy level does not allow.
package egress

import (
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

//go:embed vocabulary.txt
var vocabularyText string

// Vocabulary is the shipped list of names that everybody knows: module names,
// and module.name pairs' parts. A name in it tells nothing about a customer.
type Vocabulary struct{ words map[string]bool }

// Shipped returns the compiled-in vocabulary.
func Shipped() Vocabulary {
	v := Vocabulary{words: map[string]bool{}}
	for line := range strings.Lines(vocabularyText) {
		if word := strings.TrimSpace(line); word != "" && !strings.HasPrefix(word, "#") {
			v.words[word] = true
		}
	}
	return v
}

// Has reports whether a name is in the vocabulary.
func (v Vocabulary) Has(name string) bool { return v.words[name] }

// Namer writes names as the customer chose: plain, or keyed.
type Namer struct {
	Privacy    predicate.Privacy
	Key        []byte
	Vocabulary Vocabulary
}

// Name writes a name that came from an artifact or a registry.
func (n Namer) Name(s string) predicate.Name {
	if n.Privacy != predicate.Strict || n.Vocabulary.Has(s) {
		if plain, err := predicate.PlainName(s); err == nil {
			return plain
		}
	}
	return predicate.KeyedName(n.Key, s)
}

// errStays says that a statement may not leave at any rate.
var errStays = errors.New("egress: at privacy full-local scans and inventories stay on the machine")

// KeepGate checks payloads that stay: they are of the closed schema, and say that
// they stay.
type KeepGate struct{}

// Check refuses a payload that is not to be kept.
func (KeepGate) Check(payload []byte) error {
	p, err := predicate.Parse(payload)
	if err != nil {
		return fmt.Errorf("keep: %w", err)
	}
	var level predicate.Privacy
	switch p := p.(type) {
	case *predicate.Epoch, *predicate.Gap:
		return nil
	case *predicate.Scan:
		level = p.Privacy
	case *predicate.Inventory:
		level = p.Privacy
	}
	if level != predicate.FullLocal {
		return fmt.Errorf("keep: a %s of privacy %q is none that stays", predicate.Short(p.PredicateType()), level)
	}
	return nil
}

// Gate checks payloads.
type Gate struct {
	privacy    predicate.Privacy
	vocabulary Vocabulary
}

// NewGate returns a gate for a privacy level.
func NewGate(privacy predicate.Privacy, v Vocabulary) (*Gate, error) {
	if err := privacy.Validate(); err != nil {
		return nil, fmt.Errorf("egress: %w", err)
	}
	return &Gate{privacy, v}, nil
}

// Check refuses a payload that may not leave.
func (g *Gate) Check(payload []byte) error {
	p, err := predicate.Parse(payload)
	if err != nil {
		return fmt.Errorf("egress: %w", err)
	}
	switch p := p.(type) {
	case *predicate.Heartbeat:
		if p.Privacy != g.privacy {
			return fmt.Errorf("egress: a heartbeat of privacy %q, and the agent's is %s", p.Privacy, g.privacy)
		}
	case *predicate.Scan:
		if g.privacy == predicate.FullLocal {
			return errStays
		}
		if p.Privacy != g.privacy {
			return fmt.Errorf("egress: a scan of privacy %s, and the agent's is %s", p.Privacy, g.privacy)
		}
		for i := range p.Imports {
			if err := g.names(&p.Imports[i].Module, &p.Imports[i].Name); err != nil {
				return err
			}
		}
	case *predicate.Inventory:
		if g.privacy == predicate.FullLocal {
			return errStays
		}
		if p.Privacy != g.privacy {
			return fmt.Errorf("egress: an inventory of privacy %s, and the agent's is %s", p.Privacy, g.privacy)
		}
		if err := g.names(&p.Scope.Root); err != nil {
			return err
		}
		for i := range p.References {
			r := &p.References[i]
			if err := g.names(&r.Path, r.Name, r.Version); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *Gate) names(names ...*predicate.Name) error {
	if g.privacy == predicate.Names {
		return nil
	}
	for _, n := range names {
		if n != nil && n.Plain != "" && !g.vocabulary.Has(n.Plain) {
			return fmt.Errorf("egress: a plain name that is not in the vocabulary, at privacy %s", g.privacy)
		}
	}
	return nil
}
