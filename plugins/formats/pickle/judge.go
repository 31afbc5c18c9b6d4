package pickle

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cavra/cavra/schemas/predicate"
)

//go:embed judgement.json
var judgementJSON []byte

// Judgement is what is held of a module and name, and why.
type Judgement struct {
	Judged string // predicate.JudgedHarmless, JudgedUnknown or JudgedDangerous
	Reason string
}

// Table is the vetted list. Harmless is said of exact pairs only; dangerous of
// pairs, and of whole modules with all below them.
type Table struct {
	Version  string
	pairs    map[[2]string]Judgement
	packages map[string]Judgement
	// reexported are dangerous modules that others have as an attribute.
	reexported []string
	digest     predicate.Digest
}

// entry is one row of the data file: names of a module that share a reason. An
// entry without names is about the module and all below it.
type entry struct {
	Module string   `json:"module"`
	Names  []string `json:"names,omitempty"`
	Reason string   `json:"reason"`
}

// shipped parses the embedded table once.
var shipped = sync.OnceValues(func() (*Table, error) { return ParseTable(judgementJSON) })

// Shipped is the table that is compiled in.
func Shipped() (*Table, error) { return shipped() }

// ParseTable reads a table, and refuses one that contradicts itself.
func ParseTable(b []byte) (*Table, error) {
	var doc struct {
		Version   string  `json:"version"`
		Harmless  []entry `json:"harmless"`
		Dangerous []entry `json:"dangerous"`
		// Reexported are modules that others import, so that they can be had as
		// an attribute under their own name.
		Reexported []string `json:"reexported"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("parse judgement table: %w", err)
	}
	t := &Table{
		Version: doc.Version, digest: predicate.DigestOf(b), reexported: doc.Reexported,
		pairs: make(map[[2]string]Judgement), packages: make(map[string]Judgement),
	}
	for _, e := range doc.Dangerous {
		if err := t.add(e, predicate.JudgedDangerous); err != nil {
			return nil, fmt.Errorf("parse judgement table: %s: %w", e.Module, err)
		}
	}
	for _, e := range doc.Harmless {
		if len(e.Names) == 0 {
			return nil, fmt.Errorf("parse judgement table: %s: harmless is said of names only", e.Module)
		}
		if err := t.add(e, predicate.JudgedHarmless); err != nil {
			return nil, fmt.Errorf("parse judgement table: %s: %w", e.Module, err)
		}
	}
	return t, nil
}

func (t *Table) add(e entry, judged string) error {
	if e.Module == "" || e.Reason == "" {
		return errors.New("module and reason are required")
	}
	j := Judgement{Judged: judged, Reason: e.Reason}
	if len(e.Names) == 0 {
		if _, twice := t.packages[e.Module]; twice {
			return errors.New("the module is there twice")
		}
		t.packages[e.Module] = j
		return nil
	}
	for _, name := range e.Names {
		pair := [2]string{e.Module, name}
		if _, twice := t.pairs[pair]; twice {
			return fmt.Errorf("name %q is there twice", name)
		}
		t.pairs[pair] = j
	}
	return nil
}

// Digest is that of the table's source.
func (t *Table) Digest() predicate.Digest { return t.digest }

// Judge looks a module and name up. The exact pair decides first. A dotted name
// reaches through attributes, so each way of cutting it into a module and a
// name is looked at, and so is a name that is itself a dangerous module: what a
// module imports is reachable as its attribute.
func (t *Table) Judge(module, name string) Judgement {
	if j, ok := t.pairs[[2]string{module, name}]; ok {
		return j
	}
	if j, ok := t.inPackage(module); ok {
		return j
	}
	parts := strings.Split(name, ".")
	if len(parts) > maxParts {
		return Judgement{Judged: predicate.JudgedDangerous, Reason: "a path of more attributes than any honest name has"}
	}
	for i := range parts {
		if j, ok := t.dangerous(join(module, parts[:i]), strings.Join(parts[i:], ".")); ok {
			return j
		}
		for k := i + 1; k < len(parts); k++ {
			if j, ok := t.dangerous(strings.Join(parts[i:k], "."), strings.Join(parts[k:], ".")); ok {
				return j
			}
		}
	}
	if last := parts[len(parts)-1]; slices.Contains(t.reexported, last) {
		return Judgement{Judged: predicate.JudgedDangerous, Reason: "Gives a whole module as an attribute of another."}
	}
	return Judgement{Judged: predicate.JudgedUnknown, Reason: "on no vetted list"}
}

// maxParts bounds the attributes of a dotted name that are looked at.
const maxParts = 16

func join(module string, attributes []string) string {
	return strings.Join(append([]string{module}, attributes...), ".")
}

// dangerous looks a pair up among the dangerous only.
func (t *Table) dangerous(module, name string) (Judgement, bool) {
	if j, ok := t.pairs[[2]string{module, name}]; ok && j.Judged == predicate.JudgedDangerous {
		return j, true
	}
	return t.inPackage(module)
}

// inPackage looks up the module and what it is below of.
func (t *Table) inPackage(module string) (Judgement, bool) {
	for {
		if j, ok := t.packages[module]; ok {
			return j, true
		}
		i := strings.LastIndexByte(module, '.')
		if i < 0 {
			return Judgement{}, false
		}
		module = module[:i]
	}
}
