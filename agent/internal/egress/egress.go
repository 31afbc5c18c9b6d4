// Package egress is the one gate through which everything outbound passes. What
// goes by it is a statement of the closed schema, in its one spelling, with no
// name in the clear that the customer's privacy level does not allow, and with
// nothing in it so fine that much could be hidden there.
package egress

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/finding"
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
	// Remember is told what each keyed hash hides; nil forgets.
	Remember func(keyed, plain string)
}

// Name writes a name that came from a registry: a path, a model's name, a version.
func (n Namer) Name(s string) predicate.Name {
	if n.Privacy == predicate.Strict {
		return n.hide(s)
	}
	return n.plain(s)
}

// Word writes a name that came from an artifact, which is plain at any level
// where the vocabulary has it.
func (n Namer) Word(s string) predicate.Name {
	if n.Privacy == predicate.Strict && !n.Vocabulary.Has(s) {
		return n.hide(s)
	}
	return n.plain(s)
}

func (n Namer) plain(s string) predicate.Name {
	if plain, err := predicate.PlainName(s); err == nil {
		return plain
	}
	return n.hide(s)
}

func (n Namer) hide(s string) predicate.Name {
	keyed := predicate.KeyedName(n.Key, s)
	if n.Remember != nil {
		n.Remember(keyed.Keyed, s)
	}
	return keyed
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

// GateConfig is what a Gate goes by.
type GateConfig struct {
	Privacy    predicate.Privacy
	Vocabulary Vocabulary
	// Rules are all that a finding may name.
	Rules *finding.Catalogue
	// Reducer brings what passes down to what may leave.
	Reducer *Reducer
}

// Gate checks payloads.
type Gate struct{ cfg GateConfig }

// NewGate returns a gate for a privacy level.
func NewGate(cfg GateConfig) (*Gate, error) {
	if err := cfg.Privacy.Validate(); err != nil {
		return nil, fmt.Errorf("egress: %w", err)
	}
	if cfg.Rules == nil || cfg.Reducer == nil {
		return nil, errors.New("egress: a gate needs the rule catalogue and a reducer")
	}
	return &Gate{cfg}, nil
}

// errWhole says that a statement tells more than may leave.
var errWhole = errors.New("egress: the statement was not brought down to what may leave")

// Check refuses a payload that may not leave.
func (g *Gate) Check(payload []byte) error {
	p, err := predicate.Parse(payload)
	if err != nil {
		return fmt.Errorf("egress: %w", err)
	}
	var level predicate.Privacy
	switch p := p.(type) {
	case *predicate.Heartbeat:
		level = p.Privacy
	case *predicate.Scan:
		level, err = p.Privacy, g.scan(p)
	case *predicate.Inventory:
		level, err = p.Privacy, g.inventory(p)
	default:
		return nil // a gap and an epoch are of this agent's own making alone
	}
	if err != nil {
		return err
	}
	if level != g.cfg.Privacy {
		return fmt.Errorf("egress: a %s of privacy %q, and the agent's is %s", predicate.Short(p.PredicateType()), level, g.cfg.Privacy)
	}
	g.cfg.Reducer.Reduce(p)
	reduced, err := predicate.Marshal(p)
	if err != nil || !bytes.Equal(reduced, payload) {
		return errors.Join(errWhole, err)
	}
	return nil
}

func (g *Gate) scan(s *predicate.Scan) error {
	if g.cfg.Privacy == predicate.FullLocal {
		return errStays
	}
	for _, f := range s.Findings {
		rule, ok := g.cfg.Rules.Rule(f.Rule)
		if !ok || rule.Class != f.Class || rule.Severity != f.Severity {
			return errors.New("egress: a finding that the rule catalogue does not have so")
		}
	}
	for i := range s.Imports {
		for _, n := range []predicate.Name{s.Imports[i].Module, s.Imports[i].Name} {
			if g.cfg.Privacy == predicate.Strict && n.Plain != "" && !g.cfg.Vocabulary.Has(n.Plain) {
				return fmt.Errorf("egress: a plain name that is not in the vocabulary, at privacy %s", g.cfg.Privacy)
			}
		}
	}
	return nil
}

func (g *Gate) inventory(v *predicate.Inventory) error {
	if g.cfg.Privacy == predicate.FullLocal {
		return errStays
	}
	names := []*predicate.Name{&v.Scope.Root}
	for i := range v.References {
		r := &v.References[i]
		names = append(names, &r.Path, r.Name, r.Version)
	}
	for _, n := range names {
		if g.cfg.Privacy == predicate.Strict && n != nil && n.Plain != "" {
			return fmt.Errorf("egress: a plain name of a place, at privacy %s", g.cfg.Privacy)
		}
	}
	return nil
}
