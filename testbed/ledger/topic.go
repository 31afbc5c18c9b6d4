package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/scram"
	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/schemas/topic"
)

// Login is the way to a broker as its superuser.
type Login struct{ Address, Username, Password string }

// Message is a message of the topic.
type Message struct {
	Partition int
	Offset    int64
	Value     []byte
}

// Tail writes down every message of a topic while a test runs. It asks for the
// login before every connection, since an embedded broker has another password
// after each start, and comes back when the broker was away.
type Tail struct {
	login func() (Login, error)

	mu       sync.Mutex
	messages []Message
	next     []int64 // by partition
	last     []error // why a partition cannot be read just now
}

// NewTail prepares a tail. Run follows the topic.
func NewTail(partitions int, login func() (Login, error)) *Tail {
	return &Tail{login: login, next: make([]int64, partitions), last: make([]error, partitions)}
}

// Run follows all partitions until ctx ends. What cannot be a mishap of a
// broker that is being killed is an error: a hole in the offsets.
func (t *Tail) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for p := range t.next {
		group.Go(func() error { return t.follow(ctx, p) })
	}
	return group.Wait()
}

// retryEvery is how long a partition waits for a broker that is away.
const retryEvery = 100 * time.Millisecond

func (t *Tail) follow(ctx context.Context, partition int) error {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		err := t.session(ctx, partition)
		var hole *holeError
		if errors.As(err, &hole) {
			return err
		}
		t.mu.Lock()
		t.last[partition] = err
		t.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// holeError says that messages are missing from the log.
type holeError struct {
	partition int
	want, got int64
}

func (e *holeError) Error() string {
	return fmt.Sprintf("partition %d goes on with offset %d after %d: the broker lost what lay between, or let go of it before it was read", e.partition, e.got, e.want-1)
}

func (t *Tail) session(ctx context.Context, partition int) error {
	conn, err := t.dial(ctx, partition)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it was only read
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := conn.Seek(t.next[partition], kafka.SeekAbsolute|kafka.SeekDontCheck); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := t.batch(conn, partition); err != nil {
			return err
		}
	}
	return nil
}

const fetchWait = 250 * time.Millisecond

func (t *Tail) dial(ctx context.Context, partition int) (*kafka.Conn, error) {
	login, err := t.login()
	if err != nil {
		return nil, err
	}
	mechanism, err := scram.Mechanism(scram.SHA256, login.Username, login.Password)
	if err != nil {
		return nil, err
	}
	dialer := kafka.Dialer{Timeout: 5 * time.Second, SASLMechanism: mechanism}
	return dialer.DialLeader(ctx, "tcp", login.Address, topic.Statements, partition)
}

func (t *Tail) batch(conn *kafka.Conn, partition int) (err error) {
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	batch := conn.ReadBatchWith(kafka.ReadBatchConfig{MinBytes: 1, MaxBytes: 4 << 20, MaxWait: fetchWait})
	defer func() {
		if closed := batch.Close(); err == nil && !errors.Is(closed, kafka.RequestTimedOut) {
			err = closed
		}
	}()
	for {
		m, err := batch.ReadMessage()
		if err != nil {
			return batchEnd(batch)
		}
		t.mu.Lock()
		want := t.next[partition]
		if m.Offset == want {
			t.next[partition]++
			t.messages = append(t.messages, Message{partition, m.Offset, m.Value})
		}
		t.mu.Unlock()
		if m.Offset > want {
			return &holeError{partition, want, m.Offset}
		}
	}
}

// batchEnd tells a batch that was read to its end from a failure.
func batchEnd(b *kafka.Batch) error {
	if err := b.Err(); err != nil && !errors.Is(err, kafka.RequestTimedOut) {
		return err
	}
	return nil
}

// Whole waits until every partition was read to the end of its log, and gives
// what was read, in order.
func (t *Tail) Whole(ctx context.Context) ([]Message, error) {
	for p := range t.next {
		if err := t.reach(ctx, p); err != nil {
			return nil, err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	out := slices.Clone(t.messages)
	slices.SortFunc(out, func(a, b Message) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return out, nil
}

func (t *Tail) reach(ctx context.Context, partition int) error {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		conn, err := t.dial(ctx, partition)
		var end int64
		if err == nil {
			end, err = conn.ReadLastOffset()
			err = errors.Join(err, conn.Close())
		}
		t.mu.Lock()
		next, last := t.next[partition], t.last[partition]
		t.mu.Unlock()
		if err == nil && next == end {
			return nil
		}
		if err == nil && next > end {
			return fmt.Errorf("partition %d ends at %d, and %d messages of it were read before: the broker lost acknowledged messages", partition, end, next)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("read partition %d to its end: at %d of %d: %w", partition, next, end, errors.Join(context.Cause(ctx), err, last))
		case <-tick.C:
		}
	}
}
