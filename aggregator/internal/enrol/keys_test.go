package enrol

import (
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cavra/cavra/aggregator/internal/control"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

func newKey(t *testing.T, alg predicate.Algorithm) *identity.Key {
	t.Helper()
	k, err := identity.Generate(alg)
	must(t, err)
	return k
}

func derOf(t *testing.T, k *identity.Key) []byte {
	t.Helper()
	der, err := k.Public().DER()
	must(t, err)
	return der
}

// certified is a request for local, which held certifies.
func certified(t *testing.T, token string, held, local *identity.Key, from, to time.Time) *enrolv1.EnrolRequest {
	t.Helper()
	own, err := local.Sign(Proof(token))
	must(t, err)
	proof, err := held.Sign(CertifyProof(token, local.Public().ID(), from.UnixMilli(), to.UnixMilli()))
	must(t, err)
	return &enrolv1.EnrolRequest{
		JoinToken: token, PublicKey: derOf(t, local), Algorithm: string(local.Public().Algorithm), Proof: own, AgentVersion: "0.1.0",
		Certification: &enrolv1.Certification{
			PublicKey: derOf(t, held), Algorithm: string(held.Public().Algorithm), NotBefore: from.UnixMilli(), NotAfter: to.UnixMilli(), Proof: proof,
		},
	}
}

func TestEnrolCertified(t *testing.T) {
	w := newWorld(t)
	held, local, now := newKey(t, predicate.ECDSAP256), newKey(t, predicate.Ed25519), time.Now()
	token := w.token(t, "")
	good := certified(t, token, held, local, now, now.AddDate(0, 0, 30))
	forged := certified(t, token, held, local, now, now.AddDate(0, 0, 30))
	forged.Certification.NotAfter++
	for name, bad := range map[string]*enrolv1.EnrolRequest{
		"another time than was signed": forged,
		"too long":                     certified(t, token, held, local, now, now.Add(predicate.MaxKeyLife+time.Second)),
		"no time":                      certified(t, token, held, local, now, now),
		"a clock of another day":       certified(t, token, held, local, now.AddDate(0, 0, 1), now.AddDate(0, 0, 30)),
		"itself":                       certified(t, token, local, local, now, now.AddDate(0, 0, 30)),
	} {
		if _, err := w.enrol(t, bad); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	first, err := w.enrol(t, good)
	must(t, err)
	again, err := w.enrol(t, good)
	must(t, err)
	if first.GetAgent() != again.GetAgent() {
		t.Errorf("asked again it is agent %s, not %s", again.GetAgent(), first.GetAgent())
	}
	k, err := w.store.KeyByID(t.Context(), local.Public().ID())
	must(t, err)
	if k.Authority != held.Public().ID() || k.NotAfter.UnixMilli() != good.GetCertification().GetNotAfter() {
		t.Errorf("registered: %+v", k)
	}
}

// rotation is a request that follows an agent's key up.
func rotation(t *testing.T, by, next *identity.Key, agent string, epoch uint64, edit func(*predicate.Epoch)) *enrolv1.RotateKeyRequest {
	t.Helper()
	at := predicate.At(time.Now())
	e := &predicate.Epoch{
		Link:  predicate.Link{Tenant: "acme", Agent: agent, KeyID: by.Public().ID(), Epoch: epoch, Sequence: 1, Previous: predicate.ZeroDigest, SignedAt: at},
		Cause: predicate.Rotated, Algorithm: by.Public().Algorithm,
		Key: &predicate.SigningKey{KeyID: next.Public().ID(), Algorithm: next.Public().Algorithm, PublicKey: derOf(t, next), NotBefore: at},
	}
	edit(e)
	payload, err := predicate.Marshal(e)
	must(t, err)
	envelope, err := attest.Sign(payload, by)
	must(t, err)
	proof, err := next.Sign(RotateProof(attest.Digest(payload)))
	must(t, err)
	return &enrolv1.RotateKeyRequest{EpochStatement: envelope, Proof: proof}
}

func TestRotate(t *testing.T) {
	w := newWorld(t)
	first, next := newKey(t, predicate.Ed25519), newKey(t, predicate.Ed25519)
	token := w.token(t, "")
	proof, err := first.Sign(Proof(token))
	must(t, err)
	e, err := w.enrol(t, &enrolv1.EnrolRequest{JoinToken: token, PublicKey: derOf(t, first), Algorithm: "ed25519", Proof: proof, AgentVersion: "0.1.0"})
	must(t, err)
	asIs := func(*predicate.Epoch) {}
	good := rotation(t, first, next, e.GetAgent(), 2, asIs)
	stolen := rotation(t, first, next, e.GetAgent(), 2, asIs)
	stolen.Proof, err = newKey(t, predicate.Ed25519).Sign([]byte("something else"))
	must(t, err)
	for name, tt := range map[string]struct {
		r    *enrolv1.RotateKeyRequest
		want connect.Code
	}{
		"a new key that is not there": {stolen, connect.CodeInvalidArgument},
		"no envelope":                 {&enrolv1.RotateKeyRequest{Proof: good.GetProof()}, connect.CodeInvalidArgument},
		"by a key that nobody knows":  {rotation(t, newKey(t, predicate.Ed25519), next, e.GetAgent(), 2, asIs), connect.CodePermissionDenied},
		"of another agent":            {rotation(t, first, next, "another", 2, asIs), connect.CodeInvalidArgument},
		"an epoch too far":            {rotation(t, first, next, e.GetAgent(), 3, asIs), connect.CodeFailedPrecondition},
		"as an enrolment":             {rotation(t, first, next, e.GetAgent(), 2, func(e *predicate.Epoch) { e.Cause = predicate.Reenrolled }), connect.CodeInvalidArgument},
		"from another day on": {rotation(t, first, next, e.GetAgent(), 2, func(e *predicate.Epoch) {
			e.Key.NotBefore = predicate.At(time.Now().AddDate(0, 0, -1))
		}), connect.CodeInvalidArgument},
	} {
		if _, err := w.client.RotateKey(t.Context(), connect.NewRequest(tt.r)); connect.CodeOf(err) != tt.want {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
	for range 2 { // the second asks for an answer that was lost
		got, err := w.client.RotateKey(t.Context(), connect.NewRequest(good))
		must(t, err)
		if ends := time.UnixMilli(got.Msg.GetFormerEnds()); time.Until(ends) < control.MinOverlap-time.Minute {
			t.Errorf("the former key ends at %s", ends)
		}
	}
	if _, err := w.client.RotateKey(t.Context(), connect.NewRequest(rotation(t, first, newKey(t, predicate.Ed25519), e.GetAgent(), 3, asIs))); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("by the retired key: %v", err)
	}
	must(t, w.service.Revoke(t.Context(), "acme", e.GetAgent()))
	if _, err := w.client.RotateKey(t.Context(), connect.NewRequest(rotation(t, next, newKey(t, predicate.Ed25519), e.GetAgent(), 3, asIs))); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("of a revoked agent: %v", err)
	}
}
