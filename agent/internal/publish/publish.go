// Package publish brings what the spool holds to Kafka, in order, and says so
// to the spool only after the broker's replicas have acknowledged it.
//
// It guarantees that a statement is sent until it is acknowledged, whatever the
// brokers answer meanwhile, that one batch is under way at a time, so that a
// chain arrives in its order, and that what stands in the way is logged once,
// by its kind and with what to do about it. Delivery is at least once: the
// aggregator ignores what it has.
package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/cavra/cavra/schemas/topic"
	"github.com/cavra/cavra/sdk/attest"
)

// The bounds of a batch.
const (
	maxMessages = 500
	// maxBatch keeps a batch under Kafka's default message.max.bytes of
	// 1,048,588, with its own frame.
	maxBatch = 1_020_000
	// recordFrame is what a record needs besides key, value and headers; it is
	// less in truth.
	recordFrame = 48
)

// timing is how long things may take and how long to wait after they failed.
type timing struct {
	dial, write time.Duration
	// away is for a cluster that does not answer or is not ready.
	away pauses
	// refused is for what only a person can mend: it may be mended at any time.
	refused pauses
}

type pauses struct{ first, last time.Duration }

func (p pauses) after(failures int) time.Duration {
	pause := p.first
	for range failures - 1 {
		if pause *= 2; pause >= p.last {
			return p.last
		}
	}
	return pause
}

func defaultTiming() timing {
	return timing{
		dial: 10 * time.Second, write: 30 * time.Second,
		away:    pauses{200 * time.Millisecond, 30 * time.Second},
		refused: pauses{5 * time.Second, 5 * time.Minute},
	}
}

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

// Config is what a Publisher is made of.
type Config struct {
	Source Source
	// Tenant and Agent are whose chain it is: they make the messages' key.
	Tenant, Agent string
	Access        Access
	Log           *slog.Logger
}

// Publisher publishes one spool.
type Publisher struct {
	cfg       Config
	timing    timing
	link      *link
	end       context.CancelFunc
	writer    *kafka.Writer
	transport *kafka.Transport
	key       []byte
	// overhead is what a message takes besides its value.
	overhead int
	// mostBytes bounds a batch of more than one message. It shrinks when the
	// broker takes less.
	mostBytes int
	standing  standing
	trouble   atomic.Pointer[Trouble]
}

// New checks the access and connects to nothing. Close the Publisher.
func New(cfg Config) (*Publisher, error) { return newPublisher(cfg, defaultTiming()) }

func newPublisher(cfg Config, t timing) (*Publisher, error) {
	l, err := newLink(cfg.Access, t)
	if err != nil {
		return nil, err
	}
	// The writer's goroutines belong to no call: Close ends them.
	life, end := context.WithCancel(context.Background())
	transport := l.transport(life)
	writer := &kafka.Writer{
		Addr: kafka.TCP(cfg.Access.Brokers...), Topic: cfg.Access.Topic, Balancer: &kafka.Hash{}, Transport: transport,
		// kafka-go's zero value acknowledges nothing.
		RequiredAcks: kafka.RequireAll, MaxAttempts: 1,
		// The writer must never split a batch: of two parts the second could
		// arrive and the first not. So its bounds are beyond ours.
		BatchSize: maxMessages + 1, BatchBytes: 4 * maxBatch,
		BatchTimeout: 2 * time.Millisecond, WriteTimeout: t.write, ReadTimeout: t.write,
	}
	key := topic.Key(cfg.Tenant, cfg.Agent)
	return &Publisher{
		cfg: cfg, timing: t, link: l, end: end, writer: writer, transport: transport,
		key: key, overhead: overheadOf(key), mostBytes: maxBatch,
	}, nil
}

// Close ends what is under way and gives back the connections. It does not wait
// for a broker that does not answer.
func (p *Publisher) Close() error {
	p.end()
	err := p.writer.Close()
	p.transport.CloseIdleConnections()
	if err != nil {
		return fmt.Errorf("close publisher: %w", err)
	}
	return nil
}

// Run publishes until ctx ends, whose error it returns, or until the source
// fails. What the brokers refuse stays in the spool and is tried again, slowly:
// a login or a right may be given back, and scanning goes on meanwhile.
func (p *Publisher) Run(ctx context.Context) error { return p.run(ctx, false) }

// RunUntilRefused is Run that ends when the brokers refuse, with an error that
// is ErrAuthentication, ErrAuthorization, ErrNoTopic, ErrTooLarge,
// ErrCertificate or ErrRefused. A cluster that is away it waits for.
func (p *Publisher) RunUntilRefused(ctx context.Context) error { return p.run(ctx, true) }

func (p *Publisher) run(ctx context.Context, untilRefused bool) error {
	for {
		most, mostBytes := p.room()
		batch, err := p.cfg.Source.Next(ctx, most, mostBytes)
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		messages, err := p.messages(batch.Envelopes)
		if err != nil {
			return err
		}
		if err := p.deliver(ctx, messages, untilRefused); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		if err := batch.Done(); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
}

// room is how many statements, of how many bytes, make a batch of mostBytes.
// What comes with each takes no more than half of it.
func (p *Publisher) room() (most, mostBytes int) {
	most = min(max(p.mostBytes/(2*p.overhead), 1), maxMessages)
	return most, max(p.mostBytes-most*p.overhead, 1)
}

// overheadOf is what a message takes besides its value, at most.
func overheadOf(key []byte) int {
	n := recordFrame + len(key)
	for _, h := range topic.Headers(attest.Digest(nil)) {
		n += len(h.Key) + len(h.Value)
	}
	return n
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

// deliver sends the messages until all are acknowledged: in one piece, unless
// the brokers take less than usual. A piece of which a part was acknowledged is
// sent whole again, which keeps the order.
func (p *Publisher) deliver(ctx context.Context, messages []kafka.Message, untilRefused bool) error {
	for len(messages) > 0 {
		piece := p.piece(messages)
		err := p.writer.WriteMessages(ctx, piece...)
		if err == nil {
			p.standing.delivered(ctx, p.cfg.Log)
			p.trouble.Store(nil)
			messages = messages[len(piece):]
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		found := classify(err)
		if errors.Is(found, ErrTooLarge) && len(piece) > 1 {
			p.mostBytes = min(p.mostBytes, p.size(piece)) / 2
			p.cfg.Log.InfoContext(ctx, "the brokers take smaller batches than usual", slog.Int("most_bytes", p.mostBytes))
			continue
		}
		if err := p.failed(ctx, found, untilRefused); err != nil {
			return err
		}
	}
	return nil
}

// failed finds out why, tells of it, and waits until it is time to try again.
func (p *Publisher) failed(ctx context.Context, found error, untilRefused bool) error {
	// What the transport knows of the cluster may be why it failed, and it
	// would go on failing with what it remembers.
	p.transport.CloseIdleConnections()
	if p.standing.failures > 0 && (errors.Is(found, ErrAway) || errors.Is(found, ErrAuthentication)) {
		found = p.diagnose(ctx, found)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	certain := p.standing.failed(ctx, p.cfg.Log, found)
	if certain {
		p.trouble.Store(&Trouble{Since: p.standing.since, Err: advised(found)})
	}
	if certain && untilRefused && !errors.Is(found, ErrAway) {
		return advised(found)
	}
	return sleep(ctx, p.standing.pause(p.timing))
}

// Trouble is what keeps statements from being delivered.
type Trouble struct {
	Since time.Time
	// Err is one of this package's, and says what to do.
	Err error
}

// Trouble tells what stands in the way of delivery; nil when nothing is known
// to. It may be called at any time.
func (p *Publisher) Trouble() *Trouble { return p.trouble.Load() }

// piece is as many of the messages as may go at once, at least one.
func (p *Publisher) piece(messages []kafka.Message) []kafka.Message {
	n := 1
	for size := p.size(messages[:1]); n < len(messages); n++ {
		if size += p.size(messages[n : n+1]); size > p.mostBytes {
			break
		}
	}
	return messages[:n]
}

func (p *Publisher) size(messages []kafka.Message) int {
	size := 0
	for _, m := range messages {
		size += len(m.Value) + p.overhead
	}
	return size
}

// diagnose asks the brokers themselves. kafka-go's writer reports a login that
// is refused by hanging up as a cluster that is away, and one that is cut short
// as one that is refused.
func (p *Publisher) diagnose(ctx context.Context, found error) error {
	probed := p.link.login(ctx)
	switch {
	case probed != nil:
		return probed
	case errors.Is(found, ErrAuthentication):
		return fmt.Errorf("%w: a login was refused and the next one taken", ErrAway)
	}
	return found
}

// sleep waits for the pause, with jitter, or for the end of ctx.
func sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause/2 + rand.N(pause/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
