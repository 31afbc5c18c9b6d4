package enrol

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/enrol/v1/enrolv1connect"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

// desk is the aggregator's side of the protocol: it checks the proof and hands
// out one identity a token.
type desk struct {
	enrolv1connect.UnimplementedEnrolmentServiceHandler
	used  map[string]bool
	epoch uint64
}

func (d *desk) Enrol(_ context.Context, r *connect.Request[enrolv1.EnrolRequest]) (*connect.Response[enrolv1.EnrolResponse], error) {
	key, err := identity.ParsePublicKey(predicate.Algorithm(r.Msg.GetAlgorithm()), r.Msg.GetPublicKey())
	if err != nil || !key.Verify([]byte("cavra-enrol-v1\n"+r.Msg.GetJoinToken()), r.Msg.GetProof()) {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("the proof is not the key's"))
	}
	if d.used[r.Msg.GetJoinToken()] {
		return nil, connect.NewError(connect.CodePermissionDenied, errors.New("the join token is not good: ask for a new one"))
	}
	d.used[r.Msg.GetJoinToken()] = true
	d.epoch++
	cause := "enrolled"
	if d.epoch > 1 {
		cause = "reenrolled"
	}
	return connect.NewResponse(&enrolv1.EnrolResponse{
		Tenant: "default", Agent: "a1", Epoch: d.epoch, EpochCause: cause,
		Kafka: &enrolv1.KafkaAccess{Brokers: []string{"127.0.0.1:9"}, Topic: "t", Mechanism: "scram-sha-256", Username: "u", Password: "p"},
	}), nil
}

func serveDesk(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(enrolv1connect.NewEnrolmentServiceHandler(&desk{used: map[string]bool{}}))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

func TestEnrolAndLoad(t *testing.T) {
	r := Request{Dir: filepath.Join(t.TempDir(), "agent"), Server: serveDesk(t), JoinToken: "one", Version: "0.1.0"}
	id, err := Enrol(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(r.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Agent != "a1" || loaded.Epoch != 1 || loaded.Key.Public().ID() != id.KeyID || len(loaded.NameKey) != nameKeyBytes {
		t.Errorf("loaded %+v", loaded.Identity)
	}
	for _, name := range []string{IdentityFile, NameKeyFile, id.KeyFile} {
		info, err := os.Stat(filepath.Join(r.Dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v: others may read it", name, info.Mode(), err)
		}
	}
	if _, err := Enrol(t.Context(), r); !errors.Is(err, ErrEnrolled) {
		t.Errorf("enrolled twice: %v", err)
	}
	r.Reenroll, r.JoinToken = true, "two"
	again, err := Enrol(t.Context(), r)
	if err != nil || again.Epoch != 2 || again.KeyID == id.KeyID || again.EpochCause != predicate.Reenrolled {
		t.Errorf("enrolled anew: %+v, %v", again, err)
	}
	kept, err := Load(r.Dir)
	if err != nil || string(kept.NameKey) != string(loaded.NameKey) {
		t.Errorf("the name key changed with the epoch (%v): names could not be compared any more", err)
	}
}

func TestEnrolRefuses(t *testing.T) {
	server := serveDesk(t)
	for name, tt := range map[string]struct {
		r    Request
		want string
	}{
		"plain http to another machine":    {Request{Server: "http://192.0.2.1:8480"}, "in the clear"},
		"no address":                       {Request{Server: "cavra"}, "want https://host:port"},
		"nobody there":                     {Request{Server: "http://127.0.0.1:1"}, "is the aggregator running"},
		"anew, and never enrolled":         {Request{Server: server, Reenroll: true}, "not enrolled"},
		"an authority without certificate": {Request{Server: server, CAFile: "enrol_test.go"}, "holds no certificate"},
	} {
		tt.r.Dir, tt.r.JoinToken = filepath.Join(t.TempDir(), "agent"), "x"
		if _, err := Enrol(t.Context(), tt.r); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		if _, err := Load(tt.r.Dir); !errors.Is(err, ErrNotEnrolled) {
			t.Errorf("%s: an identity was written: %v", name, err)
		}
	}
	used := Request{Dir: t.TempDir(), Server: server, JoinToken: "used"}
	if _, err := Enrol(t.Context(), used); err != nil {
		t.Fatal(err)
	}
	used.Dir = t.TempDir()
	if _, err := Enrol(t.Context(), used); err == nil || !strings.Contains(err.Error(), "ask for a new one") {
		t.Errorf("a used token: %v", err)
	}
}

func TestLoadRefusesAnotherKey(t *testing.T) {
	r := Request{Dir: t.TempDir(), Server: serveDesk(t), JoinToken: "one"}
	id, err := Enrol(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	other, err := identity.Generate(predicate.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := other.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Dir, id.KeyFile), pem, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(r.Dir); err == nil || !strings.Contains(err.Error(), "not the key that was enrolled") {
		t.Errorf("got %v", err)
	}
}
