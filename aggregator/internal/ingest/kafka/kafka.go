// Package kafka connects the aggregator to Kafka, a real cluster and the
// embedded broker alike: it administers topics and agents' credentials, divides
// partitions among aggregators, and reads them at offsets that the caller owns.
//
// It guarantees that nothing is read twice or skipped behind the caller's back
// (every read starts at an explicit offset and says where it ended), that every
// wait on a broker has a bound, and that memory is bounded whatever a writer put
// into the log.
//
// github.com/segmentio/kafka-go does the administration, the group protocol and
// the authentication. Fetching is done here: kafka-go's decoder allocates what a
// batch claims to hold, decompresses without a bound, and does not say where an
// empty batch ends, and one hostile batch would stop a partition for good.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/cavra/cavra/aggregator/internal/ingest/kafka/recordbatch"
)

// Mechanism says how a client authenticates.
type Mechanism string

// The mechanisms. None is for brokers that authenticate by client certificate,
// and Plain sends the password, so it requires TLS.
const (
	None        Mechanism = "none"
	Plain       Mechanism = "plain"
	ScramSHA256 Mechanism = "scram-sha-256"
	ScramSHA512 Mechanism = "scram-sha-512"
)

// SASL is how a client authenticates.
type SASL struct {
	Mechanism Mechanism
	Username  string
	Password  string
}

// LogValue shows everything but the password.
func (s SASL) LogValue() slog.Value {
	return slog.GroupValue(slog.String("mechanism", string(s.Mechanism)), slog.String("username", s.Username))
}

// Config says which cluster to use and as whom. Start from Default.
type Config struct {
	// Brokers are host:port addresses to find the cluster by.
	Brokers []string
	// TLS, if not nil, is used for every connection.
	TLS *tls.Config
	// SASL authenticates every connection.
	SASL SASL
	// ClientID names this program in the brokers' logs.
	ClientID string
	// Topic is the topic that carries the statements.
	Topic string
	// GroupID is the consumer group. Only a Consumer needs it.
	GroupID string

	// SessionTimeout is how long the group's coordinator waits for a heartbeat
	// before it gives this member's partitions to others.
	SessionTimeout time.Duration
	// RebalanceTimeout is how long a member may take to let go of its
	// partitions before the others go on without it.
	RebalanceTimeout time.Duration
	// Timeout bounds a connection attempt and a request, beyond the time that
	// the request itself asks the broker to wait.
	Timeout time.Duration
	// StallTimeout is how long reading a partition may fail, or stand still
	// before data that the broker says is there, before it is given up with a
	// *StallError.
	StallTimeout time.Duration
	// MaxRangeBytes bounds what ReadExactly holds in memory.
	MaxRangeBytes int
	// Batch bounds what one record batch may cost.
	Batch recordbatch.Limits

	// Log receives what the group does. Nil discards it.
	Log *slog.Logger
}

// Default returns the settings that do not depend on the installation.
func Default() Config {
	return Config{
		SASL:             SASL{Mechanism: None},
		ClientID:         "cavra-aggregator",
		SessionTimeout:   15 * time.Second,
		RebalanceTimeout: 20 * time.Second,
		Timeout:          10 * time.Second,
		StallTimeout:     time.Minute,
		MaxRangeBytes:    64 << 20,
		Batch:            recordbatch.DefaultLimits(),
	}
}

// Validate reports every setting that cannot work.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("kafka: "+format, args...)) }
	if len(c.Brokers) == 0 {
		bad("brokers: none given")
	}
	for _, b := range c.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			bad("brokers: %w: write it as host:port", err)
		}
	}
	switch c.SASL.Mechanism {
	case None:
	case Plain:
		if c.TLS == nil {
			bad("sasl.mechanism plain sends the password: it needs TLS")
		}
	case ScramSHA256, ScramSHA512:
	default:
		bad("sasl.mechanism %q: want none, plain, scram-sha-256 or scram-sha-512", c.SASL.Mechanism)
	}
	if c.SASL.Mechanism != None && (c.SASL.Username == "" || c.SASL.Password == "") {
		bad("sasl: username and password are both needed")
	}
	if c.Topic == "" {
		bad("topic: none given")
	}
	if len(c.ClientID) > 255 {
		bad("client id: %d bytes, limit 255", len(c.ClientID))
	}
	for _, t := range []struct {
		name string
		d    time.Duration
	}{
		{"session timeout", c.SessionTimeout}, {"rebalance timeout", c.RebalanceTimeout},
		{"timeout", c.Timeout}, {"stall timeout", c.StallTimeout},
	} {
		if t.d < time.Millisecond {
			bad("%s: %s is too short", t.name, t.d)
		}
	}
	if c.MaxRangeBytes <= 0 || c.Batch.Bytes <= 0 || c.Batch.Records <= 0 || c.Batch.Headers <= 0 {
		bad("limits: every limit must be positive")
	}
	return errors.Join(errs...)
}

func (c Config) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

func (c Config) mechanism() (sasl.Mechanism, error) {
	switch c.SASL.Mechanism {
	case Plain:
		return plain.Mechanism{Username: c.SASL.Username, Password: c.SASL.Password}, nil
	case ScramSHA256:
		return scram.Mechanism(scram.SHA256, c.SASL.Username, c.SASL.Password)
	case ScramSHA512:
		return scram.Mechanism(scram.SHA512, c.SASL.Username, c.SASL.Password)
	}
	return nil, nil
}

// client is what Admin and Consumer share: a kafka-go client and the means to
// close all it holds.
type client struct {
	cfg       Config
	sasl      sasl.Mechanism
	transport *kafka.Transport
	kafka     *kafka.Client
	cancel    context.CancelFunc
}

func newClient(cfg Config) (*client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	mech, err := cfg.mechanism()
	if err != nil {
		return nil, fmt.Errorf("kafka: prepare sasl: %w", err)
	}
	// The transport's background work outlives any one call and ends with Close.
	ctx, cancel := context.WithCancel(context.Background())
	t := &kafka.Transport{
		Dial:        (&net.Dialer{Timeout: cfg.Timeout}).DialContext,
		DialTimeout: cfg.Timeout,
		MetadataTTL: 2 * time.Second,
		ClientID:    cfg.ClientID,
		TLS:         cfg.TLS,
		SASL:        mech,
		Context:     ctx,
	}
	return &client{
		cfg: cfg, sasl: mech, transport: t, cancel: cancel,
		kafka: &kafka.Client{Addr: kafka.TCP(cfg.Brokers...), Timeout: cfg.Timeout, Transport: t},
	}, nil
}

func (c *client) close() {
	c.transport.CloseIdleConnections()
	c.cancel()
}

// partitions counts the topic's partitions.
func (c *client) partitions(ctx context.Context, topic string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	res, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return 0, fmt.Errorf("read metadata of topic %q: %w", topic, err)
	}
	for _, t := range res.Topics {
		if t.Name != topic {
			continue
		}
		if t.Error != nil {
			return 0, fmt.Errorf("read metadata of topic %q: %w", topic, t.Error)
		}
		return len(t.Partitions), nil
	}
	return 0, fmt.Errorf("read metadata of topic %q: %w", topic, kafka.UnknownTopicOrPartition)
}
