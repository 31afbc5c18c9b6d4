package finding

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"
)

// Rule is what a rule id stands for.
type Rule struct {
	ID string `json:"id"`
	// Class is the finding class, such as "code_execution_on_load"; classes.json
	// lists them.
	Class    string   `json:"class"`
	Severity Severity `json:"severity"`
	// Score is the rule's weight in an artifact's risk score, 0 to 100.
	Score       int    `json:"score"`
	Title       string `json:"title"`
	Description string `json:"description"`
	// Why says what is at stake, where the class does not say it well enough.
	Why string `json:"why,omitempty"`
	// Fix says what a person does about it.
	Fix string `json:"fix"`
	// References are ids of CWE, CVE or MITRE ATLAS.
	References []string `json:"references,omitempty"`
}

//go:embed rules.json
var rulesJSON []byte

// Catalogue is the closed set of rules that a host accepts.
type Catalogue struct {
	version string
	rules   map[string]Rule
	digest  predicate.Digest
}

// Shipped returns the catalogue that is compiled in.
func Shipped() (*Catalogue, error) { return ParseCatalogue(rulesJSON) }

// ParseCatalogue reads a catalogue: {"version": …, "rules": […]}.
func ParseCatalogue(b []byte) (*Catalogue, error) {
	var doc struct {
		Version string `json:"version"`
		Rules   []Rule `json:"rules"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("parse rule catalogue: %w", err)
	}
	if err := predicate.ValidateID(doc.Version); err != nil {
		return nil, fmt.Errorf("parse rule catalogue: version: %w", err)
	}
	c := &Catalogue{version: doc.Version, rules: make(map[string]Rule, len(doc.Rules)), digest: predicate.DigestOf(b)}
	for _, r := range doc.Rules {
		if err := r.validate(); err != nil {
			return nil, fmt.Errorf("parse rule catalogue: rule %q: %w", r.ID, err)
		}
		if _, twice := c.rules[r.ID]; twice {
			return nil, fmt.Errorf("parse rule catalogue: rule %q is there twice", r.ID)
		}
		c.rules[r.ID] = r
	}
	return c, nil
}

func (r Rule) validate() error {
	if err := errors.Join(predicate.ValidateID(r.ID), predicate.ValidateID(r.Class), r.Severity.Validate()); err != nil {
		return err
	}
	if r.Score < 0 || r.Score > 100 {
		return fmt.Errorf("score %d is not within 0 and 100", r.Score)
	}
	if r.Title == "" || r.Description == "" || r.Fix == "" {
		return errors.New("title, description and fix are all required")
	}
	return nil
}

// Rule looks an id up.
func (c *Catalogue) Rule(id string) (Rule, bool) {
	r, ok := c.rules[id]
	return r, ok
}

// Rules lists all, in ascending order of id.
func (c *Catalogue) Rules() []Rule {
	return slices.SortedFunc(maps.Values(c.rules), func(a, b Rule) int { return bytes.Compare([]byte(a.ID), []byte(b.ID)) })
}

// Version is the catalogue's version, an identifier.
func (c *Catalogue) Version() string { return c.version }

// Digest is that of the catalogue's source.
func (c *Catalogue) Digest() predicate.Digest { return c.digest }
