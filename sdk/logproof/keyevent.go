package logproof

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cavra/cavra/schemas/predicate"
)

// KeyChange is what happened to a key.
type KeyChange string

// The changes. A key enrols by a join token, or another one certifies it. Once
// another follows, it is retired: what it signed before is on its way, and is
// taken in until it has ended. A revoked key is believed no more.
const (
	KeyEnrolled  KeyChange = "enrolled"
	KeyCertified KeyChange = "certified"
	KeyRetired   KeyChange = "retired"
	KeyEnded     KeyChange = "ended"
	KeyRevoked   KeyChange = "revoked"
)

// Ends reports whether a statement of the key that stands in the log behind this
// change is not to be believed.
func (c KeyChange) Ends() bool { return c == KeyEnded || c == KeyRevoked }

// KeyEvent is a log's entry of what happened to an agent's key. Its place among
// the statements is what counts: nobody's clock says whether a statement was
// there before a key ended.
type KeyEvent struct {
	Change KeyChange `json:"change"`
	Tenant string    `json:"tenant"`
	Agent  string    `json:"agent"`
	// Epoch is the one that the key signs; for a key that certifies, the first.
	Epoch     uint64              `json:"epoch"`
	KeyID     predicate.Digest    `json:"key_id"`
	Algorithm predicate.Algorithm `json:"algorithm"`
	// Authority is the key that certified this one.
	Authority predicate.Digest `json:"authority,omitempty"`
	// At is when, by the aggregator's clock.
	At predicate.Time `json:"at"`
	// NotBefore and NotAfter are what the key was certified for.
	NotBefore *predicate.Time `json:"not_before,omitempty"`
	NotAfter  *predicate.Time `json:"not_after,omitempty"`
	// EndsAt is when a key that is retired will have ended.
	EndsAt *predicate.Time `json:"ends_at,omitempty"`
}

const (
	keyEventPrefix = "cavra-key-event "
	maxKeyEvent    = 4 << 10
)

// Validate reports the first member that is outside the schema.
func (e *KeyEvent) Validate() error {
	switch e.Change {
	case KeyEnrolled, KeyCertified, KeyRetired, KeyEnded, KeyRevoked:
	default:
		return errors.New("change: not one of enrolled, certified, retired, ended, revoked")
	}
	if err := errors.Join(predicate.ValidateID(e.Tenant), predicate.ValidateID(e.Agent), e.KeyID.Validate(), e.Algorithm.Validate()); err != nil {
		return err
	}
	if e.Authority != "" {
		if err := e.Authority.Validate(); err != nil {
			return fmt.Errorf("authority: %w", err)
		}
	}
	if (e.Change == KeyCertified) != (e.Authority != "") {
		return errors.New("authority: it stands with a certified key and with no other")
	}
	const most = 1 << 53
	if e.Epoch == 0 || e.Epoch >= most || e.At.IsZero() {
		return errors.New("epoch, at: missing or out of range")
	}
	return nil
}

// Marshal writes the event as a log's entry, in its one spelling.
func (e *KeyEvent) Marshal() ([]byte, error) {
	if err := e.Validate(); err != nil {
		return nil, fmt.Errorf("marshal key event: %w", err)
	}
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("marshal key event: %w", err)
	}
	return append([]byte(keyEventPrefix), b...), nil
}

// ParseKeyEvent reads what Marshal wrote, and refuses any other spelling.
func ParseKeyEvent(entry []byte) (KeyEvent, error) {
	e, err := parseKeyEvent(entry)
	if err != nil {
		return KeyEvent{}, fmt.Errorf("parse key event: %w", err)
	}
	return e, nil
}

func parseKeyEvent(entry []byte) (e KeyEvent, err error) {
	if len(entry) > maxKeyEvent {
		return e, fmt.Errorf("%d bytes, at most %d", len(entry), maxKeyEvent)
	}
	text, ok := bytes.CutPrefix(entry, []byte(keyEventPrefix))
	if !ok {
		return e, errors.New("it does not begin as one")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return e, err
	}
	again, err := e.Marshal()
	if err == nil && !bytes.Equal(again, entry) {
		err = predicate.ErrNotCanonical
	}
	return e, err
}
