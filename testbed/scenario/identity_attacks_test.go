package scenario

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/cavra/cavra/schemas/gen/cavra/agent/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/agent/v1/agentv1connect"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/enrol/v1/enrolv1connect"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/testbed/stack"
)

// loot is what a thief takes from an agent's folder.
type loot struct {
	w           *world
	id          stack.Identity
	address     string
	serverName  string
	ca          []byte
	key         *identity.Key
	certificate []byte
	enrolled    *identity.Key
	generation  uint64
}

// steal reads an agent's folder.
func (w *world) steal(a *stack.Agent) *loot {
	w.t.Helper()
	var s struct {
		Service struct {
			Address    string `json:"address"`
			ServerName string `json:"server_name"`
			CA         string `json:"ca"`
		} `json:"service"`
		Active struct {
			KeyFile     string `json:"key_file"`
			Certificate []byte `json:"certificate"`
			Generation  uint64 `json:"generation"`
		} `json:"active"`
	}
	b, err := os.ReadFile(filepath.Join(a.Dir(), "certificate.json"))
	w.must(err)
	w.must(json.Unmarshal(b, &s))
	l := &loot{
		w: w, id: identityOf(w, a), address: s.Service.Address, serverName: s.Service.ServerName, ca: []byte(s.Service.CA),
		certificate: s.Active.Certificate, generation: s.Active.Generation,
	}
	for file, into := range map[string]**identity.Key{s.Active.KeyFile: &l.key, l.id.KeyFile: &l.enrolled} {
		pem, err := os.ReadFile(filepath.Join(a.Dir(), file))
		w.must(err)
		*into, err = identity.ParsePEM(pem)
		w.must(err)
	}
	return l
}

// pair is the certificate as connections take it.
func (l *loot) pair() tls.Certificate {
	l.w.t.Helper()
	pair, err := l.key.TLS(l.certificate)
	l.w.must(err)
	return pair
}

// caller calls the agents' service with a certificate.
func (l *loot) caller(pair tls.Certificate) agentv1connect.AgentServiceClient {
	l.w.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(l.ca)
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: l.serverName,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
	}}
	l.w.t.Cleanup(transport.CloseIdleConnections)
	return agentv1connect.NewAgentServiceClient(&http.Client{Transport: transport, Timeout: 20 * time.Second}, "https://"+l.address)
}

func (l *loot) checkIn(ctx context.Context, c agentv1connect.AgentServiceClient, instance string, clock time.Time) error {
	_, err := c.CheckIn(ctx, connect.NewRequest(&agentv1.CheckInRequest{
		AgentVersion: "0.1.0", Clock: clock.UnixMilli(), Instance: instance, Generation: l.generation,
	}))
	return err
}

// back asks for a certificate by the enrolled key.
func (l *loot) back(desk enrolv1connect.EnrolmentServiceClient, challenge string) error {
	l.w.t.Helper()
	key, err := identity.Generate(predicate.ECDSAP256)
	l.w.must(err)
	der, err := key.Public().DER()
	l.w.must(err)
	bound := identity.Binding(identity.AtReturn, identity.ReturnContext(challenge, l.generation, nil, "thief"), l.enrolled.Public().ID(), key.Public())
	proof, err := key.Sign(bound)
	l.w.must(err)
	consent, err := l.enrolled.Sign(bound)
	l.w.must(err)
	_, err = desk.Return(l.w.ctx, connect.NewRequest(&enrolv1.ReturnRequest{
		Challenge: challenge, KeyId: string(l.enrolled.Public().ID()), Generation: l.generation, Instance: "thief",
		TlsKey: &enrolv1.TLSKey{PublicKey: der, Proof: proof, Consent: consent},
	}))
	return err
}

func challengeOf(w *world, desk enrolv1connect.EnrolmentServiceClient) string {
	w.t.Helper()
	res, err := desk.Challenge(w.ctx, connect.NewRequest(&enrolv1.ChallengeRequest{Purpose: "return"}))
	w.must(err)
	return res.Msg.GetChallenge()
}

// outcome says what became of a call.
func outcome(err error) string {
	switch {
	case err == nil:
		return "answered"
	case connect.IsWireError(err):
		return "refused: " + connect.CodeOf(err).String()
	}
	return "no connection"
}

// attack is a row of the table.
type attack struct {
	what string
	// do attempts it, and says what became of it.
	do func() string
	// want is what has to become of it, and event what the aggregator then shows.
	want, event string
}

// tryToken enrols with a token in a folder of its own.
func (w *world) tryToken(token, name string) string {
	w.t.Helper()
	out, err := stack.Command(w.ctx, nil, w.programs.Cavra(), "agent", "enroll", "--server", w.aggregator.URL(), "--token-file", token,
		"--dir", filepath.Join(w.dir, name), "--scan", w.tree)
	w.must(err)
	switch {
	case out.Code == 0:
		return "enrolled"
	case strings.Contains(string(out.Stderr), "the join token is not good"):
		return "refused: token"
	}
	return string(out.Stderr)
}

// copyOf copies an agent's folder.
func (w *world) copyOf(a *stack.Agent, name string) *stack.Agent {
	w.t.Helper()
	c, err := stack.NewAgent(w.programs, filepath.Join(w.dir, name))
	w.must(err)
	w.must(os.CopyFS(c.Dir(), os.DirFS(a.Dir())))
	return c
}

// call has an agent's program call once.
func (w *world) call(a *stack.Agent, args ...string) string {
	w.t.Helper()
	out, err := stack.Command(w.ctx, nil, w.programs.Cavra(), append([]string{"agent", "check-in", "--dir", a.Dir()}, args...)...)
	w.must(err)
	if out.Code != 0 {
		return "refused"
	}
	return "answered"
}

// foreign is a certificate that says the same as another, by an authority of its
// own.
func foreign(w *world, like []byte) tls.Certificate {
	w.t.Helper()
	leaf, err := identity.ParseCertificate(like)
	w.must(err)
	root, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	issuer := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: leaf.Issuer, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: leaf.SerialNumber, Subject: pkix.Name{CommonName: leaf.Subject.CommonName}, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		URIs: []*url.URL{leaf.URIs[0]}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, issuer, key.Public(), root)
	w.must(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestIdentityAttacks tries what a thief of tokens, certificates and folders can,
// on the programs as they are built, and prints what became of each.
func TestIdentityAttacks(t *testing.T) {
	t.Parallel()
	w := shortLived(t, folder(t), programs(t), 30*time.Second)
	desk := enrolv1connect.NewEnrolmentServiceClient(http.DefaultClient, w.aggregator.URL())
	token := func(name string, args ...string) string {
		file := filepath.Join(w.dir, name+".token")
		w.must(w.aggregator.JoinToken(w.ctx, file, append([]string{"--name", name}, args...)...))
		return file
	}
	stolen, short := token("stolen"), token("short", "--ttl", "1s")
	late := w.enrol("late") // its certificate ends while the others are at work
	expired := w.steal(late)
	a, b := w.enrol("first"), w.enrol("second")
	mine, theirs := w.steal(a), w.steal(b)
	now := time.Now

	rows := []attack{
		{"a stolen join token, before its owner", func() string {
			thief := w.tryToken(stolen, "thief")
			return "thief " + thief + ", owner " + w.tryToken(stolen, "owner")
		}, "thief enrolled, owner refused: token", "token_reused"},
		{"a join token again, with another key", func() string { return w.tryToken(stolen, "again") }, "refused: token", "token_reused"},
		{"a join token after its end", func() string {
			w.pause(1100 * time.Millisecond)
			return w.tryToken(short, "too-late")
		}, "refused: token", "token_expired_use"},
		{"a certificate with another agent's key", func() string {
			pair := mine.pair()
			pair.PrivateKey = theirs.pair().PrivateKey
			return outcome(mine.checkIn(w.ctx, mine.caller(pair), "x", now()))
		}, "no connection", ""},
		{"another agent's certificate, to renew as this one", func() string {
			key, err := identity.Generate(predicate.ECDSAP256)
			w.must(err)
			der, err := key.Public().DER()
			w.must(err)
			// Signed by this agent's key, sent with the other's certificate.
			proof, err := mine.key.Sign(identity.Binding(identity.AtRenewal, "1", "", key.Public()))
			w.must(err)
			_, err = theirs.caller(theirs.pair()).Renew(w.ctx, connect.NewRequest(&agentv1.RenewRequest{PublicKey: der, Proof: proof, Instance: "x", Generation: 1}))
			return outcome(err)
		}, "refused: invalid_argument", ""},
		{"a certificate of another authority", func() string {
			return outcome(mine.checkIn(w.ctx, mine.caller(foreign(w, mine.certificate)), "x", now()))
		}, "no connection", ""},
		{"a clock that is off by an hour", func() string {
			return outcome(theirs.checkIn(w.ctx, theirs.caller(theirs.pair()), "y", now().Add(time.Hour)))
		}, "answered", "clock_skew"},
		{"a challenge again", func() string {
			c := challengeOf(w, desk)
			first := outcome(mine.back(desk, c))
			return first + ", then " + outcome(mine.back(desk, c))
		}, "answered, then refused: unauthenticated", ""},
		{"a clone of the folder, by turns", func() string {
			original := w.enrol("original")
			clone := w.copyOf(original, "clone")
			l := w.steal(original)
			c := l.caller(l.pair())
			first := outcome(l.checkIn(w.ctx, c, "original", now()))
			second := w.call(clone)
			return first + ", " + second + ", " + outcome(l.checkIn(w.ctx, c, "original", now()))
		}, "answered, answered, answered", "cloned"},
		{"two that go on from one certificate", func() string {
			original := w.enrol("twin")
			clone := w.copyOf(original, "twin-clone")
			return w.call(original, "--renew") + ", " + w.call(clone, "--renew")
		}, "answered, answered", "cloned"},
		{"a snapshot, restored after two rotations", func() string {
			original := w.enrol("machine")
			snapshot := w.copyOf(original, "snapshot")
			w.call(original, "--renew")
			w.call(original, "--renew")
			return w.call(snapshot, "--renew")
		}, "answered", "restored"},
		{"a revoked agent, on its open connection", func() string {
			theirs = w.steal(w.enrol("revoked"))
			connections := 0
			ctx := httptrace.WithClientTrace(w.ctx, &httptrace.ClientTrace{ConnectDone: func(string, string, error) { connections++ }})
			c := theirs.caller(theirs.pair())
			w.must(theirs.checkIn(ctx, c, "y", now()))
			out, err := w.aggregator.CLI(w.ctx, "agents", "revoke", theirs.id.Agent)
			if err = errors.Join(err, exitCode(out)); err != nil {
				return err.Error()
			}
			got := outcome(theirs.checkIn(ctx, c, "y", now()))
			if connections != 1 {
				got += fmt.Sprintf(", over %d connections", connections)
			}
			return got
		}, "refused: permission_denied", "revoked_call"},
		{"a revoked agent comes back by its enrolled key", func() string {
			return outcome(theirs.back(desk, challengeOf(w, desk)))
		}, "refused: permission_denied", ""},
		{"a certificate after its end", func() string {
			leaf, err := identity.ParseCertificate(expired.certificate)
			w.must(err)
			w.pause(time.Until(leaf.NotAfter) + time.Second)
			return outcome(expired.checkIn(w.ctx, expired.caller(expired.pair()), "z", now()))
		}, "no connection", ""},
		{"the same agent, by its enrolled key", func() string { return w.call(late) }, "answered", ""},
	}
	var table strings.Builder
	for _, r := range rows {
		before := w.odd()
		got := r.do()
		shown := newKinds(before, w.odd())
		fmt.Fprintf(&table, "  %-52s %-44s %s\n", r.what, got, strings.Join(shown, ", "))
		if got != r.want || r.event != "" && !slices.Contains(shown, r.event) || r.event == "" && len(shown) > 0 {
			t.Errorf("%s: %s, and shown: %v; want %s, and shown: %q", r.what, got, shown, r.want, r.event)
		}
	}
	t.Logf("\n  %-52s %-44s %s\n%s", "attack", "outcome", "shown as", table.String())
}

func exitCode(out stack.Output) error {
	if out.Code != 0 {
		return fmt.Errorf("exit code %d: %s", out.Code, out.Stderr)
	}
	return nil
}

// newKinds are the kinds of the events that have come, or come again.
func newKinds(before, after []stack.AgentEvent) []string {
	counts := map[string]uint64{}
	for _, e := range before {
		counts[e.Kind] += e.Count
	}
	now := map[string]uint64{}
	for _, e := range after {
		now[e.Kind] += e.Count
	}
	var out []string
	for kind, n := range now {
		if n > counts[kind] {
			out = append(out, kind)
		}
	}
	slices.Sort(out)
	return out
}
