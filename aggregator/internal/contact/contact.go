// Package contact is the service that agents call over mutual TLS: they check
// in, and get another certificate before theirs ends.
//
// It guarantees that who calls is what the certificate and the control store say
// together, never a message; that an agent or a certificate which is revoked is
// refused from the next call on, on connections that are open as well; and that
// whichever answer is lost, asking again leads on.
package contact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"github.com/cavra/cavra/aggregator/internal/ca"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/enrol"
	agentv1 "github.com/cavra/cavra/schemas/gen/cavra/agent/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/agent/v1/agentv1connect"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

// The limits on a request.
const (
	// MaxRequest bounds a request, in bytes; a real one has some 300.
	MaxRequest = 8 << 10
	// Timeout bounds one call.
	Timeout  = 15 * time.Second
	maxProof = 256
)

const (
	// Overlap is how long a certificate is taken after another has followed it.
	Overlap = 5 * time.Minute
	// SkewTolerance is how far an agent's clock may be off before it is shown.
	SkewTolerance = 2 * time.Minute
)

// Configurer signs what administrators set on agents.
type Configurer interface {
	// Key is the public key that agents believe, in PKIX DER.
	Key() ([]byte, error)
	// For is the document that an agent lacks, which has one of a version that
	// ends at a moment; nil where it lacks none.
	For(ctx context.Context, tenant, agent string, version uint64, end time.Time) ([]byte, error)
}

// Config says what the service works with.
type Config struct {
	Store     *control.Store
	Authority *ca.Authority
	// Address is the host:port that agents are given.
	Address string
	// Configure is nil where agents are not configured from here.
	Configure Configurer
	Log       *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Service is the agents' service.
type Service struct {
	cfg    Config
	recent recent
}

// New checks the configuration.
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Authority == nil || cfg.Address == "" || cfg.Log == nil {
		return nil, errors.New("agents' service: store, authority, address and log are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg, recent: recent{said: map[who]said{}}}, nil
}

// Handler returns the path to mount the service at, and its handler. It serves
// behind the authority's TLS configuration and nowhere else.
func (s *Service) Handler() (string, http.Handler) {
	path, h := agentv1connect.NewAgentServiceHandler(s, Options()...)
	return path, s.Admit(h)
}

// Options are those of every service that agents call here.
func Options() []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithReadMaxBytes(MaxRequest),
		// A request is small; what would be compressed is hostile.
		connect.WithCompression("gzip", nil, nil),
	}
}

// Agent is who calls.
type Agent struct {
	Tenant, ID string
	// Address is where the call comes from.
	Address string
	// Certificate is the one that the call is made with.
	Certificate control.ClientCertificate
}

type agentKey struct{}

// Caller is the agent that a call comes from; false where nobody was admitted.
func Caller(ctx context.Context) (Agent, bool) {
	a, ok := ctx.Value(agentKey{}).(Agent)
	return a, ok
}

// Admit lets calls through that are made with a certificate which is good, and
// one that waits to be confirmed for that call alone. It looks each call up: what
// was revoked a moment ago is refused.
func (s *Service) Admit(next http.Handler) http.Handler {
	next = http.MaxBytesHandler(next, MaxRequest)
	refused := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), Timeout)
		defer cancel()
		a, err := s.admit(ctx, r)
		if err != nil {
			// What cannot be sent has nobody to read it.
			_ = refused.Write(w, r, s.refuse(ctx, r, a, err))
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(ctx, agentKey{}, a)))
	})
}

var (
	errNoCertificate = errors.New("no certificate")
	errOtherAgent    = errors.New("the certificate is not the one that was given")
)

func (s *Service) admit(ctx context.Context, r *http.Request) (Agent, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return Agent{}, errNoCertificate
	}
	leaf := r.TLS.VerifiedChains[0][0]
	c, err := s.cfg.Store.ClientCertificate(ctx, leaf.SerialNumber.Bytes())
	if err != nil {
		return Agent{}, err
	}
	a := Agent{Tenant: c.Tenant, ID: c.Agent, Address: enrol.Host(r.RemoteAddr), Certificate: c}
	if !bytes.Equal(leaf.Raw, c.DER) || !s.cfg.Authority.IsAgent(leaf, c.Tenant, c.Agent) {
		return a, errOtherAgent
	}
	if err := c.Good(s.cfg.Now()); !errors.Is(err, control.ErrUnconfirmed) || r.URL.Path != agentv1connect.AgentServiceConfirmProcedure {
		return a, err
	}
	return a, nil
}

// refuse chooses the answer. Whether to come back by the enrolled key, the code
// says: unauthenticated is a certificate that is no good, permission denied an
// agent that is revoked.
func (s *Service) refuse(ctx context.Context, r *http.Request, a Agent, err error) *connect.Error {
	log := func(level slog.Level, text string) {
		s.cfg.Log.Log(ctx, level, text, slog.String("tenant", a.Tenant), slog.String("agent", a.ID),
			slog.String("from", r.RemoteAddr), slog.Any("error", err))
	}
	switch {
	case errors.Is(err, control.ErrRevoked), errors.Is(err, control.ErrOvertaken):
		s.odd(ctx, a, err)
	}
	switch {
	case errors.Is(err, control.ErrRevoked):
		log(slog.LevelWarn, "a revoked agent called")
		return connect.NewError(connect.CodePermissionDenied, errors.New("this agent, or its certificate, is revoked"))
	case errors.Is(err, control.ErrNotFound), errors.Is(err, control.ErrExpired), errors.Is(err, control.ErrOvertaken),
		errors.Is(err, control.ErrUnconfirmed), errors.Is(err, errNoCertificate), errors.Is(err, errOtherAgent):
		log(slog.LevelWarn, "a call with a certificate that is no good")
		return connect.NewError(connect.CodeUnauthenticated, errors.New("the certificate is not good any more, or not yet: come back by the enrolled key"))
	}
	log(slog.LevelError, "cannot look a certificate up")
	return connect.NewError(connect.CodeUnavailable, errors.New("the aggregator's store does not answer just now: try again"))
}

// CheckIn implements the service.
func (s *Service) CheckIn(ctx context.Context, req *connect.Request[agentv1.CheckInRequest]) (*connect.Response[agentv1.CheckInResponse], error) {
	a, ok := Caller(ctx)
	if !ok {
		return nil, unauthenticated()
	}
	if err := errors.Join(predicate.ValidateID(req.Msg.GetAgentVersion()), predicate.ValidateID(req.Msg.GetInstance())); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	now := s.cfg.Now()
	c := a.Certificate
	out := &agentv1.CheckInResponse{
		ServerTime: now.UnixMilli(), NotAfter: c.ExpiresAt.UnixMilli(),
		Renew: c.Status == control.Active && c.ExpiresAt.Sub(now) < c.ExpiresAt.Sub(c.IssuedAt)/2,
	}
	skew := skewOf(req.Msg.GetClock(), now)
	cloned := s.seen(ctx, a, call{instance: req.Msg.GetInstance(), version: req.Msg.GetAgentVersion(), skew: skew})
	if skew.Abs() > SkewTolerance {
		out.Problems = append(out.Problems, &agentv1.Problem{Kind: string(control.ClockSkew), Text: describeSkew(skew)})
	}
	if cloned {
		out.Problems = append(out.Problems, &agentv1.Problem{Kind: string(control.Cloned), Text: "another process calls with this agent's identity as well: it was copied"})
	}
	if m := req.Msg; m.GetConfigurable() && s.cfg.Configure != nil {
		var err error
		out.Configuration, err = s.cfg.Configure.For(ctx, a.Tenant, a.ID, m.GetConfigurationVersion(), time.UnixMilli(m.GetConfigurationEnd()))
		if err != nil {
			return nil, s.fail(ctx, a, "configure", err)
		}
	}
	return connect.NewResponse(out), nil
}

func unauthenticated() error {
	return connect.NewError(connect.CodeUnauthenticated, errors.New("no agent"))
}

// skewOf is how far an agent's clock is ahead. What is past a lifetime counts as
// one: it is the agent's word.
func skewOf(clock int64, now time.Time) time.Duration {
	const most = int64(100 * 365 * 24 * time.Hour / time.Millisecond)
	ms := clock - now.UnixMilli()
	if clock < 0 || clock > math.MaxInt64/2 {
		ms = most
	}
	return time.Duration(max(-most, min(ms, most))) * time.Millisecond
}

func describeSkew(d time.Duration) string {
	side := "ahead"
	if d < 0 {
		side = "behind"
	}
	return fmt.Sprintf("the agent's clock is %s %s", d.Abs().Round(time.Second), side)
}

// Renew implements the service.
func (s *Service) Renew(ctx context.Context, req *connect.Request[agentv1.RenewRequest]) (*connect.Response[agentv1.RenewResponse], error) {
	a, ok := Caller(ctx)
	if !ok {
		return nil, unauthenticated()
	}
	if err := predicate.ValidateID(req.Msg.GetInstance()); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	s.seen(ctx, a, call{instance: req.Msg.GetInstance()})
	if a.Certificate.Status != control.Active {
		s.overtaken(ctx, a, req.Msg.GetInstance())
		return nil, connect.NewError(connect.CodeAborted, errors.New("another certificate has followed this one: renew by that, or come back by the enrolled key"))
	}
	key, err := identity.ParsePublicKey(predicate.ECDSAP256, req.Msg.GetPublicKey())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("public_key: %w", err))
	}
	if req.Msg.GetGeneration() != a.Certificate.Generation {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("generation: the certificate is of generation %d", a.Certificate.Generation))
	}
	generation := strconv.FormatUint(req.Msg.GetGeneration(), 10)
	if len(req.Msg.GetProof()) > maxProof || !key.Verify(identity.Binding(identity.AtRenewal, generation, "", key), req.Msg.GetProof()) {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("proof: it is not this key's signature"))
	}
	c, err := s.candidate(ctx, a.Tenant, a.ID, key)
	if err != nil {
		return nil, s.fail(ctx, a, "renew", err)
	}
	return connect.NewResponse(&agentv1.RenewResponse{Certificate: c.DER, CaPem: s.cfg.Authority.Bundle()}), nil
}

// First implements enrol.Certifier.
func (s *Service) First(ctx context.Context, tenant, agent string, key identity.PublicKey) (*enrolv1.AgentAccess, error) {
	c, err := s.issue(tenant, agent, key)
	if err != nil {
		return nil, err
	}
	if c, err = s.cfg.Store.AddFirstCertificate(ctx, c); err != nil {
		return nil, err
	}
	return s.access(c)
}

// access is what an agent is told of the service, with its certificate.
func (s *Service) access(c control.ClientCertificate) (*enrolv1.AgentAccess, error) {
	out := &enrolv1.AgentAccess{
		Address: s.cfg.Address, ServerName: s.cfg.Authority.ServerName(), CaPem: s.cfg.Authority.Bundle(),
		Certificate: c.DER, Generation: c.Generation,
	}
	var err error
	if s.cfg.Configure != nil {
		out.ConfigurationKey, err = s.cfg.Configure.Key()
	}
	return out, err
}

// Again implements enrol.Certifier.
func (s *Service) Again(ctx context.Context, r enrol.Returning) (*enrolv1.AgentAccess, error) {
	if err := s.returned(ctx, r); err != nil {
		return nil, err
	}
	c, err := s.candidate(ctx, r.Tenant, r.Agent, r.Key)
	if err != nil {
		return nil, err
	}
	return s.access(c)
}

// candidate certifies a key that its agent has yet to call with.
func (s *Service) candidate(ctx context.Context, tenant, agent string, key identity.PublicKey) (control.ClientCertificate, error) {
	c, err := s.issue(tenant, agent, key)
	if err != nil {
		return control.ClientCertificate{}, err
	}
	return s.cfg.Store.AddCandidate(ctx, c)
}

func (s *Service) issue(tenant, agent string, key identity.PublicKey) (control.ClientCertificate, error) {
	issued, err := s.cfg.Authority.Issue(tenant, agent, enrol.Username(tenant, agent), key)
	if err != nil {
		return control.ClientCertificate{}, err
	}
	return control.ClientCertificate{
		Serial: issued.Serial, Tenant: tenant, Agent: agent, KeyID: key.ID(), ExpiresAt: issued.NotAfter, DER: issued.DER,
	}, nil
}

// Confirm implements the service.
func (s *Service) Confirm(ctx context.Context, req *connect.Request[agentv1.ConfirmRequest]) (*connect.Response[agentv1.ConfirmResponse], error) {
	a, ok := Caller(ctx)
	if !ok {
		return nil, unauthenticated()
	}
	if err := predicate.ValidateID(req.Msg.GetInstance()); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	s.seen(ctx, a, call{instance: req.Msg.GetInstance()})
	c, err := s.cfg.Store.ConfirmCertificate(ctx, a.Certificate.Serial, Overlap)
	if errors.Is(err, control.ErrOvertaken) {
		s.overtaken(ctx, a, req.Msg.GetInstance())
	}
	if err != nil {
		return nil, s.fail(ctx, a, "confirm", err)
	}
	return connect.NewResponse(&agentv1.ConfirmResponse{Generation: c.Generation}), nil
}

// fail chooses the answer to what the store refused.
func (s *Service) fail(ctx context.Context, a Agent, what string, err error) error {
	switch {
	case errors.Is(err, control.ErrRevoked):
		return connect.NewError(connect.CodePermissionDenied, errors.New("this agent is revoked"))
	case errors.Is(err, control.ErrOvertaken):
		s.cfg.Log.WarnContext(ctx, "a certificate was overtaken by another", slog.String("tenant", a.Tenant), slog.String("agent", a.ID))
		return connect.NewError(connect.CodeAborted, errors.New("another certificate has followed: come back by the enrolled key"))
	case errors.Is(err, control.ErrKeyKnown):
		return connect.NewError(connect.CodeAlreadyExists, errors.New("the key has had a certificate: make another"))
	}
	s.cfg.Log.ErrorContext(ctx, "cannot answer an agent", slog.String("call", what), slog.String("tenant", a.Tenant), slog.String("agent", a.ID), slog.Any("error", err))
	code, text := connect.CodeInternal, "the aggregator could not do it; its log says why"
	if control.Retryable(err) || ctx.Err() != nil {
		code, text = connect.CodeUnavailable, "the aggregator's store does not answer just now: try again"
	}
	return connect.NewError(code, errors.New(text))
}
