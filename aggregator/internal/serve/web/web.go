// Package web is the aggregator's page: the posture of one tenant, and the way
// from a score down to the signed envelope that is its evidence.
//
// It guarantees that a page is made on the server and holds no script, nothing
// from another site and no style of its own (a strict Content-Security-Policy
// says so to the browser), that the tenant is that of whoever logged in, and
// that names from outside are shown as text: escaped, with the characters that
// do not print made visible.
package web

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed static
var staticFiles embed.FS

// The limits of a request.
const (
	maxForm        = 64 << 10
	requestTimeout = 30 * time.Second
)

// policy lets a page have our style sheet, our icon and our forms: nothing else.
const policy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Config is what the page works with. All but Now is required.
type Config struct {
	Service *serve.Service
	Gate    *access.Gate
	Version string
	Log     *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// site is what answers.
type site struct {
	cfg   Config
	pages map[string]*template.Template
}

// New returns the handler of every path that is a page's: /, /login, /logout,
// /artifacts, /statements/, /agents, /exposures, /quarantine and /static/. Any
// other path under / is answered with a page that says so.
func New(cfg Config) (http.Handler, error) {
	if cfg.Service == nil || cfg.Gate == nil || cfg.Log == nil {
		return nil, errors.New("web: service, gate and logger are all required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	pages, err := parsePages(cfg.Now)
	if err != nil {
		return nil, err
	}
	s := &site{cfg: cfg, pages: pages}
	return s.guard(s.routes()), nil
}

func (s *site) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for _, file := range []string{"style.css", "icon.svg"} {
		mux.Handle("GET /static/"+file, static())
	}
	mux.HandleFunc("GET /login", s.loginForm)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /logout", s.logout)
	for _, p := range []struct {
		path, name string
		scope      access.Scope
		read       reader
	}{
		{"/{$}", "overview", access.PostureRead, s.overview},
		{"/artifacts", "artifacts", access.PostureRead, s.artifacts},
		{"/artifacts/{digest}", "artifact", access.PostureRead, s.artifact},
		{"/statements/{digest}", "statement", access.PostureRead, s.statement},
		{"/exposures", "exposures", access.PostureRead, s.exposures},
		{"/agents", "agents", access.AgentsRead, s.agents},
		{"/agents/{id}", "agent", access.AgentsRead, s.agent},
		{"/quarantine", "quarantine", access.QuarantineRead, s.quarantine},
	} {
		mux.HandleFunc("GET "+p.path, s.page(p.name, p.scope, p.read))
	}
	mux.HandleFunc("/", s.page("error", "", func(context.Context, access.Principal, *http.Request) (view, error) {
		return view{}, serve.ErrNotFound
	}))
	return mux
}

// guard sets the headers of every answer and the limits of every request. A
// change that another site asks for is refused.
func (s *site) guard(next http.Handler) http.Handler {
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, nil, http.StatusForbidden, "This form was sent by another site, or by a browser that does not say which. Open the page itself and try again.")
	}))
	next = sameOrigin.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// view is what a template shows.
type view struct {
	Title string
	// Nav is the path of the entry of the navigation that the page belongs to.
	Nav     string
	Status  int
	Who     *access.Principal
	Version string
	// Next is where the login leads to.
	Next string
	// Body is the page's own.
	Body any
}

// Can reports whether the one who is logged in may see what needs a scope.
func (v view) Can(scope string) bool { return v.Who != nil && v.Who.Can(access.Scope(scope)) }

// reader puts a page together for a principal.
type reader func(context.Context, access.Principal, *http.Request) (view, error)

// page answers with a template, to those who have the scope; the empty scope is
// enough for whoever is logged in.
func (s *site) page(name string, scope access.Scope, read reader) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, err := s.cfg.Gate.Request(r.Context(), remote(r), r)
		if errors.Is(err, access.ErrUnauthenticated) {
			s.toLogin(w, r)
			return
		}
		if err != nil {
			s.problem(w, r, nil, err)
			return
		}
		if scope != "" && !p.Can(scope) {
			s.fail(w, r, &p, http.StatusForbidden, "Your token has not the scope "+string(scope)+", which this page needs. Ask whoever gave it to you for one that has.")
			return
		}
		v, err := read(r.Context(), p, r)
		if err != nil {
			s.problem(w, r, &p, err)
			return
		}
		v.Who = &p
		s.render(w, r, name, v)
	}
}

// problem chooses what is said of an error, here and nowhere else.
func (s *site) problem(w http.ResponseWriter, r *http.Request, who *access.Principal, err error) {
	switch {
	case errors.Is(err, serve.ErrNotFound):
		s.fail(w, r, who, http.StatusNotFound, "There is no such thing here. It may be past its retention, or belong to somebody else.")
	case errors.Is(err, serve.ErrCursor), errors.Is(err, errQuery):
		s.fail(w, r, who, http.StatusBadRequest, "The address holds a value that this page does not know. Start again from the list.")
	case errors.Is(err, access.ErrTooManyFailures):
		w.Header().Set("Retry-After", "60")
		s.fail(w, r, who, http.StatusTooManyRequests, "Too many failed logins came from your address. Wait a minute and try again.")
	case errors.Is(err, access.ErrForbidden), errors.Is(err, serve.ErrNotOperator):
		s.fail(w, r, who, http.StatusForbidden, "Your token does not allow this.")
	case errors.Is(err, attest.ErrBadSignature), errors.Is(err, predicate.ErrNotCanonical):
		s.cfg.Log.ErrorContext(r.Context(), "a stored statement does not verify", slog.Any("error", err))
		s.fail(w, r, who, http.StatusInternalServerError, "The stored envelope does not verify against the key that it was admitted with: it has changed since. Do not rely on it; tell whoever runs this aggregator.")
	default:
		s.cfg.Log.ErrorContext(r.Context(), "cannot answer", slog.Any("error", err))
		s.fail(w, r, who, http.StatusServiceUnavailable, "The aggregator cannot answer now. Try again; its log says why.")
	}
}

// failure is the body of the page "error".
type failure struct {
	Code         int
	Text, Advice string
}

func (s *site) fail(w http.ResponseWriter, r *http.Request, who *access.Principal, status int, advice string) {
	text := http.StatusText(status)
	s.render(w, r, "error", view{Title: text, Status: status, Who: who, Body: failure{status, text, advice}})
}

// render writes a page whole or not at all.
func (s *site) render(w http.ResponseWriter, r *http.Request, name string, v view) {
	v.Version = s.cfg.Version
	var b bytes.Buffer
	if err := s.pages[name].ExecuteTemplate(&b, "layout", v); err != nil {
		s.cfg.Log.ErrorContext(r.Context(), "cannot make a page", slog.String("page", name), slog.Any("error", err))
		http.Error(w, "The page cannot be shown; the aggregator's log says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if v.Status != 0 {
		w.WriteHeader(v.Status)
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		// Whoever asked has gone.
		s.cfg.Log.DebugContext(r.Context(), "cannot send a page", slog.Any("error", err))
	}
}

// static serves the style sheet and the icon.
func static() http.Handler {
	files := http.FileServerFS(staticFiles)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		files.ServeHTTP(w, r)
	})
}

// remote is where a request comes from, for counting failures.
func remote(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}
