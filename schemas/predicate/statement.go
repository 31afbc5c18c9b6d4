// Package predicate is the language of CAVRA's statements: in-toto statements
// (https://in-toto.io/Statement/v1) with one of five predicates. It is a closed
// schema: enumerations, bounded numbers, digests, identifiers, times, and names
// that are plain or keyed; anything else is refused.
//
// A statement has exactly one spelling. Parse accepts only bytes that Marshal
// would write, so no two different payloads mean the same thing.
package predicate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// The identifiers on the wire.
const (
	// StatementType is in-toto's statement layer, version 1.
	StatementType = "https://in-toto.io/Statement/v1"
	// PayloadType is the DSSE payload type of an in-toto statement.
	PayloadType = "application/vnd.in-toto+json"

	typePrefix = "https://github.com/cavra/cavra/schemas/predicate/"

	ScanType      = typePrefix + "scan/v1"
	InventoryType = typePrefix + "inventory/v1"
	GapType       = typePrefix + "gap/v1"
	HeartbeatType = typePrefix + "heartbeat/v1"
	EpochType     = typePrefix + "epoch/v1"
)

// MaxStatement bounds a marshalled statement in bytes: in an envelope it stays
// under 1,000,000 bytes, and so under Kafka's default message limit.
const MaxStatement = 720 << 10

// Predicate is one of Scan, Inventory, Gap, Heartbeat and Epoch.
type Predicate interface {
	// PredicateType is the in-toto predicate type.
	PredicateType() string
	// Place is the statement's place in its agent's chain.
	Place() *Link
	// Subjects are the statement's subjects: what the predicate speaks of.
	Subjects() []Subject
	// Validate reports the first member that is outside the schema.
	Validate() error
}

// Statement is an in-toto statement of one of the known predicates.
type Statement struct {
	Type          string    `json:"_type"`
	Subject       []Subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     Predicate `json:"predicate"`
}

// Subject is an in-toto resource descriptor: a digest and a fixed label.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

func subject(name string, d Digest) []Subject {
	return []Subject{{Name: name, Digest: map[string]string{d.Algorithm(): d.Hex()}}}
}

// NewStatement wraps p.
func NewStatement(p Predicate) Statement {
	return Statement{Type: StatementType, Subject: p.Subjects(), PredicateType: p.PredicateType(), Predicate: p}
}

// Marshal validates p and writes its statement in the one canonical spelling:
// members in schema order, no white space, no HTML escapes.
func Marshal(p Predicate) ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("marshal %s: %w", Short(p.PredicateType()), err)
	}
	b, err := encode(NewStatement(p))
	if err != nil {
		return nil, fmt.Errorf("marshal %s: %w", Short(p.PredicateType()), err)
	}
	if len(b) > MaxStatement {
		return nil, fmt.Errorf("marshal %s: %w", Short(p.PredicateType()), &TooLargeError{Bytes: len(b)})
	}
	return b, nil
}

// TooLargeError says that a statement is larger than MaxStatement.
type TooLargeError struct{ Bytes int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("statement is %d bytes, at most %d", e.Bytes, MaxStatement)
}

func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// Parse reads a statement. It refuses bytes over MaxStatement, unknown members,
// values outside the schema, a subject that is not the predicate's own, and any
// spelling but the canonical one. Call it only on a payload whose signature has
// been verified.
func Parse(b []byte) (Predicate, error) {
	if len(b) > MaxStatement {
		return nil, fmt.Errorf("parse statement: %w", &TooLargeError{Bytes: len(b)})
	}
	var outer struct {
		Type          string          `json:"_type"`
		Subject       []Subject       `json:"subject"`
		PredicateType string          `json:"predicateType"`
		Predicate     json.RawMessage `json:"predicate"`
	}
	if err := decode(b, &outer); err != nil {
		return nil, fmt.Errorf("parse statement: %w", err)
	}
	if outer.Type != StatementType {
		return nil, fmt.Errorf("parse statement: type %q: want %s", clip(outer.Type), StatementType)
	}
	p, err := blank(outer.PredicateType)
	if err != nil {
		return nil, fmt.Errorf("parse statement: %w", err)
	}
	if err := decode(outer.Predicate, p); err != nil {
		return nil, fmt.Errorf("parse %s: %w", Short(outer.PredicateType), err)
	}
	again, err := Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("parse statement: %w", err)
	}
	if !bytes.Equal(again, b) {
		return nil, fmt.Errorf("parse %s: %w", Short(outer.PredicateType), ErrNotCanonical)
	}
	return p, nil
}

// ErrNotCanonical says that bytes mean a valid statement but are not its one
// spelling: another order, white space, a repeated member, another subject.
var ErrNotCanonical = errors.New("not the canonical spelling")

func decode(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if dec.InputOffset() != int64(len(b)) {
		return fmt.Errorf("%d bytes after the end", int64(len(b))-dec.InputOffset())
	}
	return nil
}

func blank(predicateType string) (Predicate, error) {
	switch predicateType {
	case ScanType:
		return &Scan{}, nil
	case InventoryType:
		return &Inventory{}, nil
	case GapType:
		return &Gap{}, nil
	case HeartbeatType:
		return &Heartbeat{}, nil
	case EpochType:
		return &Epoch{}, nil
	}
	return nil, fmt.Errorf("predicate type %q is not known", clip(predicateType))
}

// Short is the one word for a known predicate type: scan, inventory, gap,
// heartbeat or epoch; "statement" for any other.
func Short(predicateType string) string {
	switch predicateType {
	case ScanType:
		return "scan"
	case InventoryType:
		return "inventory"
	case GapType:
		return "gap"
	case HeartbeatType:
		return "heartbeat"
	case EpochType:
		return "epoch"
	}
	return "statement"
}
