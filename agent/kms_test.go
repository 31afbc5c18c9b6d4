//go:build keys

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/cavra/cavra/agent/internal/config"
	"github.com/cavra/cavra/agent/internal/enrol"
	"github.com/cavra/cavra/agent/internal/keys"
	"github.com/cavra/cavra/agent/internal/keys/keystest"
	"github.com/cavra/cavra/agent/internal/spool"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/enrol/v1/enrolv1connect"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

// desk enrols whoever brings a certificate, and takes rotations that the key which
// certified signs.
type desk struct {
	enrolv1connect.UnimplementedEnrolmentServiceHandler
	authority identity.PublicKey
}

func (d *desk) Enrol(_ context.Context, r *connect.Request[enrolv1.EnrolRequest]) (*connect.Response[enrolv1.EnrolResponse], error) {
	c := r.Msg.GetCertification()
	key, err := identity.ParsePublicKey(predicate.Algorithm(r.Msg.GetAlgorithm()), r.Msg.GetPublicKey())
	if err != nil {
		return nil, err
	}
	if d.authority, err = identity.ParsePublicKey(predicate.Algorithm(c.GetAlgorithm()), c.GetPublicKey()); err != nil {
		return nil, err
	}
	if !d.authority.Verify(fmt.Appendf(nil, "cavra-certify-v1\n%s\n%s\n%d\n%d", r.Msg.GetJoinToken(), key.ID(), c.GetNotBefore(), c.GetNotAfter()), c.GetProof()) {
		return nil, errors.New("the certificate is not signed")
	}
	return connect.NewResponse(&enrolv1.EnrolResponse{
		Tenant: "default", Agent: "a1", Epoch: 1, EpochCause: "enrolled",
		Kafka: &enrolv1.KafkaAccess{Brokers: []string{"127.0.0.1:9"}, Topic: "t", Mechanism: "none"},
	}), nil
}

func (d *desk) RotateKey(_ context.Context, r *connect.Request[enrolv1.RotateKeyRequest]) (*connect.Response[enrolv1.RotateKeyResponse], error) {
	e, err := attest.Open(r.Msg.GetEpochStatement())
	if err == nil {
		_, err = e.Verify(d.authority)
	}
	return connect.NewResponse(&enrolv1.RotateKeyResponse{}), err
}

// TestKMSCostsOneCallAnEpoch: a key in KMS signs the exchange of the token and the
// epoch's first statement, and nothing of what is scanned.
func TestKMSCostsOneCallAnEpoch(t *testing.T) {
	const files = 10_000
	kms, d := keystest.StartKMS(t), &desk{}
	mux := http.NewServeMux()
	mux.Handle(enrolv1connect.NewEnrolmentServiceHandler(d))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	name := "kms:" + kms.Key(t, types.KeySpecEccNistP256)
	holder, err := keys.Open(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: filepath.Join(t.TempDir(), "agent"), Settings: config.Default(), Log: slog.New(slog.DiscardHandler)}
	if _, err := enrol.Enrol(t.Context(), enrol.Request{
		Dir: cfg.Dir, Server: server.URL, JoinToken: "one", Holder: holder, HolderName: name, KeyLife: cfg.Settings.Key.Life(),
	}); err != nil {
		t.Fatal(err)
	}
	if n := kms.Calls("Sign"); n != 2 {
		t.Errorf("enrolment took %d signatures of KMS, want 2: for the exchange, and for the epoch", n)
	}
	l, err := enrol.Load(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := openSpool(t.Context(), cfg, l)
	if err != nil {
		t.Fatal(err)
	}
	statements := make([]predicate.Predicate, files)
	for i := range statements {
		statements[i] = &predicate.Gap{Cause: predicate.SpoolLost, Frames: uint64(i)}
	}
	if _, err := s.Append(t.Context(), statements...); err != nil {
		t.Fatal(err)
	}
	if n := kms.Calls("Sign"); n != 2 {
		t.Errorf("%d statements took %d signatures of KMS", files, n-2)
	}
	believed(t, s, d.authority, files+1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	epoch, err := Rotate(t.Context(), cfg, nil)
	if err != nil || epoch != 2 {
		t.Fatalf("epoch %d, %v", epoch, err)
	}
	if n := kms.Calls("Sign"); n != 3 {
		t.Errorf("a new key took %d signatures of KMS, want 1", n-2)
	}
	t.Logf("%d statements in one epoch: %d signatures of KMS; %d bytes in the longest request", files, 1, kms.Longest())
}

// believed reads a spool by nothing but the key that certifies.
func believed(t *testing.T, s *spool.Spool, authority identity.PublicKey, want int) {
	t.Helper()
	known := map[predicate.Digest]identity.PublicKey{authority.ID(): authority}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for n := 0; n < want; {
		entries, err := s.Next(ctx, 1000, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			envelope, err := attest.Open(e.Envelope)
			if err != nil {
				t.Fatal(err)
			}
			payload, err := envelope.Verify(known[envelope.KeyID()])
			if err != nil {
				t.Fatalf("statement %d: %v", e.Sequence, err)
			}
			p, err := predicate.Parse(payload)
			if err != nil {
				t.Fatal(err)
			}
			if epoch, ok := p.(*predicate.Epoch); ok {
				key, err := identity.ParsePublicKey(epoch.Key.Algorithm, epoch.Key.PublicKey)
				if err != nil {
					t.Fatal(err)
				}
				known[key.ID()] = key
			}
		}
		n += len(entries)
		if err := s.Ack(entries[len(entries)-1].Place); err != nil {
			t.Fatal(err)
		}
	}
}
