package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/scram"

	agentv1 "github.com/cavra/cavra/schemas/gen/cavra/agent/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/agent/v1/agentv1connect"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/enrol/v1/enrolv1connect"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/topic"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/chain"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/testbed/forge"
)

// How an agent's publisher works; see agent/internal/publish.
const (
	dialTimeout  = 10 * time.Second
	writeTimeout = 30 * time.Second
	batchTimeout = 2 * time.Millisecond
	metadataTTL  = 10 * time.Minute
	batchSize    = 500
	batchBytes   = 4 << 20
	version      = "0.1.0"
	proofPrefix  = "cavra-enrol-v1\n"
	enrolTries   = 5
)

// agent is a simulated agent: everything but the scanning and the disk.
type agent struct {
	name string
	key  *identity.Key
	// tlsKey is what it calls the agents' service with, and pair that key with the
	// certificate for it.
	tlsKey *identity.Key
	pair   tls.Certificate
	access *enrolv1.EnrolResponse
	writer *kafka.Writer

	started  time.Time
	interval time.Duration
	mu       sync.Mutex // one batch is under way at a time
	head     chain.Head
	acked    uint64
}

func newAgent(name string, interval time.Duration) (*agent, error) {
	key, err := identity.Generate(predicate.Ed25519)
	if err != nil {
		return nil, err
	}
	tlsKey, err := identity.Generate(predicate.ECDSAP256)
	if err != nil {
		return nil, err
	}
	return &agent{name: name, key: key, tlsKey: tlsKey, started: time.Now(), interval: interval}, nil
}

// enrol exchanges a join token over a connection of its own, again where the
// aggregator says so. It returns how often it tried in vain.
func (a *agent) enrol(ctx context.Context, server, token string) (failed int, err error) {
	for pause := time.Second; ; pause *= 2 {
		err := a.enrolOnce(ctx, server, token)
		if connect.CodeOf(err) != connect.CodeUnavailable || failed == enrolTries || ctx.Err() != nil {
			return failed, err
		}
		failed++
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func (a *agent) enrolOnce(ctx context.Context, server, token string) error {
	transport := &http.Transport{DisableKeepAlives: true}
	client := enrolv1connect.NewEnrolmentServiceClient(&http.Client{Transport: transport, Timeout: time.Minute}, server)
	der, err := a.key.Public().DER()
	if err != nil {
		return err
	}
	proof, err := a.key.Sign([]byte(proofPrefix + token))
	if err != nil {
		return err
	}
	wanted, err := a.tlsRequest(token)
	if err != nil {
		return err
	}
	answer, err := client.Enrol(ctx, connect.NewRequest(&enrolv1.EnrolRequest{
		JoinToken: token, PublicKey: der, Algorithm: string(a.key.Public().Algorithm), Proof: proof, AgentVersion: version, TlsKey: wanted,
	}))
	if err != nil {
		return fmt.Errorf("enrol %s: %w", a.name, err)
	}
	a.access = answer.Msg
	a.pair, err = a.tlsKey.TLS(a.access.GetService().GetCertificate())
	return err
}

// tlsRequest asks for a certificate.
func (a *agent) tlsRequest(token string) (*enrolv1.TLSKey, error) {
	der, err := a.tlsKey.Public().DER()
	if err != nil {
		return nil, err
	}
	bound := identity.Binding(identity.AtEnrolment, token, a.key.Public().ID(), a.tlsKey.Public())
	proof, err := a.tlsKey.Sign(bound)
	if err != nil {
		return nil, err
	}
	consent, err := a.key.Sign(bound)
	return &enrolv1.TLSKey{PublicKey: der, Proof: proof, Consent: consent}, err
}

// checkIn calls the agents' service over a connection of its own, as an agent
// does each time.
func (a *agent) checkIn(ctx context.Context) error {
	way := a.access.GetService()
	roots, err := poolOf(way.GetCaPem())
	if err != nil {
		return err
	}
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: way.GetServerName(), Certificates: []tls.Certificate{a.pair}},
		ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	client := agentv1connect.NewAgentServiceClient(&http.Client{Transport: transport, Timeout: time.Minute}, "https://"+way.GetAddress())
	_, err = client.CheckIn(ctx, connect.NewRequest(&agentv1.CheckInRequest{
		AgentVersion: version, Clock: time.Now().UnixMilli(), Instance: a.name, Generation: way.GetGeneration(), Configurable: true,
	}))
	if err != nil {
		return fmt.Errorf("check in %s: %w", a.name, err)
	}
	return nil
}

func poolOf(pem string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pem)) {
		return nil, errors.New("the aggregator gave no authority")
	}
	return pool, nil
}

// connect makes the writer; it connects with the first write.
func (a *agent) connect(ctx context.Context) error {
	k := a.access.GetKafka()
	mechanism, err := scram.Mechanism(scram.SHA256, k.GetUsername(), k.GetPassword())
	if err != nil {
		return fmt.Errorf("log in to Kafka: %w", err)
	}
	roots, err := poolOf(k.GetCaPem())
	if err != nil {
		return err
	}
	a.writer = &kafka.Writer{
		Addr: kafka.TCP(k.GetBrokers()...), Topic: k.GetTopic(), Balancer: &kafka.Hash{},
		Transport: &kafka.Transport{
			DialTimeout: dialTimeout, SASL: mechanism, TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, ClientID: "cavra-agent", Context: ctx,
			MetadataTopics: []string{k.GetTopic()}, MetadataTTL: metadataTTL,
		},
		RequiredAcks: kafka.RequireAll, MaxAttempts: 1, BatchSize: batchSize + 1, BatchBytes: batchBytes,
		BatchTimeout: batchTimeout, WriteTimeout: writeTimeout, ReadTimeout: writeTimeout,
	}
	return nil
}

func (a *agent) close() error {
	if a.writer == nil {
		return nil
	}
	return a.writer.Close()
}

// signed is a statement on its way.
type signed struct {
	envelope []byte
	digest   predicate.Digest
	at       time.Time
}

// sign signs the next statement of the chain.
func (a *agent) sign(of func(predicate.Link) predicate.Predicate) (signed, error) {
	l := predicate.Link{
		Tenant: a.access.GetTenant(), Agent: a.access.GetAgent(), KeyID: a.key.Public().ID(), Epoch: a.access.GetEpoch(),
		SignedAt: predicate.At(time.Now()),
	}
	l.Sequence, l.Previous = a.head.Next()
	payload, err := predicate.Marshal(of(l))
	if err != nil {
		return signed{}, err
	}
	envelope, err := attest.Sign(payload, a.key)
	if err != nil {
		return signed{}, err
	}
	s := signed{envelope, attest.Digest(payload), time.Now()}
	a.head = chain.Head{Sequence: l.Sequence, Digest: s.digest}
	return s, nil
}

// tell signs statements and publishes them, again until the broker has
// acknowledged them, as an agent does. It returns them, and how often it tried
// in vain.
func (a *agent) tell(ctx context.Context, of ...func(predicate.Link) predicate.Predicate) (told []signed, failed int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	messages := make([]kafka.Message, 0, len(of))
	for _, f := range of {
		s, err := a.sign(f)
		if err != nil {
			return nil, 0, err
		}
		m := kafka.Message{Key: topic.Key(a.access.GetTenant(), a.access.GetAgent()), Value: s.envelope}
		for _, h := range topic.Headers(s.digest) {
			m.Headers = append(m.Headers, kafka.Header{Key: h.Key, Value: []byte(h.Value)})
		}
		told, messages = append(told, s), append(messages, m)
	}
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		if err = a.writer.WriteMessages(ctx, messages...); err == nil {
			a.acked += uint64(len(told))
			return told, failed, nil
		}
		if ctx.Err() != nil {
			return nil, failed, errors.Join(context.Cause(ctx), err)
		}
		failed++
		a.writer.Transport.(*kafka.Transport).CloseIdleConnections()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func (a *agent) epoch(l predicate.Link) predicate.Predicate {
	return &predicate.Epoch{Link: l, Cause: predicate.EpochCause(a.access.GetEpochCause()), Algorithm: a.key.Public().Algorithm}
}

var plugins = []predicate.Scanner{{Name: "formats", Version: version, Digest: predicate.DigestOf([]byte("formats"))}}

func (a *agent) heartbeat(l predicate.Link) predicate.Predicate {
	now := predicate.At(time.Now())
	return &predicate.Heartbeat{
		Link: l, AgentVersion: version, RulesetVersion: "1.0.0", Plugins: plugins,
		Sandbox:   []predicate.Layer{predicate.LayerEmptyEnv, predicate.LayerLandlock, predicate.LayerNetwork, predicate.LayerNoNewPrivs, predicate.LayerProcess, predicate.LayerRlimits, predicate.LayerSeccomp},
		StartedAt: predicate.At(a.started), LastRoundAt: &now, LastCompleteAt: &now,
		IntervalSeconds: uint64(a.interval / time.Second), Privacy: predicate.Strict, Configuration: &predicate.Configuration{Remote: true},
	}
}

// scan is a report about an artifact of this agent's own.
func (a *agent) scan(l predicate.Link) predicate.Predicate {
	s := forge.Scan(l, fmt.Sprintf("%s %d", l.Agent, l.Sequence))
	s.StartedAt, s.FinishedAt = l.SignedAt, l.SignedAt
	return s
}
