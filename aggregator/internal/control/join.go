package control

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

// Hash is the SHA-256 of a secret. The store never sees the secret itself.
type Hash [sha256.Size]byte

// JoinToken is a one-time authority to enrol an agent.
type JoinToken struct {
	Hash   Hash
	Tenant string
	// Agent is the agent to enrol anew, with a new key and epoch; empty makes
	// a new agent called AgentName.
	Agent, AgentName string
	CreatedBy        string
	// ForKey is the one key that it is good for; empty for any.
	ForKey               predicate.Digest
	CreatedAt, ExpiresAt time.Time
	// UsedAt is zero until it is used.
	UsedAt time.Time
}

// MaxJoinLife bounds how long a join token can be good for.
const MaxJoinLife = 30 * 24 * time.Hour

// CreateJoinToken stores a token. The agent it is bound to, if any, has to be
// one of the tenant's, else it is ErrNotFound. CreatedAt is set by the store.
func (s *Store) CreateJoinToken(ctx context.Context, t JoinToken) error {
	if err := s.createJoinToken(ctx, t); err != nil {
		return fmt.Errorf("create join token: %w", err)
	}
	return nil
}

func (s *Store) createJoinToken(ctx context.Context, t JoinToken) error {
	now := s.now()
	if !t.ExpiresAt.After(now) || t.ExpiresAt.Sub(now) > MaxJoinLife {
		return fmt.Errorf("it would expire at %s: want a moment from now on, within %s", t.ExpiresAt.UTC().Format(time.RFC3339), MaxJoinLife)
	}
	if err := validateLabel(t.CreatedBy); err != nil {
		return err
	}
	if t.Agent == "" {
		if err := validateLabel(t.AgentName); err != nil {
			return fmt.Errorf("agent's %w", err)
		}
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM join_tokens WHERE tenant = $1 AND used_at = 0 AND expires_at < $2`,
			t.Tenant, now.Add(-MaxJoinLife).UnixMilli()); err != nil {
			return err
		}
		n, err := changed(ctx, tx, `INSERT INTO join_tokens (hash, tenant, agent, agent_name, created_by, created_at, expires_at, for_key)
SELECT $1, t.id, NULLIF($2, ''), $3, $4, $5, $6, $8 FROM tenants AS t WHERE t.id = $7
AND ($2 = '' OR EXISTS (SELECT 1 FROM agents AS a WHERE a.tenant = t.id AND a.id = $2))`,
			t.Hash[:], t.Agent, t.AgentName, t.CreatedBy, now.UnixMilli(), t.ExpiresAt.UnixMilli(), t.Tenant, nullDigest(t.ForKey))
		if err == nil && n == 0 {
			err = fmt.Errorf("agent %q of tenant %q: %w", t.Agent, t.Tenant, ErrNotFound)
		}
		return err
	})
}

// JoinTokens lists a tenant's join tokens, the newest first.
func (s *Store) JoinTokens(ctx context.Context, tenant string) ([]JoinToken, error) {
	out, err := queryAll(ctx, s.read, func(scan scanner, t *JoinToken) error {
		var hash []byte
		var created, expires, used int64
		err := scan(&hash, &t.Tenant, &t.Agent, &t.AgentName, &t.CreatedBy, &created, &expires, &used)
		copy(t.Hash[:], hash)
		t.CreatedAt, t.ExpiresAt, t.UsedAt = moment(created), moment(expires), moment(used)
		return err
	}, `SELECT hash, tenant, COALESCE(agent, ''), agent_name, created_by, created_at, expires_at, used_at FROM join_tokens
WHERE tenant = $1 ORDER BY created_at DESC, hash`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list join tokens: %w", err)
	}
	return out, nil
}

// Enrolment is what a join token bought.
type Enrolment struct {
	Tenant, Agent string
	Epoch         uint64
	Cause         predicate.EpochCause
}

// RedeemJoinToken spends a token on a key, once: it makes the agent with the key
// at epoch 1, or retires the keys of the agent that the token is bound to and
// gives it the key at its next epoch. The same token with the same key again has
// the same result for as long as that key is the active one, so that an answer
// which was lost can be asked for again. Otherwise it is ErrTokenUnknown,
// ErrTokenExpired, ErrTokenUsed or ErrKeyKnown, and nothing has changed.
//
// The caller has verified that whoever presents the key holds it.
func (s *Store) RedeemJoinToken(ctx context.Context, token Hash, key identity.PublicKey) (Enrolment, error) {
	return s.redeem(ctx, token, key, nil)
}

// Certificate is a key's that is held elsewhere, for one that signs in its
// place.
type Certificate struct {
	Authority           identity.PublicKey
	NotBefore, NotAfter time.Time
}

// RedeemCertified is RedeemJoinToken for a key that another one certifies. The
// caller has verified the certificate. One that certifies for another agent is
// ErrKeyKnown.
func (s *Store) RedeemCertified(ctx context.Context, token Hash, key identity.PublicKey, c Certificate) (Enrolment, error) {
	return s.redeem(ctx, token, key, &c)
}

func (s *Store) redeem(ctx context.Context, token Hash, key identity.PublicKey, c *Certificate) (Enrolment, error) {
	var out Enrolment
	err := s.write(ctx, func(tx *sql.Tx) error {
		now := s.millis()
		n, err := changed(ctx, tx, `UPDATE join_tokens SET used_at = $1 WHERE hash = $2 AND used_at = 0 AND expires_at > $1`, now, token[:])
		if err != nil {
			return err
		}
		t, err := readJoinUse(ctx, tx, token)
		if err != nil {
			return err
		}
		if t.forKey != "" && t.forKey != key.ID() {
			return ErrTokenUsed
		}
		if n == 0 {
			out, err = redeemedBefore(ctx, tx, t, key.ID(), c)
			return err
		}
		if out, err = s.openEpoch(ctx, tx, t, now); err != nil {
			return err
		}
		k := Key{ID: key.ID(), Tenant: out.Tenant, Agent: out.Agent, Epoch: out.Epoch, Public: key}
		if c != nil {
			if err := insertAuthority(ctx, tx, out, c.Authority, now); err != nil {
				return err
			}
			k.Authority, k.NotBefore, k.NotAfter = c.Authority.ID(), c.NotBefore, c.NotAfter
		}
		if err := s.insertKey(ctx, tx, &k, now); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE join_tokens SET used_by_key = $1 WHERE hash = $2`, digestValue(key.ID()), token[:])
		return err
	})
	if err != nil {
		return Enrolment{}, fmt.Errorf("redeem join token: %w", err)
	}
	return out, nil
}

// joinUse is what redeeming needs of a token.
type joinUse struct {
	tenant, agent, name string
	used                int64
	key                 []byte
	// forKey is the one key that it is good for; empty for any.
	forKey predicate.Digest
}

func readJoinUse(ctx context.Context, tx *sql.Tx, token Hash) (joinUse, error) {
	t, err := queryOne(ctx, tx, func(scan scanner, t *joinUse) error {
		return scan(&t.tenant, &t.agent, &t.name, &t.used, &t.key, maybeDigest{&t.forKey})
	}, `SELECT tenant, COALESCE(agent, ''), agent_name, used_at, used_by_key, for_key FROM join_tokens WHERE hash = $1`, token[:])
	if errors.Is(err, ErrNotFound) {
		err = ErrTokenUnknown
	}
	return t, err
}

// redeemedBefore is the result of a token that cannot be spent, for the key that
// it was spent on.
func redeemedBefore(ctx context.Context, tx *sql.Tx, t joinUse, key predicate.Digest, c *Certificate) (Enrolment, error) {
	if t.used == 0 {
		return Enrolment{}, ErrTokenExpired
	}
	id, err := digestValue(key).Value()
	if err != nil {
		return Enrolment{}, err
	}
	if b, ok := id.([]byte); !ok || !bytes.Equal(b, t.key) {
		return Enrolment{}, ErrTokenUsed
	}
	k, err := queryOne(ctx, tx, readKey, `SELECT `+keyColumns+` FROM keys WHERE key_id = $1`, t.key)
	if err != nil {
		return Enrolment{}, err
	}
	if k.Status != Active || c == nil && k.Authority != "" || c != nil && k.Authority != c.Authority.ID() {
		return Enrolment{}, ErrTokenUsed
	}
	return enrolment(k.Tenant, k.Agent, k.Epoch), nil
}

func enrolment(tenant, agent string, epoch uint64) Enrolment {
	e := Enrolment{Tenant: tenant, Agent: agent, Epoch: epoch, Cause: predicate.Reenrolled}
	if epoch == 1 {
		e.Cause = predicate.Enrolled
	}
	return e
}

// openEpoch makes the agent, or ends its present epoch, and returns the epoch
// that the new key gets.
func (s *Store) openEpoch(ctx context.Context, tx *sql.Tx, t joinUse, now int64) (Enrolment, error) {
	if t.agent == "" {
		id := newAgentID()
		_, err := tx.ExecContext(ctx, `INSERT INTO agents (tenant, id, name, status, created_at) VALUES ($1, $2, $3, 'active', $4)`,
			t.tenant, id, t.name, now)
		return enrolment(t.tenant, id, 1), err
	}
	// This holds the agent's row, so that its epochs follow each other.
	n, err := changed(ctx, tx, `UPDATE agents SET status = 'active' WHERE tenant = $1 AND id = $2`, t.tenant, t.agent)
	if err == nil && n != 1 {
		err = ErrNotFound
	}
	if err != nil {
		return Enrolment{}, err
	}
	if err := s.retireKeys(ctx, tx, t.tenant, t.agent, now); err != nil {
		return Enrolment{}, err
	}
	last, err := queryOne(ctx, tx, func(scan scanner, n *uint64) error { return scan(n) },
		`SELECT COALESCE(MAX(epoch), 0) FROM keys WHERE tenant = $1 AND agent = $2`, t.tenant, t.agent)
	return enrolment(t.tenant, t.agent, last+1), err
}

// newAgentID makes an identifier of 16 characters (80 random bits) without
// punctuation, so that a name made of a tenant's and an agent's identifier can
// be read in one way only.
func newAgentID() string { return strings.ToLower(rand.Text()[:16]) }
