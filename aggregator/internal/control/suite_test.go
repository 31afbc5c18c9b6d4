package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// postgresVariable holds the connection string of a PostgreSQL for tests; see
// testbed/postgres/run.sh.
const postgresVariable = "CAVRA_TEST_POSTGRES"

// engine makes places for fresh stores on one engine.
type engine struct {
	name  string
	fresh func(*testing.T) Config
}

func engines() []engine {
	return []engine{
		{"sqlite", func(t *testing.T) Config {
			return Config{Path: filepath.Join(t.TempDir(), "with space?&#%", "control.db")}
		}},
		{"postgresql", freshPostgreSQL},
	}
}

func freshPostgreSQL(t *testing.T) Config {
	dsn := os.Getenv(postgresVariable)
	if dsn == "" {
		t.Skip(postgresVariable + " is not set; testbed/postgres/run.sh sets it")
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	name := "t" + strings.ToLower(rand.Text())
	if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := db.ExecContext(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return Config{PostgreSQL: u.String()}
}

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	if cfg.Path != "" {
		if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// onEach runs a test on a fresh store of every engine, with the tenants acme and
// rival.
func onEach(t *testing.T, f func(t *testing.T, s *Store, c *clock)) {
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			c := newClock()
			cfg := e.fresh(t)
			cfg.Now = c.now
			s := open(t, cfg)
			for _, tenant := range []string{"acme", "rival"} {
				must(t, s.CreateTenant(t.Context(), tenant, strings.ToUpper(tenant)))
			}
			f(t, s, c)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func digest(name string) predicate.Digest { return predicate.DigestOf([]byte(name)) }

func hash(name string) Hash { return sha256.Sum256([]byte(name)) }

func newKey(t testing.TB) identity.PublicKey {
	t.Helper()
	k, err := identity.Generate(predicate.Ed25519)
	must(t, err)
	return k.Public()
}

// join makes a token, bound to an agent if that is not empty.
func join(t testing.TB, s *Store, tenant, secret, agent string) Hash {
	t.Helper()
	must(t, s.CreateJoinToken(t.Context(), JoinToken{
		Hash: hash(secret), Tenant: tenant, Agent: agent, AgentName: "an agent", CreatedBy: "test", ExpiresAt: s.now().Add(time.Hour),
	}))
	return hash(secret)
}

// enrol makes an agent and returns its chain.
func enrol(t *testing.T, s *Store, tenant string) ChainID {
	t.Helper()
	e, err := s.RedeemJoinToken(t.Context(), join(t, s, tenant, rand.Text(), ""), newKey(t))
	must(t, err)
	return ChainID{e.Tenant, e.Agent, e.Epoch}
}
