package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"go.uber.org/goleak"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/topic"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	adminName, adminPassword = "admin", "password-of-admin"
	agentName, agentPassword = "agent", "password-of-agent"
	mechanism                = "SCRAM-SHA-256"
	wait                     = 20 * time.Second
)

// quick is a timing for tests: the same course of things, in less time.
var quick = timing{
	dial: 500 * time.Millisecond, write: time.Second,
	away:    pauses{10 * time.Millisecond, 40 * time.Millisecond},
	refused: pauses{40 * time.Millisecond, 160 * time.Millisecond},
}

// rights lets the agent write the topic, as an enrolment does.
func rights() []kfake.ACL {
	acl := func(op kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: topic.Statements, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
	}
	return []kfake.ACL{acl(kmsg.ACLOperationWrite), acl(kmsg.ACLOperationDescribe)}
}

// broker is a broker that keeps its address and its log when it goes and comes
// back.
type broker struct {
	t       *testing.T
	port    int
	dir     string
	opts    []kfake.Opt
	cluster *kfake.Cluster
}

// newBroker takes an address and does not start.
func newBroker(t *testing.T, opts ...kfake.Opt) *broker {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{t: t, port: ln.Addr().(*net.TCPAddr).Port, dir: t.TempDir(), opts: opts}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.stop)
	return b
}

// startBroker starts one that has the topic and knows the agent.
func startBroker(t *testing.T, opts ...kfake.Opt) *broker {
	t.Helper()
	b := newBroker(t, append(known(), opts...)...)
	b.start()
	return b
}

func known() []kfake.Opt {
	return []kfake.Opt{kfake.SeedTopics(3, topic.Statements), kfake.User(mechanism, agentName, agentPassword, rights()...)}
}

func (b *broker) start() {
	b.t.Helper()
	opts := append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.Ports(b.port), kfake.DataDir(b.dir), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser(mechanism, adminName, adminPassword),
	}, b.opts...)
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.cluster = c
}

func (b *broker) stop() {
	if b.cluster != nil {
		b.cluster.Close()
		b.cluster = nil
	}
}

func (b *broker) addr() string { return fmt.Sprintf("127.0.0.1:%d", b.port) }

func (b *broker) access() Access {
	return Access{Brokers: []string{b.addr()}, Topic: topic.Statements, Mechanism: "scram-sha-256", Username: agentName, Password: agentPassword}
}

func (b *broker) admin(opts ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(b.addr()), kgo.SASL(scram.Auth{User: adminName, Pass: adminPassword}.AsSha256Mechanism()),
	}, opts...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// ask makes an administrator's request.
func ask[R kmsg.Response](b *broker, req kmsg.Request) R {
	b.t.Helper()
	c := b.admin()
	defer c.Close()
	resp, err := c.Request(b.t.Context(), req)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.(R)
}

// record is what of a message matters.
type record struct {
	Partition int32
	Key       string
	Value     string
	Headers   map[string]string
}

// records reads the topic whole.
func (b *broker) records() []record {
	b.t.Helper()
	var want int64
	for _, p := range b.cluster.PartitionInfos(topic.Statements) {
		want += p.HighWatermark
	}
	c := b.admin(kgo.ConsumeTopics(topic.Statements))
	defer c.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), wait)
	defer cancel()
	var out []record
	for int64(len(out)) < want {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			b.t.Fatalf("%d of %d records: %v", len(out), want, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			got := record{r.Partition, string(r.Key), string(r.Value), map[string]string{}}
			for _, h := range r.Headers {
				got.Headers[h.Key] = string(h.Value)
			}
			out = append(out, got)
		})
	}
	return out
}

// queue is a spool's reading side: it hands out what is not acknowledged.
type queue struct {
	mu        sync.Mutex
	envelopes [][]byte
	acked     int
	// acks are the numbers of statements that were acknowledged at once.
	acks    []int
	drained chan struct{}
}

func newQueue(envelopes [][]byte) *queue {
	return &queue{envelopes: envelopes, drained: make(chan struct{})}
}

func (q *queue) Next(ctx context.Context, most, mostBytes int) (Batch, error) {
	q.mu.Lock()
	rest := q.envelopes[q.acked:]
	q.mu.Unlock()
	if len(rest) == 0 {
		<-ctx.Done()
		return Batch{}, ctx.Err()
	}
	n, total := 0, 0
	for n < len(rest) && n < most {
		if total += len(rest[n]); n > 0 && total > mostBytes {
			break
		}
		n++
	}
	return Batch{Envelopes: rest[:n], Done: func() error { return q.ack(n) }}, nil
}

func (q *queue) ack(n int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.acked += n
	q.acks = append(q.acks, n)
	if q.acked == len(q.envelopes) {
		close(q.drained)
	}
	return nil
}

func (q *queue) done() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.acked
}

// envelopes are signed statements of at least the size, numbered from 1.
func envelopes(t testing.TB, n, size int) [][]byte {
	t.Helper()
	key, err := identity.FromSeed([32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	out := make([][]byte, n)
	for i := range out {
		payload := fmt.Sprintf(`{"sequence":%d,"filler":%q}`, i+1, strings.Repeat("x", size))
		if out[i], err = attest.Sign([]byte(payload), key); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// journal keeps what was logged.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (j *journal) lines() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Split(strings.TrimSuffix(j.buf.String(), "\n"), "\n")
}

// summary is each line's level and message.
func (j *journal) summary() (out []string) {
	for _, l := range j.lines() {
		_, l, _ = strings.Cut(l, "level=")
		level, l, _ := strings.Cut(l, ` msg="`)
		message, _, _ := strings.Cut(l, `"`)
		out = append(out, level+" "+message)
	}
	return out
}

const (
	said     = "statements are not delivered: they stay in the spool and are sent again"
	saidGood = "statements are delivered again"
)

// running is a Publisher at work.
type running struct {
	t      *testing.T
	p      *Publisher
	log    *journal
	cancel context.CancelFunc
	result chan error
	ended  bool
}

func publisher(t *testing.T, q Source, access Access, tm timing) (*Publisher, *journal) {
	t.Helper()
	log := &journal{}
	p, err := newPublisher(Config{Source: q, Tenant: "default", Agent: "a-1", Access: access, Log: log.logger()}, tm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, log
}

func run(t *testing.T, q Source, access Access) *running {
	t.Helper()
	p, log := publisher(t, q, access, quick)
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{t: t, p: p, log: log, cancel: cancel, result: make(chan error, 1)}
	go func() { r.result <- p.Run(ctx) }()
	t.Cleanup(r.end)
	return r
}

// end cancels, and checks that the publisher goes at once.
func (r *running) end() {
	r.cancel()
	if r.ended {
		return
	}
	r.ended = true
	at := time.Now()
	select {
	case err := <-r.result:
		if !errors.Is(err, context.Canceled) {
			r.t.Errorf("run ended with %v", err)
		}
	case <-time.After(wait):
		r.t.Fatal("a cancelled publisher goes on")
	}
	if err := r.p.Close(); err != nil {
		r.t.Error(err)
	}
	if took := time.Since(at); took > 2*time.Second {
		r.t.Errorf("it took %s to end", took)
	}
}

// until waits for what has to come.
func (r *running) until(what string, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(wait)
	for !ok() {
		select {
		case <-tick.C:
		case err := <-r.result:
			r.ended = true
			r.t.Fatalf("%s: the publisher ended with %v", what, err)
		case <-late:
			r.t.Fatalf("%s: it never came\n%s", what, strings.Join(r.log.lines(), "\n"))
		}
	}
}

func (r *running) drained(q *queue) {
	r.t.Helper()
	r.until("everything acknowledged", func() bool { return q.done() == len(q.envelopes) })
}

func (r *running) logged(message string) {
	r.t.Helper()
	r.until("log of "+message, func() bool { return strings.Contains(strings.Join(r.log.lines(), "\n"), message) })
}

// firsts are the values in the order in which they came for the first time.
func firsts(all []record) (out []string) {
	seen := map[string]bool{}
	for _, r := range all {
		if !seen[r.Value] {
			seen[r.Value] = true
			out = append(out, r.Value)
		}
	}
	return out
}

// whole checks that the topic holds exactly what was signed, in its order, each
// at least once, in one partition and with the right key and headers.
func whole(t *testing.T, all []record, want [][]byte) {
	t.Helper()
	text := make([]string, len(want))
	for i, b := range want {
		text[i] = string(b)
	}
	if diff := cmp.Diff(text, firsts(all)); diff != "" {
		t.Errorf("what arrived is not what was signed, in its order: %.2000s", diff)
	}
	for _, r := range all {
		e, err := attest.Open([]byte(r.Value))
		if err != nil {
			t.Fatal(err)
		}
		want := record{all[0].Partition, "default/a-1", r.Value, headersOf(e.Digest())}
		if diff := cmp.Diff(want, r); diff != "" {
			t.Fatal(diff)
		}
	}
}

func headersOf(d predicate.Digest) map[string]string {
	return map[string]string{topic.HeaderContentType: topic.ContentType, topic.HeaderDigest: string(d)}
}
