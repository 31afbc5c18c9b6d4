// Package publish brings what the spool holds to Kafka, in order, and says so
// to the spool only after the broker's replicas have acknowledged it.
//
// It guarantees that a statement is sent until it is acknowledged, that one
// batch is under way at a time, so that a chain arrives in its order, and that
// an error which waiting cannot mend ends it with that error. Delivery is at
// least once: the aggregator ignores what it has.
package publish

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/cavra/cavra/schemas/topic"
	"github.com/cavra/cavra/sdk/attest"
)

// The bounds of a batch and of the waits.
const (
	maxMessages = 500
	maxBytes    = 900_000
	// batchOverhead is what keys, headers and framing take: with one message of
	// the largest size, a batch stays under Kafka's default bound.
	batchOverhead = 16 << 10
	writeTimeout  = 30 * time.Second
	firstPause    = 200 * time.Millisecond
	lastPause     = 30 * time.Second
)

// Batch is what is sent at once.
type Batch struct {
	Envelopes [][]byte
	// Done says that the broker has acknowledged all of them.
	Done func() error
}

// Source is where statements wait.
type Source interface {
	// Next waits for statements and returns those after the last batch.
	Next(ctx context.Context, most, mostBytes int) (Batch, error)
}

// Access is the way to the topic, as the enrolment gave it.
type Access struct {
	Brokers   []string `json:"brokers"`
	Topic     string   `json:"topic"`
	Mechanism string   `json:"mechanism"`
	Username  string   `json:"username"`
	Password  string   `json:"password"`
	TLS       bool     `json:"tls"`
	CA        string   `json:"ca,omitempty"`
}

// LogValue shows everything but the password.
func (a Access) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("brokers", a.Brokers), slog.String("topic", a.Topic),
		slog.String("mechanism", a.Mechanism), slog.String("username", a.Username), slog.Bool("tls", a.TLS))
}

// Publisher publishes one spool.
type Publisher struct {
	source Source
	writer *kafka.Writer
	key    []byte
	log    *slog.Logger
}

// New checks the access and connects to nothing. Close the Publisher.
func New(source Source, tenant, agent string, access Access, log *slog.Logger) (*Publisher, error) {
	if len(access.Brokers) == 0 || access.Topic == "" {
		return nil, errors.New("publish: the enrolment names no brokers or no topic")
	}
	mechanism, err := mechanismOf(access)
	if err != nil {
		return nil, err
	}
	transport := &kafka.Transport{SASL: mechanism, DialTimeout: 10 * time.Second, ClientID: "cavra-agent"}
	if access.TLS {
		transport.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		if access.CA != "" {
			transport.TLS.RootCAs = x509.NewCertPool()
			if !transport.TLS.RootCAs.AppendCertsFromPEM([]byte(access.CA)) {
				return nil, errors.New("publish: the brokers' certificate authority holds no certificate")
			}
		}
	}
	writer := &kafka.Writer{
		Addr: kafka.TCP(access.Brokers...), Topic: access.Topic, Balancer: &kafka.Hash{}, Transport: transport,
		// kafka-go's zero value acknowledges nothing.
		RequiredAcks: kafka.RequireAll, MaxAttempts: 1, BatchSize: maxMessages, BatchBytes: topic.MaxMessage + batchOverhead,
		BatchTimeout: 2 * time.Millisecond, WriteTimeout: writeTimeout, ReadTimeout: writeTimeout,
	}
	return &Publisher{source: source, writer: writer, key: topic.Key(tenant, agent), log: log}, nil
}

func mechanismOf(a Access) (sasl.Mechanism, error) {
	var m sasl.Mechanism
	var err error
	switch a.Mechanism {
	case "none":
	case "plain":
		m = plain.Mechanism{Username: a.Username, Password: a.Password}
	case "scram-sha-256":
		m, err = scram.Mechanism(scram.SHA256, a.Username, a.Password)
	case "scram-sha-512":
		m, err = scram.Mechanism(scram.SHA512, a.Username, a.Password)
	default:
		err = fmt.Errorf("the mechanism %q is not known", a.Mechanism)
	}
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	return m, nil
}

// Close gives back the connections.
func (p *Publisher) Close() error { return p.writer.Close() }

// Run publishes until ctx ends, whose error it returns, or until an error that
// waiting cannot mend.
func (p *Publisher) Run(ctx context.Context) error {
	for {
		batch, err := p.source.Next(ctx, maxMessages, maxBytes)
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		messages, err := p.messages(batch.Envelopes)
		if err != nil {
			return err
		}
		if err := p.send(ctx, messages); err != nil {
			return err
		}
		if err := batch.Done(); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
}

func (p *Publisher) messages(envelopes [][]byte) ([]kafka.Message, error) {
	out := make([]kafka.Message, len(envelopes))
	for i, b := range envelopes {
		e, err := attest.Open(b)
		if err != nil {
			return nil, fmt.Errorf("publish: the spool holds what is no envelope: %w", err)
		}
		out[i] = kafka.Message{Key: p.key, Value: b}
		for _, h := range topic.Headers(e.Digest()) {
			out[i].Headers = append(out[i].Headers, kafka.Header{Key: h.Key, Value: []byte(h.Value)})
		}
	}
	return out, nil
}

// send writes the messages until all are acknowledged. A batch of which a part
// was acknowledged is sent whole again, which keeps the order.
func (p *Publisher) send(ctx context.Context, messages []kafka.Message) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := p.writer.WriteMessages(ctx, messages...)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("publish: %w", ctx.Err())
		case !retryable(err):
			return fmt.Errorf("publish: the broker refuses what this agent sends: %w", err)
		}
		p.log.Warn("the broker did not take a batch: it stays in the spool and is sent again", "messages", len(messages), "err", err)
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("publish: %w", ctx.Err())
		}
	}
}

// permanent are the answers after which the same message would be refused
// again.
var permanent = []kafka.Error{
	kafka.MessageSizeTooLarge, kafka.InvalidMessage, kafka.InvalidRecord, kafka.SASLAuthenticationFailed, kafka.TopicAuthorizationFailed,
	kafka.ClusterAuthorizationFailed, kafka.UnsupportedSASLMechanism, kafka.IllegalSASLState, kafka.InvalidTopic,
}

func retryable(err error) bool {
	var each kafka.WriteErrors
	if errors.As(err, &each) {
		for _, e := range each {
			if e != nil && !retryable(e) {
				return false
			}
		}
		return true
	}
	var tooLarge kafka.MessageTooLargeError
	if errors.As(err, &tooLarge) || errors.Is(err, io.ErrClosedPipe) {
		return false
	}
	for _, e := range permanent {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}
