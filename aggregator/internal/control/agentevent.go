package control

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// EventKind is what is odd.
type EventKind string

// The kinds of events.
const (
	// Cloned: two holders of one identity are there at the same time.
	Cloned EventKind = "cloned"
	// Restored: an agent came back with what was its own some time ago, as from a
	// snapshot or a backup.
	Restored EventKind = "restored"
	// ClockSkew: an agent's clock is off.
	ClockSkew EventKind = "clock_skew"
	// TokenReused: a join token came again, with another key than the one it was
	// spent on.
	TokenReused EventKind = "token_reused"
	// TokenExpiredUse: a join token came after its time.
	TokenExpiredUse EventKind = "token_expired_use"
	// RetiredCertificate: a call was made with a certificate that another has
	// followed.
	RetiredCertificate EventKind = "retired_certificate"
	// RevokedCall: a revoked agent called.
	RevokedCall EventKind = "revoked_call"
)

// AgentEvent is something odd, said once and counted.
type AgentEvent struct {
	Tenant, Agent string
	Kind          EventKind
	// Subject makes it another event of the kind; empty for one alone.
	Subject string
	// Presented is what came, and Known what was known, in words for people.
	Presented, Known string
	Count            uint64
	FirstAt, LastAt  time.Time
}

const (
	// MaxAgentEvents bounds the events of a tenant. Those that were last seen the
	// longest ago are dropped, and counted.
	MaxAgentEvents = 1000
	maxEventText   = 512
	maxInstances   = 8
)

// RecordAgentEvent records an event, or counts it when it is known.
func (s *Store) RecordAgentEvent(ctx context.Context, e AgentEvent) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		now := s.millis()
		// This holds the tenant's count of events, so that the bound holds.
		if _, err := tx.ExecContext(ctx, `INSERT INTO agent_events_dropped (tenant, dropped) VALUES ($1, 0)
ON CONFLICT (tenant) DO UPDATE SET dropped = agent_events_dropped.dropped`, e.Tenant); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO agent_events (tenant, agent, kind, subject, presented, known, count, first_at, last_at)
VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $7) ON CONFLICT (tenant, agent, kind, subject)
DO UPDATE SET count = agent_events.count + 1, presented = $5, known = $6, last_at = $7`,
			e.Tenant, e.Agent, string(e.Kind), clip(e.Subject), clip(e.Presented), clip(e.Known), now); err != nil {
			return err
		}
		have, err := queryOne(ctx, tx, func(scan scanner, n *int) error { return scan(n) }, `SELECT COUNT(*) FROM agent_events WHERE tenant = $1`, e.Tenant)
		if err != nil || have <= MaxAgentEvents {
			return err
		}
		n, err := changed(ctx, tx, `DELETE FROM agent_events WHERE tenant = $1 AND (agent, kind, subject) IN (SELECT agent, kind, subject FROM agent_events
WHERE tenant = $1 ORDER BY last_at, agent, kind, subject LIMIT $2)`, e.Tenant, have-MaxAgentEvents)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE agent_events_dropped SET dropped = dropped + $1 WHERE tenant = $2`, n, e.Tenant)
		return err
	})
	if err != nil {
		return fmt.Errorf("record event of agent %q: %w", e.Agent, err)
	}
	return nil
}

func clip(s string) string {
	if len(s) > maxEventText {
		s = strings.ToValidUTF8(s[:maxEventText], "")
	}
	return s
}

// AgentEvents lists a tenant's events, the latest first, and says how many were
// dropped; of one agent, unless that is empty.
func (s *Store) AgentEvents(ctx context.Context, tenant, agent string) ([]AgentEvent, uint64, error) {
	var out []AgentEvent
	var dropped uint64
	err := s.snapshot(ctx, func(tx *sql.Tx) error {
		var err error
		out, err = queryAll(ctx, tx, func(scan scanner, e *AgentEvent) error {
			var first, last int64
			err := scan(&e.Tenant, &e.Agent, &e.Kind, &e.Subject, &e.Presented, &e.Known, &e.Count, &first, &last)
			e.FirstAt, e.LastAt = moment(first), moment(last)
			return err
		}, `SELECT tenant, agent, kind, subject, presented, known, count, first_at, last_at FROM agent_events
WHERE tenant = $1 AND ($2 = '' OR agent = $2) ORDER BY last_at DESC, agent, kind, subject LIMIT $3`, tenant, agent, MaxAgentEvents)
		if err != nil {
			return err
		}
		counts, err := queryAll(ctx, tx, func(scan scanner, n *uint64) error { return scan(n) },
			`SELECT dropped FROM agent_events_dropped WHERE tenant = $1`, tenant)
		if len(counts) > 0 {
			dropped = counts[0]
		}
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list events of agents: %w", err)
	}
	return out, dropped, nil
}

// CountUnknownToken counts a join token that nobody knows.
func (s *Store) CountUnknownToken(ctx context.Context) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE unknown_tokens SET count = count + 1, last_at = $1`, s.millis())
		return err
	})
	if err != nil {
		return fmt.Errorf("count unknown join token: %w", err)
	}
	return nil
}

// UnknownTokens is how often a join token came that nobody knows.
func (s *Store) UnknownTokens(ctx context.Context) (uint64, error) {
	n, err := queryOne(ctx, s.read, func(scan scanner, n *uint64) error { return scan(n) }, `SELECT count FROM unknown_tokens`)
	if err != nil {
		return 0, fmt.Errorf("read count of unknown join tokens: %w", err)
	}
	return n, nil
}

// TokenUse is what is known of a join token that came and was refused.
type TokenUse struct {
	Tenant string
	// Agent is the one that it was made for or that it made; empty for none yet.
	Agent, AgentName string
	// KeyID is the key that it was spent on, as "sha256:…", and UsedAt when; empty
	// and zero for never.
	KeyID             string
	UsedAt, ExpiresAt time.Time
}

// TokenUse returns what is known of a join token, or ErrNotFound. It asks for no
// tenant: it is what a tenant is found by.
func (s *Store) TokenUse(ctx context.Context, token Hash) (TokenUse, error) {
	t, err := queryOne(ctx, s.read, func(scan scanner, t *TokenUse) error {
		var key []byte
		var used, expires int64
		err := scan(&t.Tenant, &t.Agent, &t.AgentName, &key, &used, &expires)
		if len(key) > 0 {
			t.KeyID = fmt.Sprintf("sha256:%x", key)
		}
		t.UsedAt, t.ExpiresAt = moment(used), moment(expires)
		return err
	}, `SELECT t.tenant, COALESCE(k.agent, t.agent, ''), t.agent_name, t.used_by_key, t.used_at, t.expires_at
FROM join_tokens AS t LEFT JOIN keys AS k ON k.key_id = t.used_by_key WHERE t.hash = $1`, token[:])
	if err != nil {
		return TokenUse{}, fmt.Errorf("read join token: %w", err)
	}
	return t, nil
}

// Contact is an agent's call.
type Contact struct {
	Tenant, Agent string
	// Instance is its process.
	Instance string
	Address  string
	// Version is empty where the call does not say it, and then Skew means
	// nothing.
	Version string
	// Skew is how far its clock is ahead.
	Skew time.Duration
	At   time.Time
}

// Instance is a process of an agent.
type Instance struct {
	ID, Address     string
	FirstAt, LastAt time.Time
}

// RecordContact records a call. When its process had called before and another
// one has called since, that one is returned: a process does not come back after
// its end, so the two run at the same time.
func (s *Store) RecordContact(ctx context.Context, c Contact) (other *Instance, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		other = nil
		now := s.millis()
		if _, err := tx.ExecContext(ctx, `INSERT INTO agent_contacts (tenant, agent, version, skew, address, contact_at)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, agent) DO UPDATE SET version = CASE WHEN $3 = '' THEN agent_contacts.version ELSE $3 END,
skew = CASE WHEN $3 = '' THEN agent_contacts.skew ELSE $4 END, address = $5, contact_at = $6`,
			c.Tenant, c.Agent, c.Version, c.Skew.Milliseconds(), clip(c.Address), now); err != nil {
			return err
		}
		known, err := instances(ctx, tx, c.Tenant, c.Agent)
		if err != nil {
			return err
		}
		for i, k := range known {
			if i > 0 && k.ID == c.Instance {
				other = &known[0]
			}
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO agent_instances (tenant, agent, instance, address, first_at, last_at) VALUES ($1, $2, $3, $4, $5, $5)
ON CONFLICT (tenant, agent, instance) DO UPDATE SET address = $4, last_at = $5`, c.Tenant, c.Agent, c.Instance, clip(c.Address), now); err != nil {
			return err
		}
		if len(known) < maxInstances {
			return nil
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM agent_instances WHERE tenant = $1 AND agent = $2 AND instance NOT IN
(SELECT instance FROM agent_instances WHERE tenant = $1 AND agent = $2 ORDER BY last_at DESC, first_at DESC, instance LIMIT $3)`, c.Tenant, c.Agent, maxInstances)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("record contact of agent %q: %w", c.Agent, err)
	}
	return other, nil
}

// instances lists an agent's processes, the one that called last first.
func instances(ctx context.Context, q querier, tenant, agent string) ([]Instance, error) {
	return queryAll(ctx, q, func(scan scanner, i *Instance) error {
		var first, last int64
		err := scan(&i.ID, &i.Address, &first, &last)
		i.FirstAt, i.LastAt = moment(first), moment(last)
		return err
	}, `SELECT instance, address, first_at, last_at FROM agent_instances WHERE tenant = $1 AND agent = $2 ORDER BY last_at DESC, first_at DESC, instance`,
		tenant, agent)
}

// LastInstance is the process of an agent that called last, or ErrNotFound.
func (s *Store) LastInstance(ctx context.Context, tenant, agent string) (Instance, error) {
	all, err := instances(ctx, s.read, tenant, agent)
	if err == nil && len(all) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Instance{}, fmt.Errorf("read process of agent %q: %w", agent, err)
	}
	return all[0], nil
}

// Contacts are the last calls of a tenant's agents, by agent. The time of one is
// exact to a few minutes.
func (s *Store) Contacts(ctx context.Context, tenant string) (map[string]Contact, error) {
	list, err := queryAll(ctx, s.read, func(scan scanner, c *Contact) error {
		var skew, at int64
		err := scan(&c.Tenant, &c.Agent, &c.Version, &skew, &c.Address, &at)
		c.Skew, c.At = time.Duration(skew)*time.Millisecond, moment(at)
		return err
	}, `SELECT tenant, agent, version, skew, address, contact_at FROM agent_contacts WHERE tenant = $1`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list contacts of agents: %w", err)
	}
	out := make(map[string]Contact, len(list))
	for _, c := range list {
		out[c.Agent] = c
	}
	return out, nil
}

// SpendChallenge notes that a challenge was answered, once: again it is
// ErrExists.
func (s *Store) SpendChallenge(ctx context.Context, challenge Hash, expires time.Time) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM spent_challenges WHERE expires_at < $1`, s.millis()); err != nil {
			return err
		}
		n, err := changed(ctx, tx, `INSERT INTO spent_challenges (hash, expires_at) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING`,
			challenge[:], millisOf(expires))
		if err == nil && n == 0 {
			err = ErrExists
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("spend challenge: %w", err)
	}
	return nil
}
