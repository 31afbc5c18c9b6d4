package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
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

// Status is how an agent or a key stands.
type Status string

// The states. A retired key has been followed by another one: what it signed
// for its own epoch still counts, since it may be on its way. What a revoked key
// signed is refused from then on.
const (
	Active  Status = "active"
	Retired Status = "retired"
	Revoked Status = "revoked"
)

// Key is an enrolled key. It belongs to one epoch of one agent for good.
type Key struct {
	ID            predicate.Digest
	Tenant, Agent string
	Epoch         uint64
	Public        identity.PublicKey
	Status        Status
	CreatedAt     time.Time
	// RevokedAt is zero unless the status is Revoked.
	RevokedAt time.Time
}

// Chain names the chain that the key signs.
func (k *Key) Chain() ChainID { return ChainID{k.Tenant, k.Agent, k.Epoch} }

const keyColumns = `key_id, tenant, agent, epoch, algorithm, public_key, status, created_at, revoked_at`

func readKey(scan scanner, k *Key) error {
	var algorithm predicate.Algorithm
	var der []byte
	var created, revoked int64
	if err := scan(digestColumn{&k.ID}, &k.Tenant, &k.Agent, &k.Epoch, &algorithm, &der, &k.Status, &created, &revoked); err != nil {
		return err
	}
	k.CreatedAt, k.RevokedAt = moment(created), moment(revoked)
	var err error
	k.Public, err = identity.ParsePublicKey(algorithm, der)
	if err == nil && k.Public.ID() != k.ID {
		err = fmt.Errorf("key %s: its bytes are those of %s", k.ID, k.Public.ID())
	}
	return err
}

// KeyByID returns a key, whatever its status, or ErrNotFound. It asks for no
// tenant: it is what a tenant is found by.
func (s *Store) KeyByID(ctx context.Context, id predicate.Digest) (Key, error) {
	k, err := queryOne(ctx, s.read, readKey, `SELECT `+keyColumns+` FROM keys WHERE key_id = $1`, digestValue(id))
	if err != nil {
		return Key{}, fmt.Errorf("read key %s: %w", id, err)
	}
	return k, nil
}

// Agent is an enrolled agent with its latest key.
type Agent struct {
	Tenant, ID, Name string
	Status           Status
	CreatedAt        time.Time
	KeyID            predicate.Digest
	KeyStatus        Status
	Epoch            uint64
	EnrolledAt       time.Time
}

const agentQuery = `SELECT a.tenant, a.id, a.name, a.status, a.created_at, k.key_id, k.status, k.epoch, k.created_at
FROM agents AS a JOIN keys AS k ON k.tenant = a.tenant AND k.agent = a.id
AND k.epoch = (SELECT MAX(l.epoch) FROM keys AS l WHERE l.tenant = a.tenant AND l.agent = a.id)`

func readAgent(scan scanner, a *Agent) error {
	var created, enrolled int64
	err := scan(&a.Tenant, &a.ID, &a.Name, &a.Status, &created, digestColumn{&a.KeyID}, &a.KeyStatus, &a.Epoch, &enrolled)
	a.CreatedAt, a.EnrolledAt = moment(created), moment(enrolled)
	return err
}

// ListAgents lists a tenant's agents by identifier.
func (s *Store) ListAgents(ctx context.Context, tenant string) ([]Agent, error) {
	out, err := queryAll(ctx, s.read, readAgent, agentQuery+` WHERE a.tenant = $1 ORDER BY a.id`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list agents: %w", err)
	}
	return out, nil
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

// AgentKeys lists an agent's keys by epoch.
func (s *Store) AgentKeys(ctx context.Context, tenant, agent string) ([]Key, error) {
	out, err := queryAll(ctx, s.read, readKey, `SELECT `+keyColumns+` FROM keys WHERE tenant = $1 AND agent = $2 ORDER BY epoch`, tenant, agent)
	if err != nil {
		return nil, fmt.Errorf("list keys of agent %q: %w", agent, err)
	}
	return out, nil
}

// RevokeAgent ends all of an agent's keys and the join tokens that would enrol
// it anew. A join token made for it later is a new authority, and brings it
// back. Revoking again changes nothing.
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
		_, err = tx.ExecContext(ctx, `UPDATE keys SET status = 'revoked', revoked_at = $1
WHERE tenant = $2 AND agent = $3 AND status <> 'revoked'`, now, tenant, agent)
		return err
	})
	if err != nil {
		return fmt.Errorf("revoke agent %q: %w", agent, err)
	}
	return nil
}
