package publish

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cavra/cavra/schemas/topic"
)

func TestBrokerComesLater(t *testing.T) {
	b := newBroker(t, known()...)
	q := newQueue(envelopes(t, 1234, 300))
	r := run(t, q, b.access())
	r.logged(said)
	if n := q.done(); n != 0 {
		t.Fatalf("%d statements acknowledged by nobody", n)
	}
	b.start()
	r.drained(q)
	r.logged(saidGood)
	r.end()
	all := b.records()
	whole(t, all, q.envelopes)
	if len(all) != len(q.envelopes) {
		t.Errorf("%d records for %d statements, and nothing was sent twice", len(all), len(q.envelopes))
	}
	if diff := cmp.Diff([]string{"WARN " + said, "INFO " + saidGood}, r.log.summary()); diff != "" {
		t.Error(diff)
	}
}

// TestBrokerDiesMidway stops the broker again and again while statements
// arrive, each time inside a write.
func TestBrokerDiesMidway(t *testing.T) {
	b := startBroker(t)
	q := newQueue(envelopes(t, 6000, 200))
	r := run(t, q, b.access())
	for range 3 {
		from := q.done()
		hit := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: 2})
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		if err := hit.Wait(ctx, 2); err != nil {
			t.Fatalf("behind %d: %v", from, err)
		}
		cancel()
		b.stop()
		if acked := q.done(); acked == len(q.envelopes) {
			t.Fatal("everything was published before the broker died: the test tests nothing")
		}
		b.start()
	}
	r.drained(q)
	r.end()
	whole(t, b.records(), q.envelopes)
}

// TestLostAcknowledgement has the broker write a batch and answer that it did
// not get to: the batch is there twice, byte for byte, and acknowledged once.
func TestLostAcknowledgement(t *testing.T) {
	b := startBroker(t)
	b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: 2})
	q := newQueue(envelopes(t, 700, 100))
	r := run(t, q, b.access())
	r.drained(q)
	r.end()
	all := b.records()
	whole(t, all, q.envelopes)
	if want := 700 + 2*500; len(all) != want {
		t.Errorf("%d records, want %d: the first batch of 500 three times", len(all), want)
	}
	if diff := cmp.Diff([]int{500, 200}, q.acks); diff != "" {
		t.Error(diff)
	}
}

// TestAcknowledgedBeforeDone holds the broker's answer back: until it is there,
// nothing counts as acknowledged.
func TestAcknowledgedBeforeDone(t *testing.T) {
	b := startBroker(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	b.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if acks := req.(*kmsg.ProduceRequest).Acks; acks != -1 {
			t.Errorf("asks for %d acknowledgements, want all replicas'", acks)
		}
		close(arrived)
		b.cluster.DropControl()
		b.cluster.SleepControl(func() { <-release })
		return nil, nil, false
	})
	q := newQueue(envelopes(t, 3, 10))
	r := run(t, q, b.access())
	<-arrived
	if n := q.done(); n != 0 {
		t.Errorf("%d acknowledged before the broker answered", n)
	}
	close(release)
	r.drained(q)
}

// TestNeverSplit publishes as much as a batch holds: the client must not make
// two of it, and the broker must take it.
func TestNeverSplit(t *testing.T) {
	b := startBroker(t)
	var requests atomic.Int64
	b.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		requests.Add(1)
		return nil, nil, false
	})
	q := newQueue(append(envelopes(t, 1200, 1000), envelopes(t, 2, 700_000)...))
	r := run(t, q, b.access())
	r.drained(q)
	r.end()
	if int(requests.Load()) != len(q.acks) {
		t.Errorf("%d writes for %d batches", requests.Load(), len(q.acks))
	}
	whole(t, b.records(), q.envelopes)
}

// TestSmallerBatches publishes to a broker that takes less than Kafka's default.
func TestSmallerBatches(t *testing.T) {
	b := startBroker(t, kfake.BrokerConfigs(map[string]string{"message.max.bytes": "20000"}))
	q := newQueue(envelopes(t, 900, 300))
	r := run(t, q, b.access())
	r.drained(q)
	r.end()
	all := b.records()
	whole(t, all, q.envelopes)
	if len(all) != len(q.envelopes) {
		t.Errorf("%d records for %d statements", len(all), len(q.envelopes))
	}
	if n := len(r.log.lines()); n > 8 {
		t.Errorf("%d lines of log: the size was not learned:\n%s", n, strings.Join(r.log.lines(), "\n"))
	}
}

// hung makes a publisher that waits for a broker which will not answer.
func hung(t *testing.T, access func(t *testing.T) (Access, <-chan struct{})) {
	t.Helper()
	a, arrived := access(t)
	slow := defaultTiming()
	p, log := publisher(t, newQueue(envelopes(t, 1, 1)), a, slow)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- p.Run(ctx) }()
	select {
	case <-arrived:
	case <-time.After(wait):
		t.Fatalf("nothing was sent: %s", strings.Join(log.lines(), "\n"))
	}
	at := time.Now()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("run ended with %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(at); took > 3*time.Second {
		t.Errorf("it took %s to end", took)
	}
}

func TestEndsAtOnce(t *testing.T) {
	t.Run("a write without an answer", func(t *testing.T) {
		hung(t, func(t *testing.T) (Access, <-chan struct{}) {
			b := startBroker(t)
			arrived := make(chan struct{})
			b.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
				close(arrived)
				return nil, nil, true
			})
			return b.access(), arrived
		})
	})
	t.Run("a login without an answer", func(t *testing.T) {
		hung(t, func(t *testing.T) (Access, <-chan struct{}) {
			b := startBroker(t)
			arrived := make(chan struct{})
			b.cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(kmsg.Request) (kmsg.Response, error, bool) {
				close(arrived)
				return nil, nil, true
			})
			return b.access(), arrived
		})
	})
	t.Run("a connection without a word", func(t *testing.T) {
		hung(t, func(t *testing.T) (Access, <-chan struct{}) { return silent(t) })
	})
}

// silent is a broker that takes connections and says nothing.
func silent(t *testing.T) (Access, <-chan struct{}) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	arrived, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		var conns []net.Conn
		for {
			conn, err := ln.Accept()
			if err != nil {
				break
			}
			if conns = append(conns, conn); len(conns) == 1 {
				close(arrived)
			}
		}
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-ended
	})
	return Access{Brokers: []string{ln.Addr().String()}, Topic: topic.Statements, Mechanism: "plain", Username: "u", Password: "p"}, arrived
}

// TestSilentBroker: who takes connections and says nothing is away, and that is
// said within a bounded time, wherever the broker falls silent.
func TestSilentBroker(t *testing.T) {
	t.Run("from the start", func(t *testing.T) {
		access, _ := silent(t)
		r := run(t, newQueue(envelopes(t, 1, 1)), access)
		r.logged("the brokers are away")
		r.end()
	})
	t.Run("in the login", func(t *testing.T) {
		b := startBroker(t)
		b.cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			return nil, nil, true
		})
		r := run(t, newQueue(envelopes(t, 1, 1)), b.access())
		r.logged("the brokers are away")
		r.end()
	})
}
