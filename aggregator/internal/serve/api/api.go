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
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
)

// The limits of a request: its body in bytes, and how long an answer may take.
const (
	maxBody        = 64 << 10
	requestTimeout = 60 * time.Second
)

// Config is what the API works with; all of it is required.
type Config struct {
	Service *serve.Service
	Gate    *access.Gate
	Control *control.Store
	Agents  Agents
	// Ready says what keeps the aggregator from doing its work.
	Ready   func(context.Context) error
	Version string
	Log     *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Agents ends agents: their keys and their access to Kafka.
type Agents interface {
	Revoke(ctx context.Context, tenant, agent string) error
}

// operations registers every operation of the API.
type operations struct {
	cfg Config
	api huma.API
	// faults are what is wrong with the registrations.
	faults *[]error
}

// New returns the handler of /v1/, and without a login of /openapi.json, /openapi.yaml, /healthz and
// /readyz.
func New(cfg Config) (http.Handler, error) {
	if cfg.Service == nil || cfg.Gate == nil || cfg.Control == nil || cfg.Agents == nil || cfg.Ready == nil || cfg.Log == nil {
		return nil, errors.New("api: service, gate, control store, agents, readiness and logger are all required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	mux := http.NewServeMux()
	described, err := register(cfg, mux)
	if err != nil {
		return nil, err
	}
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) {
		unknown(described, w, r)
	})
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

// unknown answers for every path and method that is no operation.
func unknown(described huma.API, w http.ResponseWriter, r *http.Request) {
	ctx := humago.NewContext(&huma.Operation{}, r, w)
	// What cannot be sent has nobody to read it.
	_ = huma.WriteErr(described, ctx, http.StatusNotFound, "there is no such operation: /openapi.json lists those that there are")
}

// headers are set on every answer, and every request has its bounds.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// The names of the two ways in, as the description gives them.
const (
	byToken   = "token"
	bySession = "session"
)

func register(cfg Config, mux *http.ServeMux) (huma.API, error) {
	c := huma.DefaultConfig("CAVRA", "1")
	c.Info.Description = "The posture of a tenant's models and agents, and the evidence for it."
	c.DocsPath = ""
	c.SchemasPath = ""
	c.CreateHooks = nil
	// A filter that is mistyped must not be a filter that is not there.
	c.RejectUnknownQueryParameters = true
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		byToken:   {Type: "http", Scheme: "bearer", Description: "An API token. Its tenant is the one that is answered for."},
		bySession: {Type: "apiKey", In: "cookie", Name: "__Host-cavra-session", Description: "The page's session; without TLS its name is cavra-session. For a change the browser has to say that the request comes from this site (Sec-Fetch-Site: same-origin)."},
	}
	o := operations{cfg: cfg, api: humago.New(mux, c), faults: new([]error)}
	o.posture()
	o.agents()
	o.fleet()
	o.evidence()
	o.log()
	o.ingest()
	o.tokens()
	o.awsRules()
	exact(c.Components.Schemas)
	return o.api, errors.Join(*o.faults...)
}

// exact says of the lists that they are never null: an empty one is [].
func exact(schemas huma.Registry) {
	for _, document := range schemas.Map() {
		for _, member := range document.Properties {
			if member.Type == huma.TypeArray {
				member.Nullable = false
			}
		}
	}
}

type principalKey struct{}

// add registers an operation that needs a scope. One whose scope is not of the
// vocabulary is not registered, and no API is made.
func add[I, O any](o operations, scope access.Scope, op huma.Operation, handle func(ctx context.Context, p access.Principal, in *I) (*O, error)) {
	if _, err := access.ParseScope(string(scope)); err != nil {
		*o.faults = append(*o.faults, fmt.Errorf("api: operation %s: %w", op.OperationID, err))
		return
	}
	scopes := []string{string(scope)}
	op.Security = []map[string][]string{{byToken: scopes}, {bySession: scopes}}
	op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable)
	if strings.Contains(op.Path, "{") {
		op.Errors = append(op.Errors, http.StatusNotFound)
	}
	op.MaxBodyBytes = maxBody
	op.Middlewares = huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
		p, status, err := o.admit(ctx, scope)
		if err != nil {
			if werr := huma.WriteErr(o.api, ctx, status, err.Error()); werr != nil {
				o.cfg.Log.WarnContext(ctx.Context(), "cannot write an answer", slog.Any("error", werr))
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
		ctx.SetHeader("Retry-After", "60")
		return p, http.StatusTooManyRequests, errors.New("too many failed logins from this address: wait a minute")
	case errors.Is(err, access.ErrUnauthenticated):
		ctx.SetHeader("WWW-Authenticate", `Bearer realm="cavra"`)
		return p, http.StatusUnauthorized, errors.New("the token is missing or not good: send it as Authorization: Bearer TOKEN")
	case errors.Is(err, access.ErrForbidden):
		return p, http.StatusForbidden, errors.New("a session's cookie changes things only from this site's own pages: send a token as Authorization: Bearer TOKEN")
	case err != nil:
		o.cfg.Log.ErrorContext(r.Context(), "cannot authenticate", slog.Any("error", err))
		return p, http.StatusServiceUnavailable, errors.New("the aggregator cannot look tokens up now: try again")
	case !p.Can(scope):
		return p, http.StatusForbidden, errors.New("the token has not the scope " + string(scope) + ": use one that has")
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
	var settings *serve.SettingsError
	switch {
	case errors.As(err, &chosen):
		return chosen
	case errors.As(err, &settings):
		return huma.Error422UnprocessableEntity("settings: " + settings.Error())
	case errors.Is(err, serve.ErrNoLog):
		return huma.Error404NotFound(serve.ErrNoLog.Error())
	case errors.Is(err, serve.ErrLogRange):
		return huma.Error422UnprocessableEntity(serve.ErrLogRange.Error())
	case errors.Is(err, serve.ErrNotFound), errors.Is(err, control.ErrNotFound):
		return huma.Error404NotFound("this tenant has no such thing")
	case errors.Is(err, serve.ErrCursor):
		return huma.Error422UnprocessableEntity(serve.ErrCursor.Error())
	case errors.Is(err, control.ErrExists):
		return huma.Error409Conflict("the name is taken: choose another, or revoke that one first")
	case errors.Is(err, access.ErrForbidden):
		return huma.Error403Forbidden("nobody can give away a scope that they have not: leave it out, or use a token that has it")
	case errors.Is(err, serve.ErrNothingToGiveUp):
		return huma.Error409Conflict(serve.ErrNothingToGiveUp.Error() + ": look at GET /v1/ingest, of the aggregator that has the partition")
	case errors.Is(err, serve.ErrNotOperator):
		return huma.Error403Forbidden(serve.ErrNotOperator.Error())
	case errors.Is(err, attest.ErrBadSignature), errors.Is(err, predicate.ErrNotCanonical):
		o.cfg.Log.ErrorContext(ctx, "a stored statement does not verify", slog.Any("error", err))
		return huma.Error500InternalServerError("the stored envelope does not verify against the key that it was admitted with: do not rely on it, and tell whoever runs this aggregator")
	case errors.Is(err, context.DeadlineExceeded):
		return huma.Error503ServiceUnavailable("the answer takes too long: ask for less at a time, or try again")
	case errors.Is(err, context.Canceled):
		return huma.Error503ServiceUnavailable("the request was given up")
	}
	o.cfg.Log.ErrorContext(ctx, "cannot answer", slog.Any("error", err))
	return huma.NewError(http.StatusServiceUnavailable, "the aggregator cannot answer now: try again, and look into its log")
}

// body is an answer with a JSON document.
type body[T any] struct{ Body T }

func get(id, path, summary, description, tag string) huma.Operation {
	return huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Description: description, Tags: []string{tag}}
}
