package control

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"
)

// APIToken is a bearer's authority within one tenant.
type APIToken struct {
	Hash         Hash
	Tenant, Name string
	// Scopes are words; what they allow is not the store's business.
	Scopes    []string
	CreatedAt time.Time
	// ExpiresAt, LastUsedAt and RevokedAt are zero for never.
	ExpiresAt, LastUsedAt, RevokedAt time.Time
}

// Live reports whether the token is good at a moment.
func (t *APIToken) Live(at time.Time) bool {
	return t.RevokedAt.IsZero() && (t.ExpiresAt.IsZero() || at.Before(t.ExpiresAt))
}

const apiTokenColumns = `t.hash, t.tenant, t.name, t.scopes, t.created_at, t.expires_at, t.last_used_at, t.revoked_at`

func readAPIToken(scan scanner, t *APIToken) error {
	var hash []byte
	var scopes string
	var created, expires, used, revoked int64
	err := scan(&hash, &t.Tenant, &t.Name, &scopes, &created, &expires, &used, &revoked)
	copy(t.Hash[:], hash)
	t.Scopes = strings.Fields(scopes)
	t.CreatedAt, t.ExpiresAt, t.LastUsedAt, t.RevokedAt = moment(created), moment(expires), moment(used), moment(revoked)
	return err
}

// CreateAPIToken stores a token; the store sets CreatedAt. A live token of the
// same name is ErrExists.
func (s *Store) CreateAPIToken(ctx context.Context, t APIToken) error {
	err := validateLabel(t.Name)
	if err == nil && len(t.Scopes) == 0 {
		err = fmt.Errorf("no scopes")
	}
	for _, scope := range t.Scopes {
		if err == nil && (scope == "" || strings.ContainsAny(scope, " \t\r\n")) {
			err = fmt.Errorf("scope %q is not a word", scope)
		}
	}
	if err == nil {
		scopes := slices.Compact(slices.Sorted(slices.Values(t.Scopes)))
		err = s.write(ctx, func(tx *sql.Tx) error {
			n, err := changed(ctx, tx, `INSERT INTO api_tokens (hash, tenant, name, scopes, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
				t.Hash[:], t.Tenant, t.Name, strings.Join(scopes, " "), s.millis(), millisOf(t.ExpiresAt))
			if err == nil && n == 0 {
				err = ErrExists
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("create API token %q: %w", t.Name, err)
	}
	return nil
}

// APIToken returns a token by the hash of its secret, live or not, or
// ErrNotFound. It asks for no tenant: it is what a tenant is found by.
func (s *Store) APIToken(ctx context.Context, hash Hash) (APIToken, error) {
	t, err := queryOne(ctx, s.read, readAPIToken, `SELECT `+apiTokenColumns+` FROM api_tokens AS t WHERE t.hash = $1`, hash[:])
	if err != nil {
		return APIToken{}, fmt.Errorf("read API token: %w", err)
	}
	return t, nil
}

// APITokens lists a tenant's tokens by name, revoked ones too.
func (s *Store) APITokens(ctx context.Context, tenant string) ([]APIToken, error) {
	out, err := queryAll(ctx, s.read, readAPIToken,
		`SELECT `+apiTokenColumns+` FROM api_tokens AS t WHERE t.tenant = $1 ORDER BY t.name, t.created_at, t.hash`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list API tokens: %w", err)
	}
	return out, nil
}

// TouchAPIToken records that a token was used now.
func (s *Store) TouchAPIToken(ctx context.Context, hash Hash) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE api_tokens SET last_used_at = $1 WHERE hash = $2 AND last_used_at < $1`, s.millis(), hash[:])
		return err
	})
	if err != nil {
		return fmt.Errorf("record use of API token: %w", err)
	}
	return nil
}

// RevokeAPIToken ends a tenant's live token of that name and its sessions, or
// returns ErrNotFound.
func (s *Store) RevokeAPIToken(ctx context.Context, tenant, name string) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE token IN
(SELECT hash FROM api_tokens WHERE tenant = $1 AND name = $2 AND revoked_at = 0)`, tenant, name); err != nil {
			return err
		}
		n, err := changed(ctx, tx, `UPDATE api_tokens SET revoked_at = $1 WHERE tenant = $2 AND name = $3 AND revoked_at = 0`,
			s.millis(), tenant, name)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("revoke API token %q: %w", name, err)
	}
	return nil
}

// MaxSessions bounds the sessions of one token; a new one ends the oldest.
const MaxSessions = 64

// CreateSession stores a session that stands for an API token until it expires.
// Sessions that have expired are deleted on the way.
func (s *Store) CreateSession(ctx context.Context, session, token Hash, expires time.Time) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		now := s.millis()
		if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE expires_at <= $1`, now); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO sessions (hash, token, created_at, expires_at) VALUES ($1, $2, $3, $4)`,
			session[:], token[:], now, millisOf(expires)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE token = $1 AND hash NOT IN
(SELECT hash FROM sessions WHERE token = $1 ORDER BY created_at DESC, hash LIMIT $2)`, token[:], MaxSessions)
		return err
	})
	if err != nil {
		return fmt.Errorf("create session: %w", err)
	}
	return nil
}

// Session returns the API token that an unexpired session stands for, live or
// not, or ErrNotFound.
func (s *Store) Session(ctx context.Context, session Hash) (APIToken, error) {
	t, err := queryOne(ctx, s.read, readAPIToken, `SELECT `+apiTokenColumns+` FROM sessions AS s JOIN api_tokens AS t ON t.hash = s.token
WHERE s.hash = $1 AND s.expires_at > $2`, session[:], s.millis())
	if err != nil {
		return APIToken{}, fmt.Errorf("read session: %w", err)
	}
	return t, nil
}

// EndSession deletes a session, if it is there.
func (s *Store) EndSession(ctx context.Context, session Hash) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE hash = $1`, session[:])
		return err
	})
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}
