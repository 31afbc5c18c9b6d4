package enrol

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/awssts"
	"github.com/cavra/cavra/aggregator/internal/challenge"
	"github.com/cavra/cavra/aggregator/internal/control"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/predicate"
)

// purposeAWS is what a challenge is for that is signed for AWS STS.
const purposeAWS = "aws-sts"

// awsTokenLife is how long a join token is good that an identity at AWS gave.
const awsTokenLife = 5 * time.Minute

// maxAgentName bounds what an agent is called.
const maxAgentName = 128

// AWS says who signed a request.
type AWS interface {
	Identify(ctx context.Context, r awssts.Request, challenge, key string) (awssts.Caller, error)
	// Check reports whether a request can be sent at all.
	Check(r awssts.Request, challenge, key string) error
}

var errNoRule = errors.New("no rule lets this caller in")

// JoinByAWS implements the service. Which of a request's parts are good it tells
// nobody who is not let in: the log does.
func (s *Service) JoinByAWS(ctx context.Context, req *connect.Request[enrolv1.JoinByAWSRequest]) (*connect.Response[enrolv1.JoinByAWSResponse], error) {
	if s.cfg.AWS == nil || s.cfg.Challenges == nil {
		return nil, errNoService
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	m := req.Msg
	key := predicate.Digest(m.GetKeyId())
	if err := errors.Join(predicate.ValidateID(m.GetTenant()), predicate.ValidateID(m.GetRule()), key.Validate()); err != nil {
		return nil, invalid("tenant, rule or key_id is not one: %w", err)
	}
	r := awssts.Request{Host: m.GetHost()}
	for _, h := range m.GetHeaders() {
		r.Headers = append(r.Headers, awssts.Header{Name: h.GetName(), Value: h.GetValue()})
	}
	token, who, err := s.joinByAWS(ctx, m.GetTenant(), m.GetRule(), m.GetChallenge(), key, r)
	if err != nil {
		return nil, s.refuseAWS(ctx, m, Host(req.Peer().Addr), err)
	}
	s.cfg.Log.InfoContext(ctx, "join token given for an identity at AWS", slog.String("tenant", m.GetTenant()), slog.String("rule", m.GetRule()), slog.String("caller", who))
	return connect.NewResponse(&enrolv1.JoinByAWSResponse{JoinToken: token}), nil
}

func (s *Service) joinByAWS(ctx context.Context, tenant, name, c string, key predicate.Digest, r awssts.Request) (token, who string, err error) {
	// What is cheap first: nothing is sent, and no challenge used up, for a
	// request that cannot be good.
	if err := s.cfg.Challenges.Check(purposeAWS, c); err != nil {
		return "", "", err
	}
	if err := s.cfg.AWS.Check(r, c, string(key)); err != nil {
		return "", "", err
	}
	rule, err := s.cfg.Store.AWSRule(ctx, tenant, name)
	if err != nil {
		return "", "", err
	}
	pattern, err := awssts.ParsePattern(rule.ARN)
	if err != nil {
		return "", "", err
	}
	if err := s.cfg.Challenges.Spend(ctx, purposeAWS, c); err != nil {
		return "", "", err
	}
	caller, err := s.cfg.AWS.Identify(ctx, r, c, string(key))
	if err != nil {
		return "", "", err
	}
	if !pattern.Matches(caller.Raw) {
		return "", "", fmt.Errorf("%w: %s", errNoRule, caller.Raw)
	}
	token, hash := access.Generate(access.KindJoin)
	agent := caller.ARN.Expand(rule.AgentName)
	return token, caller.Raw, s.cfg.Store.CreateJoinToken(ctx, control.JoinToken{
		Hash: hash, Tenant: tenant, AgentName: strings.ToValidUTF8(agent[:min(len(agent), maxAgentName)], ""), CreatedBy: "aws:" + name,
		ForKey: key, ExpiresAt: s.cfg.Now().Add(awsTokenLife),
	})
}

func (s *Service) refuseAWS(ctx context.Context, m *enrolv1.JoinByAWSRequest, from string, err error) error {
	log := func(level slog.Level, text string) {
		s.cfg.Log.Log(ctx, level, text, slog.String("tenant", m.GetTenant()), slog.String("rule", m.GetRule()), slog.String("from", from), slog.Any("error", err))
	}
	switch {
	case errors.Is(err, awssts.ErrShape):
		log(slog.LevelWarn, "a request that is not sent to AWS")
		return connect.NewError(connect.CodeInvalidArgument, awssts.ErrShape)
	case errors.Is(err, challenge.ErrNotGood):
		return connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("%w: ask for another", challenge.ErrNotGood))
	case errors.Is(err, control.ErrNotFound), errors.Is(err, errNoRule), errors.Is(err, awssts.ErrRefused):
		log(slog.LevelWarn, "an identity at AWS that is not let in")
		return connect.NewError(connect.CodePermissionDenied, errors.New("no rule of that name lets this caller in, or AWS does not know it; the aggregator's log says which"))
	}
	log(slog.LevelError, "an identity at AWS could not be looked up")
	return connect.NewError(connect.CodeUnavailable, errors.New("the aggregator could not ask AWS, or its store does not answer just now: try again"))
}
