package kafka

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// boundedConn never waits without a deadline. kafka-go clears the deadline while
// it authenticates, so that a broker that falls silent there would hold the
// caller for good.
type boundedConn struct {
	net.Conn
	limit time.Duration
}

func bounded(c net.Conn, limit time.Duration) (net.Conn, error) {
	b := boundedConn{Conn: c, limit: limit}
	if err := b.SetDeadline(time.Time{}); err != nil {
		_ = c.Close() // the connection is unusable and the error says why
		return nil, fmt.Errorf("set deadline: %w", err)
	}
	return b, nil
}

func (c boundedConn) at(t time.Time) time.Time {
	if t.IsZero() {
		return time.Now().Add(c.limit)
	}
	return t
}

func (c boundedConn) SetDeadline(t time.Time) error      { return c.Conn.SetDeadline(c.at(t)) }
func (c boundedConn) SetReadDeadline(t time.Time) error  { return c.Conn.SetReadDeadline(c.at(t)) }
func (c boundedConn) SetWriteDeadline(t time.Time) error { return c.Conn.SetWriteDeadline(c.at(t)) }

// dialer returns a kafka-go dialer whose connections are bounded. Each
// connection it opens is handed to seen, which may be nil.
func (c *client) dialer(seen func(net.Conn)) *kafka.Dialer {
	return &kafka.Dialer{
		ClientID:      c.cfg.ClientID,
		Timeout:       c.cfg.Timeout,
		SASLMechanism: c.sasl,
		DialFunc: func(ctx context.Context, network, address string) (net.Conn, error) {
			raw, err := (&net.Dialer{Timeout: c.cfg.Timeout}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			conn, err := c.secure(ctx, raw, address)
			if err != nil {
				_ = raw.Close() // the handshake's error is the one to report
				return nil, err
			}
			// The group's coordinator may hold a join back for as long as
			// the rebalance takes.
			conn, err = bounded(conn, c.cfg.Timeout+c.cfg.RebalanceTimeout)
			if err == nil && seen != nil {
				seen(conn)
			}
			return conn, err
		},
	}
}

func (c *client) secure(ctx context.Context, raw net.Conn, address string) (net.Conn, error) {
	if c.cfg.TLS == nil {
		return raw, nil
	}
	cfg := c.cfg.TLS
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("split address: %w", err)
		}
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("tls handshake with %s: %w", address, err)
	}
	return conn, nil
}

// dialLeader connects to the broker that leads the partition, authenticates, and
// returns the connection with nothing in flight on it.
func (c *client) dialLeader(ctx context.Context, partition int) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	var last net.Conn
	var stops []func() bool
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	d := c.dialer(func(conn net.Conn) {
		last = conn
		stops = append(stops, context.AfterFunc(ctx, func() { _ = conn.Close() })) // frees whoever waits on it
	})
	leader, err := c.leader(ctx, d, partition)
	if err != nil {
		return nil, err
	}
	conn, err := d.DialContext(ctx, "tcp", leader)
	if err != nil {
		return nil, fmt.Errorf("connect to leader %s: %w", leader, err)
	}
	if ctx.Err() != nil {
		_ = conn.Close() // the deadline came first
		return nil, fmt.Errorf("connect to leader %s: %w", leader, ctx.Err())
	}
	return last, nil
}

func (c *client) leader(ctx context.Context, d *kafka.Dialer, partition int) (string, error) {
	var firstErr error
	for _, broker := range c.cfg.Brokers {
		p, err := lookup(ctx, d, broker, c.cfg.Topic, partition)
		switch {
		case err == nil && p.Leader.Host != "":
			return net.JoinHostPort(p.Leader.Host, strconv.Itoa(p.Leader.Port)), nil
		case err == nil:
			err = kafka.LeaderNotAvailable
		case !Retryable(err):
			return "", fmt.Errorf("find leader of %s/%d: %w", c.cfg.Topic, partition, err)
		}
		if firstErr == nil {
			firstErr = fmt.Errorf("find leader of %s/%d: %w", c.cfg.Topic, partition, err)
		}
	}
	return "", firstErr
}

func lookup(ctx context.Context, d *kafka.Dialer, broker, topic string, partition int) (kafka.Partition, error) {
	conn, err := d.DialContext(ctx, "tcp", broker)
	if err != nil {
		return kafka.Partition{}, err
	}
	defer func() { _ = conn.Close() }() // nothing was written that could be lost
	all, err := conn.ReadPartitions(topic)
	if err != nil {
		return kafka.Partition{}, err
	}
	for _, p := range all {
		if p.ID == partition {
			return p, nil
		}
	}
	return kafka.Partition{}, kafka.UnknownTopicOrPartition
}

// reach logs in at one of the brokers. kafka-go's transport reports a cluster
// that it could not log in to as one without brokers; this reports the reason.
func (c *client) reach(ctx context.Context) error {
	var firstErr error
	for _, broker := range c.cfg.Brokers {
		conn, err := c.dialer(nil).DialContext(ctx, "tcp", broker)
		if err == nil {
			return conn.Close()
		}
		if !Retryable(err) {
			return err
		}
		if firstErr == nil {
			firstErr = err
		}
	}
	return firstErr
}
