package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
)

// State is how an agent stands by its last heartbeat.
type State struct {
	// Reported is false for an agent that has sent none; nothing else is set then.
	Reported                   bool
	Version, Ruleset           string
	Privacy                    predicate.Privacy
	Sandbox                    []predicate.Layer
	Plugins                    []predicate.Scanner
	StartedAt                  time.Time
	LastRound, LastComplete    time.Time
	SpoolStatements, SpoolSize uint64
	// Interval is the time between its heartbeats, 0 where it does not say.
	Interval time.Duration
	// Configuration is nil where it does not say.
	Configuration *predicate.Configuration
}

// Member is an agent of a fleet: who it is, how it stands, and what its chains
// come to.
type Member struct {
	Agent
	State
	// LastSeen is when the last statement was received, the zero time for never.
	LastSeen time.Time
	// Enrolments counts the join tokens that it has spent: its other keys followed
	// by its own authority.
	Enrolments uint64
	// Statements, Replays, Gaps and Forks are of all epochs together.
	Statements, Replays, Gaps, Forks uint64
	// WantedConfig is the version of the configuration that it should have, 0 for
	// none.
	WantedConfig uint64
}

// Fleet lists a tenant's agents by identifier.
func (s *Store) Fleet(ctx context.Context, tenant string) ([]Member, error) {
	read := memberReader()
	out, err := queryAll(ctx, s.read, read, `SELECT a.tenant, a.id, a.name, a.status, a.created_at, k.key_id, k.status, k.epoch, k.created_at, k.authority, k.not_after, l.enrolments,
COALESCE(c.seen, 0), COALESCE(c.statements, 0), COALESCE(c.replays, 0), COALESCE(c.forks, 0), COALESCE(g.gaps, 0),
COALESCE(s.sequence, 0), COALESCE(s.agent_version, ''), COALESCE(s.ruleset_version, ''), COALESCE(s.privacy, ''), COALESCE(s.sandbox, ''),
COALESCE(s.plugins, ''), COALESCE(s.started_at, 0), COALESCE(s.last_round_at, 0), COALESCE(s.last_complete_at, 0),
COALESCE(s.spool_statements, 0), COALESCE(s.spool_bytes, 0), COALESCE(s.interval_seconds, 0),
COALESCE(s.config_remote, -1), COALESCE(s.config_version, 0), COALESCE(s.config_refused_version, 0), COALESCE(s.config_refused, ''),
COALESCE(f.version, 0), COALESCE((SELECT MAX(version) FROM fleet_configs WHERE tenant = $1 AND agent = ''), 0)
FROM agents AS a
JOIN (SELECT agent, MAX(epoch) AS epoch, SUM(1 - rotated) AS enrolments FROM keys WHERE tenant = $1 GROUP BY agent) AS l ON l.agent = a.id
JOIN keys AS k ON k.tenant = a.tenant AND k.agent = a.id AND k.epoch = l.epoch
LEFT JOIN (SELECT agent, MAX(last_seen_at) AS seen, SUM(statements) AS statements, SUM(replays) AS replays, SUM(forks) AS forks
FROM chains WHERE tenant = $1 GROUP BY agent) AS c ON c.agent = a.id
LEFT JOIN (SELECT agent, COUNT(*) AS gaps FROM chain_gaps WHERE tenant = $1 GROUP BY agent) AS g ON g.agent = a.id
LEFT JOIN agent_states AS s ON s.tenant = a.tenant AND s.agent = a.id
LEFT JOIN (SELECT agent, MAX(version) AS version FROM fleet_configs WHERE tenant = $1 GROUP BY agent) AS f ON f.agent = a.id
WHERE a.tenant = $1 ORDER BY a.id`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list the fleet: %w", err)
	}
	return out, nil
}

// memberReader reads members. A fleet runs a few versions of the same programs
// under the same layers, so each spelling of them is read once.
func memberReader() func(scanner, *Member) error {
	layers, plugins := map[string][]predicate.Layer{}, map[string][]predicate.Scanner{}
	return func(scan scanner, m *Member) error {
		var ofAll uint64
		var created, enrolled, notAfter, seen, sequence, started, round, complete, interval, remote int64
		var sandbox, programs string
		var c predicate.Configuration
		var refused predicate.RefusedConfiguration
		err := scan(&m.Tenant, &m.ID, &m.Name, &m.Status, &created, digestColumn{&m.KeyID}, &m.KeyStatus, &m.Epoch, &enrolled,
			maybeDigest{&m.Authority}, &notAfter, &m.Enrolments,
			&seen, &m.Statements, &m.Replays, &m.Forks, &m.Gaps,
			&sequence, &m.Version, &m.Ruleset, &m.Privacy, &sandbox, &programs, &started, &round, &complete,
			&m.SpoolStatements, &m.SpoolSize, &interval, &remote, &c.Version, &refused.Version, &refused.Reason,
			&m.WantedConfig, &ofAll)
		if err != nil {
			return err
		}
		m.WantedConfig = max(m.WantedConfig, ofAll)
		m.CreatedAt, m.EnrolledAt, m.KeyNotAfter, m.LastSeen = moment(created), moment(enrolled), moment(notAfter), moment(seen)
		if m.Reported = sequence > 0; !m.Reported {
			return nil
		}
		m.StartedAt, m.LastRound, m.LastComplete = moment(started), moment(round), moment(complete)
		m.Interval = time.Duration(interval) * time.Second
		if remote >= 0 {
			m.Configuration, c.Remote = &c, remote == 1
			if refused.Reason != "" {
				c.Refused = &refused
			}
		}
		if _, known := layers[sandbox]; !known {
			read := []predicate.Layer{}
			for _, word := range strings.Fields(sandbox) {
				read = append(read, predicate.Layer(word))
			}
			layers[sandbox] = read
		}
		if _, known := plugins[programs]; !known {
			var read []predicate.Scanner
			if err := json.Unmarshal([]byte(programs), &read); err != nil {
				return fmt.Errorf("read the plugins of %s: %w", m.ID, err)
			}
			plugins[programs] = read
		}
		m.Sandbox, m.Plugins = layers[sandbox], plugins[programs]
		return nil
	}
}

// Pulse is what tells how recently an agent spoke.
type Pulse struct {
	Status   Status
	LastSeen time.Time
	Interval time.Duration
}

// Pulses lists those of all of a tenant's agents.
func (s *Store) Pulses(ctx context.Context, tenant string) ([]Pulse, error) {
	out, err := queryAll(ctx, s.read, func(scan scanner, p *Pulse) error {
		var seen, interval int64
		err := scan(&p.Status, &seen, &interval)
		p.LastSeen, p.Interval = moment(seen), time.Duration(interval)*time.Second
		return err
	}, `SELECT a.status, COALESCE(c.seen, 0), COALESCE(s.interval_seconds, 0) FROM agents AS a
LEFT JOIN (SELECT agent, MAX(last_seen_at) AS seen FROM chains WHERE tenant = $1 GROUP BY agent) AS c ON c.agent = a.id
LEFT JOIN agent_states AS s ON s.tenant = a.tenant AND s.agent = a.id
WHERE a.tenant = $1 ORDER BY a.id`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list the fleet's pulses: %w", err)
	}
	return out, nil
}

// writeState keeps how an agent stands by a heartbeat, unless a later one is
// kept.
func writeState(ctx context.Context, tx *sql.Tx, id ChainID, h *predicate.Heartbeat) error {
	plugins, err := json.Marshal(h.Plugins)
	if err != nil {
		return err
	}
	layers := make([]string, len(h.Sandbox))
	for i, l := range h.Sandbox {
		layers[i] = string(l)
	}
	at := func(t *predicate.Time) int64 {
		if t == nil {
			return 0
		}
		return millisOf(t.Time())
	}
	remote, config := -1, predicate.Configuration{}
	if h.Configuration != nil {
		remote, config = 0, *h.Configuration
		if config.Remote {
			remote = 1
		}
	}
	refused := predicate.RefusedConfiguration{}
	if config.Refused != nil {
		refused = *config.Refused
	}
	// What an agent signs as an interval can be any number; no more than fits is
	// kept.
	const most = 366 * 24 * 3600
	_, err = tx.ExecContext(ctx, `INSERT INTO agent_states (tenant, agent, epoch, sequence, agent_version, ruleset_version, privacy, sandbox, plugins,
started_at, last_round_at, last_complete_at, spool_statements, spool_bytes, interval_seconds, config_remote, config_version, config_refused_version, config_refused)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
ON CONFLICT (tenant, agent) DO UPDATE SET epoch = excluded.epoch, sequence = excluded.sequence, agent_version = excluded.agent_version,
ruleset_version = excluded.ruleset_version, privacy = excluded.privacy, sandbox = excluded.sandbox, plugins = excluded.plugins,
started_at = excluded.started_at, last_round_at = excluded.last_round_at, last_complete_at = excluded.last_complete_at,
spool_statements = excluded.spool_statements, spool_bytes = excluded.spool_bytes, interval_seconds = excluded.interval_seconds,
config_remote = excluded.config_remote, config_version = excluded.config_version,
config_refused_version = excluded.config_refused_version, config_refused = excluded.config_refused
WHERE agent_states.epoch < excluded.epoch OR agent_states.epoch = excluded.epoch AND agent_states.sequence < excluded.sequence`,
		id.Tenant, id.Agent, id.Epoch, h.Sequence, h.AgentVersion, h.RulesetVersion, string(h.Privacy), strings.Join(layers, " "), string(plugins),
		millisOf(h.StartedAt.Time()), at(h.LastRoundAt), at(h.LastCompleteAt), h.SpoolStatements, h.SpoolBytes, min(h.IntervalSeconds, most),
		remote, config.Version, refused.Version, string(refused.Reason))
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}
