// Package web is the aggregator's page: what the API says, drawn for people. It
// is rendered on the server, needs no script, loads nothing from elsewhere, and
// shows every name from outside escaped.
package web

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/aggregator/internal/serve/api"
	"github.com/cavra/cavra/schemas/predicate"
)

//go:embed pages/*.html
var pageFiles embed.FS

//go:embed style.css
var style []byte

const (
	maxForm    = 8 << 10
	worstShown = 20
	listShown  = 200
)

// Config is what the page works with; all of it but Version is required.
type Config struct {
	Service *serve.Service
	Gate    *access.Gate
	Version string
	Log     *slog.Logger
}

type site struct {
	cfg   Config
	pages map[string]*template.Template
}

// New returns the handler of everything that is neither the API nor enrolment.
func New(cfg Config) (http.Handler, error) {
	if cfg.Service == nil || cfg.Gate == nil || cfg.Log == nil {
		return nil, errors.New("web: service, gate and logger are all required")
	}
	s := &site{cfg: cfg, pages: map[string]*template.Template{}}
	for _, name := range []string{"login", "overview", "artifact", "statement", "agents", "exposures", "quarantine", "problem"} {
		t, err := template.New("layout.html").Funcs(functions).ParseFS(pageFiles, "pages/layout.html", "pages/"+name+".html")
		if err != nil {
			return nil, fmt.Errorf("web: page %s: %w", name, err)
		}
		s.pages[name] = t
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		s.write(w, style)
	})
	mux.HandleFunc("GET /login", s.loginPage)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /logout", s.logout)
	mux.HandleFunc("GET /{$}", s.page(access.PostureRead, s.overview))
	mux.HandleFunc("GET /artifacts/{digest}", s.page(access.PostureRead, s.artifact))
	mux.HandleFunc("GET /statements/{digest}", s.page(access.PostureRead, s.statement))
	mux.HandleFunc("GET /exposures", s.page(access.PostureRead, s.exposures))
	mux.HandleFunc("GET /agents", s.page(access.AgentsRead, s.agents))
	mux.HandleFunc("GET /quarantine", s.page(access.QuarantineRead, s.quarantine))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.problem(w, r, http.StatusNotFound, "There is no such page.")
	})
	return headers(mux), nil
}

// headers are set on every answer.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// view is what every page is drawn from.
type view struct {
	Title, Page string
	Principal   *access.Principal
	Version     string
	Data        any
}

func (s *site) draw(w http.ResponseWriter, r *http.Request, status int, name string, v view) {
	v.Page, v.Version = name, s.cfg.Version
	var buf bytes.Buffer
	if err := s.pages[name].Execute(&buf, v); err != nil {
		s.cfg.Log.ErrorContext(r.Context(), "cannot draw a page", slog.String("page", name), slog.Any("error", err))
		http.Error(w, "The page cannot be drawn; the aggregator's log says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	s.write(w, buf.Bytes())
}

func (s *site) write(w http.ResponseWriter, b []byte) {
	if _, err := w.Write(b); err != nil {
		s.cfg.Log.Debug("a reader left", slog.Any("error", err))
	}
}

func (s *site) problem(w http.ResponseWriter, r *http.Request, status int, text string) {
	s.draw(w, r, status, "problem", view{Title: http.StatusText(status), Data: text})
}

// page lets in who may see it, and draws it.
func (s *site) page(scope access.Scope, load func(ctx context.Context, tenant string, r *http.Request) (string, view, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, err := s.cfg.Gate.Request(r.Context(), api.RemoteAddr(r), r)
		switch {
		case errors.Is(err, access.ErrUnauthenticated):
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		case errors.Is(err, access.ErrTooManyFailures):
			s.problem(w, r, http.StatusTooManyRequests, "Too many failed logins from this address. Wait a minute.")
			return
		case err != nil:
			s.cfg.Log.ErrorContext(r.Context(), "cannot authenticate", slog.Any("error", err))
			s.problem(w, r, http.StatusServiceUnavailable, "The aggregator cannot look sessions up now. Try again.")
			return
		case !p.Can(scope):
			s.problem(w, r, http.StatusForbidden, "Your token has not the scope "+string(scope)+".")
			return
		}
		name, v, err := load(r.Context(), p.Tenant, r)
		switch {
		case errors.Is(err, serve.ErrNotFound):
			s.problem(w, r, http.StatusNotFound, "This tenant has no such thing.")
			return
		case err != nil:
			s.cfg.Log.ErrorContext(r.Context(), "cannot read a page", slog.Any("error", err))
			s.problem(w, r, http.StatusServiceUnavailable, "The aggregator cannot answer now. Try again, and look into its log.")
			return
		}
		v.Principal = &p
		s.draw(w, r, http.StatusOK, name, v)
	}
}

func (s *site) loginPage(w http.ResponseWriter, r *http.Request) {
	s.draw(w, r, http.StatusOK, "login", view{Title: "Log in"})
}

// sameOrigin keeps forms of other sites out.
func sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin":
		return true
	case "":
		origin := r.Header.Get("Origin")
		return origin == "" || strings.HasSuffix(origin, "://"+r.Host)
	}
	return false
}

func (s *site) login(w http.ResponseWriter, r *http.Request) {
	if !sameOrigin(r) {
		s.problem(w, r, http.StatusForbidden, "This form came from another site.")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	cookie, err := s.cfg.Gate.Login(r.Context(), api.RemoteAddr(r), strings.TrimSpace(r.PostFormValue("token")))
	switch {
	case errors.Is(err, access.ErrTooManyFailures):
		s.draw(w, r, http.StatusTooManyRequests, "login", view{Title: "Log in", Data: "Too many failed logins from this address. Wait a minute."})
	case errors.Is(err, access.ErrUnauthenticated), errors.Is(err, access.ErrMalformed):
		s.draw(w, r, http.StatusUnauthorized, "login", view{Title: "Log in", Data: "That token is not good."})
	case err != nil:
		s.cfg.Log.ErrorContext(r.Context(), "cannot log in", slog.Any("error", err))
		s.problem(w, r, http.StatusServiceUnavailable, "The aggregator cannot look tokens up now. Try again.")
	default:
		http.SetCookie(w, cookie)
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}
}

func (s *site) logout(w http.ResponseWriter, r *http.Request) {
	if !sameOrigin(r) {
		s.problem(w, r, http.StatusForbidden, "This form came from another site.")
		return
	}
	cookie, err := s.cfg.Gate.Logout(r.Context(), r)
	if err != nil {
		s.cfg.Log.ErrorContext(r.Context(), "cannot log out", slog.Any("error", err))
		s.problem(w, r, http.StatusServiceUnavailable, "The aggregator cannot end the session now. Try again.")
		return
	}
	if cookie != nil {
		http.SetCookie(w, cookie)
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

func (s *site) overview(ctx context.Context, tenant string, _ *http.Request) (string, view, error) {
	p, err := s.cfg.Service.Posture(ctx, tenant)
	if err != nil {
		return "", view{}, err
	}
	worst, err := s.cfg.Service.Artifacts(ctx, tenant, "", "", worstShown)
	if err != nil {
		return "", view{}, err
	}
	agents, err := s.cfg.Service.Agents(ctx, tenant)
	return "overview", view{Title: "Posture", Data: struct {
		Posture serve.Posture
		Worst   []serve.Artifact
		Agents  []serve.Agent
	}{p, worst.Artifacts, agents.Agents}}, err
}

func (s *site) artifact(ctx context.Context, tenant string, r *http.Request) (string, view, error) {
	digest := predicate.Digest(r.PathValue("digest"))
	if digest.Validate() != nil {
		return "", view{}, serve.ErrNotFound
	}
	a, err := s.cfg.Service.Artifact(ctx, tenant, digest)
	return "artifact", view{Title: "Artifact " + short(string(digest)), Data: a}, err
}

func (s *site) statement(ctx context.Context, tenant string, r *http.Request) (string, view, error) {
	digest := predicate.Digest(r.PathValue("digest"))
	if digest.Validate() != nil {
		return "", view{}, serve.ErrNotFound
	}
	st, err := s.cfg.Service.Statement(ctx, tenant, digest)
	return "statement", view{Title: "Statement " + short(string(digest)), Data: st}, err
}

func (s *site) agents(ctx context.Context, tenant string, _ *http.Request) (string, view, error) {
	list, err := s.cfg.Service.Agents(ctx, tenant)
	return "agents", view{Title: "Agents", Data: list.Agents}, err
}

// chosen is a list with what it was filtered by.
type chosen struct {
	Severity, Status string
	Severities       []string
	List             []serve.Exposure
	More             bool
}

func (s *site) exposures(ctx context.Context, tenant string, r *http.Request) (string, view, error) {
	c := chosen{Severity: r.URL.Query().Get("severity"), Status: r.URL.Query().Get("status"), Severities: []string{"critical", "high", "medium", "low", "info"}}
	if predicate.Severity(c.Severity).Validate() != nil {
		c.Severity = ""
	}
	if c.Status != "open" && c.Status != "resolved" {
		c.Status = ""
	}
	list, err := s.cfg.Service.Exposures(ctx, tenant, c.Severity, c.Status, 0, listShown)
	c.List, c.More = list.Exposures, list.Next > 0
	return "exposures", view{Title: "Exposures", Data: c}, err
}

func (s *site) quarantine(ctx context.Context, tenant string, _ *http.Request) (string, view, error) {
	list, err := s.cfg.Service.Quarantine(ctx, tenant, 0, listShown)
	return "quarantine", view{Title: "Quarantine", Data: list.Refused}, err
}

var functions = template.FuncMap{
	"short":  short,
	"name":   name,
	"bytes":  humanBytes,
	"when":   when,
	"pretty": pretty,
	"share":  share,
}

// short is a digest's beginning.
func short(digest string) string {
	const keep = len("sha256:") + 12
	if len(digest) <= keep {
		return digest
	}
	return digest[:keep] + "…"
}

// name shows a name from outside: keyed ones in short, and what does not print,
// or would turn the writing's direction, as an escape.
func name(s string) string {
	if h, ok := strings.CutPrefix(s, "hmac-sha256:"); ok && len(h) >= 12 {
		return "keyed:" + h[:12]
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) && !unicode.Is(unicode.Bidi_Control, r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
	}
	return b.String()
}

func humanBytes(n uint64) string {
	const unit = 1024
	if n < unit {
		return strconv.FormatUint(n, 10) + " B"
	}
	value, i := float64(n), -1
	for value >= unit {
		value /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[i])
}

func when(t any) string {
	switch t := t.(type) {
	case time.Time:
		return t.UTC().Format("2006-01-02 15:04:05Z")
	case *time.Time:
		if t != nil {
			return when(*t)
		}
	}
	return "never"
}

func pretty(raw json.RawMessage) (string, error) {
	var b bytes.Buffer
	err := json.Indent(&b, raw, "", "  ")
	return b.String(), err
}

// share is part of whole in percent, for an SVG's width.
func share(part, whole uint64) string {
	if whole == 0 {
		return "0"
	}
	return strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 2, 64)
}
