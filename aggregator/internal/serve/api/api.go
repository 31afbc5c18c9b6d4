// Package api is the aggregator's HTTP API, with an OpenAPI 3.1 description that
// is made from the code.
//
// It guarantees that an operation without a declared scope does not exist, that
// the tenant is that of the token and never of the request, and that an answer
// to a failure says what to do and nothing of the inside.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/serve"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 64 << 10

// Config is what the API works with; all of it is required.
type Config struct {
	Service *serve.Service
	Gate    *access.Gate
	Control *control.Store
	// Ready says what keeps the aggregator from doing its work.
	Ready   func(context.Context) error
	Version string
	Log     *slog.Logger
}

// operations registers every operation of the API.
type operations struct {
	cfg Config
	api huma.API
}

// New returns the handler of /v1/, /openapi.json, /openapi.yaml, /healthz and
// /readyz.
func New(cfg Config) (http.Handler, error) {
	if cfg.Service == nil || cfg.Gate == nil || cfg.Control == nil || cfg.Ready == nil || cfg.Log == nil {
		return nil, errors.New("api: service, gate, control store, readiness and logger are all required")
	}
	mux := http.NewServeMux()
	register(cfg, mux)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := cfg.Ready(r.Context()); err != nil {
			cfg.Log.WarnContext(r.Context(), "not ready", slog.Any("error", err))
			http.Error(w, "not ready; the aggregator's log says why", http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return headers(mux), nil
}

// headers are set on every answer.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

func register(cfg Config, mux *http.ServeMux) huma.API {
	c := huma.DefaultConfig("CAVRA", "1")
	c.Info.Description = "The posture of a tenant's models and agents, and the evidence for it."
	c.DocsPath = ""
	c.SchemasPath = ""
	c.CreateHooks = nil
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "An API token. Its tenant is the one that is answered for."},
	}
	o := operations{cfg: cfg, api: humago.New(mux, c)}
	o.posture()
	o.agents()
	o.evidence()
	o.tokens()
	return o.api
}

type principalKey struct{}

// add registers an operation that needs a scope. Without one it would be open,
// so an empty scope lets nobody in.
func add[I, O any](o operations, scope access.Scope, op huma.Operation, handle func(ctx context.Context, p access.Principal, in *I) (*O, error)) {
	op.Security = []map[string][]string{{"token": {}}}
	op.Description += "\n\nNeeds the scope `" + string(scope) + "`."
	op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests)
	op.MaxBodyBytes = maxBody
	op.Middlewares = huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
		p, status, err := o.admit(ctx, scope)
		if err != nil {
			if werr := huma.WriteErr(o.api, ctx, status, err.Error()); werr != nil {
				o.cfg.Log.Warn("cannot write an answer", slog.Any("error", werr))
			}
			return
		}
		next(huma.WithValue(ctx, principalKey{}, p))
	}}
	huma.Register(o.api, op, func(ctx context.Context, in *I) (*O, error) {
		p, ok := ctx.Value(principalKey{}).(access.Principal)
		if !ok {
			return nil, huma.Error401Unauthorized("log in")
		}
		out, err := handle(ctx, p, in)
		if err != nil {
			return nil, o.problem(ctx, err)
		}
		return out, nil
	})
}

// admit finds out who asks, and whether they may.
func (o operations) admit(ctx huma.Context, scope access.Scope) (access.Principal, int, error) {
	r, _ := humago.Unwrap(ctx)
	p, err := o.cfg.Gate.Request(r.Context(), RemoteAddr(r), r)
	switch {
	case errors.Is(err, access.ErrTooManyFailures):
		return p, http.StatusTooManyRequests, errors.New("too many failed logins from this address: wait a minute")
	case errors.Is(err, access.ErrUnauthenticated):
		return p, http.StatusUnauthorized, errors.New("the token is missing or not good: send it as Authorization: Bearer TOKEN")
	case err != nil:
		o.cfg.Log.ErrorContext(r.Context(), "cannot authenticate", slog.Any("error", err))
		return p, http.StatusServiceUnavailable, errors.New("the aggregator cannot look tokens up now: try again")
	case scope == "" || !p.Can(scope):
		return p, http.StatusForbidden, errors.New("the token has not the scope " + string(scope))
	case r.Method != http.MethodGet && r.Header.Get("Authorization") == "":
		// A page of another site must not act with the browser's session.
		return p, http.StatusForbidden, errors.New("changes need a token in the Authorization header")
	}
	return p, 0, nil
}

// RemoteAddr is where a request comes from, for counting failures.
func RemoteAddr(r *http.Request) netip.Addr {
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

// problem chooses the status of an error, here and nowhere else.
func (o operations) problem(ctx context.Context, err error) error {
	var chosen huma.StatusError
	switch {
	case errors.As(err, &chosen):
		return chosen
	case errors.Is(err, serve.ErrNotFound), errors.Is(err, control.ErrNotFound):
		return huma.Error404NotFound("this tenant has no such thing")
	case errors.Is(err, serve.ErrCursor):
		return huma.Error422UnprocessableEntity(serve.ErrCursor.Error())
	case errors.Is(err, control.ErrExists):
		return huma.Error409Conflict("the name is taken: choose another, or revoke that one first")
	case errors.Is(err, access.ErrForbidden):
		return huma.Error403Forbidden("nobody can give away a scope that they have not")
	}
	o.cfg.Log.ErrorContext(ctx, "cannot answer", slog.Any("error", err))
	return huma.NewError(http.StatusServiceUnavailable, "the aggregator cannot answer now: try again, and look into its log")
}

// body is an answer with a JSON document.
type body[T any] struct{ Body T }

func get(id, path, summary, description, tag string) huma.Operation {
	return huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Description: description, Tags: []string{tag}}
}

// after is the moment so many seconds from now.
func after(seconds int64) time.Time { return time.Now().Add(time.Duration(seconds) * time.Second) }
