package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/sdk/logproof"
)

// MinOverlap is the least time for which what a retired key signed is still
// taken in: a spool may have waited that long for its brokers.
const MinOverlap = 7 * 24 * time.Hour

// Status is how an agent or a key stands.
type Status string

// The states. A retired key has been followed by another one: what it signed for
// its own epoch still counts until EndsAt, since it may be on its way. What a
// revoked key signed is refused from then on.
const (
	Active  Status = "active"
	Retired Status = "retired"
	Revoked Status = "revoked"
)

// Key is an enrolled key. It belongs to one epoch of one agent for good; but one
// that Certifies belongs to the agent, and signs nothing but the first statement
// of epochs.
type Key struct {
	ID            predicate.Digest
	Tenant, Agent string
	Epoch         uint64
	Public        identity.PublicKey
	Status        Status
	CreatedAt     time.Time
	// RevokedAt is zero unless the status is Revoked.
	RevokedAt time.Time
	// Certifies says that it is held elsewhere and certifies others; Epoch is 0.
	Certifies bool
	// Authority is the key that certified this one, and signs the first statement
	// of its epoch; empty for one that opened its epoch itself.
	Authority predicate.Digest
	// NotBefore and NotAfter are what it was certified for; zero for no bound.
	NotBefore, NotAfter time.Time
	// RetiredAt is when another followed, and EndsAt when nothing of this one is
	// taken in any more; zero for not yet.
	RetiredAt, EndsAt time.Time
}

// Chain names the chain that the key signs.
func (k *Key) Chain() ChainID { return ChainID{k.Tenant, k.Agent, k.Epoch} }

// Ended reports whether nothing of the key is taken in at a moment, because its
// time is over.
func (k *Key) Ended(at time.Time) bool { return !k.EndsAt.IsZero() && !k.EndsAt.After(at) }

const keyColumns = `key_id, tenant, agent, epoch, algorithm, public_key, status, created_at, revoked_at,
authority, not_before, not_after, retired_at, ends_at`

func readKey(scan scanner, k *Key) error {
	var algorithm predicate.Algorithm
	var der []byte
	var created, revoked, notBefore, notAfter, retired, ends int64
	if err := scan(digestColumn{&k.ID}, &k.Tenant, &k.Agent, &k.Epoch, &algorithm, &der, &k.Status, &created, &revoked,
		maybeDigest{&k.Authority}, &notBefore, &notAfter, &retired, &ends); err != nil {
		return err
	}
	k.CreatedAt, k.RevokedAt, k.NotBefore, k.NotAfter = moment(created), moment(revoked), moment(notBefore), moment(notAfter)
	k.RetiredAt, k.EndsAt = moment(retired), moment(ends)
	var err error
	k.Public, err = identity.ParsePublicKey(algorithm, der)
	if err == nil && k.Public.ID() != k.ID {
		err = fmt.Errorf("key %s: its bytes are those of %s", k.ID, k.Public.ID())
	}
	k.Certifies = k.Epoch == 0
	return err
}

// authorityColumns reads an authority as a key.
const authorityColumns = `key_id, tenant, agent, 0, algorithm, public_key, status, created_at, revoked_at, NULL, 0, 0, 0, 0`

// KeyByID returns a key, whatever its status, or ErrNotFound. It asks for no
// tenant: it is what a tenant is found by.
func (s *Store) KeyByID(ctx context.Context, id predicate.Digest) (Key, error) {
	k, err := findKey(ctx, s.read, id)
	if err != nil {
		return Key{}, fmt.Errorf("read key %s: %w", id, err)
	}
	return k, nil
}

func findKey(ctx context.Context, q querier, id predicate.Digest) (Key, error) {
	k, err := queryOne(ctx, q, readKey, `SELECT `+keyColumns+` FROM keys WHERE key_id = $1`, digestValue(id))
	if errors.Is(err, ErrNotFound) {
		return findAuthority(ctx, q, id)
	}
	return k, err
}

func findAuthority(ctx context.Context, q querier, id predicate.Digest) (Key, error) {
	return queryOne(ctx, q, readKey, `SELECT `+authorityColumns+` FROM authorities WHERE key_id = $1`, digestValue(id))
}

// AgentKeys lists an agent's keys by epoch, those that certify first.
func (s *Store) AgentKeys(ctx context.Context, tenant, agent string) ([]Key, error) {
	out, err := queryAll(ctx, s.read, readKey, `SELECT `+authorityColumns+` FROM authorities WHERE tenant = $1 AND agent = $2
UNION ALL SELECT `+keyColumns+` FROM keys WHERE tenant = $1 AND agent = $2 ORDER BY 4, 8, 1`, tenant, agent)
	if err != nil {
		return nil, fmt.Errorf("list keys of agent %q: %w", agent, err)
	}
	return out, nil
}

// insertKey takes on a key, or returns ErrKeyKnown.
func (s *Store) insertKey(ctx context.Context, tx *sql.Tx, k *Key, now int64) error {
	if _, err := findAuthority(ctx, tx, k.ID); !errors.Is(err, ErrNotFound) {
		return errors.Join(err, ErrKeyKnown)
	}
	der, err := k.Public.DER()
	if err != nil {
		return err
	}
	var ends int64
	if !k.NotAfter.IsZero() {
		ends = k.NotAfter.Add(s.overlap).UnixMilli()
	}
	n, err := changed(ctx, tx, `INSERT INTO keys (key_id, tenant, agent, epoch, algorithm, public_key, status, created_at, authority, not_before, not_after, ends_at)
VALUES ($1, $2, $3, $4, $5, $6, 'active', $7, $8, $9, $10, $11) ON CONFLICT (key_id) DO NOTHING`,
		digestValue(k.ID), k.Tenant, k.Agent, k.Epoch, string(k.Public.Algorithm), der, now,
		nullDigest(k.Authority), millisOf(k.NotBefore), millisOf(k.NotAfter), ends)
	if err == nil && n == 0 {
		err = ErrKeyKnown
	}
	if err != nil {
		return err
	}
	change := logproof.KeyEnrolled
	if k.Authority != "" {
		change = logproof.KeyCertified
	}
	return noteKey(ctx, tx, change, k, now)
}

// insertAuthority takes on a key that certifies, unless the agent has it
// already.
func insertAuthority(ctx context.Context, tx *sql.Tx, e Enrolment, public identity.PublicKey, now int64) error {
	switch have, err := findKey(ctx, tx, public.ID()); {
	case err == nil && have.Certifies && have.Status == Active && have.Tenant == e.Tenant && have.Agent == e.Agent:
		return nil
	case err == nil:
		return ErrKeyKnown
	case !errors.Is(err, ErrNotFound):
		return err
	}
	der, err := public.DER()
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO authorities (key_id, tenant, agent, algorithm, public_key, status, created_at)
VALUES ($1, $2, $3, $4, $5, 'active', $6)`, digestValue(public.ID()), e.Tenant, e.Agent, string(public.Algorithm), der, now); err != nil {
		return err
	}
	return noteKey(ctx, tx, logproof.KeyEnrolled, &Key{ID: public.ID(), Tenant: e.Tenant, Agent: e.Agent, Epoch: e.Epoch, Public: public}, now)
}

// retireKeys ends the agent's present epoch: what its key signed is taken in
// for the overlap more, or until the key's own end where that is before.
func (s *Store) retireKeys(ctx context.Context, tx *sql.Tx, tenant, agent string, now int64) error {
	keys, err := queryAll(ctx, tx, readKey, `SELECT `+keyColumns+` FROM keys WHERE tenant = $1 AND agent = $2 AND status = 'active'`, tenant, agent)
	if err != nil {
		return err
	}
	for i := range keys {
		k := &keys[i]
		ends := moment(now).Add(s.overlap)
		if k.EndsAt.IsZero() || ends.Before(k.EndsAt) {
			k.EndsAt = ends
		}
		if _, err := tx.ExecContext(ctx, `UPDATE keys SET status = 'retired', retired_at = $1, ends_at = $2 WHERE key_id = $3`,
			now, k.EndsAt.UnixMilli(), digestValue(k.ID)); err != nil {
			return err
		}
		if err := noteKey(ctx, tx, logproof.KeyRetired, k, now); err != nil {
			return err
		}
	}
	return nil
}

func revokeKeys(ctx context.Context, tx *sql.Tx, tenant, agent string, now int64) error {
	keys, err := queryAll(ctx, tx, readKey, `SELECT `+keyColumns+` FROM keys WHERE tenant = $1 AND agent = $2 AND status <> 'revoked'
UNION ALL SELECT `+authorityColumns+` FROM authorities WHERE tenant = $1 AND agent = $2 AND status <> 'revoked'`, tenant, agent)
	if err != nil {
		return err
	}
	for i := range keys {
		if keys[i].Certifies {
			keys[i].Epoch = 1 // an authority has none; its event names the first that can be
		}
		if err := noteKey(ctx, tx, logproof.KeyRevoked, &keys[i], now); err != nil {
			return err
		}
	}
	for _, table := range []string{"keys", "authorities"} {
		if _, err := tx.ExecContext(ctx, `UPDATE `+table+` SET status = 'revoked', revoked_at = $1
WHERE tenant = $2 AND agent = $3 AND status <> 'revoked'`, now, tenant, agent); err != nil {
			return err
		}
	}
	return nil
}

// Rotation is a new key for an agent's next epoch. The caller has verified that
// Authority certified it for that epoch, and that whoever presents it holds it.
type Rotation struct {
	Tenant, Agent string
	Epoch         uint64
	Authority     predicate.Digest
	Key           identity.PublicKey
	// NotAfter is zero for a key that lasts until it is followed.
	NotBefore, NotAfter time.Time
}

// ErrAuthority: the key may not open the agent's next epoch.
var ErrAuthority = errors.New("it is neither the agent's present key nor the one that certified it")

// RotateKey opens an agent's next epoch with a new key and retires the present
// one, and returns when that one has ended. Only the key that certified the
// present one may do so, or where none is held elsewhere, the present one. The
// same rotation again has the same result for as long as the new key is the
// active one. Otherwise it is ErrNotFound for an agent that is not active,
// ErrAuthority, ErrKeyKnown, or ErrEpoch, and nothing has changed.
func (s *Store) RotateKey(ctx context.Context, r Rotation) (ends time.Time, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		ends, err = s.rotateKey(ctx, tx, r)
		return err
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("rotate key of agent %q: %w", r.Agent, err)
	}
	return ends, nil
}

func (s *Store) rotateKey(ctx context.Context, tx *sql.Tx, r Rotation) (time.Time, error) {
	// This holds the agent's row, as an enrolment does.
	n, err := changed(ctx, tx, `UPDATE agents SET status = 'active' WHERE tenant = $1 AND id = $2 AND status = 'active'`, r.Tenant, r.Agent)
	if err == nil && n != 1 {
		err = ErrNotFound
	}
	if err != nil {
		return time.Time{}, err
	}
	now := s.millis()
	latest, err := queryAll(ctx, tx, readKey, `SELECT `+keyColumns+` FROM keys WHERE tenant = $1 AND agent = $2 ORDER BY epoch DESC LIMIT 2`, r.Tenant, r.Agent)
	switch {
	case err != nil:
		return time.Time{}, err
	case len(latest) == 2 && latest[0].ID == r.Key.ID() && latest[0].Epoch == r.Epoch && latest[0].Authority == r.Authority && latest[0].Status == Active:
		return latest[1].EndsAt, nil
	case len(latest) == 0 || latest[0].Status != Active || latest[0].Epoch+1 != r.Epoch:
		return time.Time{}, ErrEpoch
	}
	if may, err := authorityOver(ctx, tx, &latest[0]); err != nil || may != r.Authority {
		return time.Time{}, errors.Join(err, ErrAuthority)
	}
	if err := s.retireKeys(ctx, tx, r.Tenant, r.Agent, now); err != nil {
		return time.Time{}, err
	}
	if err := s.insertKey(ctx, tx, &Key{
		ID: r.Key.ID(), Tenant: r.Tenant, Agent: r.Agent, Epoch: r.Epoch, Public: r.Key, Authority: r.Authority, NotBefore: r.NotBefore, NotAfter: r.NotAfter,
	}, now); err != nil {
		return time.Time{}, err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE keys SET rotated = 1 WHERE key_id = $1`, digestValue(r.Key.ID())); err != nil {
		return time.Time{}, err
	}
	former, err := findKey(ctx, tx, latest[0].ID)
	return former.EndsAt, err
}

// authorityOver is the key that may certify the one after k.
func authorityOver(ctx context.Context, tx *sql.Tx, k *Key) (predicate.Digest, error) {
	if k.Authority == "" {
		return k.ID, nil
	}
	switch a, err := findKey(ctx, tx, k.Authority); {
	case err != nil:
		return "", err
	case a.Certifies && a.Status == Active:
		return a.ID, nil
	case a.Certifies:
		return "", nil
	}
	return k.ID, nil
}
