package enrol

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"github.com/cavra/cavra/aggregator/internal/control"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

const (
	// maxSkew is how far an agent's clock may be from this one for its keys' times
	// to mean anything.
	maxSkew = time.Hour

	certifyPrefix = "cavra-certify-v1\n"
	rotatePrefix  = "cavra-rotate-v1\n"
)

// CertifyProof is what a key that is held elsewhere signs in order to certify
// one that signs in its place.
func CertifyProof(joinToken string, key predicate.Digest, notBefore, notAfter int64) []byte {
	return []byte(certifyPrefix + joinToken + "\n" + string(key) + "\n" + strconv.FormatInt(notBefore, 10) + "\n" + strconv.FormatInt(notAfter, 10))
}

// RotateProof is what a new key signs in order to follow another.
func RotateProof(statement predicate.Digest) []byte { return []byte(rotatePrefix + string(statement)) }

func invalid(format string, args ...any) error {
	return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf(format, args...))
}

// certificate checks what a key that is held elsewhere says of the one that is
// to be enrolled; nil where the key is its own authority.
func (s *Service) certificate(ctx context.Context, m *enrolv1.EnrolRequest, key identity.PublicKey) (*control.Certificate, error) {
	c := m.GetCertification()
	if c == nil {
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	authority, err := identity.ParsePublicKey(predicate.Algorithm(c.GetAlgorithm()), c.GetPublicKey())
	if err != nil {
		return nil, invalid("certification: %w", err)
	}
	if authority.ID() == key.ID() {
		return nil, invalid("certification: a key does not certify itself: leave it out")
	}
	if len(c.GetProof()) > maxProof || !authority.Verify(CertifyProof(m.GetJoinToken(), key.ID(), c.GetNotBefore(), c.GetNotAfter()), c.GetProof()) {
		return nil, invalid("certification: it is not signed by the key that it names")
	}
	out := &control.Certificate{Authority: authority, NotBefore: time.UnixMilli(c.GetNotBefore()), NotAfter: time.UnixMilli(c.GetNotAfter())}
	if err := s.inTime(ctx, key, out.NotBefore, out.NotAfter); err != nil {
		return nil, invalid("certification: %w", err)
	}
	return out, nil
}

// inTime checks a new key's time. That of one that is known was checked: its
// answer may have been lost a while ago.
func (s *Service) inTime(ctx context.Context, key identity.PublicKey, begin, end time.Time) error {
	if _, err := s.cfg.Store.KeyByID(ctx, key.ID()); err == nil {
		return nil
	}
	return s.window(begin, end)
}

// window checks the time that a key is certified for; end is zero for a key that
// lasts until it is followed.
func (s *Service) window(begin, end time.Time) error {
	now := s.cfg.Now()
	if off := begin.Sub(now); off > maxSkew || off < -maxSkew {
		return fmt.Errorf("the key's time begins %s from now, so the agent's clock is not that of the aggregator: set it, and try again", off.Round(time.Second))
	}
	if !end.IsZero() && (!end.After(begin) || end.Sub(begin) > predicate.MaxKeyLife) {
		return fmt.Errorf("the key is certified for %s: want %s at most", end.Sub(begin), predicate.MaxKeyLife)
	}
	return nil
}

// RotateKey implements the service. Who asks needs no token: the key that may
// open the next epoch has signed it.
func (s *Service) RotateKey(ctx context.Context, req *connect.Request[enrolv1.RotateKeyRequest]) (*connect.Response[enrolv1.RotateKeyResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	r, err := s.rotation(ctx, req.Msg)
	if err != nil {
		return nil, err
	}
	leave, err := s.enter(ctx, r.Tenant, r.Agent)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("too many enrolments at once: try again with the same key"))
	}
	defer leave()
	ends, err := s.cfg.Store.RotateKey(ctx, r)
	if err != nil {
		return nil, s.refuseRotation(ctx, err)
	}
	s.cfg.Log.InfoContext(ctx, "agent's key rotated", slog.String("tenant", r.Tenant), slog.String("agent", r.Agent),
		slog.Uint64("epoch", r.Epoch), slog.String("key", string(r.Key.ID())))
	return connect.NewResponse(&enrolv1.RotateKeyResponse{FormerEnds: ends.UnixMilli()}), nil
}

// rotation verifies the first statement of the next epoch, and that its key is
// there.
func (s *Service) rotation(ctx context.Context, m *enrolv1.RotateKeyRequest) (control.Rotation, error) {
	var none control.Rotation
	envelope, err := attest.Open(m.GetEpochStatement())
	if err != nil {
		return none, invalid("epoch_statement: %w", err)
	}
	authority, err := s.cfg.Store.KeyByID(ctx, envelope.KeyID())
	if errors.Is(err, control.ErrNotFound) || err == nil && authority.Status == control.Revoked {
		return none, s.refuseRotation(ctx, fmt.Errorf("key %s: %w", envelope.KeyID(), control.ErrAuthority))
	}
	if err != nil {
		return none, s.refuseRotation(ctx, err)
	}
	payload, err := envelope.Verify(authority.Public)
	if err != nil {
		return none, invalid("epoch_statement: %w", err)
	}
	p, err := predicate.Parse(payload)
	if err != nil {
		return none, invalid("epoch_statement: %w", err)
	}
	epoch, ok := p.(*predicate.Epoch)
	if !ok || epoch.Key == nil || epoch.Cause != predicate.Rotated || epoch.KeyID != authority.ID || epoch.Algorithm != authority.Public.Algorithm ||
		epoch.Tenant != authority.Tenant || epoch.Agent != authority.Agent {
		return none, invalid("epoch_statement: want the statement that opens this agent's next epoch with a new key, cause %q", predicate.Rotated)
	}
	key, err := identity.ParsePublicKey(epoch.Key.Algorithm, epoch.Key.PublicKey)
	if err != nil {
		return none, invalid("epoch_statement: %w", err)
	}
	if len(m.GetProof()) > maxProof || !key.Verify(RotateProof(envelope.Digest()), m.GetProof()) {
		return none, invalid("proof: it is not the new key's signature over %q and the statement's digest", rotatePrefix)
	}
	out := control.Rotation{
		Tenant: epoch.Tenant, Agent: epoch.Agent, Epoch: epoch.Epoch, Authority: authority.ID, Key: key, NotBefore: epoch.Key.NotBefore.Time(),
	}
	if epoch.Key.NotAfter != nil {
		out.NotAfter = epoch.Key.NotAfter.Time()
	}
	if authority.Certifies && out.NotAfter.IsZero() {
		return none, invalid("epoch_statement: a key that is held elsewhere certifies for a time: not_after is missing")
	}
	if err := s.inTime(ctx, key, out.NotBefore, out.NotAfter); err != nil {
		return none, invalid("epoch_statement: %w", err)
	}
	return out, nil
}

func (s *Service) refuseRotation(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, control.ErrAuthority), errors.Is(err, control.ErrNotFound):
		s.cfg.Log.WarnContext(ctx, "rotation refused", slog.Any("error", err))
		return connect.NewError(connect.CodePermissionDenied,
			errors.New("the key that signed this may not open the agent's next epoch: it is not known here, was followed by another or revoked, or another one certifies this agent's keys"))
	case errors.Is(err, control.ErrEpoch):
		return connect.NewError(connect.CodeFailedPrecondition,
			errors.New("the agent is in another epoch by now: it was enrolled anew, or its folder was restored from a backup"))
	case errors.Is(err, control.ErrKeyKnown):
		return connect.NewError(connect.CodeAlreadyExists, errors.New("this key is known already, and every epoch needs a key of its own: make a new key and try again"))
	}
	s.cfg.Log.ErrorContext(ctx, "rotation failed", slog.Any("error", err))
	code, text := connect.CodeInternal, "the aggregator could not take on the key; its log says why"
	if control.Retryable(err) || ctx.Err() != nil {
		code, text = connect.CodeUnavailable, "the aggregator's store does not answer just now: try again with the same key"
	}
	return connect.NewError(code, errors.New(text))
}
