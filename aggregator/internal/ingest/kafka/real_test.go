//go:build kafka

package kafka_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/cavra/cavra/aggregator/internal/ingest/kafka"
)

// realBroker is an Apache Kafka that testbed's kafka-broker runs for us: this
// module does not import the testbed.
type realBroker struct {
	addr string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

func startReal(t *testing.T) *realBroker {
	t.Helper()
	program := t.TempDir() + "/kafka-broker"
	build := exec.Command("go", "build", "-C", "../../../../testbed", "-o", program, "./kafka/cmd/kafka-broker")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build kafka-broker: %v\n%s", err, out)
	}
	b := &realBroker{cmd: exec.Command(program, "-dir", t.TempDir(), "-user", adminUser)}
	b.cmd.Env = append(os.Environ(), "CAVRA_TEST_KAFKA_PASSWORD="+adminPassword)
	b.cmd.Stderr = os.Stderr
	in, err1 := b.cmd.StdinPipe()
	out, err2 := b.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, b.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	b.in, b.out = in, bufio.NewReader(out)
	t.Cleanup(func() {
		if err := errors.Join(b.in.Close(), b.cmd.Wait()); err != nil {
			t.Error(err)
		}
	})
	b.addr = b.line(t)
	return b
}

func (b *realBroker) line(t *testing.T) string {
	t.Helper()
	line, err := b.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func (b *realBroker) command(t *testing.T, what string) {
	t.Helper()
	if _, err := fmt.Fprintln(b.in, what); err != nil {
		t.Fatal(err)
	}
	if answer := b.line(t); answer != "ok" {
		t.Fatalf("%s: %s", what, answer)
	}
}

func (b *realBroker) Addr() string       { return b.addr }
func (b *realBroker) Kill(t *testing.T)  { t.Helper(); b.command(t, "kill") }
func (b *realBroker) Start(t *testing.T) { t.Helper(); b.command(t, "start") }

// Trim uses franz-go, since kafka-go has no DeleteRecords.
func (b *realBroker) Trim(t *testing.T, topic string, partition int, before int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.SASL(scram.Auth{User: adminUser, Pass: adminPassword}.AsSha256Mechanism()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	req := kmsg.NewPtrDeleteRecordsRequest()
	rt, rp := kmsg.NewDeleteRecordsRequestTopic(), kmsg.NewDeleteRecordsRequestTopicPartition()
	rp.Partition, rp.Offset = int32(partition), before
	rt.Topic, rt.Partitions = topic, append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	req.TimeoutMillis = 10_000
	res, err := req.RequestWith(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if code := res.Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Fatalf("delete records: error %d", code)
	}
}

func TestApacheKafka(t *testing.T) {
	b := startReal(t)
	conform(t, b)
	t.Run("TransactionMarkers", func(t *testing.T) { testTransactionMarkers(t, b) })
	t.Run("Compaction", func(t *testing.T) { testCompaction(t, b) })
}

// testTransactionMarkers reads over offsets that hold no record: the marker
// that ends a transaction takes one, here the log's last as well.
func testTransactionMarkers(t *testing.T, b *realBroker) {
	cfg := topic(t, b, 1)
	ctx := deadline(t)
	c, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.TransactionalID("tx"), kgo.DefaultProduceTopic(cfg.Topic),
		kgo.SASL(scram.Auth{User: adminUser, Pass: adminPassword}.AsSha256Mechanism()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 2 {
		if err := c.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for j := range 3 {
			if err := c.ProduceSync(ctx, kgo.StringRecord(fmt.Sprintf("statement %d", 3*i+j))).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.EndTransaction(ctx, kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
	}
	p := newReader(t, cfg, 0)
	got, err := p.ReadExactly(ctx, 0, 8)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantValues(0, 6), values(got)); diff != "" || got.Next != 8 || len(got.Unreadable) != 0 {
		t.Errorf("next %d, unreadable %v: %s", got.Next, got.Unreadable, diff)
	}
	if got.Messages[3].Offset != 4 {
		t.Errorf("the fourth message has offset %d, want 4", got.Messages[3].Offset)
	}
	for _, from := range []int64{3, 7} {
		got, err := p.ReadExactly(ctx, from, from+1)
		if err != nil || len(got.Messages) != 0 || got.Next != from+1 {
			t.Errorf("the marker at %d: %+v, %v", from, got, err)
		}
	}
	open, err := p.ReadBatch(ctx, 5, 10, 1<<20, time.Second)
	if err != nil || len(open.Messages) != 2 || open.Next != 8 {
		t.Errorf("up to the marker: %d messages, next %d, %v", len(open.Messages), open.Next, err)
	}
}

// testCompaction reads over the holes that compaction leaves inside of batches
// and in the place of whole ones.
func testCompaction(t *testing.T, b *realBroker) {
	cfg := topic(t, b, 1)
	ctx := deadline(t)
	spec := kafka.TopicSpec{Name: cfg.Topic, Partitions: 1, Configs: map[string]string{
		"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001", "max.compaction.lag.ms": "100",
	}}
	if err := newAdmin(t, cfg).EnsureTopics(ctx, []kafka.TopicSpec{spec}); err != nil {
		t.Fatal(err)
	}
	w := adminWriter(t, b, cfg.Topic)
	for range 3 {
		write(t, w, statements(0, 20)...) // all with one key
	}
	p := newReader(t, cfg, 0)
	end := int64(60)
	eventually(t, func() error {
		write(t, w, statements(99, 1)...) // what is active is not compacted
		end++
		got, err := p.ReadExactly(ctx, 0, end)
		if err != nil {
			return err
		}
		if len(got.Messages) >= 20 {
			return fmt.Errorf("%d messages: not compacted yet", len(got.Messages))
		}
		return nil
	})
	for from := int64(0); from < end; from += 7 {
		got, err := p.ReadExactly(ctx, from, end)
		if err != nil || got.Next != end || len(got.Messages) == 0 || got.Messages[0].Offset < from {
			t.Fatalf("from %d: %+v, %v", from, got, err)
		}
	}
	got, err := p.ReadExactly(ctx, 10, 30)
	if err != nil || len(got.Messages) != 0 || got.Next != 30 {
		t.Errorf("a range that is gone: %+v, %v", got, err)
	}
}
