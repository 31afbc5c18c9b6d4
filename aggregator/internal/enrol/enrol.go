// Package enrol serves the enrolment of agents: a one-time join token and a
// public key in, an identity, the way to the topic and a first certificate out.
// It takes them away again when an agent is revoked.
//
// It guarantees that a token buys one key, that the key is held by whoever
// presents it, that a lost answer can be asked for again with the same token and
// key, and that nobody learns from an answer whether a token ever existed.
package enrol

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/control"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/enrol/v1/enrolv1connect"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

// The limits on a request.
const (
	// MaxRequest bounds a request, in bytes; a real one has some 300.
	MaxRequest = 8 << 10
	// Timeout bounds one enrolment, the waiting for its turn included.
	Timeout  = 30 * time.Second
	maxProof = 256
)

// mechanism is what KafkaAccess provisions.
const mechanism = "scram-sha-256"

// proofPrefix stands before the join token in what the key signs, so that the
// signature is good for nothing else.
const proofPrefix = "cavra-enrol-v1\n"

// Proof is what an agent's key signs in order to be enrolled with a token.
func Proof(joinToken string) []byte { return []byte(proofPrefix + joinToken) }

// KafkaAccess is what agents may do on the brokers.
type KafkaAccess interface {
	// EnsureAgent lets an agent write to the statements' topic and nothing else,
	// with SCRAM-SHA-256 and the given password. Called again it replaces the
	// password.
	EnsureAgent(ctx context.Context, username, password string) error
	// RevokeAgent takes the rights and the login away. It is no error when there
	// are none.
	RevokeAgent(ctx context.Context, username string) error
}

func (s *Service) redeem(ctx context.Context, token control.Hash, key identity.PublicKey, c *control.Certificate) (control.Enrolment, error) {
	if c == nil {
		return s.cfg.Store.RedeemJoinToken(ctx, token, key)
	}
	return s.cfg.Store.RedeemCertified(ctx, token, key, *c)
}

// Certifier certifies the key of an agent's connections.
type Certifier interface {
	// First gives an agent its first certificate, and the same again for the same
	// key.
	First(ctx context.Context, tenant, agent string, key identity.PublicKey) (*enrolv1.AgentAccess, error)
	// Again gives a certificate, to be confirmed, to an agent that has shown its
	// enrolled key.
	Again(ctx context.Context, r Returning) (*enrolv1.AgentAccess, error)
}

// Challenges are what somebody signs who comes without a token.
type Challenges interface {
	Make(purpose string) (string, error)
	// Check reports whether one is good, and Spend takes it, once.
	Check(purpose, challenge string) error
	Spend(ctx context.Context, purpose, challenge string) error
}

// Cluster is the way to the topic, as agents see it.
type Cluster struct {
	Brokers []string
	Topic   string
	TLS     bool
	// CAPEM is the certificate authority of the brokers, PEM; empty for the
	// system's own.
	CAPEM string
}

// Config says what the service works with.
type Config struct {
	Store   *control.Store
	Kafka   KafkaAccess
	Cluster Cluster
	// Certifier and Challenges are nil where there is no service for agents.
	Certifier  Certifier
	Challenges Challenges
	// AWS says who signed a request; nil where nobody joins by that.
	AWS AWS
	Log *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Service is the enrolment service.
type Service struct {
	cfg Config
	// turns let one enrolment of an agent provision at a time: of two answers to
	// the same agent, the one sent last holds the password that was set last.
	// Agents share them by their hash, so that there is a bound.
	turns [turns]chan struct{}
}

// turns is how many enrolments provision at a time.
const turns = 128

// New checks the configuration.
func New(cfg Config) (*Service, error) {
	switch {
	case cfg.Store == nil || cfg.Kafka == nil || cfg.Log == nil:
		return nil, errors.New("enrolment: store, Kafka access and log are required")
	case len(cfg.Cluster.Brokers) == 0 || cfg.Cluster.Topic == "":
		return nil, errors.New("enrolment: set the brokers' addresses, as agents reach them, and the topic")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Service{cfg: cfg}
	for i := range s.turns {
		s.turns[i] = make(chan struct{}, 1)
	}
	return s, nil
}

// Handler returns the path to mount the service at, and its handler.
func (s *Service) Handler() (string, http.Handler) {
	path, h := enrolv1connect.NewEnrolmentServiceHandler(s,
		connect.WithReadMaxBytes(MaxRequest),
		// A request is small; what would be compressed is hostile.
		connect.WithCompression("gzip", nil, nil))
	return path, http.MaxBytesHandler(h, MaxRequest)
}

// Enrol implements the service.
func (s *Service) Enrol(ctx context.Context, req *connect.Request[enrolv1.EnrolRequest]) (*connect.Response[enrolv1.EnrolResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	token, key, err := check(req.Msg)
	if err != nil {
		return nil, err
	}
	cert, err := s.certificate(ctx, req.Msg, key)
	if err != nil {
		return nil, err
	}
	tlsKey, err := checkTLSKey(req.Msg.GetTlsKey(), identity.AtEnrolment, req.Msg.GetJoinToken(), key)
	if err != nil {
		return nil, err
	}
	e, err := s.redeem(ctx, token, key, cert)
	if err != nil {
		s.noteToken(ctx, token, key, req.Peer().Addr, err)
		return nil, s.refuse(ctx, err)
	}
	leave, err := s.enter(ctx, e.Tenant, e.Agent)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("too many enrolments at once: try again with the same token and key"))
	}
	defer leave()
	kafka, err := s.provision(ctx, e, key)
	if errors.Is(err, errReplaced) {
		return nil, s.refuse(ctx, control.ErrTokenUsed)
	}
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "enrolment stopped short of Kafka access",
			slog.String("tenant", e.Tenant), slog.String("agent", e.Agent), slog.Any("error", err))
		return nil, connect.NewError(connect.CodeUnavailable,
			errors.New("the key is enrolled, but access to Kafka could not be set up: try again with the same token and key; the aggregator's log says what is wrong"))
	}
	service, err := s.certify(ctx, e, tlsKey)
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "enrolment stopped short of the certificate",
			slog.String("tenant", e.Tenant), slog.String("agent", e.Agent), slog.Any("error", err))
		return nil, connect.NewError(connect.CodeUnavailable,
			errors.New("the key is enrolled, but it could not be given a certificate: try again with the same token and keys; the aggregator's log says what is wrong"))
	}
	s.cfg.Log.InfoContext(ctx, "agent enrolled", slog.String("tenant", e.Tenant), slog.String("agent", e.Agent),
		slog.Uint64("epoch", e.Epoch), slog.String("key", string(key.ID())), slog.String("version", req.Msg.GetAgentVersion()))
	return connect.NewResponse(&enrolv1.EnrolResponse{
		Tenant: e.Tenant, Agent: e.Agent, Epoch: e.Epoch, EpochCause: string(e.Cause), Kafka: kafka, Service: service,
	}), nil
}

// certify gives the first certificate; nil where none was asked for or there is
// nothing to call with it.
func (s *Service) certify(ctx context.Context, e control.Enrolment, key *identity.PublicKey) (*enrolv1.AgentAccess, error) {
	if s.cfg.Certifier == nil || key == nil {
		return nil, nil //nolint:nilnil // an answer without a certificate is a whole one
	}
	return s.cfg.Certifier.First(ctx, e.Tenant, e.Agent, *key)
}

// checkTLSKey is the key to certify, which its own signature and that of the
// enrolled key speak for; nil where there is none.
func checkTLSKey(m *enrolv1.TLSKey, purpose identity.Purpose, context string, enrolled identity.PublicKey) (*identity.PublicKey, error) {
	if m == nil {
		return nil, nil //nolint:nilnil // agents of before have none
	}
	key, err := identity.ParsePublicKey(predicate.ECDSAP256, m.GetPublicKey())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("tls_key: %w", err))
	}
	bound := identity.Binding(purpose, context, enrolled.ID(), key)
	if len(m.GetProof()) > maxProof || !key.Verify(bound, m.GetProof()) {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("tls_key: the proof is not this key's signature over this request"))
	}
	if len(m.GetConsent()) > maxProof || !enrolled.Verify(bound, m.GetConsent()) {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("tls_key: the consent is not the enrolled key's signature over this request"))
	}
	return &key, nil
}

// check is everything that can be said of a request without the store.
func check(m *enrolv1.EnrolRequest) (control.Hash, identity.PublicKey, error) {
	invalid := func(format string, args ...any) (control.Hash, identity.PublicKey, error) {
		return control.Hash{}, identity.PublicKey{}, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf(format, args...))
	}
	token, err := access.Parse(access.KindJoin, m.GetJoinToken())
	if err != nil {
		return invalid("the join token is not one, or was damaged when it was copied: it starts with cavra_join_; copy it again, whole")
	}
	if err := predicate.ValidateID(m.GetAgentVersion()); err != nil {
		return invalid("agent_version: %w", err)
	}
	key, err := identity.ParsePublicKey(predicate.Algorithm(m.GetAlgorithm()), m.GetPublicKey())
	if err != nil {
		return invalid("public_key: %w: send an ed25519 or a P-256 key in PKIX DER and name its algorithm", err)
	}
	if len(m.GetProof()) > maxProof || !key.Verify(Proof(m.GetJoinToken()), m.GetProof()) {
		return invalid("proof: it is not this key's signature over this join token: sign %q and the token with the private key", proofPrefix)
	}
	return token, key, nil
}

// refuse chooses the answer to a token that was not redeemed. What is wrong with
// the token only the log says.
func (s *Service) refuse(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, control.ErrTokenUnknown), errors.Is(err, control.ErrTokenExpired), errors.Is(err, control.ErrTokenUsed):
		s.cfg.Log.WarnContext(ctx, "enrolment refused", slog.Any("error", err))
		return connect.NewError(connect.CodeUnauthenticated,
			errors.New("the join token is not good: it is not known, has expired, or was used with another key; ask an administrator for a new one"))
	case errors.Is(err, control.ErrKeyKnown):
		return connect.NewError(connect.CodeAlreadyExists,
			errors.New("this key is enrolled already, and every enrolment needs a key of its own: make a new key and try again with the same token"))
	}
	s.cfg.Log.ErrorContext(ctx, "enrolment failed", slog.Any("error", err))
	code, text := connect.CodeInternal, "the aggregator could not enrol the agent; its log says why"
	if control.Retryable(err) || ctx.Err() != nil {
		code, text = connect.CodeUnavailable, "the aggregator's store does not answer just now: try again with the same token and key"
	}
	return connect.NewError(code, errors.New(text))
}

func (s *Service) provision(ctx context.Context, e control.Enrolment, key identity.PublicKey) (*enrolv1.KafkaAccess, error) {
	// While this waited its turn, another key may have followed, whose password
	// must not be replaced.
	if k, err := s.cfg.Store.KeyByID(ctx, key.ID()); err != nil {
		return nil, err
	} else if k.Status != control.Active {
		return nil, errReplaced
	}
	var random [32]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("make password: %w", err)
	}
	username, password := Username(e.Tenant, e.Agent), base64.RawURLEncoding.EncodeToString(random[:])
	if err := s.cfg.Kafka.EnsureAgent(ctx, username, password); err != nil {
		return nil, err
	}
	// Another aggregator may have revoked it since the token was redeemed, and
	// have been quicker on Kafka.
	switch a, err := s.cfg.Store.Agent(ctx, e.Tenant, e.Agent); {
	case err != nil:
		return nil, err
	case a.Status == control.Revoked:
		return nil, errors.Join(errRevoked, s.cfg.Kafka.RevokeAgent(ctx, username))
	}
	c := s.cfg.Cluster
	return &enrolv1.KafkaAccess{
		Brokers: c.Brokers, Topic: c.Topic, Mechanism: mechanism, Username: username, Password: password, CaPem: c.CAPEM, Tls: c.TLS,
	}, nil
}

// errReplaced says that the key is not the agent's any more.
var errReplaced = errors.New("the key has been replaced or revoked meanwhile")

// errRevoked says that an agent was revoked while it was being enrolled.
var errRevoked = errors.New("the agent has been revoked meanwhile")

// Username is an agent's name on the brokers. Agents' identifiers, which the
// control store makes, have no hyphen, so that no two agents share one.
func Username(tenant, agent string) string { return "agent-" + tenant + "-" + agent }
