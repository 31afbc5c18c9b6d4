package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
)

// Candidate is the status of a certificate that was given and that its agent has
// not confirmed by a call.
const Candidate Status = "candidate"

// The bounds on the certificates that are remembered of an agent.
const (
	maxCandidates    = 8
	keepGenerations  = 4
	keepAfterExpired = 7 * 24 * time.Hour
)

// ClientCertificate is one that the aggregator's authority gave to an agent.
type ClientCertificate struct {
	Serial        []byte
	Tenant, Agent string
	// KeyID is the digest of the certified key.
	KeyID predicate.Digest
	// Generation counts the agent's certificates, this one included. The store
	// sets it.
	Generation          uint64
	Status              Status
	IssuedAt, ExpiresAt time.Time
	// ConfirmedAt and RevokedAt are zero for never. TakenUntil is when a retired
	// one ends.
	ConfirmedAt, TakenUntil, RevokedAt time.Time
	DER                                []byte
	// AgentStatus is that of the agent.
	AgentStatus Status
}

const clientCertificateQuery = `SELECT c.serial, c.tenant, c.agent, c.key_id, c.generation, c.status, c.issued_at, c.expires_at, c.confirmed_at,
c.taken_until, c.revoked_at, c.der, a.status FROM client_certificates AS c JOIN agents AS a ON a.tenant = c.tenant AND a.id = c.agent`

func readClientCertificate(scan scanner, c *ClientCertificate) error {
	var issued, expires, confirmed, taken, revoked int64
	err := scan(&c.Serial, &c.Tenant, &c.Agent, digestColumn{&c.KeyID}, &c.Generation, &c.Status, &issued, &expires, &confirmed,
		&taken, &revoked, &c.DER, &c.AgentStatus)
	c.IssuedAt, c.ExpiresAt, c.ConfirmedAt, c.TakenUntil, c.RevokedAt = moment(issued), moment(expires), moment(confirmed), moment(taken), moment(revoked)
	return err
}

// ClientCertificate returns one by its serial number, or ErrNotFound. It asks for no
// tenant: it is what a tenant is found by.
func (s *Store) ClientCertificate(ctx context.Context, serial []byte) (ClientCertificate, error) {
	c, err := queryOne(ctx, s.read, readClientCertificate, clientCertificateQuery+` WHERE c.serial = $1`, serial)
	if err != nil {
		return ClientCertificate{}, fmt.Errorf("read certificate %x: %w", serial, err)
	}
	return c, nil
}

// ClientCertificates lists those of an agent by generation.
func (s *Store) ClientCertificates(ctx context.Context, tenant, agent string) ([]ClientCertificate, error) {
	out, err := queryAll(ctx, s.read, readClientCertificate, clientCertificateQuery+` WHERE c.tenant = $1 AND c.agent = $2 ORDER BY c.generation, c.issued_at, c.serial`, tenant, agent)
	if err != nil {
		return nil, fmt.Errorf("list certificates of agent %q: %w", agent, err)
	}
	return out, nil
}

// AddFirstCertificate records the certificate that an agent gets with its
// enrolment: it is active at once, and those before it end now. For a key that
// has an active certificate already, that one is returned, so that an answer
// which was lost can be asked for again.
func (s *Store) AddFirstCertificate(ctx context.Context, c ClientCertificate) (ClientCertificate, error) {
	c.Status = Active
	return s.addCertificate(ctx, c, func(ctx context.Context, tx *sql.Tx, c *ClientCertificate, now int64) error {
		_, err := tx.ExecContext(ctx, `UPDATE client_certificates SET status = 'retired', taken_until = $1 WHERE tenant = $2 AND agent = $3 AND status = 'active'`,
			now, c.Tenant, c.Agent)
		return err
	})
}

// AddCandidate records a certificate that its agent has yet to confirm. For a key
// that has a certificate already which is good, that one is returned.
func (s *Store) AddCandidate(ctx context.Context, c ClientCertificate) (ClientCertificate, error) {
	c.Status = Candidate
	return s.addCertificate(ctx, c, func(ctx context.Context, tx *sql.Tx, c *ClientCertificate, now int64) error {
		// Those that can be confirmed no more go, and the oldest of too many.
		_, err := tx.ExecContext(ctx, `DELETE FROM client_certificates WHERE tenant = $1 AND agent = $2 AND status = 'candidate'
AND (generation < $3 OR expires_at <= $4 OR serial NOT IN (SELECT serial FROM client_certificates WHERE tenant = $1 AND agent = $2 AND status = 'candidate'
ORDER BY issued_at DESC, serial LIMIT $5))`, c.Tenant, c.Agent, c.Generation, now, maxCandidates-1)
		return err
	})
}

// addCertificate records c as the agent's next one, with the agent's row held.
func (s *Store) addCertificate(ctx context.Context, c ClientCertificate, prepare func(context.Context, *sql.Tx, *ClientCertificate, int64) error) (ClientCertificate, error) {
	var out ClientCertificate
	err := s.write(ctx, func(tx *sql.Tx) error {
		now := s.millis()
		if err := holdActive(ctx, tx, c.Tenant, c.Agent); err != nil {
			return err
		}
		current, err := generation(ctx, tx, c.Tenant, c.Agent)
		if err != nil {
			return err
		}
		before, err := queryAll(ctx, tx, readClientCertificate, clientCertificateQuery+` WHERE c.key_id = $1`, digestValue(c.KeyID))
		if err != nil {
			return err
		}
		for _, b := range before {
			switch ours := b.Tenant == c.Tenant && b.Agent == c.Agent; {
			case ours && b.ExpiresAt.UnixMilli() > now && (b.Status == Active || b.Status == c.Status && b.Generation == current+1):
				out = b
				return nil
			case !ours || b.Status != Candidate || c.Status != Candidate:
				return ErrKeyKnown
			}
		}
		next := c
		next.Generation = current + 1
		if err := prepare(ctx, tx, &next, now); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM client_certificates WHERE tenant = $1 AND agent = $2 AND expires_at < $3 AND generation + $4 <= $5`,
			c.Tenant, c.Agent, now-keepAfterExpired.Milliseconds(), keepGenerations, current); err != nil {
			return err
		}
		confirmed := int64(0)
		if next.Status == Active {
			confirmed = now
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO client_certificates (serial, tenant, agent, key_id, generation, status, issued_at, expires_at, confirmed_at, der)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			c.Serial, c.Tenant, c.Agent, digestValue(c.KeyID), next.Generation, string(next.Status), now, c.ExpiresAt.UnixMilli(), confirmed, c.DER); err != nil {
			return err
		}
		out, err = queryOne(ctx, tx, readClientCertificate, clientCertificateQuery+` WHERE c.serial = $1`, c.Serial)
		return err
	})
	if err != nil {
		return ClientCertificate{}, fmt.Errorf("record certificate of agent %q: %w", c.Agent, err)
	}
	return out, nil
}

// holdActive holds an agent's row, so that its certificates follow each other,
// or returns ErrRevoked or ErrNotFound.
func holdActive(ctx context.Context, tx *sql.Tx, tenant, agent string) error {
	n, err := changed(ctx, tx, `UPDATE agents SET status = 'active' WHERE tenant = $1 AND id = $2 AND status = 'active'`, tenant, agent)
	if err != nil || n == 1 {
		return err
	}
	_, err = queryOne(ctx, tx, func(scan scanner, s *string) error { return scan(s) },
		`SELECT status FROM agents WHERE tenant = $1 AND id = $2`, tenant, agent)
	if err == nil {
		err = ErrRevoked
	}
	return err
}

// generation is how many certificates an agent has confirmed.
func generation(ctx context.Context, q querier, tenant, agent string) (uint64, error) {
	return queryOne(ctx, q, func(scan scanner, n *uint64) error { return scan(n) },
		`SELECT COALESCE(MAX(generation), 0) FROM client_certificates WHERE tenant = $1 AND agent = $2 AND confirmed_at > 0`, tenant, agent)
}

// Generation is how many certificates an agent has confirmed.
func (s *Store) Generation(ctx context.Context, tenant, agent string) (uint64, error) {
	n, err := generation(ctx, s.read, tenant, agent)
	if err != nil {
		return 0, fmt.Errorf("read generation of agent %q: %w", agent, err)
	}
	return n, nil
}

// ConfirmCertificate makes a candidate the agent's own: the one before is retired,
// and taken for overlap more. Confirming the active one again changes nothing.
// When another was confirmed since the candidate was given, it is ErrOvertaken.
func (s *Store) ConfirmCertificate(ctx context.Context, serial []byte, overlap time.Duration) (ClientCertificate, error) {
	var out ClientCertificate
	err := s.write(ctx, func(tx *sql.Tx) error {
		now := s.millis()
		c, err := queryOne(ctx, tx, readClientCertificate, clientCertificateQuery+` WHERE c.serial = $1`, serial)
		if err != nil {
			return err
		}
		if err := holdActive(ctx, tx, c.Tenant, c.Agent); err != nil {
			return err
		}
		// As it is now that nobody else changes it.
		if c, err = queryOne(ctx, tx, readClientCertificate, clientCertificateQuery+` WHERE c.serial = $1`, serial); err != nil {
			return err
		}
		current, err := generation(ctx, tx, c.Tenant, c.Agent)
		switch {
		case err != nil:
			return err
		case c.Status == Active:
			out = c
			return nil
		case c.Status == Revoked:
			return ErrRevoked
		case c.Status != Candidate || c.Generation != current+1:
			return ErrOvertaken
		}
		if _, err := tx.ExecContext(ctx, `UPDATE client_certificates SET status = 'retired', taken_until = $1 WHERE tenant = $2 AND agent = $3 AND status = 'active'`,
			now+overlap.Milliseconds(), c.Tenant, c.Agent); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE client_certificates SET status = 'active', confirmed_at = $1 WHERE serial = $2`, now, serial); err != nil {
			return err
		}
		out, err = queryOne(ctx, tx, readClientCertificate, clientCertificateQuery+` WHERE c.serial = $1`, serial)
		return err
	})
	if err != nil {
		return ClientCertificate{}, fmt.Errorf("confirm certificate %x: %w", serial, err)
	}
	return out, nil
}

// Good reports why a certificate is not taken at a moment for other calls than
// to confirm it: ErrRevoked, ErrExpired, ErrOvertaken or ErrUnconfirmed.
func (c *ClientCertificate) Good(at time.Time) error {
	switch {
	case c.AgentStatus != Active || c.Status == Revoked:
		return ErrRevoked
	case !at.Before(c.ExpiresAt):
		return ErrExpired
	case c.Status == Retired && !at.Before(c.TakenUntil):
		return ErrOvertaken
	case c.Status == Candidate:
		return ErrUnconfirmed
	}
	return nil
}

// What is wrong with a certificate.
var (
	// ErrRevoked: the agent, or this certificate, was revoked.
	ErrRevoked = errors.New("revoked")
	// ErrExpired: its time is over.
	ErrExpired = errors.New("certificate has expired")
	// ErrOvertaken: another certificate of the agent was confirmed since.
	ErrOvertaken = errors.New("another certificate has followed")
	// ErrUnconfirmed: the agent has not confirmed it yet.
	ErrUnconfirmed = errors.New("certificate is not confirmed")
)
