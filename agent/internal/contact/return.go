package contact

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/cavra/cavra/agent/internal/certificate"
	"github.com/cavra/cavra/agent/internal/httpclient"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/enrol/v1/enrolv1connect"
	"github.com/cavra/cavra/sdk/faultpoint"
	"github.com/cavra/cavra/sdk/identity"
)

const purposeReturn = "return"

// errNoService says that the aggregator has no service for agents.
var errNoService = errors.New("the aggregator has no service for agents")

// comeBack gets a certificate by the enrolled key. It is to be confirmed.
func (c *Contact) comeBack(ctx context.Context, f *certificate.Folder) error {
	if w := f.State().Candidate; w != nil && w.DER != nil {
		if err := f.Discard(); err != nil {
			return err
		}
	}
	// A certificate that may be confirmed already is said with what is surely the
	// agent's, so that what is not odd is not taken for it.
	generation, candidate := uint64(0), f.State().Unsure
	if a := f.State().Active; a != nil {
		generation = a.Generation
	}
	enrolled, err := c.cfg.Enrolled()
	if err != nil {
		return fmt.Errorf("come back by the enrolled key: %w", err)
	}
	way := f.State().Enrolment
	way.Server = cmp.Or(way.Server, c.cfg.Server)
	http, err := httpclient.New(way.Server, []byte(way.CA))
	if err != nil {
		return fmt.Errorf("come back by the enrolled key: %w", err)
	}
	defer http.CloseIdleConnections()
	desk := enrolv1connect.NewEnrolmentServiceClient(http, way.Server, connect.WithReadMaxBytes(maxAnswer))
	given, err := desk.Challenge(ctx, connect.NewRequest(&enrolv1.ChallengeRequest{Purpose: purposeReturn}))
	if connect.IsWireError(err) && connect.CodeOf(err) == connect.CodeUnimplemented {
		return errNoService
	}
	if err != nil {
		return fmt.Errorf("come back by the enrolled key, at %s: %w", way.Server, err)
	}
	key, err := f.Candidate()
	if err != nil {
		return err
	}
	said := identity.ReturnContext(given.Msg.GetChallenge(), generation, candidate, c.instance)
	wanted, err := wantedKey(said, key, enrolled)
	if err != nil {
		return fmt.Errorf("come back by the enrolled key: %w", err)
	}
	answer, err := desk.Return(ctx, connect.NewRequest(&enrolv1.ReturnRequest{
		Challenge: given.Msg.GetChallenge(), KeyId: string(enrolled.Public().ID()), TlsKey: wanted,
		Generation: generation, Candidate: candidate, Instance: c.instance,
	}))
	faultpoint.Hit("tls-return-answered")
	switch code := connect.CodeOf(err); {
	case err != nil && connect.IsWireError(err) && (code == connect.CodeAlreadyExists || code == connect.CodeInvalidArgument):
		return errors.Join(fmt.Errorf("come back by the enrolled key: %w", err), f.Discard())
	case err != nil:
		return fmt.Errorf("come back by the enrolled key, at %s: %w", way.Server, classify(err))
	}
	a := answer.Msg.GetService()
	return f.Certify(a.GetCertificate(), certificate.Service{Address: a.GetAddress(), ServerName: a.GetServerName(), CA: a.GetCaPem()})
}

// wantedKey asks for a certificate of key, which the enrolled one speaks for.
func wantedKey(said string, key *identity.Key, enrolled Signer) (*enrolv1.TLSKey, error) {
	der, err := key.Public().DER()
	if err != nil {
		return nil, err
	}
	bound := identity.Binding(identity.AtReturn, said, enrolled.Public().ID(), key.Public())
	proof, err := key.Sign(bound)
	if err != nil {
		return nil, err
	}
	consent, err := enrolled.Sign(bound)
	return &enrolv1.TLSKey{PublicKey: der, Proof: proof, Consent: consent}, err
}
