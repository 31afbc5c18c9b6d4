package enrol

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"connectrpc.com/connect"

	"github.com/cavra/cavra/aggregator/internal/challenge"
	"github.com/cavra/cavra/aggregator/internal/control"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

// purposeReturn is what a challenge is for that an agent comes back by.
const purposeReturn = "return"

// maxSerial bounds a certificate's serial number, in bytes.
const maxSerial = 20

// Returning is an agent that has shown its enrolled key.
type Returning struct {
	Tenant, Agent string
	// Key is the one to certify.
	Key identity.PublicKey
	// Generation is that of its last certificate, by its own word, and Candidate
	// the serial number of one that it may have confirmed.
	Generation uint64
	Candidate  []byte
	Instance   string
	Address    string
}

var errNoService = connect.NewError(connect.CodeUnimplemented, errors.New("this aggregator has no service for agents"))

// Challenge implements the service.
func (s *Service) Challenge(_ context.Context, req *connect.Request[enrolv1.ChallengeRequest]) (*connect.Response[enrolv1.ChallengeResponse], error) {
	if s.cfg.Challenges == nil {
		return nil, errNoService
	}
	if p := req.Msg.GetPurpose(); p != purposeReturn && p != purposeAWS {
		return nil, invalid("purpose: want %q or %q", purposeReturn, purposeAWS)
	}
	c, err := s.cfg.Challenges.Make(req.Msg.GetPurpose())
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, errors.New("the aggregator could not make a challenge"))
	}
	return connect.NewResponse(&enrolv1.ChallengeResponse{Challenge: c}), nil
}

// Return implements the service.
func (s *Service) Return(ctx context.Context, req *connect.Request[enrolv1.ReturnRequest]) (*connect.Response[enrolv1.ReturnResponse], error) {
	if s.cfg.Certifier == nil || s.cfg.Challenges == nil {
		return nil, errNoService
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	m := req.Msg
	id := predicate.Digest(m.GetKeyId())
	if err := errors.Join(id.Validate(), predicate.ValidateID(m.GetInstance())); err != nil || len(m.GetCandidate()) > maxSerial {
		return nil, invalid("key_id, instance or candidate is not one: %w", err)
	}
	// A challenge that is none of ours asks nothing of the store.
	if err := s.cfg.Challenges.Check(purposeReturn, m.GetChallenge()); err != nil {
		return nil, s.refuseReturn(ctx, id, err)
	}
	key, err := s.enrolled(ctx, id)
	if err != nil {
		return nil, s.refuseReturn(ctx, id, err)
	}
	said := identity.ReturnContext(m.GetChallenge(), m.GetGeneration(), m.GetCandidate(), m.GetInstance())
	tlsKey, err := checkTLSKey(m.GetTlsKey(), identity.AtReturn, said, key.Public)
	if err != nil {
		return nil, err
	}
	if tlsKey == nil {
		return nil, invalid("tls_key: there is none")
	}
	// Only now, so that nobody but the key's holder can use a challenge up.
	if err := s.cfg.Challenges.Spend(ctx, purposeReturn, m.GetChallenge()); err != nil {
		return nil, s.refuseReturn(ctx, id, err)
	}
	service, err := s.cfg.Certifier.Again(ctx, Returning{
		Tenant: key.Tenant, Agent: key.Agent, Key: *tlsKey, Generation: m.GetGeneration(), Candidate: m.GetCandidate(),
		Instance: m.GetInstance(), Address: Host(req.Peer().Addr),
	})
	if err != nil {
		return nil, s.refuseReturn(ctx, id, err)
	}
	s.cfg.Log.InfoContext(ctx, "agent came back by its enrolled key", slog.String("tenant", key.Tenant), slog.String("agent", key.Agent))
	return connect.NewResponse(&enrolv1.ReturnResponse{Service: service}), nil
}

var errNotTheKey = errors.New("the key is not one that an agent comes back by")

// enrolled finds the key of an agent that may come back by it.
func (s *Service) enrolled(ctx context.Context, id predicate.Digest) (control.Key, error) {
	key, err := s.cfg.Store.KeyByID(ctx, id)
	switch {
	case err != nil:
		return control.Key{}, err
	case key.Status == control.Revoked:
		return control.Key{}, control.ErrRevoked
	case key.Status != control.Active, key.Certifies, !key.NotAfter.IsZero() && s.cfg.Now().After(key.NotAfter):
		return control.Key{}, errNotTheKey
	}
	return key, nil
}

func (s *Service) refuseReturn(ctx context.Context, key predicate.Digest, err error) error {
	switch {
	case errors.Is(err, control.ErrRevoked):
		s.cfg.Log.WarnContext(ctx, "a revoked agent wants to come back", slog.String("key", string(key)))
		return connect.NewError(connect.CodePermissionDenied, errors.New("this agent is revoked"))
	case errors.Is(err, challenge.ErrNotGood):
		return connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("%w: ask for another", challenge.ErrNotGood))
	case errors.Is(err, control.ErrNotFound), errors.Is(err, errNotTheKey):
		s.cfg.Log.WarnContext(ctx, "a key that nobody comes back by", slog.String("key", string(key)), slog.Any("error", err))
		return connect.NewError(connect.CodeUnauthenticated, errors.New("no agent comes back by this key: it is not known, its time is over, or another has followed it"))
	case errors.Is(err, control.ErrKeyKnown):
		return connect.NewError(connect.CodeAlreadyExists, errors.New("tls_key: the key has had a certificate: make another"))
	}
	s.cfg.Log.ErrorContext(ctx, "an agent could not come back", slog.String("key", string(key)), slog.Any("error", err))
	code, text := connect.CodeInternal, "the aggregator could not do it; its log says why"
	if control.Retryable(err) || ctx.Err() != nil {
		code, text = connect.CodeUnavailable, "the aggregator's store does not answer just now: try again"
	}
	return connect.NewError(code, errors.New(text))
}

// noteToken records that a join token came which is no good, for the tenant that
// it belongs to. One that nobody knows belongs to none, and is counted.
func (s *Service) noteToken(ctx context.Context, token control.Hash, key identity.PublicKey, address string, why error) {
	err := func() error {
		switch {
		case errors.Is(why, control.ErrTokenUnknown):
			return s.cfg.Store.CountUnknownToken(ctx)
		case !errors.Is(why, control.ErrTokenUsed) && !errors.Is(why, control.ErrTokenExpired):
			return nil
		}
		t, err := s.cfg.Store.TokenUse(ctx, token)
		if err != nil {
			return err
		}
		e := control.AgentEvent{
			Tenant: t.Tenant, Agent: t.Agent, Kind: control.TokenExpiredUse, Subject: fmt.Sprintf("token %x", token[:4]),
			Presented: fmt.Sprintf("key %s…, from %s", key.ID().Hex()[:12], Host(address)),
			Known:     fmt.Sprintf("a join token for %q, good until %s", t.AgentName, t.ExpiresAt.UTC().Format(time.RFC3339)),
		}
		if errors.Is(why, control.ErrTokenUsed) {
			e.Kind = control.TokenReused
			e.Known = fmt.Sprintf("a join token for %q, used at %s", t.AgentName, t.UsedAt.UTC().Format(time.RFC3339))
			if len(t.KeyID) > len("sha256:")+12 {
				e.Known += fmt.Sprintf(" with key %s…", t.KeyID[len("sha256:"):][:12])
			}
		}
		return s.cfg.Store.RecordAgentEvent(ctx, e)
	}()
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "cannot record that a join token was refused", slog.Any("error", err))
	}
}

// Host is the host of a host:port.
func Host(address string) string {
	if h, _, err := net.SplitHostPort(address); err == nil {
		return h
	}
	return address
}
