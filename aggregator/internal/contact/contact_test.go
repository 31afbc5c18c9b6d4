package contact

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/ca"
	"github.com/cavra/cavra/aggregator/internal/challenge"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/enrol"
	agentv1 "github.com/cavra/cavra/schemas/gen/cavra/agent/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/agent/v1/agentv1connect"
	"github.com/cavra/cavra/schemas/gen/cavra/enrol/v1/enrolv1connect"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// world is the service behind its TLS configuration, over a real store.
type world struct {
	t         *testing.T
	clock     *clock
	store     *control.Store
	gate      *access.Gate
	authority *ca.Authority
	service   *Service
	address   string
	desk      enrolv1connect.EnrolmentServiceClient
}

// brokers are those of a cluster that takes every login.
type brokers struct{}

func (brokers) EnsureAgent(context.Context, string, string) error { return nil }
func (brokers) RevokeAgent(context.Context, string) error         { return nil }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{t: time.Now().UTC().Truncate(time.Millisecond)}}
	var err error
	w.store, err = control.Open(t.Context(), control.Config{Path: filepath.Join(t.TempDir(), "control.db"), Now: w.clock.now})
	must(t, err)
	t.Cleanup(func() { must(t, w.store.Close()) })
	for _, tenant := range []string{"acme", "rival"} {
		must(t, w.store.CreateTenant(t.Context(), tenant, tenant))
	}
	w.gate, err = access.New(access.Config{Store: w.store, Now: w.clock.now})
	must(t, err)
	w.authority = w.newAuthority()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w.address = l.Addr().String()
	w.service, err = New(Config{
		Store: w.store, Authority: w.authority, Address: w.address, Log: slog.New(slog.DiscardHandler), Now: w.clock.now,
	})
	must(t, err)
	mux := http.NewServeMux()
	mux.Handle(w.service.Handler())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(tls.NewListener(l, w.authority.ServerTLS()))
	}()
	t.Cleanup(func() {
		must(t, server.Close())
		<-ended
	})
	w.openDesk()
	return w
}

// openDesk serves the enrolment, which is where agents come back to.
func (w *world) openDesk() {
	w.t.Helper()
	secret, err := w.authority.Secret("challenge")
	must(w.t, err)
	challenges, err := challenge.New(secret, w.store, w.clock.now)
	must(w.t, err)
	desk, err := enrol.New(enrol.Config{
		Store: w.store, Kafka: brokers{}, Cluster: enrol.Cluster{Brokers: []string{"broker.example:9092"}, Topic: "t"},
		Certifier: w.service, Challenges: challenges, Log: slog.New(slog.DiscardHandler), Now: w.clock.now,
	})
	must(w.t, err)
	mux := http.NewServeMux()
	mux.Handle(desk.Handler())
	server := httptest.NewServer(mux)
	w.t.Cleanup(server.Close)
	w.desk = enrolv1connect.NewEnrolmentServiceClient(server.Client(), server.URL)
}

func (w *world) newAuthority() *ca.Authority {
	w.t.Helper()
	a, err := ca.Open(ca.Config{Dir: w.t.TempDir(), TrustDomain: "cavra.test", Life: 24 * time.Hour, Now: w.clock.now})
	must(w.t, err)
	return a
}

// agent is one that was enrolled, with the certificate that it calls with.
type agent struct {
	w           *world
	tenant, id  string
	enrolled    *identity.Key
	key         *identity.Key
	certificate []byte
	generation  uint64
	instance    string
	agentv1connect.AgentServiceClient
}

func (w *world) enrol(tenant string) *agent {
	w.t.Helper()
	by := access.Principal{Tenant: tenant, Name: "test", Scopes: []access.Scope{access.AgentsEnrol}}
	token, err := w.gate.CreateJoinToken(w.t.Context(), by, "", "gpu box", w.clock.now().Add(time.Hour))
	must(w.t, err)
	hash, err := access.Parse(access.KindJoin, token)
	must(w.t, err)
	a := &agent{w: w, instance: strings.ToLower(rand.Text())}
	a.enrolled, err = identity.Generate(predicate.Ed25519)
	must(w.t, err)
	e, err := w.store.RedeemJoinToken(w.t.Context(), hash, a.enrolled.Public())
	must(w.t, err)
	a.tenant, a.id, a.key = e.Tenant, e.Agent, newKey(w.t)
	way, err := w.service.First(w.t.Context(), a.tenant, a.id, a.key.Public())
	must(w.t, err)
	a.certificate, a.generation = way.GetCertificate(), way.GetGeneration()
	a.dial(a.key, a.certificate)
	return a
}

func newKey(t *testing.T) *identity.Key {
	t.Helper()
	k, err := identity.Generate(predicate.ECDSAP256)
	must(t, err)
	return k
}

// dial makes the agent call with a key and a certificate from now on.
func (a *agent) dial(key *identity.Key, certificate []byte) {
	a.AgentServiceClient = a.w.client(key, certificate)
}

func (w *world) client(key *identity.Key, certificate []byte) agentv1connect.AgentServiceClient {
	w.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(w.authority.Bundle()))
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: w.authority.ServerName(), Time: w.clock.now}
	if certificate != nil {
		pair, err := key.TLS(certificate)
		must(w.t, err)
		// Whatever the server asks for, this is what it gets.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	transport := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	w.t.Cleanup(transport.CloseIdleConnections)
	return agentv1connect.NewAgentServiceClient(&http.Client{Transport: transport}, "https://"+w.address)
}

func (a *agent) checkIn() (*agentv1.CheckInResponse, error) { return a.checkInAt(a.w.clock.now()) }

// checkInAt checks in with a clock that says now.
func (a *agent) checkInAt(now time.Time) (*agentv1.CheckInResponse, error) {
	res, err := a.CheckIn(a.w.t.Context(), connect.NewRequest(&agentv1.CheckInRequest{
		AgentVersion: "0.1.0", Clock: now.UnixMilli(), Instance: a.instance, Generation: a.generation,
	}))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func (a *agent) renew(key *identity.Key) ([]byte, error) {
	der, err := key.Public().DER()
	must(a.w.t, err)
	proof, err := key.Sign(identity.Binding(identity.AtRenewal, strconv.FormatUint(a.generation, 10), "", key.Public()))
	must(a.w.t, err)
	res, err := a.Renew(a.w.t.Context(), connect.NewRequest(&agentv1.RenewRequest{PublicKey: der, Proof: proof, Instance: a.instance, Generation: a.generation}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetCertificate(), nil
}

func (a *agent) confirm() error {
	res, err := a.Confirm(a.w.t.Context(), connect.NewRequest(&agentv1.ConfirmRequest{Instance: a.instance}))
	if err == nil {
		a.generation = res.Msg.GetGeneration()
	}
	return err
}

func wants(t *testing.T, what string, err error, code connect.Code) {
	t.Helper()
	if err == nil || connect.CodeOf(err) != code || !connect.IsWireError(err) {
		t.Errorf("%s: %v, want %s", what, err, code)
	}
}

func TestRotation(t *testing.T) {
	w := newWorld(t)
	a := w.enrol("acme")
	first, err := a.checkIn()
	must(t, err)
	if first.GetRenew() || len(first.GetProblems()) != 0 || first.GetNotAfter() != w.clock.now().Truncate(time.Second).Add(24*time.Hour).UnixMilli() {
		t.Errorf("the first check-in: %v", first)
	}
	w.clock.move(12*time.Hour + time.Minute)
	if again, err := a.checkIn(); err != nil || !again.GetRenew() {
		t.Errorf("past half of its life: %v, %v", again, err)
	}
	key, former := newKey(t), *a
	der, err := a.renew(key)
	must(t, err)
	if lost, err := a.renew(key); err != nil || string(lost) != string(der) {
		t.Errorf("asked again with the same key: another certificate, %v", err)
	}
	a.dial(key, der)
	_, err = a.checkIn()
	wants(t, "a check-in before it is confirmed", err, connect.CodeUnauthenticated)
	for range 2 {
		must(t, a.confirm())
	}
	if a.generation != 2 {
		t.Errorf("generation %d", a.generation)
	}
	if _, err := a.checkIn(); err != nil {
		t.Error(err)
	}
	if _, err := former.checkIn(); err != nil {
		t.Errorf("the former in the overlap: %v", err)
	}
	_, err = former.renew(newKey(t))
	wants(t, "renewed by the former", err, connect.CodeAborted)
	w.clock.move(Overlap)
	_, err = former.checkIn()
	wants(t, "the former after the overlap", err, connect.CodeUnauthenticated)
}

// TestRevokedOnAnOpenConnection: the call after the revocation is refused, on the
// connection that is there.
func TestRevokedOnAnOpenConnection(t *testing.T) {
	w := newWorld(t)
	a, other := w.enrol("acme"), w.enrol("acme")
	connections := 0
	traced := func(ctx context.Context) context.Context { return trace(ctx, &connections) }
	call := func() error {
		_, err := a.CheckIn(traced(t.Context()), connect.NewRequest(&agentv1.CheckInRequest{AgentVersion: "0.1.0", Instance: a.instance}))
		return err
	}
	must(t, call())
	must(t, w.store.RevokeAgent(t.Context(), a.tenant, a.id))
	wants(t, "a revoked agent", call(), connect.CodePermissionDenied)
	if connections != 1 {
		t.Errorf("%d connections were made: the refusal was not on the open one", connections)
	}
	_, err := a.renew(newKey(t))
	wants(t, "a revoked agent renews", err, connect.CodePermissionDenied)
	if _, err := other.checkIn(); err != nil {
		t.Errorf("another agent: %v", err)
	}
}

func TestWhoIsNotAdmitted(t *testing.T) {
	w := newWorld(t)
	a, b := w.enrol("acme"), w.enrol("rival")
	stranger := w.newAuthority()
	key := newKey(t)
	foreign, err := stranger.Issue(a.tenant, a.id, "x", key.Public())
	must(t, err)
	// Of our authority, and unknown to the store: as after its backup was restored.
	unknown, err := w.authority.Issue(a.tenant, a.id, "x", key.Public())
	must(t, err)
	for name, tt := range map[string]struct {
		key         *identity.Key
		certificate []byte
		wire        bool
	}{
		"no certificate":                {nil, nil, false},
		"one of another authority":      {key, foreign.DER, false},
		"one that the store has not":    {key, unknown.DER, true},
		"another agent's, as it stands": {b.key, b.certificate, false},
	} {
		c := &agent{w: w, instance: a.instance, generation: 1}
		c.dial(tt.key, tt.certificate)
		_, err := c.checkIn()
		switch {
		case name == "another agent's, as it stands":
			// It is that agent, whatever is asked for.
			must(t, err)
		case tt.wire:
			wants(t, name, err, connect.CodeUnauthenticated)
		case err == nil || connect.IsWireError(err):
			t.Errorf("%s: %v, want the handshake to fail", name, err)
		}
	}
	w.clock.move(24*time.Hour + time.Second)
	a.dial(a.key, a.certificate)
	if _, err := a.checkIn(); err == nil || connect.IsWireError(err) {
		t.Errorf("an expired one: %v, want the handshake to fail", err)
	}
}

// TestExpiredOnAnOpenConnection: a connection does not outlive its certificate.
func TestExpiredOnAnOpenConnection(t *testing.T) {
	w := newWorld(t)
	a := w.enrol("acme")
	_, err := a.checkIn()
	must(t, err)
	w.clock.move(24*time.Hour + time.Second)
	_, err = a.checkIn()
	wants(t, "after its end", err, connect.CodeUnauthenticated)
}

func TestClockSkewIsTold(t *testing.T) {
	w := newWorld(t)
	a := w.enrol("acme")
	for off, want := range map[time.Duration]string{
		0: "", time.Minute: "", -time.Minute: "", time.Hour: "1h0m0s ahead", -3 * time.Minute: "3m0s behind",
	} {
		res, err := a.CheckIn(t.Context(), connect.NewRequest(&agentv1.CheckInRequest{AgentVersion: "0.1.0", Clock: w.clock.now().Add(off).UnixMilli(), Instance: a.instance}))
		must(t, err)
		var got string
		for _, p := range res.Msg.GetProblems() {
			got += p.GetText()
		}
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("off by %s: %q, want %q", off, got, want)
		}
	}
}

func TestRenewRefuses(t *testing.T) {
	w := newWorld(t)
	a := w.enrol("acme")
	key, other := newKey(t), newKey(t)
	der, err := key.Public().DER()
	must(t, err)
	good := func(k *identity.Key, p identity.Purpose, generation uint64) []byte {
		proof, err := k.Sign(identity.Binding(p, strconv.FormatUint(generation, 10), "", key.Public()))
		must(t, err)
		return proof
	}
	for name, r := range map[string]*agentv1.RenewRequest{
		"no key":                  {Generation: 1, Proof: good(key, identity.AtRenewal, 1)},
		"no proof":                {Generation: 1, PublicKey: der},
		"another key's proof":     {Generation: 1, PublicKey: der, Proof: good(other, identity.AtRenewal, 1)},
		"another purpose's proof": {Generation: 1, PublicKey: der, Proof: good(key, identity.AtEnrolment, 1)},
		"another generation's":    {Generation: 1, PublicKey: der, Proof: good(key, identity.AtRenewal, 2)},
		"of another generation":   {Generation: 2, PublicKey: der, Proof: good(key, identity.AtRenewal, 2)},
	} {
		r.Instance = a.instance
		_, err := a.Renew(t.Context(), connect.NewRequest(r))
		wants(t, name, err, connect.CodeInvalidArgument)
	}
}
