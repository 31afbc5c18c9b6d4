// Package flatbuffer walks FlatBuffers by a schema, in bounded memory. Every
// offset is checked before it is followed, a table that several places share is
// walked once, and every byte is accounted for: what no object covers is given
// back as a gap, so that nothing hides between objects.
package flatbuffer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Kind is what a field holds.
type Kind byte

// The kinds of fields, as a schema spells them.
const (
	// Scalar is a number of Field.Size bytes in the table.
	Scalar Kind = '0'
	// Text is a string.
	Text Kind = 's'
	// Sub is a table; Union is one whose type the field before names.
	Sub   Kind = 't'
	Union Kind = 'u'
	// Scalars is a vector of numbers of Field.Size bytes, Texts one of strings,
	// Subs one of tables.
	Scalars Kind = 'n'
	Texts   Kind = 'x'
	Subs    Kind = 'v'
)

// Schema is a set of tables by name.
type Schema map[string]*Table

// Table is one type of table, or the alternatives of a union by number.
type Table struct {
	Name   string
	fields map[int]*Field
	of     map[byte]*Table
}

// Field is one field of a table.
type Field struct {
	Slot int
	Name string
	Kind Kind
	Size int
	// Of is the type of a table, or a union.
	Of *Table
}

var errSchema = errors.New("not a schema")

// ParseSchema reads a schema: tables, whose fields are slot, name, kind and type,
// and unions, whose alternatives are number and table.
//
//	table Model
//	 0 version 4
//	 1 parts vt Part
//	 2 shape v4
//	union Options
//	 1 First
func ParseSchema(text string) (Schema, error) {
	s := make(Schema)
	named := func(name string) *Table {
		if s[name] == nil {
			s[name] = &Table{Name: name}
		}
		return s[name]
	}
	var t *Table
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		var err error
		switch {
		case len(words) == 2 && words[0] == "table":
			t = named(words[1])
			t.fields = make(map[int]*Field)
		case len(words) == 2 && words[0] == "union":
			t = named("union " + words[1])
			t.of = make(map[byte]*Table)
		case t == nil || len(words) < 2:
			err = errSchema
		case t.of != nil:
			err = t.alternative(words, named)
		default:
			err = t.field(words, named)
		}
		if err != nil {
			return nil, fmt.Errorf("parse schema: line %q: %w", line, err)
		}
	}
	for name, t := range s {
		if t.fields == nil && t.of == nil {
			return nil, fmt.Errorf("parse schema: %s is not there: %w", name, errSchema)
		}
	}
	return s, nil
}

func (t *Table) alternative(words []string, named func(string) *Table) error {
	n, err := strconv.ParseUint(words[0], 10, 8)
	if err != nil {
		return err
	}
	t.of[byte(n)] = named(words[1])
	return nil
}

func (t *Table) field(words []string, named func(string) *Table) error {
	slot, err := strconv.ParseUint(words[0], 10, 12)
	if err != nil {
		return err
	}
	if len(words) < 3 {
		return errSchema
	}
	f := &Field{Slot: int(slot), Name: words[1]}
	switch kind := words[2]; kind {
	case "1", "2", "4", "8":
		f.Kind, f.Size = Scalar, int(kind[0]-'0')
	case "v1", "v2", "v4", "v8":
		f.Kind, f.Size = Scalars, int(kind[1]-'0')
	case "s":
		f.Kind = Text
	case "vs":
		f.Kind = Texts
	default:
		if len(words) != 4 {
			return errSchema
		}
		return t.reference(f, kind, words[3], named)
	}
	t.fields[f.Slot] = f
	return nil
}

// reference makes f one that leads to tables.
func (t *Table) reference(f *Field, kind, name string, named func(string) *Table) error {
	switch kind {
	case "t":
		f.Kind, f.Of = Sub, named(name)
	case "vt":
		f.Kind, f.Of = Subs, named(name)
	case "u":
		f.Kind, f.Of = Union, named("union "+name)
	default:
		return errSchema
	}
	t.fields[f.Slot] = f
	return nil
}
