package finding

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Page is everything that a person is told of a rule.
type Page struct {
	Rule
	// ClassTitle says in one line what the rule's class means.
	ClassTitle string
	// Why says what is at stake: the rule's own words, and its class's without.
	Why string
	// CWE and CVE are ids, the rule's own; the class's CWE without.
	CWE, CVE []string
	// ATLAS are techniques and mitigations of MITRE ATLAS, the rule's own first
	// and then its class's; one at least.
	ATLAS []Technique
}

// Technique is a technique or a mitigation of MITRE ATLAS.
type Technique struct{ ID, Title string }

// class is what the rules of one class share.
type class struct {
	ID    string   `json:"id"`
	Title string   `json:"title"`
	Why   string   `json:"why"`
	CWE   []string `json:"cwe"`
	ATLAS []string `json:"atlas"`
}

//go:embed classes.json
var classesJSON []byte

// atlasJSON are the ids and titles of MITRE ATLAS, with their version and
// licence.
//
//go:embed atlas.json
var atlasJSON []byte

// Pages are the pages of a catalogue's rules.
type Pages struct {
	catalogue *Catalogue
	classes   map[string]class
	// ATLASVersion is the version of MITRE ATLAS that ids are of.
	ATLASVersion string
	techniques   map[string]string
}

// Pages reads what is shipped about classes and techniques.
func (c *Catalogue) Pages() (*Pages, error) {
	var classes []class
	if err := strict(classesJSON, &classes); err != nil {
		return nil, fmt.Errorf("parse finding classes: %w", err)
	}
	var atlas struct {
		Framework  string            `json:"framework"`
		Version    string            `json:"version"`
		Licence    string            `json:"licence"`
		Source     string            `json:"source"`
		Techniques map[string]string `json:"techniques"`
	}
	if err := strict(atlasJSON, &atlas); err != nil {
		return nil, fmt.Errorf("parse ATLAS: %w", err)
	}
	p := &Pages{catalogue: c, classes: make(map[string]class, len(classes)), ATLASVersion: atlas.Version, techniques: atlas.Techniques}
	for _, k := range classes {
		p.classes[k.ID] = k
	}
	return p, nil
}

func strict(b []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// Page returns a rule's page. An unknown id, a class that is not listed, or an
// id of ATLAS that is not in its list is an error.
func (p *Pages) Page(id string) (Page, error) {
	rule, ok := p.catalogue.Rule(id)
	if !ok {
		return Page{}, fmt.Errorf("rule %q is not known", id)
	}
	of, ok := p.classes[rule.Class]
	if !ok {
		return Page{}, fmt.Errorf("rule %s: class %q is not listed", id, rule.Class)
	}
	page := Page{Rule: rule, ClassTitle: of.Title, Why: rule.Why}
	if page.Why == "" {
		page.Why = of.Why
	}
	var atlas []string
	for _, ref := range rule.References {
		switch {
		case strings.HasPrefix(ref, "CWE-"):
			page.CWE = append(page.CWE, ref)
		case strings.HasPrefix(ref, "CVE-"):
			page.CVE = append(page.CVE, ref)
		case strings.HasPrefix(ref, "AML."):
			atlas = append(atlas, ref)
		default:
			return Page{}, fmt.Errorf("rule %s: reference %q is no id of CWE, CVE or ATLAS", id, ref)
		}
	}
	if len(page.CWE) == 0 {
		page.CWE = slices.Clone(of.CWE)
	}
	for _, t := range append(atlas, of.ATLAS...) {
		title, ok := p.techniques[t]
		if !ok {
			return Page{}, fmt.Errorf("rule %s: %s is not in MITRE ATLAS %s", id, t, p.ATLASVersion)
		}
		if technique := (Technique{t, title}); !slices.Contains(page.ATLAS, technique) {
			page.ATLAS = append(page.ATLAS, technique)
		}
	}
	return page, nil
}
