package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// The cookie's names. The prefix __Host- makes browsers insist on Secure, on
// the path "/", and on no other host having set it (RFC 6265bis, section 4.1.3).
const (
	cookieName         = "__Host-cavra-session"
	insecureCookieName = "cavra-session"
)

// Login exchanges an API token for a session, and returns the cookie that
// carries it. from is the address of whoever asks: too many failures from there
// are ErrTooManyFailures, before the token is looked at.
func (g *Gate) Login(ctx context.Context, from netip.Addr, token string) (*http.Cookie, error) {
	if !g.failures.allow(from, g.cfg.Now()) {
		return nil, fmt.Errorf("log in: %w", ErrTooManyFailures)
	}
	_, err := g.Authenticate(ctx, token)
	if errors.Is(err, ErrUnauthenticated) {
		g.failures.fail(from, g.cfg.Now())
	}
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	authority, err := Parse(KindAPI, token)
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	secret, hash := Generate(KindSession)
	if err := g.cfg.Store.CreateSession(ctx, hash, authority, g.cfg.Now().Add(g.cfg.SessionLife)); err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	return g.cookie(secret, int(g.cfg.SessionLife/time.Second)), nil
}

// Logout ends a request's session, if it has one, and returns the cookie that
// makes the browser forget it.
func (g *Gate) Logout(ctx context.Context, r *http.Request) (*http.Cookie, error) {
	gone := g.cookie("", -1)
	c, err := r.Cookie(g.cookieName())
	if err != nil {
		return gone, nil //nolint:nilerr // no cookie is no session
	}
	hash, err := Parse(KindSession, c.Value)
	if err != nil {
		return gone, nil //nolint:nilerr // nor is another value
	}
	return gone, g.cfg.Store.EndSession(ctx, hash)
}

// Request returns the principal of a request: by its Authorization header if it
// has one, else by its session's cookie. from is the address that failures are
// counted for, as with Login. Beyond the limit a failure is ErrTooManyFailures; a
// secret that is good still is, so that a guesser behind the same proxy locks
// nobody out.
//
// A cookie comes with every request that a browser makes to this site, so it
// counts for anything but GET and HEAD only when the browser says that the
// request comes from this site's own pages (Sec-Fetch-Site).
func (g *Gate) Request(ctx context.Context, from netip.Addr, r *http.Request) (Principal, error) {
	header := r.Header.Get("Authorization")
	cookie, err := r.Cookie(g.cookieName())
	if header == "" && err != nil {
		return Principal{}, fmt.Errorf("authenticate: %w", ErrUnauthenticated)
	}
	var p Principal
	if header != "" {
		p, err = g.bearer(ctx, header)
	} else {
		p, err = g.session(ctx, r, cookie.Value)
	}
	if errors.Is(err, ErrUnauthenticated) && !g.failures.fail(from, g.cfg.Now()) {
		return Principal{}, fmt.Errorf("authenticate: %w", ErrTooManyFailures)
	}
	return p, err
}

func (g *Gate) bearer(ctx context.Context, header string) (Principal, error) {
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return Principal{}, fmt.Errorf("authenticate: %w", ErrUnauthenticated)
	}
	return g.Authenticate(ctx, strings.TrimSpace(token))
}

func (g *Gate) session(ctx context.Context, r *http.Request, value string) (Principal, error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Header.Get("Sec-Fetch-Site") != "same-origin" {
		return Principal{}, fmt.Errorf("authenticate: %w: a session's cookie counts only for requests of this site's own pages", ErrForbidden)
	}
	hash, err := Parse(KindSession, value)
	if err != nil {
		return Principal{}, fmt.Errorf("authenticate: %w", ErrUnauthenticated)
	}
	t, err := g.cfg.Store.Session(ctx, hash)
	return g.admit(ctx, t.Hash, t, err)
}

func (g *Gate) cookieName() string {
	if g.cfg.InsecureCookies {
		return insecureCookieName
	}
	return cookieName
}

func (g *Gate) cookie(value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: g.cookieName(), Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: !g.cfg.InsecureCookies, SameSite: http.SameSiteStrictMode,
	}
}
