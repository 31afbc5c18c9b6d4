package access

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/aggregator/internal/control"
)

type clock struct {
	mu sync.Mutex
	t  time.Time
}

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

var (
	root  = Principal{Tenant: "acme", Name: "root", Scopes: []Scope{Admin}}
	here  = netip.MustParseAddr("192.0.2.1")
	there = netip.MustParseAddr("2001:db8::1")
)

func newGate(t *testing.T, cfg Config) (*Gate, *clock) {
	t.Helper()
	c := &clock{t: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	store, err := control.Open(t.Context(), control.Config{Path: filepath.Join(t.TempDir(), "control.db"), Now: c.now})
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	must(t, store.CreateTenant(t.Context(), "acme", "Acme"))
	must(t, store.CreateTenant(t.Context(), "rival", "Rival"))
	cfg.Store, cfg.Now = store, c.now
	g, err := New(cfg)
	must(t, err)
	return g, c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAuthenticate(t *testing.T) {
	g, c := newGate(t, Config{})
	ctx := t.Context()
	secret, err := g.CreateToken(ctx, root, "reader", []Scope{PostureRead, AgentsRead}, c.now().Add(time.Hour))
	must(t, err)
	got, err := g.Authenticate(ctx, secret)
	must(t, err)
	if diff := cmp.Diff(Principal{"acme", "reader", []Scope{AgentsRead, PostureRead}}, got); diff != "" {
		t.Errorf("principal (-want +got):\n%s", diff)
	}
	tokens, err := g.cfg.Store.APITokens(ctx, "acme")
	must(t, err)
	if len(tokens) != 1 || !tokens[0].LastUsedAt.Equal(c.now()) {
		t.Errorf("last use: %+v", tokens)
	}
	for s, want := range map[Scope]bool{PostureRead: true, AgentsRead: true, QuarantineRead: false, Admin: false} {
		if got.Can(s) != want {
			t.Errorf("can %s: %t", s, !want)
		}
	}
	for _, s := range Scopes() {
		if !root.Can(s) {
			t.Errorf("an admin cannot %s", s)
		}
	}

	other, _ := Generate(KindAPI)
	session, _ := Generate(KindSession)
	for name, bad := range map[string]string{"empty": "", "never made": other, "another kind": session, "cut short": secret[:len(secret)-1], "long": strings.Repeat("a", 1<<20)} {
		if _, err := g.Authenticate(ctx, bad); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: %v, want ErrUnauthenticated", name, err)
		}
	}
	c.move(time.Hour)
	if _, err := g.Authenticate(ctx, secret); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("expired: %v, want ErrUnauthenticated", err)
	}
}

func TestRevoke(t *testing.T) {
	g, c := newGate(t, Config{})
	ctx := t.Context()
	secret, err := g.CreateToken(ctx, root, "reader", []Scope{PostureRead}, time.Time{})
	must(t, err)
	cookie, err := g.Login(ctx, here, secret)
	must(t, err)
	if _, err := g.CreateToken(ctx, root, "reader", []Scope{PostureRead}, time.Time{}); !errors.Is(err, control.ErrExists) {
		t.Errorf("a second token of the name: %v, want ErrExists", err)
	}
	rival := Principal{Tenant: "rival", Scopes: []Scope{Admin}}
	if err := g.RevokeToken(ctx, rival, "reader"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("revoked by another tenant: %v, want ErrNotFound", err)
	}
	c.move(time.Second)
	must(t, g.RevokeToken(ctx, root, "reader"))
	if _, err := g.Authenticate(ctx, secret); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("revoked: %v", err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.AddCookie(cookie)
	if _, err := g.Request(ctx, here, r); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("session of a revoked token: %v", err)
	}
	_, err = g.CreateToken(ctx, root, "reader", []Scope{PostureRead}, time.Time{})
	must(t, err)
}

func TestScopesAreNotWidened(t *testing.T) {
	g, c := newGate(t, Config{})
	ctx := t.Context()
	clerk := Principal{Tenant: "acme", Name: "clerk", Scopes: []Scope{TokensWrite, PostureRead}}
	_, err := g.CreateToken(ctx, clerk, "a", []Scope{PostureRead}, time.Time{})
	must(t, err)
	for _, s := range []Scope{Admin, QuarantineRead, AgentsEnrol} {
		if _, err := g.CreateToken(ctx, clerk, "b", []Scope{PostureRead, s}, time.Time{}); !errors.Is(err, ErrForbidden) {
			t.Errorf("gave away %s: %v", s, err)
		}
	}
	if _, err := g.CreateToken(ctx, Principal{Tenant: "acme", Scopes: []Scope{PostureRead}}, "c", []Scope{PostureRead}, time.Time{}); !errors.Is(err, ErrForbidden) {
		t.Errorf("without %s: %v", TokensWrite, err)
	}
	if _, err := g.CreateToken(ctx, root, "d", []Scope{"everything"}, time.Time{}); err == nil || !strings.Contains(err.Error(), "want one of posture:read") {
		t.Errorf("a scope that is none: %v", err)
	}
	if _, err := g.CreateJoinToken(ctx, clerk, "", "box", c.now().Add(time.Hour)); !errors.Is(err, ErrForbidden) {
		t.Errorf("join token without %s: %v", AgentsEnrol, err)
	}
}

func TestSession(t *testing.T) {
	g, c := newGate(t, Config{SessionLife: time.Hour})
	ctx := t.Context()
	secret, err := g.CreateToken(ctx, root, "reader", []Scope{PostureRead}, time.Time{})
	must(t, err)
	cookie, err := g.Login(ctx, here, secret)
	must(t, err)
	want := &http.Cookie{Name: "__Host-cavra-session", Value: cookie.Value, Path: "/", MaxAge: 3600, HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode}
	if diff := cmp.Diff(want, cookie); diff != "" {
		t.Errorf("cookie (-want +got):\n%s", diff)
	}
	if strings.Contains(cookie.Value, secret) || !strings.HasPrefix(cookie.Value, "cavra_session_") {
		t.Errorf("cookie holds %q", cookie.Value)
	}
	ask := func(method, site string) error {
		r := httptest.NewRequest(method, "/", nil)
		r.AddCookie(&http.Cookie{Name: cookie.Name, Value: cookie.Value})
		if site != "" {
			r.Header.Set("Sec-Fetch-Site", site)
		}
		p, err := g.Request(ctx, here, r)
		if err == nil && (p.Tenant != "acme" || p.Name != "reader") {
			t.Errorf("principal %+v", p)
		}
		return err
	}
	must(t, ask(http.MethodGet, ""))
	must(t, ask(http.MethodPost, "same-origin"))
	for _, site := range []string{"", "same-site", "cross-site", "none"} {
		if err := ask(http.MethodPost, site); !errors.Is(err, ErrForbidden) {
			t.Errorf("a change from %q: %v, want ErrForbidden", site, err)
		}
	}
	c.move(time.Hour)
	if err := ask(http.MethodGet, ""); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("expired session: %v", err)
	}
	cookie, err = g.Login(ctx, here, secret)
	must(t, err)
	r := httptest.NewRequest(http.MethodPost, "/logout", nil)
	r.AddCookie(cookie)
	gone, err := g.Logout(ctx, r)
	must(t, err)
	if gone.MaxAge >= 0 || gone.Value != "" {
		t.Errorf("logout's cookie: %+v", gone)
	}
	if err := ask(http.MethodGet, ""); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("session that was ended: %v", err)
	}
}

func TestRequestBearer(t *testing.T) {
	g, _ := newGate(t, Config{InsecureCookies: true})
	secret, err := g.CreateToken(t.Context(), root, "reader", []Scope{PostureRead}, time.Time{})
	must(t, err)
	for header, want := range map[string]error{
		"Bearer " + secret: nil, "bearer " + secret: nil,
		"Basic " + secret: ErrUnauthenticated, secret: ErrUnauthenticated, "": ErrUnauthenticated, "Bearer": ErrUnauthenticated,
	} {
		r := httptest.NewRequest(http.MethodDelete, "/", nil)
		r.Header.Set("Authorization", header)
		if _, err := g.Request(t.Context(), here, r); !errors.Is(err, want) {
			t.Errorf("%.12q: %v, want %v", header, err, want)
		}
	}
}

func TestFailureLimit(t *testing.T) {
	g, c := newGate(t, Config{})
	ctx := t.Context()
	secret, err := g.CreateToken(ctx, root, "reader", []Scope{PostureRead}, time.Time{})
	must(t, err)
	wrong, _ := Generate(KindAPI)
	for i := range failureBurst {
		if _, err := g.Login(ctx, here, wrong); !errors.Is(err, ErrUnauthenticated) {
			t.Fatalf("failure %d: %v", i+1, err)
		}
	}
	if _, err := g.Login(ctx, here, secret); !errors.Is(err, ErrTooManyFailures) {
		t.Errorf("beyond the limit: %v, want ErrTooManyFailures", err)
	}
	_, err = g.Login(ctx, there, secret)
	must(t, err)
	bearer := func(token string) error {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		_, err := g.Request(ctx, here, r)
		return err
	}
	if err := bearer(wrong); !errors.Is(err, ErrTooManyFailures) {
		t.Errorf("a bad token beyond the limit: %v", err)
	}
	must(t, bearer(secret))
	c.move(failureCost)
	_, err = g.Login(ctx, here, secret)
	must(t, err)
}

func TestLimiterIsBounded(t *testing.T) {
	l, now := newLimiter(), time.Unix(1_000_000, 0)
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range maxPlaces {
		l.fail(at(i), now)
	}
	for i := range failureBurst {
		if !l.fail(at(maxPlaces+i), now) {
			t.Fatalf("stranger %d is over the limit", i)
		}
	}
	if len(l.paid) != maxPlaces || l.allow(at(maxPlaces+99), now) {
		t.Errorf("%d places, strangers allowed: %t", len(l.paid), l.allow(at(maxPlaces+99), now))
	}
	now = now.Add(failureCost)
	if !l.fail(at(maxPlaces), now) || len(l.paid) != 1 {
		t.Errorf("after all is paid off: %d places", len(l.paid))
	}
	if place(netip.MustParseAddr("2001:db8::1")) != place(netip.MustParseAddr("2001:db8::ffff%eth0")) || place(here) != place(netip.MustParseAddr("::ffff:192.0.2.1")) {
		t.Error("one network is two places")
	}
}

func TestBootstrap(t *testing.T) {
	g, _ := newGate(t, Config{})
	ctx, dir := t.Context(), t.TempDir()
	// What a crash between the file and the store leaves.
	must(t, os.WriteFile(filepath.Join(dir, AdminTokenFile), []byte("stale\n"), 0o644))
	path, err := g.Bootstrap(ctx, dir)
	must(t, err)
	text, err := os.ReadFile(path)
	must(t, err)
	info, err := os.Stat(path)
	must(t, err)
	if path != filepath.Join(dir, AdminTokenFile) || info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v", path, info.Mode())
	}
	p, err := g.Authenticate(ctx, strings.TrimSpace(string(text)))
	must(t, err)
	if p.Tenant != DefaultTenant || !p.Can(Admin) {
		t.Errorf("principal %+v", p)
	}
	must(t, os.Remove(path))
	for range 2 {
		if path, err := g.Bootstrap(ctx, dir); err != nil || path != "" {
			t.Errorf("again: %q, %v", path, err)
		}
	}
	must(t, g.RevokeToken(ctx, p, p.Name))
	if path, err = g.Bootstrap(ctx, dir); err != nil || path == "" {
		t.Errorf("once no admin token lives: %q, %v", path, err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	if hidden, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(names) != 1 || len(hidden) != 0 {
		t.Errorf("left behind: %v %v %v", names, hidden, err)
	}
}

func TestGenerate(t *testing.T) {
	for _, k := range []Kind{KindAPI, KindJoin, KindSession} {
		secret, hash := Generate(k)
		got, err := Parse(k, secret)
		if err != nil || got != hash || len(secret) > MaxSecret {
			t.Errorf("%s of %d bytes: %v", k, len(secret), err)
		}
		for i := range secret {
			b := []byte(secret)
			b[i] ^= 1
			if _, err := Parse(k, string(b)); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s with byte %d changed: %v", k, i, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	secret, _ := Generate(KindJoin)
	f.Add(secret)
	f.Add("")
	f.Add("cavra_join_" + strings.Repeat("0", randomLen+checkLen))
	f.Fuzz(func(t *testing.T, s string) {
		_, err := Parse(KindJoin, s)
		if err == nil && (len(s) != len(secret) || !strings.HasPrefix(s, "cavra_join_")) {
			t.Errorf("accepted %q", s)
		}
	})
}
