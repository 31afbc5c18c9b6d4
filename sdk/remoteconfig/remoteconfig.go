// Package remoteconfig is what an aggregator may set on its agents from afar: a
// small document, signed as a DSSE envelope with a payload type of its own.
//
// It guarantees that a document is believed only after its signature has been
// verified with one given key, and only by the agent that it names, while it is
// good; that what it can hold is a closed set of settings; and that it has one
// spelling. What an agent makes of the settings, its own configuration bounds.
package remoteconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

// PayloadType is that of the envelope.
const PayloadType = "application/vnd.cavra.agent-configuration.v1+json"

// MaxEnvelope bounds an envelope, in bytes; a real one has some 700.
const MaxEnvelope = 16 << 10

// Document is a configuration for one agent.
type Document struct {
	Tenant string `json:"tenant"`
	Agent  string `json:"agent"`
	// Version grows with every change. An agent takes none that is older than
	// the one that it has had.
	Version  uint64         `json:"version"`
	IssuedAt predicate.Time `json:"issued_at"`
	// NotAfter is when the document ends; the agent then goes back to its own
	// configuration.
	NotAfter predicate.Time `json:"not_after"`
	Settings Settings       `json:"settings"`
}

// Settings are what an aggregator may set; what is left out is the agent's own.
type Settings struct {
	Interval      Span  `json:"interval,omitempty"`
	Heartbeat     Span  `json:"heartbeat,omitempty"`
	Inventory     Span  `json:"inventory,omitempty"`
	CheckIn       Span  `json:"check_in,omitempty"`
	Jobs          int   `json:"jobs,omitempty"`
	SpoolMaxBytes int64 `json:"spool_max_bytes,omitempty"`
}

// Span is a time span, written as in Go: "90s", "5m", "24h". It has one spelling.
type Span time.Duration

// MarshalText implements encoding.TextMarshaler.
func (s Span) MarshalText() ([]byte, error) { return []byte(time.Duration(s).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Span) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	if err != nil || d <= 0 {
		return fmt.Errorf("%.40q is no time span: write it as 90s, 5m or 24h", b)
	}
	*s = Span(d)
	return nil
}

// The bounds of what can be set, whatever an agent's own configuration says.
const (
	LeastSpan     = 10 * time.Second
	MostHeartbeat = time.Hour
	MostCheckIn   = time.Hour
	MostInterval  = 24 * time.Hour
	MostInventory = 7 * 24 * time.Hour
	MostJobs      = 256
	LeastSpool    = 64 << 20
)

// Refusal is why a document is not taken.
type Refusal struct {
	Reason predicate.ConfigurationRefusal
	// Version is the document's, once its signature is known to be good.
	Version uint64
	err     error
}

func (r *Refusal) Error() string { return fmt.Sprintf("refuse configuration: %s: %v", r.Reason, r.err) }
func (r *Refusal) Unwrap() error { return r.err }

// Refuse makes a *Refusal.
func Refuse(why predicate.ConfigurationRefusal, version uint64, format string, args ...any) error {
	return &Refusal{why, version, fmt.Errorf(format, args...)}
}

// local are the settings that an installation alone decides: what is scanned,
// what may leave, what holds the scanners, and whom to believe.
var local = []string{
	"scopes", "privacy", "sandbox", "plugin_dir", "remote_config", "egress", "credentials", "authority", "keys", "key", "keyed_below", "names", "server",
	"kafka", "spool", "sent_bytes", "kept_bytes", "connector", "root", "plugins", "rules", "policy",
}

// Validate reports what no aggregator may set, as a *Refusal.
func (s Settings) Validate() error {
	for _, span := range []struct {
		name        string
		value, most time.Duration
	}{
		{"interval", time.Duration(s.Interval), MostInterval}, {"heartbeat", time.Duration(s.Heartbeat), MostHeartbeat},
		{"inventory", time.Duration(s.Inventory), MostInventory}, {"check_in", time.Duration(s.CheckIn), MostCheckIn},
	} {
		if span.value != 0 && (span.value < LeastSpan || span.value > span.most) {
			return Refuse(predicate.ConfigurationOutOfBounds, 0, "%s: %s is not within %s and %s", span.name, span.value, LeastSpan, span.most)
		}
	}
	if s.Jobs < 0 || s.Jobs > MostJobs {
		return Refuse(predicate.ConfigurationOutOfBounds, 0, "jobs: %d is not within 1 and %d", s.Jobs, MostJobs)
	}
	if s.SpoolMaxBytes != 0 && s.SpoolMaxBytes < LeastSpool {
		return Refuse(predicate.ConfigurationOutOfBounds, 0, "spool_max_bytes: %d is less than %d", s.SpoolMaxBytes, LeastSpool)
	}
	return nil
}

// ParseSettings reads settings as people write them, in JSON. It returns a
// *Refusal.
func ParseSettings(b []byte) (Settings, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil || members == nil {
		return Settings{}, Refuse(predicate.ConfigurationMalformed, 0, "settings: want an object with settings")
	}
	known := []string{"interval", "heartbeat", "inventory", "check_in", "jobs", "spool_max_bytes"}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		switch {
		case slices.Contains(known, name):
		case slices.Contains(local, name):
			return Settings{}, Refuse(predicate.ConfigurationLocal, 0, "%.40q is for the installation alone to set", name)
		default:
			return Settings{}, Refuse(predicate.ConfigurationUnknown, 0, "%.40q is not known", name)
		}
	}
	var s Settings
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return Settings{}, Refuse(predicate.ConfigurationOutOfBounds, 0, "settings: %w", err)
	}
	return s, s.Validate()
}

// Sign makes the envelope of a document.
func Sign(d Document, s attest.Signer) ([]byte, error) {
	if err := errors.Join(predicate.ValidateID(d.Tenant), predicate.ValidateID(d.Agent), d.Settings.Validate()); err != nil {
		return nil, fmt.Errorf("sign configuration: %w", err)
	}
	payload, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("sign configuration: %w", err)
	}
	b, err := attest.SignKind(PayloadType, payload, s)
	if err == nil && len(b) > MaxEnvelope {
		err = fmt.Errorf("sign configuration: %d bytes, at most %d", len(b), MaxEnvelope)
	}
	return b, err
}

// Holder is who opens a document, and what it has had before.
type Holder struct {
	Tenant, Agent string
	// Key is the one that its aggregator signs with, as it was given at enrolment.
	Key identity.PublicKey
	// Version is that of the last document that it has taken.
	Version uint64
}

// Open verifies an envelope for an agent. What it does not take is a *Refusal.
func Open(b []byte, h Holder, now time.Time) (Document, error) {
	if len(b) > MaxEnvelope {
		return Document{}, Refuse(predicate.ConfigurationTooLarge, 0, "%d bytes, at most %d", len(b), MaxEnvelope)
	}
	envelope, err := attest.OpenKind(PayloadType, b)
	if err != nil {
		return Document{}, Refuse(predicate.ConfigurationMalformed, 0, "%w", err)
	}
	payload, err := envelope.Verify(h.Key)
	if err != nil {
		return Document{}, Refuse(predicate.ConfigurationBadSignature, 0, "%w", err)
	}
	return read(payload, h, now)
}

// read takes a payload apart whose signature is good.
func read(payload []byte, h Holder, now time.Time) (Document, error) {
	var outer struct {
		Tenant   string          `json:"tenant"`
		Agent    string          `json:"agent"`
		Version  uint64          `json:"version"`
		IssuedAt predicate.Time  `json:"issued_at"`
		NotAfter predicate.Time  `json:"not_after"`
		Settings json.RawMessage `json:"settings"`
	}
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&outer); err != nil {
		return Document{}, Refuse(predicate.ConfigurationMalformed, 0, "%w", err)
	}
	v := outer.Version
	switch {
	case v == 0 || v >= 1<<53:
		return Document{}, Refuse(predicate.ConfigurationMalformed, 0, "version %d", v)
	case outer.Tenant != h.Tenant:
		return Document{}, Refuse(predicate.ConfigurationWrongTenant, v, "it is for tenant %.64q", outer.Tenant)
	case outer.Agent != h.Agent:
		return Document{}, Refuse(predicate.ConfigurationWrongAgent, v, "it is for agent %.64q", outer.Agent)
	case v < h.Version:
		return Document{}, Refuse(predicate.ConfigurationRolledBack, v, "version %d came after version %d", v, h.Version)
	case !now.Before(outer.NotAfter.Time()):
		return Document{}, Refuse(predicate.ConfigurationExpired, v, "it ended at %s", outer.NotAfter)
	}
	settings, err := ParseSettings(outer.Settings)
	var why *Refusal
	if errors.As(err, &why) {
		why.Version = v
		return Document{}, why
	}
	d := Document{outer.Tenant, outer.Agent, v, outer.IssuedAt, outer.NotAfter, settings}
	again, err := json.Marshal(d)
	if err != nil || !bytes.Equal(again, payload) {
		return Document{}, Refuse(predicate.ConfigurationMalformed, v, "%w", predicate.ErrNotCanonical)
	}
	return d, nil
}
