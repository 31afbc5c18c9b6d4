package enrol

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/control"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/enrol/v1/enrolv1connect"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

// broker remembers who may log in, as a cluster would, or fails.
type broker struct {
	mu        sync.Mutex
	passwords map[string]string
	err       error
}

func (b *broker) EnsureAgent(_ context.Context, username, password string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.passwords[username] = password
	}
	return b.err
}

func (b *broker) RevokeAgent(_ context.Context, username string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		delete(b.passwords, username)
	}
	return b.err
}

func (b *broker) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *broker) has(username string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.passwords[username] != ""
}

type world struct {
	// clock is how far the store's clock is ahead.
	clock   time.Duration
	service *Service
	store   *control.Store
	broker  *broker
	client  enrolv1connect.EnrolmentServiceClient
	url     string
	gate    *access.Gate
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	store, err := control.Open(t.Context(), control.Config{
		Path: filepath.Join(t.TempDir(), "control.db"), Now: func() time.Time { return time.Now().Add(w.clock) },
	})
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	must(t, store.CreateTenant(t.Context(), "acme", "Acme"))
	gate, err := access.New(access.Config{Store: store})
	must(t, err)
	b := &broker{passwords: map[string]string{}}
	s, err := New(Config{
		Store: store, Kafka: b, Log: slog.New(slog.DiscardHandler),
		Cluster: Cluster{Brokers: []string{"broker.example:9092"}, Topic: "cavra.statements.v1", TLS: true, CAPEM: "pem"},
	})
	must(t, err)
	mux := http.NewServeMux()
	mux.Handle(s.Handler())
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	w.service, w.store, w.broker, w.url, w.gate = s, store, b, server.URL, gate
	w.client = enrolv1connect.NewEnrolmentServiceClient(server.Client(), server.URL)
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) token(t *testing.T, agent string) string {
	t.Helper()
	by := access.Principal{Tenant: "acme", Name: "test", Scopes: []access.Scope{access.AgentsEnrol}}
	secret, err := w.gate.CreateJoinToken(t.Context(), by, agent, "gpu box", time.Now().Add(time.Hour))
	must(t, err)
	return secret
}

func request(t *testing.T, token string, alg predicate.Algorithm) *enrolv1.EnrolRequest {
	t.Helper()
	key, err := identity.Generate(alg)
	must(t, err)
	der, err := key.Public().DER()
	must(t, err)
	proof, err := key.Sign(Proof(token))
	must(t, err)
	return &enrolv1.EnrolRequest{JoinToken: token, PublicKey: der, Algorithm: string(alg), Proof: proof, AgentVersion: "0.1.0"}
}

func (w *world) enrol(t *testing.T, r *enrolv1.EnrolRequest) (*enrolv1.EnrolResponse, error) {
	t.Helper()
	res, err := w.client.Enrol(t.Context(), connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func TestEnrol(t *testing.T) {
	for _, alg := range []predicate.Algorithm{predicate.Ed25519, predicate.ECDSAP256} {
		t.Run(string(alg), func(t *testing.T) {
			w := newWorld(t)
			req := request(t, w.token(t, ""), alg)
			got, err := w.enrol(t, req)
			must(t, err)
			username := "agent-acme-" + got.GetAgent()
			want := &enrolv1.EnrolResponse{
				Tenant: "acme", Agent: got.GetAgent(), Epoch: 1, EpochCause: "enrolled",
				Kafka: &enrolv1.KafkaAccess{
					Brokers: []string{"broker.example:9092"}, Topic: "cavra.statements.v1", Mechanism: "scram-sha-256",
					Username: username, Password: w.broker.passwords[username], CaPem: "pem", Tls: true,
				},
			}
			unexported := cmpopts.IgnoreUnexported(enrolv1.EnrolResponse{}, enrolv1.KafkaAccess{})
			if diff := cmp.Diff(want, got, unexported); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			if !regexp.MustCompile(`^[a-z0-9]{16}$`).MatchString(got.GetAgent()) || len(got.GetKafka().GetPassword()) != 43 {
				t.Errorf("agent %q, password of %d characters", got.GetAgent(), len(got.GetKafka().GetPassword()))
			}

			again, err := w.enrol(t, req)
			must(t, err)
			if again.GetKafka().GetPassword() != w.broker.passwords[username] || again.GetKafka().GetPassword() == got.GetKafka().GetPassword() {
				t.Error("the second answer does not hold the password that was set last")
			}
			if diff := cmp.Diff(got, again, unexported, cmpopts.IgnoreFields(enrolv1.KafkaAccess{}, "Password")); diff != "" {
				t.Errorf("second answer (-first +second):\n%s", diff)
			}

			re, err := w.enrol(t, request(t, w.token(t, got.GetAgent()), alg))
			must(t, err)
			if re.GetAgent() != got.GetAgent() || re.GetEpoch() != 2 || re.GetEpochCause() != "reenrolled" {
				t.Errorf("enrolled anew: %v", re)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	used := w.token(t, "")
	known := request(t, used, predicate.Ed25519)
	if _, err := w.enrol(t, known); err != nil {
		t.Fatal(err)
	}
	never, _ := access.Generate(access.KindJoin)
	api, _ := access.Generate(access.KindAPI)
	fresh := w.token(t, "")
	knownAgain := request(t, fresh, predicate.Ed25519)
	change := func(f func(*enrolv1.EnrolRequest)) *enrolv1.EnrolRequest {
		r := request(t, fresh, predicate.Ed25519)
		f(r)
		return r
	}
	tests := map[string]struct {
		request *enrolv1.EnrolRequest
		code    connect.Code
		says    string
	}{
		"no token":              {change(func(r *enrolv1.EnrolRequest) { r.JoinToken = "" }), connect.CodeInvalidArgument, "copy it again"},
		"mistyped token":        {change(func(r *enrolv1.EnrolRequest) { r.JoinToken = mistyped(r.JoinToken) }), connect.CodeInvalidArgument, "copy it again"},
		"another kind":          {request(t, api, predicate.Ed25519), connect.CodeInvalidArgument, "copy it again"},
		"no version":            {change(func(r *enrolv1.EnrolRequest) { r.AgentVersion = "" }), connect.CodeInvalidArgument, "agent_version"},
		"no key":                {change(func(r *enrolv1.EnrolRequest) { r.PublicKey = nil }), connect.CodeInvalidArgument, "public_key"},
		"another algorithm":     {change(func(r *enrolv1.EnrolRequest) { r.Algorithm = string(predicate.ECDSAP256) }), connect.CodeInvalidArgument, "public_key"},
		"unknown algorithm":     {change(func(r *enrolv1.EnrolRequest) { r.Algorithm = "none" }), connect.CodeInvalidArgument, "public_key"},
		"no proof":              {change(func(r *enrolv1.EnrolRequest) { r.Proof = nil }), connect.CodeInvalidArgument, "proof"},
		"another key's proof":   {change(func(r *enrolv1.EnrolRequest) { r.Proof = request(t, fresh, predicate.Ed25519).Proof }), connect.CodeInvalidArgument, "proof"},
		"another token's proof": {change(func(r *enrolv1.EnrolRequest) { r.JoinToken = never }), connect.CodeInvalidArgument, "proof"},
		"unknown token":         {request(t, never, predicate.Ed25519), connect.CodeUnauthenticated, "ask an administrator"},
		"used token":            {request(t, used, predicate.Ed25519), connect.CodeUnauthenticated, "ask an administrator"},
	}
	var texts []string
	for name, tc := range tests {
		_, err := w.enrol(t, tc.request)
		var ce *connect.Error
		if !errors.As(err, &ce) || ce.Code() != tc.code || !strings.Contains(ce.Message(), tc.says) {
			t.Errorf("%s: %v, want %s saying %q", name, err, tc.code, tc.says)
			continue
		}
		if tc.code == connect.CodeUnauthenticated {
			texts = append(texts, ce.Message())
		}
	}
	if len(texts) != 2 || texts[0] != texts[1] {
		t.Errorf("an unknown and a used token can be told apart: %q", texts)
	}
	if _, err := w.enrol(t, knownAgain); err != nil {
		t.Errorf("the token is still good after refusals: %v", err)
	}
}

// mistyped changes one character of a token.
func mistyped(token string) string {
	const at = 30
	other := "x"
	if token[at] == 'x' {
		other = "y"
	}
	return token[:at] + other + token[at+1:]
}

// TestTokensThatAreNoGoodAreShown: for the tenant that they belong to, without the
// secret; those that nobody knows are counted.
func TestTokensThatAreNoGoodAreShown(t *testing.T) {
	w := newWorld(t)
	used, expired := w.token(t, ""), w.token(t, "")
	got, err := w.enrol(t, request(t, used, predicate.Ed25519))
	must(t, err)
	never, _ := access.Generate(access.KindJoin)
	for _, token := range []string{used, used, never, never, never} {
		if _, err := w.enrol(t, request(t, token, predicate.Ed25519)); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("a token that is no good: %v", err)
		}
	}
	w.clock = 2 * time.Hour
	if _, err := w.enrol(t, request(t, expired, predicate.Ed25519)); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("an expired token: %v", err)
	}
	list, _, err := w.store.AgentEvents(t.Context(), "acme", "")
	must(t, err)
	var kinds []string
	for _, e := range list {
		kinds = append(kinds, string(e.Kind)+" "+e.Agent+" "+strconv.FormatUint(e.Count, 10))
		for _, secret := range []string{used, expired} {
			if strings.Contains(e.Subject+e.Presented+e.Known, secret) {
				t.Errorf("the secret is in %+v", e)
			}
		}
		if !strings.Contains(e.Presented, "127.0.0.1") || !strings.Contains(e.Known, "gpu box") {
			t.Errorf("it does not show both sides: %+v", e)
		}
	}
	if diff := cmp.Diff([]string{"token_expired_use  1", "token_reused " + got.GetAgent() + " 2"}, kinds); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if n, err := w.store.UnknownTokens(t.Context()); err != nil || n != 3 {
		t.Errorf("%d unknown tokens, %v", n, err)
	}
}

// certifier remembers for whom it certified which key.
type certifier map[string]predicate.Digest

func (c certifier) First(_ context.Context, tenant, agent string, key identity.PublicKey) (*enrolv1.AgentAccess, error) {
	c[tenant+"/"+agent] = key.ID()
	return &enrolv1.AgentAccess{Address: "aggregator.example:8481", Generation: 1}, nil
}

func (c certifier) Again(context.Context, Returning) (*enrolv1.AgentAccess, error) {
	return nil, errors.New("nobody comes back here")
}

// TestTLSKey: a key is certified when both it and the enrolled key have signed
// for it, and not otherwise; and then nothing was enrolled.
func TestTLSKey(t *testing.T) {
	w := newWorld(t)
	certified := certifier{}
	w.service.cfg.Certifier = certified
	key, err := identity.Generate(predicate.Ed25519)
	must(t, err)
	tlsKey, err := identity.Generate(predicate.ECDSAP256)
	must(t, err)
	other, err := identity.Generate(predicate.ECDSAP256)
	must(t, err)
	token, another := w.token(t, ""), w.token(t, "")
	sign := func(k *identity.Key, message []byte) []byte {
		sig, err := k.Sign(message)
		must(t, err)
		return sig
	}
	der := func(k *identity.Key) []byte {
		b, err := k.Public().DER()
		must(t, err)
		return b
	}
	bound := identity.Binding(identity.AtEnrolment, token, key.Public().ID(), tlsKey.Public())
	good := &enrolv1.TLSKey{PublicKey: der(tlsKey), Proof: sign(tlsKey, bound), Consent: sign(key, bound)}
	ask := func(k *enrolv1.TLSKey) (*enrolv1.EnrolResponse, error) {
		return w.enrol(t, &enrolv1.EnrolRequest{
			JoinToken: token, PublicKey: der(key), Algorithm: "ed25519", Proof: sign(key, Proof(token)), AgentVersion: "0.1.0", TlsKey: k,
		})
	}
	elsewhere := identity.Binding(identity.AtEnrolment, another, key.Public().ID(), tlsKey.Public())
	for name, k := range map[string]*enrolv1.TLSKey{
		"no key":                {Proof: good.Proof, Consent: good.Consent},
		"an Ed25519 key":        {PublicKey: der(key), Proof: good.Consent, Consent: good.Consent},
		"another key":           {PublicKey: der(other), Proof: good.Proof, Consent: good.Consent},
		"no proof":              {PublicKey: good.PublicKey, Consent: good.Consent},
		"another's proof":       {PublicKey: good.PublicKey, Proof: sign(other, bound), Consent: good.Consent},
		"no consent":            {PublicKey: good.PublicKey, Proof: good.Proof},
		"its own consent":       {PublicKey: good.PublicKey, Proof: good.Proof, Consent: good.Proof},
		"another token's proof": {PublicKey: good.PublicKey, Proof: sign(tlsKey, elsewhere), Consent: sign(key, elsewhere)},
	} {
		if _, err := ask(k); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "tls_key") {
			t.Errorf("%s: %v", name, err)
		}
	}
	agents, err := w.store.Fleet(t.Context(), "acme")
	must(t, err)
	if len(agents) != 0 || len(certified) != 0 {
		t.Errorf("%d agents, %d certificates after refusals", len(agents), len(certified))
	}
	got, err := ask(good)
	must(t, err)
	if certified["acme/"+got.GetAgent()] != tlsKey.Public().ID() || got.GetService().GetAddress() != "aggregator.example:8481" {
		t.Errorf("certified %v, answered %v", certified, got.GetService())
	}
	// One that asks for none is enrolled all the same.
	if got, err := w.enrol(t, request(t, another, predicate.Ed25519)); err != nil || got.GetService() != nil {
		t.Errorf("without a key: %v, %v", got.GetService(), err)
	}
}

func TestKnownKey(t *testing.T) {
	w := newWorld(t)
	key, err := identity.Generate(predicate.Ed25519)
	must(t, err)
	der, err := key.Public().DER()
	must(t, err)
	for i, want := range []connect.Code{0, connect.CodeAlreadyExists} {
		token := w.token(t, "")
		proof, err := key.Sign(Proof(token))
		must(t, err)
		_, err = w.enrol(t, &enrolv1.EnrolRequest{JoinToken: token, PublicKey: der, Algorithm: "ed25519", Proof: proof, AgentVersion: "0.1.0"})
		if (want == 0) != (err == nil) || err != nil && connect.CodeOf(err) != want {
			t.Errorf("enrolment %d with one key: %v, want code %d", i+1, err, want)
		}
	}
}

// TestAnAnswerThatComesLate: an enrolment waits its turn while another key is
// enrolled for the agent. Its password must not replace the one of that key.
func TestAnAnswerThatComesLate(t *testing.T) {
	w := newWorld(t)
	first := request(t, w.token(t, ""), predicate.Ed25519)
	got, err := w.enrol(t, first)
	must(t, err)
	leave, err := w.service.enter(t.Context(), "acme", got.GetAgent())
	must(t, err)
	answers := make([]error, 2)
	var both sync.WaitGroup
	var second *enrolv1.EnrolResponse
	both.Go(func() { _, answers[0] = w.enrol(t, first) })
	both.Go(func() { second, answers[1] = w.enrol(t, request(t, w.token(t, got.GetAgent()), predicate.Ed25519)) })
	for {
		a, err := w.store.Agent(t.Context(), "acme", got.GetAgent())
		must(t, err)
		if a.Epoch == 2 {
			break
		}
	}
	leave()
	both.Wait()
	if connect.CodeOf(answers[0]) != connect.CodeUnauthenticated || answers[1] != nil {
		t.Fatalf("the first key's answer: %v; the second's: %v", answers[0], answers[1])
	}
	if second.GetKafka().GetPassword() != w.broker.passwords[second.GetKafka().GetUsername()] {
		t.Error("the password that works is not the one that the agent's key was given")
	}
}

// Kafka is away when an agent enrols: the same request succeeds when it is back.
func TestKafkaAway(t *testing.T) {
	w := newWorld(t)
	req := request(t, w.token(t, ""), predicate.Ed25519)
	w.broker.err = errors.New("no broker at 10.0.0.7")
	_, err := w.enrol(t, req)
	if connect.CodeOf(err) != connect.CodeUnavailable || strings.Contains(err.Error(), "10.0.0.7") || !strings.Contains(err.Error(), "try again") {
		t.Errorf("without Kafka: %v", err)
	}
	w.broker.err = nil
	got, err := w.enrol(t, req)
	must(t, err)
	if got.GetEpoch() != 1 || got.GetKafka().GetPassword() == "" {
		t.Errorf("with Kafka back: %v", got)
	}
}

func TestRequestBounds(t *testing.T) {
	w := newWorld(t)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, err := io.Copy(z, strings.NewReader(strings.Repeat(" ", 1<<22)))
	must(t, errors.Join(err, z.Close()))
	for name, tc := range map[string]struct {
		body     []byte
		encoding string
		want     int
	}{
		"too long":   {bytes.Repeat([]byte(" "), MaxRequest+1), "", http.StatusTooManyRequests},
		"compressed": {bomb.Bytes(), "gzip", http.StatusNotImplemented},
		"no JSON":    {[]byte("{"), "", http.StatusBadRequest},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+enrolv1connect.EnrolmentServiceEnrolProcedure, bytes.NewReader(tc.body))
		must(t, err)
		r.Header.Set("Content-Type", "application/json")
		if tc.encoding != "" {
			r.Header.Set("Content-Encoding", tc.encoding)
		}
		res, err := http.DefaultClient.Do(r)
		must(t, err)
		text, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
		must(t, errors.Join(err, res.Body.Close()))
		if res.StatusCode != tc.want {
			t.Errorf("%s: status %d %s, want %d", name, res.StatusCode, text, tc.want)
		}
	}
}

func TestRevokeTakesKafkaAccessAway(t *testing.T) {
	w := newWorld(t)
	req := request(t, w.token(t, ""), predicate.Ed25519)
	got, err := w.enrol(t, req)
	must(t, err)
	agent, username := got.GetAgent(), got.GetKafka().GetUsername()
	if err := w.service.Revoke(t.Context(), "acme", "nobody"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	if err := w.service.Revoke(t.Context(), "rival", agent); !errors.Is(err, control.ErrNotFound) || !w.broker.has(username) {
		t.Errorf("another tenant's agent: %v", err)
	}
	for range 2 {
		must(t, w.service.Revoke(t.Context(), "acme", agent))
	}
	a, err := w.store.Agent(t.Context(), "acme", agent)
	must(t, err)
	if a.Status != control.Revoked || w.broker.has(username) {
		t.Errorf("the agent is %s, with access %t", a.Status, w.broker.has(username))
	}
	if _, err := w.enrol(t, req); connect.CodeOf(err) != connect.CodeUnauthenticated || w.broker.has(username) {
		t.Errorf("enrolled again with its old token: %v", err)
	}
	// A new token is a new authority.
	_, err = w.enrol(t, request(t, w.token(t, agent), predicate.Ed25519))
	must(t, err)
	if !w.broker.has(username) {
		t.Error("no access after it was enrolled anew")
	}
}

// TestRunSettlesWhatARevocationLeft: the broker was away when the agent was
// revoked, and is there at the next start.
func TestRunSettlesWhatARevocationLeft(t *testing.T) {
	w := newWorld(t)
	var names []string
	for range 2 {
		got, err := w.enrol(t, request(t, w.token(t, ""), predicate.Ed25519))
		must(t, err)
		names = append(names, got.GetKafka().GetUsername())
		if len(names) == 1 {
			away := errors.New("no broker")
			w.broker.fail(away)
			if err := w.service.Revoke(t.Context(), "acme", got.GetAgent()); !errors.Is(err, away) {
				t.Errorf("revoked without a broker: %v", err)
			}
			w.broker.fail(nil)
		}
	}
	if !w.broker.has(names[0]) {
		t.Fatal("there is nothing to settle")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.service.Run(ctx) }()
	for w.broker.has(names[0]) {
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if w.broker.has(names[0]) || !w.broker.has(names[1]) {
		t.Errorf("revoked has access %t, active has %t", w.broker.has(names[0]), w.broker.has(names[1]))
	}
}
