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
	// Shape is what a harmless name may be used for.
	Shape Shape
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
	// Use and Args are parts of the shape of a harmless name, see Shape.
	Use  []string `json:"use,omitempty"`
	Args []string `json:"args,omitempty"`
	// Lacks are keys that its state must not have.
	Lacks []string `json:"lacks,omitempty"`
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
	if judged == predicate.JudgedHarmless {
		var err error
		if j.Shape, err = parseShape(e.Use, e.Args, e.Lacks); err != nil {
			return err
		}
	} else if e.Use != nil || e.Args != nil || e.Lacks != nil {
		return errors.New("only what is harmless has a shape")
	}
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
	if j, ok := t.misspelt(module, name); ok {
		return j
	}
	parts := strings.Split(name, ".")
	if len(parts) > maxParts {
		return Judgement{Judged: predicate.JudgedDangerous, Reason: "a path of more attributes than any honest name has"}
	}
	for i, part := range parts {
		if alarming[part] {
			return Judgement{Judged: predicate.JudgedDangerous, Reason: "Reaches a namespace, a loader or code by a special attribute."}
		}
		if hidden := strings.TrimLeft(part, "_"); hidden != part && slices.Contains(t.reexported, hidden) {
			return Judgement{Judged: predicate.JudgedDangerous, Reason: "Gives a whole module as an attribute of another."}
		}
		if j, ok := t.pairs[[2]string{module, strings.Join(parts[:i+1], ".")}]; ok && j.Judged == predicate.JudgedDangerous {
			return j
		}
		if j, ok := t.dangerous(underModule(module, parts[:i]), strings.Join(parts[i:], ".")); ok {
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

// alarming are the attributes by which any object leads to namespaces, loaders
// or code.
var alarming = map[string]bool{
	"__builtins__": true, "__loader__": true, "__spec__": true, "__dict__": true, "__globals__": true, "__subclasses__": true, "__class__": true,
	"__bases__": true, "__base__": true, "__mro__": true, "__getattribute__": true, "__getattr__": true, "__setattr__": true, "__delattr__": true,
	"__code__": true, "__import__": true, "__closure__": true, "__func__": true, "__self__": true, "__wrapped__": true, "__call__": true,
	"__reduce__": true, "__reduce_ex__": true, "__build_class__": true, "__getitem__": true, "__init_subclass__": true, "__subclasshook__": true,
	"__path__": true, "__file__": true, "__defaults__": true, "__kwdefaults__": true, "f_globals": true, "gi_frame": true, "tb_frame": true,
	"func_globals": true, "im_func": true,
}

// misspelt looks a module up that is spelt so that some interpreter may still
// find it: with space or control characters around it, or in other case, which
// file systems and PYTHONCASEOK may ignore. Python spells no module with these.
func (t *Table) misspelt(module, name string) (Judgement, bool) {
	if strings.ContainsFunc(module, func(r rune) bool { return r <= ' ' || r == '/' || r == '\\' || r == 0x7f || r == ':' }) {
		return Judgement{Judged: predicate.JudgedDangerous, Reason: "A module's name with characters that no honest one has."}, true
	}
	lower := strings.ToLower(module)
	if lower == module {
		return Judgement{}, false
	}
	if j, ok := t.dangerous(lower, name); ok {
		j.Reason = "In other case: " + j.Reason
		return j, true
	}
	return Judgement{}, false
}

// maxParts bounds the attributes of a dotted name that are looked at.
const maxParts = 16

func underModule(module string, attributes []string) string {
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
