// Package protowire walks messages in the protobuf wire format by a schema, in
// bounded memory. Every field is accounted for: what the schema knows is parsed,
// bulk data is inert, and what it does not know is unread, so that nothing hides
// in a field that a reader would pass over. It reads the wire as strictly as the
// C++ reader does; depth and number of fields are bounded.
package protowire

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
	// Varint is any integer, truth value or enumeration.
	Varint Kind = 'v'
	// Fixed32 and Fixed64 are numbers of fixed size, little-endian.
	Fixed32 Kind = '4'
	Fixed64 Kind = '8'
	// Text is a string.
	Text Kind = 's'
	// Data are bytes that a reader copies and does not interpret.
	Data Kind = 'b'
	// Sub is a message.
	Sub Kind = 'm'
)

// Schema is a set of message types.
type Schema map[string]*Message

// Message is one type.
type Message struct {
	Name   string
	fields map[int32]*Field
}

// Field is one field of a type.
type Field struct {
	Number int32
	Name   string
	Kind   Kind
	// Repeated is set for numbers that may be packed.
	Repeated bool
	// Of is the type of a message.
	Of *Message
}

var errSchema = errors.New("not a schema")

// ParseSchema reads a schema. A line is a message's name, or, after a blank, a
// field: number, name, kind, with a star when packed, and a message's type:
//
//	Graph
//	 1 node m Node
//	 2 weights 4*
func ParseSchema(text string) (Schema, error) {
	s := make(Schema)
	named := func(name string) *Message {
		if s[name] == nil {
			s[name] = &Message{Name: name}
		}
		return s[name]
	}
	var m *Message
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
			continue
		case line[0] != ' ':
			m = named(words[0])
			m.fields = make(map[int32]*Field)
			continue
		case m == nil || len(words) < 3:
			return nil, fmt.Errorf("parse schema: line %q: %w", line, errSchema)
		}
		number, err := strconv.ParseInt(words[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("parse schema: line %q: %w", line, err)
		}
		f := &Field{Number: int32(number), Name: words[1], Kind: Kind(words[2][0]), Repeated: strings.HasSuffix(words[2], "*")}
		if f.Kind == Sub {
			if len(words) != 4 {
				return nil, fmt.Errorf("parse schema: line %q: %w", line, errSchema)
			}
			f.Of = named(words[3])
		}
		m.fields[f.Number] = f
	}
	for name, m := range s {
		if m.fields == nil {
			return nil, fmt.Errorf("parse schema: %s has no fields: %w", name, errSchema)
		}
	}
	return s, nil
}

// Field is the field of that name, or nil.
func (m *Message) Field(name string) *Field {
	for _, f := range m.fields {
		if f.Name == name {
			return f
		}
	}
	return nil
}
