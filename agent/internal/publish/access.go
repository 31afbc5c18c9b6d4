package publish

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// clientID is the name by which the brokers' logs know an agent's connections.
const clientID = "cavra-agent"

// metadataTTL is how long at most an agent believes what it knows of the cluster.
const metadataTTL = 10 * time.Minute

// Access is the way to the topic.
type Access struct {
	// Brokers are host:port.
	Brokers []string
	Topic   string
	// Mechanism is none, plain, scram-sha-256 or scram-sha-512.
	Mechanism string
	Username  string
	Password  string
	TLS       bool
	// CA is the brokers' certificate authority, PEM; empty for the system's.
	CA string
}

// LogValue shows everything but the password.
func (a Access) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("brokers", a.Brokers), slog.String("topic", a.Topic),
		slog.String("mechanism", a.Mechanism), slog.String("username", a.Username), slog.Bool("tls", a.TLS))
}

// Check logs in and looks for the topic. An error of this package says what
// stands in the way and what to do about it; nil says that the brokers know this
// agent and its topic. It takes no longer than ctx, and than 10 seconds for each
// broker and the topic.
func Check(ctx context.Context, access Access) error {
	l, err := newLink(access, defaultTiming())
	if err != nil {
		return err
	}
	if err := l.login(ctx); err != nil {
		return advised(err)
	}
	if err := l.lookup(ctx); err != nil {
		return advised(classify(err))
	}
	return nil
}

// link makes connections to the brokers.
type link struct {
	access Access
	timing timing
	sasl   sasl.Mechanism
	tls    *tls.Config
}

func newLink(access Access, t timing) (*link, error) {
	if len(access.Brokers) == 0 || access.Topic == "" {
		return nil, errors.New("publish: the enrolment names no brokers or no topic")
	}
	mechanism, err := mechanismOf(access)
	if err != nil {
		return nil, err
	}
	l := &link{access: access, timing: t, sasl: mechanism}
	if access.TLS {
		l.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if access.CA != "" {
			l.tls.RootCAs = x509.NewCertPool()
			if !l.tls.RootCAs.AppendCertsFromPEM([]byte(access.CA)) {
				return nil, errors.New("publish: the brokers' certificate authority holds no certificate")
			}
		}
	}
	return l, nil
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

// transport makes a transport whose connections end with life.
func (l *link) transport(life context.Context) *kafka.Transport {
	return &kafka.Transport{
		Dial: l.dial(life), DialTimeout: l.timing.dial, SASL: l.sasl, TLS: l.tls, ClientID: clientID, Context: life,
		// Without a name kafka-go asks for every topic, and a topic that this
		// agent may not see looks like one that does not exist.
		MetadataTopics: []string{l.access.Topic},
		// By default each agent would ask for what it knows every few seconds.
		// When something has changed a write fails, and what is known is dropped.
		MetadataTTL: metadataTTL,
	}
}

// login connects to one broker after the other until one takes the login.
func (l *link) login(ctx context.Context) error {
	var away, refused error
	for _, broker := range l.access.Brokers {
		err := l.loginAt(ctx, broker)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, ErrAway) && refused == nil:
			refused = err
		case away == nil:
			away = err
		}
	}
	if refused != nil {
		return refused
	}
	return away
}

// lookup asks for the topic, without making it: kafka-go's connections would.
func (l *link) lookup(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.timing.dial)
	defer cancel()
	transport := l.transport(ctx)
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(l.access.Brokers...), Transport: transport}
	answer, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{l.access.Topic}})
	if err != nil {
		return err
	}
	for _, t := range answer.Topics {
		if t.Error != nil {
			return t.Error
		}
	}
	return nil
}

func (l *link) loginAt(ctx context.Context, broker string) error {
	ctx, cancel := context.WithTimeout(ctx, l.timing.dial)
	defer cancel()
	d := kafka.Dialer{ClientID: clientID, Timeout: l.timing.dial, SASLMechanism: l.sasl, TLS: l.tls, DialFunc: l.dial(ctx)}
	conn, err := d.DialContext(ctx, "tcp", broker)
	if err != nil {
		return classify(err)
	}
	if err := conn.Close(); err != nil {
		return classify(err)
	}
	return nil
}

// dial makes connections that end with life and never wait without a deadline.
func (l *link) dial(life context.Context) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		raw, err := (&net.Dialer{Timeout: l.timing.dial}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		conn := &boundedConn{Conn: raw, limit: l.timing.write}
		if err := conn.SetDeadline(time.Time{}); err != nil {
			return nil, errors.Join(fmt.Errorf("set deadline: %w", err), raw.Close())
		}
		conn.release = context.AfterFunc(life, func() {
			// Whoever waits on it gets the error.
			_ = raw.Close()
		})
		return conn, nil
	}
}

// boundedConn takes no deadline for a far one. kafka-go clears the deadline
// while it logs in, so that a broker that falls silent there would hold the
// publisher for good.
type boundedConn struct {
	net.Conn
	limit   time.Duration
	release func() bool
}

func (c *boundedConn) at(t time.Time) time.Time {
	if t.IsZero() {
		return time.Now().Add(c.limit)
	}
	return t
}

func (c *boundedConn) SetDeadline(t time.Time) error      { return c.Conn.SetDeadline(c.at(t)) }
func (c *boundedConn) SetReadDeadline(t time.Time) error  { return c.Conn.SetReadDeadline(c.at(t)) }
func (c *boundedConn) SetWriteDeadline(t time.Time) error { return c.Conn.SetWriteDeadline(c.at(t)) }

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.release()
	return c.Conn.Close()
}
