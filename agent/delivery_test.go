package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/cavra/cavra/agent/internal/config"
	"github.com/cavra/cavra/agent/internal/enrol"
	"github.com/cavra/cavra/agent/internal/publish"
	"github.com/cavra/cavra/agent/internal/spool"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/topic"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

const (
	login    = "agent"
	secret   = "password-of-agent"
	patience = 30 * time.Second
)

// world is an agent's folder and a broker, which come and go.
type world struct {
	t      *testing.T
	cfg    Config
	id     enrol.Loaded
	port   int
	dir    string
	broker *kfake.Cluster
	spool  *spool.Spool
	// told gets a word when an error is logged.
	told chan struct{}
}

// Write takes the log's errors.
func (w *world) Write(b []byte) (int, error) {
	select {
	case w.told <- struct{}{}:
	default:
	}
	return len(b), nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, port: ln.Addr().(*net.TCPAddr).Port, dir: t.TempDir()}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	key, err := identity.Generate(predicate.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := key.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	w.told = make(chan struct{}, 1)
	w.cfg = Config{Dir: t.TempDir(), Settings: config.Default(), Version: "0.1.0", Log: slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelError}))}
	for name, b := range map[string][]byte{"key-test.pem": pem, enrol.NameKeyFile: make([]byte, 32)} {
		if err := os.WriteFile(filepath.Join(w.cfg.Dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.id = enrol.Loaded{Key: key, NameKey: make([]byte, 32), Identity: enrol.Identity{
		Tenant: "default", Agent: "a-1", Epoch: 1, EpochCause: predicate.Enrolled, KeyID: key.Public().ID(), KeyFile: "key-test.pem",
		Kafka: enrol.Access{
			Brokers: []string{fmt.Sprintf("127.0.0.1:%d", w.port)}, Topic: topic.Statements, Mechanism: "plain", Username: login, Password: secret,
		},
	}}
	t.Cleanup(w.stopBroker)
	return w
}

func (w *world) startBroker() {
	w.t.Helper()
	var err error
	w.broker, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(w.port), kfake.DataDir(w.dir), kfake.EnableSASL(),
		kfake.Superuser("PLAIN", login, secret), kfake.SeedTopics(2, topic.Statements))
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) stopBroker() {
	if w.broker != nil {
		w.broker.Close()
		w.broker = nil
	}
}

// publish opens the spool, appends n statements, and publishes until then says
// so; then everything is closed, as when the agent ends.
func (w *world) publish(n int, until func(ctx context.Context)) spool.Stats {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	s, err := openSpool(ctx, w.cfg, w.id)
	if err != nil {
		w.t.Fatal(err)
	}
	w.spool, w.id.Begun = s, true
	for range n / batchStatements {
		w.append(ctx, batchStatements)
	}
	w.append(ctx, n%batchStatements)
	p, err := publish.New(publish.Config{
		Source: source{s, new(atomic.Int64)}, Tenant: w.id.Tenant, Agent: w.id.Agent, Access: publish.Access(w.id.Kafka), Log: w.cfg.Log,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(running) }()
	until(ctx)
	stop()
	if err := <-ended; running.Err() == nil {
		w.t.Errorf("publisher ended with %v", err)
	}
	stats := s.Stats()
	if err := p.Close(); err != nil {
		w.t.Error(err)
	}
	if err := s.Close(); err != nil {
		w.t.Fatal(err)
	}
	return stats
}

func (w *world) append(ctx context.Context, n int) {
	w.t.Helper()
	beats := make([]predicate.Predicate, n)
	for i := range beats {
		beats[i] = beat()
	}
	if _, err := w.spool.Append(ctx, beats...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) drained(ctx context.Context) {
	if err := w.spool.Drained(ctx); err != nil {
		w.t.Error(err)
	}
}

func beat() predicate.Predicate {
	return &predicate.Heartbeat{
		Privacy: predicate.Strict, AgentVersion: "0.1.0", RulesetVersion: "1.0.0", Plugins: []predicate.Scanner{}, Sandbox: []predicate.Layer{},
		StartedAt: predicate.At(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)),
	}
}

// sequences are those of the statements in the topic, in the order in which
// they came for the first time; a second one must be the same bytes.
func (w *world) sequences() []uint64 {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	c, err := kgo.NewClient(kgo.SeedBrokers(w.id.Kafka.Brokers...), kgo.ConsumeTopics(topic.Statements),
		kgo.SASL(plain.Auth{User: login, Pass: secret}.AsMechanism()))
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	var want, got int64
	for _, p := range w.broker.PartitionInfos(topic.Statements) {
		want += p.HighWatermark
	}
	var out []uint64
	seen := map[uint64]string{}
	for got < want {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			w.t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			got++
			sequence := w.sequenceOf(r.Value)
			if first, again := seen[sequence]; again && first != string(r.Value) {
				w.t.Errorf("statement %d came in two forms", sequence)
			} else if !again {
				seen[sequence] = string(r.Value)
				out = append(out, sequence)
			}
		})
	}
	return out
}

func (w *world) sequenceOf(b []byte) uint64 {
	w.t.Helper()
	e, err := attest.Open(b)
	if err != nil {
		w.t.Fatal(err)
	}
	payload, err := e.Verify(w.id.Key.Public())
	if err != nil {
		w.t.Fatal(err)
	}
	statement, err := predicate.Parse(payload)
	if err != nil {
		w.t.Fatal(err)
	}
	return statement.Place().Sequence
}

// TestSpoolToBroker publishes from the durable spool over a broker that dies and
// an agent that ends and starts again.
func TestSpoolToBroker(t *testing.T) {
	w := newWorld(t)
	away := w.publish(1500, func(context.Context) {})
	if away.Statements != 1501 {
		t.Fatalf("%d statements wait, want 1500 and the epoch's: none was acknowledged", away.Statements)
	}
	w.startBroker()
	w.publish(1500, func(ctx context.Context) {
		hit := w.broker.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: 2})
		if err := hit.Wait(ctx, 2); err != nil {
			t.Error(err)
		}
		w.stopBroker()
	})
	w.startBroker()
	after := w.publish(100, w.drained)
	if after.Statements != 0 {
		t.Errorf("%d statements wait", after.Statements)
	}
	want := make([]uint64, 3101)
	for i := range want {
		want[i] = uint64(i + 1)
	}
	if diff := cmp.Diff(want, w.sequences()); diff != "" {
		t.Errorf("sequences: %.1000s", diff)
	}
	again := w.publish(0, w.drained)
	if again.Statements != 0 {
		t.Errorf("%d statements wait after everything was acknowledged", again.Statements)
	}
}

// TestRefusedStays: a login that is refused moves the cursor by nothing, over a
// restart, and the status says why.
func TestRefusedStays(t *testing.T) {
	w := newWorld(t)
	w.startBroker()
	w.id.Kafka.Password = "wrong"
	kept := w.publish(10, func(ctx context.Context) {
		select {
		case <-w.told:
		case <-ctx.Done():
			t.Error("nobody was told of the refusal")
		}
	})
	if kept.Statements != 11 {
		t.Errorf("%d statements wait, want 10 and the epoch's", kept.Statements)
	}
	s := w.status()
	if s.Waiting != 11 || !strings.Contains(s.Brokers, "refuse this agent's login") || !strings.Contains(s.Brokers, "cavra agent enroll --reenroll") {
		t.Errorf("status: %+v", s)
	}
	w.id.Kafka.Password = secret
	w.save()
	if s := w.status(); s.Brokers != BrokersReady {
		t.Errorf("status: %+v", s)
	}
	w.publish(0, w.drained)
	if diff := cmp.Diff([]uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, w.sequences()); diff != "" {
		t.Error(diff)
	}
}

func (w *world) status() Status {
	w.t.Helper()
	s, err := StatusOf(w.t.Context(), w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// save writes the identity, as an enrolment does and an agent that has begun.
func (w *world) save() {
	w.t.Helper()
	b, err := json.Marshal(w.id.Identity)
	if err == nil {
		err = os.WriteFile(filepath.Join(w.cfg.Dir, enrol.IdentityFile), b, 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}
