// Package access decides who may do what on the aggregator: API tokens with
// scopes from a closed vocabulary, and browser sessions that stand for them.
//
// It guarantees that a secret is shown once and kept nowhere but as its hash,
// that an authority ends the moment its token is revoked or expires, sessions
// included, that a principal belongs to one tenant, which comes from the
// authority and never from a request, and that guessing is slowed down.
package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cavra/cavra/aggregator/internal/control"
)

// Scope is something that a principal may do.
type Scope string

// The scopes. Admin allows everything within the tenant.
const (
	PostureRead    Scope = "posture:read"
	QuarantineRead Scope = "quarantine:read"
	AgentsRead     Scope = "agents:read"
	AgentsEnrol    Scope = "agents:enrol"
	TokensWrite    Scope = "tokens:write"
	Admin          Scope = "admin"
)

// Scopes lists every scope.
func Scopes() []Scope {
	return []Scope{PostureRead, QuarantineRead, AgentsRead, AgentsEnrol, TokensWrite, Admin}
}

// ParseScope reads a scope's spelling.
func ParseScope(s string) (Scope, error) {
	if slices.Contains(Scopes(), Scope(s)) {
		return Scope(s), nil
	}
	all := make([]string, 0, len(Scopes()))
	for _, scope := range Scopes() {
		all = append(all, string(scope))
	}
	return "", fmt.Errorf("scope %q: want one of %s", clip(s), strings.Join(all, ", "))
}

// clip bounds a string from outside before it enters an error text.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// Principal is whoever a request comes from.
type Principal struct {
	// Tenant is the one whose things the principal may see.
	Tenant string
	// Name is what the token is called.
	Name   string
	Scopes []Scope
}

// Can reports whether the principal has a scope.
func (p Principal) Can(s Scope) bool {
	return slices.Contains(p.Scopes, s) || slices.Contains(p.Scopes, Admin)
}

// The conditions that a caller can act on.
var (
	// ErrUnauthenticated: the secret is not good. It does not say whether it
	// ever was.
	ErrUnauthenticated = errors.New("not authenticated")
	// ErrForbidden: the principal has not the scope.
	ErrForbidden = errors.New("not allowed")
	// ErrTooManyFailures: wait before another try. It is temporary.
	ErrTooManyFailures = errors.New("too many failed logins")
)

// Config says what the gate works with.
type Config struct {
	Store *control.Store
	// SessionLife is how long a browser's session lasts; 0 is
	// DefaultSessionLife.
	SessionLife time.Duration
	// InsecureCookies leaves the attribute Secure away, for a server that
	// answers on loopback without TLS.
	InsecureCookies bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// DefaultSessionLife is a working day.
const DefaultSessionLife = 12 * time.Hour

// touchEvery is how exactly the last use of a token is known.
const touchEvery = time.Minute

// Gate lets in who may come in. It is safe for concurrent use.
type Gate struct {
	cfg      Config
	failures *limiter
}

// New checks the configuration.
func New(cfg Config) (*Gate, error) {
	if cfg.Store == nil {
		return nil, errors.New("access: no control store")
	}
	if cfg.SessionLife < 0 {
		return nil, fmt.Errorf("access: session life %s is negative", cfg.SessionLife)
	}
	if cfg.SessionLife == 0 {
		cfg.SessionLife = DefaultSessionLife
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Gate{cfg: cfg, failures: newLimiter()}, nil
}

// Authenticate returns the principal of an API token, as it stands after
// "Bearer " in a request. A token that is not good is ErrUnauthenticated,
// whatever is wrong with it; any other error is the store's.
func (g *Gate) Authenticate(ctx context.Context, bearer string) (Principal, error) {
	hash, err := Parse(KindAPI, bearer)
	if err != nil {
		return Principal{}, fmt.Errorf("authenticate: %w", ErrUnauthenticated)
	}
	t, err := g.cfg.Store.APIToken(ctx, hash)
	return g.admit(ctx, hash, t, err)
}

// admit makes a principal of what the store says of a secret. The store finds
// by the secret's SHA-256, whose comparison tells nothing about the secret; the
// one here, of the whole hash, takes the same time wherever they differ.
func (g *Gate) admit(ctx context.Context, hash control.Hash, t control.APIToken, err error) (Principal, error) {
	if errors.Is(err, control.ErrNotFound) || err == nil && (!equal(hash, t.Hash) || !t.Live(g.cfg.Now())) {
		return Principal{}, fmt.Errorf("authenticate: %w", ErrUnauthenticated)
	}
	if err != nil {
		return Principal{}, fmt.Errorf("authenticate: %w", err)
	}
	p := Principal{Tenant: t.Tenant, Name: t.Name}
	for _, word := range t.Scopes {
		scope, err := ParseScope(word)
		if err != nil {
			return Principal{}, fmt.Errorf("authenticate: token %q: %w", t.Name, err)
		}
		p.Scopes = append(p.Scopes, scope)
	}
	if g.cfg.Now().Sub(t.LastUsedAt) >= touchEvery {
		if err := g.cfg.Store.TouchAPIToken(ctx, t.Hash); err != nil {
			return Principal{}, fmt.Errorf("authenticate: %w", err)
		}
	}
	return p, nil
}

// CreateToken makes an API token for a principal's own tenant and returns its
// secret, which is shown this once. Nobody can give away a scope that they have
// not: that is ErrForbidden. A zero expiry is never.
func (g *Gate) CreateToken(ctx context.Context, by Principal, name string, scopes []Scope, expires time.Time) (string, error) {
	if !by.Can(TokensWrite) {
		return "", fmt.Errorf("create token: %w: scope %s is missing", ErrForbidden, TokensWrite)
	}
	for _, s := range scopes {
		if !by.Can(s) {
			return "", fmt.Errorf("create token: %w: scope %s is not yours to give", ErrForbidden, s)
		}
	}
	return g.mint(ctx, by.Tenant, name, scopes, expires)
}

func (g *Gate) mint(ctx context.Context, tenant, name string, scopes []Scope, expires time.Time) (string, error) {
	secret, hash := Generate(KindAPI)
	return secret, g.store(ctx, hash, tenant, name, scopes, expires)
}

func (g *Gate) store(ctx context.Context, hash control.Hash, tenant, name string, scopes []Scope, expires time.Time) error {
	words := make([]string, 0, len(scopes))
	for _, s := range scopes {
		if _, err := ParseScope(string(s)); err != nil {
			return fmt.Errorf("create token: %w", err)
		}
		words = append(words, string(s))
	}
	if !expires.IsZero() && !expires.After(g.cfg.Now()) {
		return fmt.Errorf("create token: it would expire at %s, which is over", expires.UTC().Format(time.RFC3339))
	}
	return g.cfg.Store.CreateAPIToken(ctx, control.APIToken{Hash: hash, Tenant: tenant, Name: name, Scopes: words, ExpiresAt: expires})
}

// RevokeToken ends a token of the principal's tenant, and its sessions. One that
// is not there is control.ErrNotFound.
func (g *Gate) RevokeToken(ctx context.Context, by Principal, name string) error {
	if !by.Can(TokensWrite) {
		return fmt.Errorf("revoke token: %w: scope %s is missing", ErrForbidden, TokensWrite)
	}
	return g.cfg.Store.RevokeAPIToken(ctx, by.Tenant, name)
}

// CreateJoinToken makes a one-time join token of the principal's tenant and
// returns its secret, which is shown this once. With an agent it enrols that
// agent anew; without one, a new agent of the given name.
func (g *Gate) CreateJoinToken(ctx context.Context, by Principal, agent, name string, expires time.Time) (string, error) {
	if !by.Can(AgentsEnrol) {
		return "", fmt.Errorf("create join token: %w: scope %s is missing", ErrForbidden, AgentsEnrol)
	}
	secret, hash := Generate(KindJoin)
	err := g.cfg.Store.CreateJoinToken(ctx, control.JoinToken{
		Hash: hash, Tenant: by.Tenant, Agent: agent, AgentName: name, CreatedBy: by.Name, ExpiresAt: expires,
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}
