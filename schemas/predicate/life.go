package predicate

import (
	"errors"
	"fmt"
	"time"
)

// Gap says that statements or observations were lost, and where: a loss is
// shown, never closed over.
type Gap struct {
	Link  `json:"chain"`
	Cause GapCause `json:"cause"`
	// Frames is how many spool frames were put aside; 0 where none could be
	// counted.
	Frames uint64 `json:"frames"`
	Bytes  uint64 `json:"bytes"`
}

// GapCause is why something was lost.
type GapCause string

// The causes.
const (
	SpoolCorrupt GapCause = "spool_corrupt"
	SpoolLost    GapCause = "spool_lost"
	ClockStepped GapCause = "clock_stepped"
)

var gapCauses = []GapCause{SpoolCorrupt, SpoolLost, ClockStepped}

// PredicateType implements Predicate.
func (*Gap) PredicateType() string { return GapType }

// Subjects implements Predicate.
func (g *Gap) Subjects() []Subject { return subject("agent-key", g.KeyID) }

// Validate implements Predicate.
func (g *Gap) Validate() error {
	if err := g.Link.Validate(); err != nil {
		return err
	}
	if g.Frames > maxCounter || g.Bytes > maxCounter {
		return errors.New("frames, bytes: out of range")
	}
	return oneOf("cause", g.Cause, gapCauses)
}

// Heartbeat says that an agent lives, what it runs, and how it stands.
type Heartbeat struct {
	Link           `json:"chain"`
	AgentVersion   string    `json:"agent_version"`
	RulesetVersion string    `json:"ruleset_version"`
	Plugins        []Scanner `json:"plugins"`
	Sandbox        []Layer   `json:"sandbox"`
	StartedAt      Time      `json:"started_at"`
	// LastRoundAt is when the last round of discovery ended, if one has, and
	// LastCompleteAt when the last one ended that could list everything.
	LastRoundAt    *Time `json:"last_round_at,omitempty"`
	LastCompleteAt *Time `json:"last_complete_at,omitempty"`
	// SpoolStatements and SpoolBytes are what is signed and not acknowledged.
	SpoolStatements uint64 `json:"spool_statements"`
	SpoolBytes      uint64 `json:"spool_bytes"`
	// Privacy is the level that the agent runs at. It is empty from an agent of
	// before this member.
	Privacy Privacy `json:"privacy,omitempty"`
	// Kept is the head of the chain of what stays on the machine at the level
	// full-local: it tells how many statements there are, and binds them to this
	// moment for whoever is shown them later.
	Kept *ChainHead `json:"kept,omitempty"`
	// IntervalSeconds is the time to the next heartbeat. It is 0 from an agent of
	// before this member.
	IntervalSeconds uint64 `json:"interval_seconds,omitempty"`
	// Configuration is how the agent stands to the configurations that its
	// aggregator pushes.
	Configuration *Configuration `json:"configuration,omitempty"`
}

// Configuration is how an agent stands to the configurations that its aggregator
// pushes.
type Configuration struct {
	// Remote says whether the installation takes any.
	Remote bool `json:"remote"`
	// Version is that of the one it runs with; 0 for its own alone.
	Version uint64 `json:"version"`
	// Refused is the last one that it did not take, if there is one since.
	Refused *RefusedConfiguration `json:"refused,omitempty"`
}

// RefusedConfiguration is a pushed configuration that an agent did not take.
type RefusedConfiguration struct {
	// Version is what it says of itself; 0 where its signature did not say so.
	Version uint64               `json:"version"`
	Reason  ConfigurationRefusal `json:"reason"`
}

// ConfigurationRefusal is why a pushed configuration was not taken.
type ConfigurationRefusal string

// The refusals: by its envelope; by what it is bound to; and by what it sets.
const (
	ConfigurationTooLarge     ConfigurationRefusal = "too_large"
	ConfigurationMalformed    ConfigurationRefusal = "malformed"
	ConfigurationBadSignature ConfigurationRefusal = "bad_signature"
	ConfigurationWrongTenant  ConfigurationRefusal = "wrong_tenant"
	ConfigurationWrongAgent   ConfigurationRefusal = "wrong_agent"
	ConfigurationRolledBack   ConfigurationRefusal = "rolled_back"
	ConfigurationExpired      ConfigurationRefusal = "expired"
	ConfigurationUnknown      ConfigurationRefusal = "unknown_setting"
	ConfigurationLocal        ConfigurationRefusal = "local_setting"
	ConfigurationOutOfBounds  ConfigurationRefusal = "out_of_bounds"
)

var configurationRefusals = []ConfigurationRefusal{
	ConfigurationTooLarge, ConfigurationMalformed, ConfigurationBadSignature, ConfigurationWrongTenant, ConfigurationWrongAgent,
	ConfigurationRolledBack, ConfigurationExpired, ConfigurationUnknown, ConfigurationLocal, ConfigurationOutOfBounds,
}

func (c *Configuration) validate() error {
	if c.Version > maxCounter || !c.Remote && c.Version > 0 {
		return fmt.Errorf("configuration.version: %d is out of range", c.Version)
	}
	if c.Refused == nil {
		return nil
	}
	if c.Refused.Version > maxCounter {
		return errors.New("configuration.refused.version: out of range")
	}
	return oneOf("configuration.refused.reason", c.Refused.Reason, configurationRefusals)
}

// PredicateType implements Predicate.
func (*Heartbeat) PredicateType() string { return HeartbeatType }

// Subjects implements Predicate.
func (h *Heartbeat) Subjects() []Subject { return subject("agent-key", h.KeyID) }

// Validate implements Predicate.
func (h *Heartbeat) Validate() error {
	if err := h.Link.Validate(); err != nil {
		return err
	}
	if err := ValidateID(h.AgentVersion); err != nil {
		return fmt.Errorf("agent_version: %w", err)
	}
	if err := ValidateID(h.RulesetVersion); err != nil {
		return fmt.Errorf("ruleset_version: %w", err)
	}
	if h.Plugins == nil || h.Sandbox == nil || len(h.Plugins) > MaxScanners {
		return fmt.Errorf("plugins, sandbox: want lists, of at most %d plugins", MaxScanners)
	}
	for i, p := range h.Plugins {
		if err := p.Validate(); err != nil {
			return fmt.Errorf("plugins[%d]: %w", i, err)
		}
	}
	if err := validateLayers(h.Sandbox); err != nil {
		return err
	}
	if h.StartedAt.IsZero() || h.LastRoundAt != nil && h.LastRoundAt.IsZero() || h.LastCompleteAt != nil && h.LastCompleteAt.IsZero() {
		return errors.New("started_at, last_round_at, last_complete_at: missing")
	}
	if h.SpoolStatements > maxCounter || h.SpoolBytes > maxCounter || h.IntervalSeconds > maxCounter {
		return errors.New("spool, interval_seconds: out of range")
	}
	if err := h.validatePrivacy(); err != nil {
		return err
	}
	if h.Configuration == nil {
		return nil
	}
	return h.Configuration.validate()
}

func (h *Heartbeat) validatePrivacy() error {
	if h.Privacy != "" {
		if err := h.Privacy.Validate(); err != nil {
			return err
		}
	}
	if h.Kept == nil {
		return nil
	}
	if h.Privacy != FullLocal {
		return fmt.Errorf("kept: at privacy %q nothing is kept back", clip(string(h.Privacy)))
	}
	if h.Kept.Epoch == 0 || h.Kept.Epoch > maxCounter || h.Kept.Sequence > maxCounter {
		return errors.New("kept: out of range")
	}
	return h.Kept.Digest.Validate()
}

// Epoch opens a chain: it is the statement at sequence 1 of every epoch. It is
// signed by the key of the epoch, or by an authority that certifies that key in
// it: a key that is held elsewhere, or the key of the epoch before.
type Epoch struct {
	Link  `json:"chain"`
	Cause EpochCause `json:"cause"`
	// Algorithm is that of the key which signs this statement.
	Algorithm Algorithm `json:"algorithm"`
	// Key signs all that follows in the epoch; nil where it is the same that
	// signs this statement.
	Key *SigningKey `json:"key,omitempty"`
	// Last is where the epoch before stood on this machine, if that is known.
	Last *ChainHead `json:"last,omitempty"`
}

// EpochCause is why a chain was opened.
type EpochCause string

// The causes: a first enrolment; a new one with authority from the aggregator
// after a restored snapshot, a lost spool or a lost key; a new key, by authority
// of the one before or of the one that certifies both.
const (
	Enrolled   EpochCause = "enrolled"
	Reenrolled EpochCause = "reenrolled"
	Rotated    EpochCause = "rotated"
)

// MaxKeyLife bounds the time for which a key can be certified.
const MaxKeyLife = 90 * 24 * time.Hour

// SigningKey is a key that another one certifies, for a time.
type SigningKey struct {
	KeyID     Digest    `json:"key_id"`
	Algorithm Algorithm `json:"algorithm"`
	// PublicKey is PKIX DER (RFC 5280); KeyID is its digest.
	PublicKey []byte `json:"public_key"`
	NotBefore Time   `json:"not_before"`
	// NotAfter is when the certificate ends; nil for a key that lasts until it is
	// followed by another.
	NotAfter *Time `json:"not_after,omitempty"`
}

// maxPublicKey bounds a public key, in bytes.
const maxPublicKey = 1 << 10

// Validate reports the first member that is outside the schema.
func (k *SigningKey) Validate() error {
	if err := k.Algorithm.Validate(); err != nil {
		return err
	}
	if len(k.PublicKey) == 0 || len(k.PublicKey) > maxPublicKey || DigestOf(k.PublicKey) != k.KeyID {
		return fmt.Errorf("key: %d bytes of public key, want those of key_id, at most %d", len(k.PublicKey), maxPublicKey)
	}
	if k.NotBefore.IsZero() {
		return errors.New("key.not_before: missing")
	}
	if k.NotAfter == nil {
		return nil
	}
	if life := k.NotAfter.Time().Sub(k.NotBefore.Time()); life <= 0 || life > MaxKeyLife {
		return fmt.Errorf("key.not_after: %s after not_before, want at most %s", life, MaxKeyLife)
	}
	return nil
}

// Covers reports whether a moment is within the time that the key is certified
// for.
func (k *SigningKey) Covers(at Time) bool {
	return !at.Time().Before(k.NotBefore.Time()) && (k.NotAfter == nil || !at.Time().After(k.NotAfter.Time()))
}

// Algorithm is a signature algorithm. It belongs to an enrolled key, never to a
// message.
type Algorithm string

// The algorithms: Ed25519 (RFC 8032), and ECDSA on P-256 with SHA-256 in ASN.1
// DER (FIPS 186-5).
const (
	Ed25519   Algorithm = "ed25519"
	ECDSAP256 Algorithm = "ecdsa-p256-sha256"
)

// Validate reports whether a is one of the algorithms.
func (a Algorithm) Validate() error {
	return oneOf("algorithm", a, []Algorithm{Ed25519, ECDSAP256})
}

// ChainHead is the last link of a chain.
type ChainHead struct {
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	Digest   Digest `json:"digest"`
}

// PredicateType implements Predicate.
func (*Epoch) PredicateType() string { return EpochType }

// Subjects implements Predicate.
func (e *Epoch) Subjects() []Subject { return subject("agent-key", e.KeyID) }

// Validate implements Predicate.
func (e *Epoch) Validate() error {
	if err := e.Link.Validate(); err != nil {
		return err
	}
	if e.Sequence != 1 {
		return fmt.Errorf("chain.sequence: an epoch opens at 1, not %d", e.Sequence)
	}
	if err := oneOf("cause", e.Cause, []EpochCause{Enrolled, Reenrolled, Rotated}); err != nil {
		return err
	}
	if err := e.Algorithm.Validate(); err != nil {
		return err
	}
	if err := e.validateKey(); err != nil {
		return err
	}
	if e.Last == nil {
		return nil
	}
	if e.Last.Epoch == 0 || e.Last.Epoch >= e.Epoch || e.Last.Sequence > maxCounter {
		return errors.New("last: out of range")
	}
	return e.Last.Digest.Validate()
}

func (e *Epoch) validateKey() error {
	switch {
	case e.Key == nil && e.Cause == Rotated:
		return errors.New("key: a rotation names the new key")
	case e.Key == nil:
		return nil
	case e.Key.KeyID == e.KeyID:
		return errors.New("key: it is the one that signs this statement")
	}
	return e.Key.Validate()
}
