package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/cavra/cavra/aggregator/internal/ingest/kafka"
	"github.com/cavra/cavra/aggregator/internal/ingest/kafka/recordbatch"
)

const (
	adminUser     = "root-of-tests"
	adminPassword = "administrator-password"
	agentPassword = "password-of-the-agent"
)

// broker is a Kafka broker in a process of its own, which a test can kill.
type broker interface {
	Addr() string
	// Kill ends the process with SIGKILL.
	Kill(t *testing.T)
	// Start brings it back on the same port with the same data.
	Start(t *testing.T)
	// Trim moves the start of a partition's log.
	Trim(t *testing.T, topic string, partition int, before int64)
}

// conform is what this package requires of a broker, whichever it is.
func conform(t *testing.T, b broker) {
	for _, tc := range []struct {
		name string
		run  func(*testing.T, broker)
	}{
		{"Topics", testTopics},
		{"WrongPassword", testWrongPassword},
		{"AgentRights", testAgentRights},
		{"ManyAgents", testManyAgents},
		{"ReadBatch", testReadBatch},
		{"ReadExactly", testReadExactly},
		{"OutOfRange", testOutOfRange},
		{"Unreadable", testUnreadable},
		{"Commit", testCommit},
		{"Rebalance", testRebalance},
		{"NewPartition", testNewPartition},
		{"KilledMidRead", testKilledMidRead},
		{"KilledUnderGroup", testKilledUnderGroup},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.run(t, b) })
	}
}

func config(b broker, topic string) kafka.Config {
	c := kafka.Default()
	c.Brokers = []string{b.Addr()}
	c.SASL = kafka.SASL{Mechanism: kafka.ScramSHA256, Username: adminUser, Password: adminPassword}
	c.Topic, c.GroupID = topic, topic+"-group"
	c.SessionTimeout, c.RebalanceTimeout = 6*time.Second, 10*time.Second
	c.Timeout = 5 * time.Second
	c.Log = slog.New(slog.DiscardHandler)
	return c
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newAdmin(t *testing.T, cfg kafka.Config) *kafka.Admin {
	t.Helper()
	a, err := kafka.NewAdmin(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func newConsumer(t *testing.T, cfg kafka.Config) *kafka.Consumer {
	t.Helper()
	c, err := kafka.NewConsumer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// topic makes a topic of its own for a test.
func topic(t *testing.T, b broker, partitions int) kafka.Config {
	t.Helper()
	name := "cavra." + strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	cfg := config(b, name)
	err := newAdmin(t, cfg).EnsureTopics(deadline(t), []kafka.TopicSpec{kafka.StatementTopic(name, partitions, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func newReader(t *testing.T, cfg kafka.Config, partition int) *kafka.Partition {
	t.Helper()
	p := newConsumer(t, cfg).Partition(partition)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// writer writes as an agent does: by kafka-go, acknowledged by all replicas.
func writer(t *testing.T, b broker, topic, user, password string, compression kafkago.Compression) *kafkago.Writer {
	t.Helper()
	mech, err := scram.Mechanism(scram.SHA256, user, password)
	if err != nil {
		t.Fatal(err)
	}
	tr := &kafkago.Transport{SASL: mech, DialTimeout: 5 * time.Second, MetadataTTL: time.Second}
	w := &kafkago.Writer{
		Addr: kafkago.TCP(b.Addr()), Topic: topic, RequiredAcks: kafkago.RequireAll, Compression: compression,
		BatchTimeout: time.Millisecond, BatchSize: 100, MaxAttempts: 5, WriteTimeout: 10 * time.Second, Transport: tr,
		Balancer: kafkago.BalancerFunc(func(m kafkago.Message, ps ...int) int { return m.Partition % len(ps) }),
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		tr.CloseIdleConnections()
	})
	return w
}

func adminWriter(t *testing.T, b broker, topic string) *kafkago.Writer {
	return writer(t, b, topic, adminUser, adminPassword, 0)
}

func statements(first, n int) []kafkago.Message {
	out := make([]kafkago.Message, n)
	for i := range out {
		out[i] = kafkago.Message{
			Key: []byte("agent-1"), Value: fmt.Appendf(nil, "statement %d", first+i),
			Headers: []kafkago.Header{{Key: "schema", Value: []byte("1")}},
		}
	}
	return out
}

func write(t *testing.T, w *kafkago.Writer, msgs ...kafkago.Message) {
	t.Helper()
	// A broker makes new logins and rules known a moment after it has
	// accepted them.
	eventually(t, func() error { return w.WriteMessages(deadline(t), msgs...) })
}

// eventually retries until it works or the test's patience ends.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	end := time.NewTimer(45 * time.Second)
	defer end.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-end.C:
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

func values(r kafka.Range) []string {
	out := make([]string, len(r.Messages))
	for i, m := range r.Messages {
		out[i] = string(m.Value)
	}
	return out
}

func wantValues(first, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("statement %d", first+i)
	}
	return out
}

func testTopics(t *testing.T, b broker) {
	cfg := topic(t, b, 2)
	ctx := deadline(t)
	a := newAdmin(t, cfg)
	spec := kafka.StatementTopic(cfg.Topic, 3, 1<<20)
	for range 2 { // the second time nothing is left to do
		if err := a.EnsureTopics(ctx, []kafka.TopicSpec{spec}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() error {
		_, _, err := newReader(t, cfg, 2).Bounds(ctx)
		return err
	})
	if err := a.EnsureTopics(ctx, []kafka.TopicSpec{{Name: cfg.Topic}}); err == nil || !strings.Contains(err.Error(), "0 partitions") {
		t.Errorf("a topic without partitions: %v", err)
	}
}

func testWrongPassword(t *testing.T, b broker) {
	cfg := topic(t, b, 1)
	cfg.SASL.Password = "not the password at all"
	ctx := deadline(t)
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, kafkago.SASLAuthenticationFailed) || kafka.Retryable(err) {
			t.Errorf("%s: %v, retryable %v", what, err, kafka.Retryable(err))
		}
	}
	check("admin", newAdmin(t, cfg).EnsureAgent(ctx, "agent-x", agentPassword))
	_, err := newReader(t, cfg, 0).ReadBatch(ctx, 0, 10, 1<<20, time.Second)
	check("read", err)
	check("group", newConsumer(t, cfg).Run(ctx, func(context.Context, int) error { return nil }))
}

func testAgentRights(t *testing.T, b broker) {
	cfg := topic(t, b, 1)
	ctx := deadline(t)
	a := newAdmin(t, cfg)
	other := cfg.Topic + ".other"
	if err := a.EnsureTopics(ctx, []kafka.TopicSpec{kafka.StatementTopic(other, 1, 1<<20)}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.EnsureAgent(ctx, "agent-1", agentPassword); err != nil {
			t.Fatal(err)
		}
	}
	write(t, writer(t, b, cfg.Topic, "agent-1", agentPassword, 0), statements(0, 3)...)

	err := writer(t, b, other, "agent-1", agentPassword, 0).WriteMessages(ctx, statements(0, 1)...)
	if !errors.Is(err, kafkago.TopicAuthorizationFailed) && !errors.Is(err, kafkago.UnknownTopicOrPartition) {
		t.Errorf("agent wrote to another topic: %v", err)
	}
	// And not either by a client that does not ask for metadata first.
	if err := produceBlindly(t, b, cfg.Topic, "agent-1", agentPassword); err != nil {
		t.Errorf("agent's own topic: %v", err)
	}
	if err := produceBlindly(t, b, other, "agent-1", agentPassword); !errors.Is(err, kafkago.TopicAuthorizationFailed) {
		t.Errorf("agent produced to another topic: %v", err)
	}
	asAgent := cfg
	asAgent.SASL = kafka.SASL{Mechanism: kafka.ScramSHA256, Username: "agent-1", Password: agentPassword}
	if _, err := newReader(t, asAgent, 0).ReadBatch(ctx, 0, 10, 1<<20, time.Second); !errors.Is(err, kafkago.TopicAuthorizationFailed) {
		t.Errorf("agent read the topic: %v", err)
	}
	if err := newConsumer(t, asAgent).Run(ctx, func(context.Context, int) error { return nil }); !errors.Is(err, kafkago.GroupAuthorizationFailed) {
		t.Errorf("agent joined the group: %v", err)
	}
	if err := newAdmin(t, asAgent).EnsureAgent(ctx, "agent-2", agentPassword); !errors.Is(err, kafkago.ClusterAuthorizationFailed) {
		t.Errorf("agent made an agent: %v", err)
	}

	const rotated = "another-password-for-it"
	if err := a.EnsureAgent(ctx, "agent-1", rotated); err != nil {
		t.Fatal(err)
	}
	connected := writer(t, b, cfg.Topic, "agent-1", rotated, 0)
	write(t, connected, statements(3, 1)...)
	for range 2 {
		if err := a.RevokeAgent(ctx, "agent-1"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() error {
		err := writer(t, b, cfg.Topic, "agent-1", rotated, 0).WriteMessages(ctx, statements(9, 1)...)
		if !errors.Is(err, kafkago.SASLAuthenticationFailed) {
			return fmt.Errorf("agent wrote after it was revoked: %w", errors.Join(err, io.EOF))
		}
		return nil
	})
	// Nor on the connection that it has, for which the topic may be hidden.
	err = connected.WriteMessages(ctx, statements(9, 1)...)
	var each kafkago.WriteErrors
	if errors.As(err, &each) {
		err = errors.Join(each...)
	}
	if !errors.Is(err, kafkago.TopicAuthorizationFailed) && !errors.Is(err, kafkago.SASLAuthenticationFailed) && !errors.Is(err, kafkago.UnknownTopicOrPartition) {
		t.Errorf("agent wrote on an open connection after it was revoked: %v", err)
	}
}

// testManyAgents makes agents at the same time, more than are made by one
// change and one of them twice: each can log in with a password that it was given.
func testManyAgents(t *testing.T, b broker) {
	cfg := topic(t, b, 1)
	ctx := deadline(t)
	a := newAdmin(t, cfg)
	const agents = 150
	name := func(i int) string { return fmt.Sprintf("agent-many-%d", i%agents) }
	errs := make([]error, agents+1)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = a.EnsureAgent(ctx, name(i), agentPassword) })
	}
	all.Go(func() {
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if err := a.EnsureAgent(gone, "agent-gone", agentPassword); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("whoever did not wait: %v", err)
		}
	})
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1, agents / 2, agents - 1} {
		eventually(t, func() error {
			return writer(t, b, cfg.Topic, name(i), agentPassword, 0).WriteMessages(ctx, statements(i, 1)...)
		})
	}
}

// produceBlindly sends a produce request whatever the metadata say.
func produceBlindly(t *testing.T, b broker, topic, user, password string) error {
	t.Helper()
	mech, err := scram.Mechanism(scram.SHA256, user, password)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	d := kafkago.Dialer{SASLMechanism: mech, Timeout: 5 * time.Second}
	conn, err := d.DialPartition(deadline(t), "tcp", b.Addr(), kafkago.Partition{Topic: topic, Leader: kafkago.Broker{Host: host, Port: n}})
	if err != nil {
		return err
	}
	_, err = conn.WriteMessages(kafkago.Message{Value: []byte("blind")})
	return errors.Join(err, conn.Close())
}

func testReadBatch(t *testing.T, b broker) {
	cfg := topic(t, b, 2)
	ctx := deadline(t)
	n := 0
	for _, c := range []kafkago.Compression{0, kafkago.Gzip, kafkago.Snappy, kafkago.Lz4, kafkago.Zstd} {
		write(t, writer(t, b, cfg.Topic, adminUser, adminPassword, c), statements(n, 50)...)
		n += 50
	}
	p := newReader(t, cfg, 0)
	whole, err := p.ReadBatch(ctx, 0, 1000, 1<<20, 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantValues(0, n), values(whole)); diff != "" || whole.Next != 250 || whole.LogEnd != 250 {
		t.Fatalf("next %d, end %d: %s", whole.Next, whole.LogEnd, diff)
	}
	m := whole.Messages[7]
	m.Time = time.Time{}
	want := kafka.Message{Topic: cfg.Topic, Offset: 7, Key: []byte("agent-1"), Value: []byte("statement 7"), Headers: []kafka.Header{{Key: "schema", Value: []byte("1")}}}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
	// In the middle of a batch, and cut by number.
	part, err := p.ReadBatch(ctx, 17, 20, 1<<20, time.Second)
	if err != nil || part.Next != 37 {
		t.Fatalf("next %d, %v", part.Next, err)
	}
	if diff := cmp.Diff(wantValues(17, 20), values(part)); diff != "" {
		t.Error(diff)
	}
	// Cut by bytes, but never to nothing.
	for _, tc := range []struct{ bytes, want int }{{1, 1}, {100, 3}} {
		got, err := p.ReadBatch(ctx, 200, 1000, tc.bytes, time.Second)
		if err != nil || len(got.Messages) != tc.want || got.Next != int64(200+tc.want) {
			t.Errorf("limit of %d bytes: %d messages to %d, %v", tc.bytes, len(got.Messages), got.Next, err)
		}
	}
	began := time.Now()
	empty, err := p.ReadBatch(ctx, 250, 10, 1<<20, 200*time.Millisecond)
	if err != nil || len(empty.Messages) != 0 || empty.Next != 250 || time.Since(began) > 3*time.Second {
		t.Errorf("at the end: %+v, %v after %s", empty, err, time.Since(began))
	}
}

func testReadExactly(t *testing.T, b broker) {
	cfg := topic(t, b, 1)
	ctx := deadline(t)
	write(t, adminWriter(t, b, cfg.Topic), statements(0, 120)...)
	p := newReader(t, cfg, 0)
	for _, tc := range []struct{ from, to int64 }{{0, 120}, {0, 1}, {33, 34}, {99, 120}, {50, 50}} {
		got, err := p.ReadExactly(ctx, tc.from, tc.to)
		if err != nil {
			t.Fatalf("[%d, %d): %v", tc.from, tc.to, err)
		}
		if diff := cmp.Diff(wantValues(int(tc.from), int(tc.to-tc.from)), values(got)); diff != "" || got.Next != tc.to {
			t.Errorf("[%d, %d) ended at %d: %s", tc.from, tc.to, got.Next, diff)
		}
	}
	small := cfg
	small.MaxRangeBytes = 500
	if _, err := newReader(t, small, 0).ReadExactly(ctx, 0, 120); err == nil || !strings.Contains(err.Error(), "more than 500 bytes") {
		t.Errorf("range beyond the memory bound: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := p.ReadExactly(cancelled, 0, 120); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func testOutOfRange(t *testing.T, b broker) {
	cfg := topic(t, b, 1)
	cfg.StallTimeout = 2 * time.Second
	ctx := deadline(t)
	write(t, adminWriter(t, b, cfg.Topic), statements(0, 10)...)
	p := newReader(t, cfg, 0)
	var got *kafka.OutOfRangeError
	_, err := p.ReadBatch(ctx, 25, 10, 1<<20, time.Second)
	if want := (&kafka.OutOfRangeError{Topic: cfg.Topic, From: 25, To: 25, LogEnd: 10}); !errors.As(err, &got) || *got != *want {
		t.Errorf("beyond the end: %v", err)
	}
	_, err = p.ReadExactly(ctx, 5, 12)
	if want := (&kafka.OutOfRangeError{Topic: cfg.Topic, From: 5, To: 12, LogEnd: 10}); !errors.As(err, &got) || *got != *want {
		t.Errorf("a range the log does not reach: %v", err)
	}
	if kafka.Retryable(err) {
		t.Error("loss is called retryable")
	}
	b.Trim(t, cfg.Topic, 0, 6)
	_, err = p.ReadExactly(ctx, 5, 8)
	if want := (&kafka.OutOfRangeError{Topic: cfg.Topic, From: 5, To: 8, LogStart: 6, LogEnd: 10}); !errors.As(err, &got) || *got != *want {
		t.Errorf("before the start: %v", err)
	}
	if r, err := p.ReadExactly(ctx, 6, 8); err != nil || len(r.Messages) != 2 {
		t.Errorf("from the start: %v, %v", values(r), err)
	}
}

// testUnreadable has a writer exceed what the reader allows: the batch is put
// aside with its offsets, and its successors are read.
func testUnreadable(t *testing.T, b broker) {
	cfg := topic(t, b, 1)
	cfg.Batch.Bytes = 100 << 10
	ctx := deadline(t)
	w := writer(t, b, cfg.Topic, adminUser, adminPassword, kafkago.Gzip)
	write(t, w, statements(0, 3)...)
	write(t, w, kafkago.Message{Value: make([]byte, 200<<10)})
	write(t, w, statements(4, 3)...)
	p := newReader(t, cfg, 0)
	got, err := p.ReadBatch(ctx, 0, 100, 1<<20, 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append(wantValues(0, 3), wantValues(4, 3)...), values(got)); diff != "" || got.Next != 7 {
		t.Errorf("next %d: %s", got.Next, diff)
	}
	if len(got.Unreadable) != 1 {
		t.Fatalf("unreadable: %+v", got.Unreadable)
	}
	u := got.Unreadable[0]
	if u.First != 3 || u.Last != 3 || !errors.Is(u.Err, recordbatch.ErrTooLarge) || u.SHA256 == [32]byte{} {
		t.Errorf("unreadable: %+v", u)
	}
	again, err := p.ReadExactly(ctx, 0, 7)
	if err != nil {
		t.Fatal(err)
	}
	if len(again.Unreadable) != 1 || again.Unreadable[0].SHA256 != u.SHA256 {
		t.Errorf("read again: %+v", again.Unreadable)
	}
	if diff := cmp.Diff(got.Messages, again.Messages); diff != "" {
		t.Error(diff)
	}
	none, err := p.ReadExactly(ctx, 5, 7)
	if err != nil || len(none.Unreadable) != 0 || len(none.Messages) != 2 {
		t.Errorf("after it: %+v, %v", none, err)
	}
}

func testCommit(t *testing.T, b broker) {
	cfg := topic(t, b, 2)
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	c := newConsumer(t, cfg)
	if err := c.Commit(ctx, 0, 1); !errors.Is(err, kafka.ErrNotAssigned) {
		t.Errorf("commit outside of the group: %v", err)
	}
	done := make(chan error, 2)
	err := c.Run(ctx, func(fctx context.Context, partition int) error {
		done <- c.Commit(fctx, partition, int64(40+partition))
		if len(done) == cap(done) {
			cancel()
		}
		<-fctx.Done()
		return fctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-done, <-done); err != nil {
		t.Fatal(err)
	}
	mech, err := scram.Mechanism(scram.SHA256, adminUser, adminPassword)
	if err != nil {
		t.Fatal(err)
	}
	tr := &kafkago.Transport{SASL: mech}
	defer tr.CloseIdleConnections()
	cl := kafkago.Client{Addr: kafkago.TCP(b.Addr()), Transport: tr}
	res, err := cl.OffsetFetch(deadline(t), &kafkago.OffsetFetchRequest{GroupID: cfg.GroupID, Topics: map[string][]int{cfg.Topic: {0, 1}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range res.Topics[cfg.Topic] {
		if p.Error != nil || p.CommittedOffset != int64(40+p.Partition) {
			t.Errorf("partition %d: committed %d, %v", p.Partition, p.CommittedOffset, p.Error)
		}
	}
}

// ledger notes who runs which partition and finds two that do at once.
type ledger struct {
	mu       sync.Mutex
	owner    map[int]string
	overlaps []string
	changed  chan struct{}
}

func newLedger() *ledger { return &ledger{owner: map[int]string{}, changed: make(chan struct{}, 1)} }

func (l *ledger) fn(name string) func(context.Context, int) error {
	return func(ctx context.Context, partition int) error {
		l.mu.Lock()
		if other, taken := l.owner[partition]; taken {
			l.overlaps = append(l.overlaps, fmt.Sprintf("%d: %s while %s", partition, name, other))
		}
		l.owner[partition] = name
		l.mu.Unlock()
		l.note()
		<-ctx.Done()
		l.mu.Lock()
		if l.owner[partition] == name {
			delete(l.owner, partition)
		}
		l.mu.Unlock()
		l.note()
		return ctx.Err()
	}
}

func (l *ledger) note() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// await waits until each named consumer has as many partitions as wanted.
func (l *ledger) await(t *testing.T, want map[string]int) {
	t.Helper()
	end := time.NewTimer(60 * time.Second)
	defer end.Stop()
	for {
		l.mu.Lock()
		got := map[string]int{}
		for _, who := range l.owner {
			got[who]++
		}
		l.mu.Unlock()
		if cmp.Equal(want, got) {
			return
		}
		select {
		case <-l.changed:
		case <-end.C:
			t.Fatalf("partitions by consumer: %v, want %v", got, want)
		}
	}
}

func (l *ledger) finish(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.overlaps) > 0 {
		t.Errorf("two consumers at once on a partition: %v", slices.Sorted(slices.Values(l.overlaps)))
	}
	if len(l.owner) > 0 {
		t.Errorf("still running: %v", l.owner)
	}
}

// consume runs a consumer until stop is called.
func consume(t *testing.T, cfg kafka.Config, fn func(context.Context, int) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := newConsumer(t, cfg)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, fn) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func testRebalance(t *testing.T, b broker) {
	cfg := topic(t, b, 4)
	l := newLedger()
	stopA := consume(t, cfg, l.fn("a"))
	l.await(t, map[string]int{"a": 4})
	stopB := consume(t, cfg, l.fn("b"))
	l.await(t, map[string]int{"a": 2, "b": 2})
	stopA()
	l.await(t, map[string]int{"b": 4})
	stopB()
	l.finish(t)
}

func testNewPartition(t *testing.T, b broker) {
	cfg := topic(t, b, 1)
	l := newLedger()
	stop := consume(t, cfg, l.fn("a"))
	l.await(t, map[string]int{"a": 1})
	if err := newAdmin(t, cfg).EnsureTopics(deadline(t), []kafka.TopicSpec{kafka.StatementTopic(cfg.Topic, 3, 1<<20)}); err != nil {
		t.Fatal(err)
	}
	l.await(t, map[string]int{"a": 3})
	stop()
	l.finish(t)
}

func testKilledMidRead(t *testing.T, b broker) {
	cfg := topic(t, b, 1)
	ctx := deadline(t)
	w := adminWriter(t, b, cfg.Topic)
	write(t, w, statements(0, 100)...)
	p := newReader(t, cfg, 0)
	first, err := p.ReadBatch(ctx, 0, 40, 1<<20, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	b.Kill(t)
	type outcome struct {
		r   kafka.Range
		err error
	}
	read := make(chan outcome, 1)
	go func() {
		r, err := p.ReadExactly(ctx, first.Next, 100)
		read <- outcome{r, err}
	}()
	b.Start(t)
	got := <-read
	if got.err != nil {
		t.Fatal(got.err)
	}
	if diff := cmp.Diff(wantValues(0, 100), append(values(first), values(got.r)...)); diff != "" {
		t.Error(diff)
	}
	// What comes after the restart goes on where the log ended.
	write(t, w, statements(100, 10)...)
	after, err := p.ReadExactly(ctx, 100, 110)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantValues(100, 10), values(after)); diff != "" {
		t.Error(diff)
	}
	// And a broker that stays away is an error in the end, not a wait.
	cfg.StallTimeout = time.Second
	q := newReader(t, cfg, 0)
	b.Kill(t)
	var stall *kafka.StallError
	if _, err := q.ReadBatch(ctx, 0, 10, 1<<20, time.Second); !errors.As(err, &stall) || !kafka.Retryable(err) {
		t.Errorf("broker gone: %v", err)
	}
	b.Start(t)
}

func testKilledUnderGroup(t *testing.T, b broker) {
	cfg := topic(t, b, 2)
	l := newLedger()
	stop := consume(t, cfg, l.fn("a"))
	l.await(t, map[string]int{"a": 2})
	b.Kill(t)
	l.await(t, map[string]int{})
	b.Start(t)
	l.await(t, map[string]int{"a": 2})
	stop()
	l.finish(t)
}
