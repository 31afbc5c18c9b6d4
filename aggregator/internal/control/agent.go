package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
)

// maxLabel bounds what people call things, in bytes.
const maxLabel = 128

func validateLabel(s string) error {
	if s == "" || len(s) > maxLabel {
		return fmt.Errorf("name of %d bytes: want 1 to %d", len(s), maxLabel)
	}
	return nil
}

// Tenant is one customer, whose things nobody else sees.
type Tenant struct {
	ID, Name  string
	CreatedAt time.Time
}

// CreateTenant adds a tenant, or returns ErrExists.
func (s *Store) CreateTenant(ctx context.Context, id, name string) error {
	err := errors.Join(predicate.ValidateID(id), validateLabel(name))
	if err == nil {
		err = s.write(ctx, func(tx *sql.Tx) error {
			n, err := changed(ctx, tx, `INSERT INTO tenants (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING`,
				id, name, s.millis())
			if err == nil && n == 0 {
				err = ErrExists
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("create tenant %q: %w", id, err)
	}
	return nil
}

// EnsureTenant adds a tenant unless it is there.
func (s *Store) EnsureTenant(ctx context.Context, id, name string) error {
	err := predicate.ValidateID(id)
	if err == nil {
		err = validateLabel(name)
	}
	if err == nil {
		err = s.write(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO tenants (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING`,
				id, name, s.millis())
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("ensure tenant %q: %w", id, err)
	}
	return nil
}

func readTenant(scan scanner, t *Tenant) error {
	var created int64
	err := scan(&t.ID, &t.Name, &created)
	t.CreatedAt = moment(created)
	return err
}

// Tenant returns a tenant, or ErrNotFound.
func (s *Store) Tenant(ctx context.Context, id string) (Tenant, error) {
	t, err := queryOne(ctx, s.read, readTenant, `SELECT id, name, created_at FROM tenants WHERE id = $1`, id)
	if err != nil {
		return Tenant{}, fmt.Errorf("read tenant %q: %w", id, err)
	}
	return t, nil
}

// Tenants lists the tenants by identifier.
func (s *Store) Tenants(ctx context.Context) ([]Tenant, error) {
	out, err := queryAll(ctx, s.read, readTenant, `SELECT id, name, created_at FROM tenants ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	return out, nil
}

// Agent is an enrolled agent with its latest key.
type Agent struct {
	Tenant, ID, Name string
	Status           Status
	CreatedAt        time.Time
	KeyID            predicate.Digest
	KeyStatus        Status
	Epoch            uint64
	// EnrolledAt is when the key was taken on.
	EnrolledAt time.Time
	// Authority certified the key, until KeyNotAfter; both are empty for one that
	// is its own.
	Authority   predicate.Digest
	KeyNotAfter time.Time
}

const agentQuery = `SELECT a.tenant, a.id, a.name, a.status, a.created_at, k.key_id, k.status, k.epoch, k.created_at, k.authority, k.not_after
FROM agents AS a JOIN keys AS k ON k.tenant = a.tenant AND k.agent = a.id
AND k.epoch = (SELECT MAX(l.epoch) FROM keys AS l WHERE l.tenant = a.tenant AND l.agent = a.id)`

func readAgent(scan scanner, a *Agent) error {
	var created, enrolled, notAfter int64
	err := scan(&a.Tenant, &a.ID, &a.Name, &a.Status, &created, digestColumn{&a.KeyID}, &a.KeyStatus, &a.Epoch, &enrolled,
		maybeDigest{&a.Authority}, &notAfter)
	a.CreatedAt, a.EnrolledAt, a.KeyNotAfter = moment(created), moment(enrolled), moment(notAfter)
	return err
}

// RevokedAgents lists the revoked agents of all tenants. What it is for is the
// brokers', which know no tenants.
func (s *Store) RevokedAgents(ctx context.Context) ([]Agent, error) {
	out, err := queryAll(ctx, s.read, readAgent, agentQuery+` WHERE a.status = 'revoked' ORDER BY a.tenant, a.id`)
	if err != nil {
		return nil, fmt.Errorf("list revoked agents: %w", err)
	}
	return out, nil
}

// Agent returns one agent of a tenant, or ErrNotFound.
func (s *Store) Agent(ctx context.Context, tenant, agent string) (Agent, error) {
	a, err := queryOne(ctx, s.read, readAgent, agentQuery+` WHERE a.tenant = $1 AND a.id = $2`, tenant, agent)
	if err != nil {
		return Agent{}, fmt.Errorf("read agent %q: %w", agent, err)
	}
	return a, nil
}

// RevokeAgent ends all of an agent's keys and certificates, and the join tokens
// that would enrol it anew. A join token made for it later is a new authority,
// and brings it back. Revoking again changes nothing.
func (s *Store) RevokeAgent(ctx context.Context, tenant, agent string) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		now := s.millis()
		// Tokens first, as in RedeemJoinToken: in another order the two would
		// wait for each other.
		if _, err := tx.ExecContext(ctx, `UPDATE join_tokens SET expires_at = $1
WHERE tenant = $2 AND agent = $3 AND used_at = 0 AND expires_at > $1`, now, tenant, agent); err != nil {
			return err
		}
		n, err := changed(ctx, tx, `UPDATE agents SET status = 'revoked' WHERE tenant = $1 AND id = $2`, tenant, agent)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE client_certificates SET status = 'revoked', revoked_at = $1
WHERE tenant = $2 AND agent = $3 AND status <> 'revoked'`, now, tenant, agent); err != nil {
			return err
		}
		return revokeKeys(ctx, tx, tenant, agent, now)
	})
	if err != nil {
		return fmt.Errorf("revoke agent %q: %w", agent, err)
	}
	return nil
}
