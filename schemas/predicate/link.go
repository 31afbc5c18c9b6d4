package predicate

import (
	"errors"
	"fmt"
)

// MaxID bounds an identifier of ours, in bytes.
const MaxID = 64

// maxCounter bounds every counter on the wire: the integers that JSON readers
// everywhere keep exactly (RFC 8259, section 6).
const maxCounter = 1<<53 - 1

// Link is a statement's place in its agent's chain. Tenant, agent and epoch
// name the chain; each epoch has a key of its own.
type Link struct {
	Tenant   string `json:"tenant"`
	Agent    string `json:"agent"`
	KeyID    Digest `json:"key_id"`
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	// Previous is the digest of the statement before (see chain.Digest), or
	// ZeroDigest for sequence 1.
	Previous Digest `json:"previous"`
	SignedAt Time   `json:"signed_at"`
}

// Place implements part of Predicate for all that embed a Link.
func (l *Link) Place() *Link { return l }

// Validate reports whether every member is set and within bounds.
func (l *Link) Validate() error {
	if err := ValidateID(l.Tenant); err != nil {
		return fmt.Errorf("chain.tenant: %w", err)
	}
	if err := ValidateID(l.Agent); err != nil {
		return fmt.Errorf("chain.agent: %w", err)
	}
	if err := l.KeyID.Validate(); err != nil {
		return fmt.Errorf("chain.key_id: %w", err)
	}
	if l.Epoch == 0 || l.Epoch > maxCounter {
		return fmt.Errorf("chain.epoch: %d is out of range", l.Epoch)
	}
	if l.Sequence == 0 || l.Sequence > maxCounter {
		return fmt.Errorf("chain.sequence: %d is out of range", l.Sequence)
	}
	if err := l.Previous.Validate(); err != nil {
		return fmt.Errorf("chain.previous: %w", err)
	}
	if (l.Sequence == 1) != (l.Previous == ZeroDigest) {
		return errors.New("chain.previous: the zero digest stands before sequence 1 and nowhere else")
	}
	if l.SignedAt.IsZero() {
		return errors.New("chain.signed_at: missing")
	}
	return nil
}

// ValidateID reports whether s is an identifier of ours: 1 to MaxID bytes of
// lower-case letters, digits, dot, hyphen and underscore, a letter or digit
// first.
func ValidateID(s string) error {
	if s == "" || len(s) > MaxID {
		return fmt.Errorf("identifier of %d bytes: want 1 to %d", len(s), MaxID)
	}
	for i := range len(s) {
		c := s[i]
		word := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !word && (i == 0 || c != '.' && c != '-' && c != '_') {
			return fmt.Errorf("identifier %q: byte %d is not of a-z, 0-9, dot, hyphen, underscore", clip(s), i)
		}
	}
	return nil
}
