package kafka_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/cavra/cavra/aggregator/internal/ingest/kafka"
)

// BenchmarkEmbedded measures the embedded broker with statements of 2 KiB:
// writes that are synced before they are acknowledged, in batches of 100, and
// reads in the sizes that the ingest stage asks for.
func BenchmarkEmbedded(b *testing.B) {
	const size = 2 << 10
	broker := &embeddedBroker{dir: b.TempDir()}
	broker.start(b)
	defer func() { _ = broker.in.Close(); _ = broker.cmd.Wait() }()
	cfg := config(broker, "bench")
	admin, err := kafka.NewAdmin(cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer admin.Close()
	if err := admin.EnsureTopics(b.Context(), []kafka.TopicSpec{kafka.StatementTopic("bench", 1, 1<<20)}); err != nil {
		b.Fatal(err)
	}
	mech, err := scram.Mechanism(scram.SHA256, adminUser, adminPassword)
	if err != nil {
		b.Fatal(err)
	}
	tr := &kafkago.Transport{SASL: mech}
	defer tr.CloseIdleConnections()
	w := &kafkago.Writer{Addr: kafkago.TCP(broker.Addr()), Topic: "bench", RequiredAcks: kafkago.RequireAll, BatchTimeout: time.Millisecond, BatchSize: 100, Transport: tr}
	defer func() { _ = w.Close() }()
	batch := make([]kafkago.Message, 100)
	for i := range batch {
		batch[i].Value = bytes.Repeat([]byte{byte(i)}, size)
	}
	written := int64(0)
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(len(batch)) * size)
		for b.Loop() {
			if err := w.WriteMessages(context.Background(), batch...); err != nil {
				b.Fatal(err)
			}
			written += int64(len(batch))
		}
		b.ReportMetric(float64(b.N*len(batch))/b.Elapsed().Seconds(), "statements/s")
	})
	b.Run("read", func(b *testing.B) {
		c, err := kafka.NewConsumer(cfg)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		p := c.Partition(0)
		defer func() { _ = p.Close() }()
		next, total := int64(0), 0
		b.ReportAllocs()
		for b.Loop() {
			r, err := p.ReadBatch(b.Context(), next, 10_000, 8<<20, 0)
			if err != nil {
				b.Fatal(err)
			}
			total += len(r.Messages)
			if next = r.Next; next >= written {
				next = 0
			}
		}
		b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "statements/s")
	})
}
