//go:build kafka

package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/cavra/cavra/testbed/kafka"
)

func TestApacheKafkaKeepsItsLogOverAKill(t *testing.T) {
	cache, err := kafka.DefaultCache(".")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	b, err := kafka.Start(ctx, kafka.Config{Dir: t.TempDir(), Cache: cache, User: "root", Password: "root-password"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	mech, err := scram.Mechanism(scram.SHA256, "root", "root-password")
	if err != nil {
		t.Fatal(err)
	}
	tr := &kafkago.Transport{SASL: mech}
	defer tr.CloseIdleConnections()
	c := kafkago.Client{Addr: kafkago.TCP(b.Addr()), Transport: tr, Timeout: 20 * time.Second}
	res, err := c.CreateTopics(ctx, &kafkago.CreateTopicsRequest{Topics: []kafkago.TopicConfig{{Topic: "kept", NumPartitions: 1, ReplicationFactor: 1}}})
	if err != nil || res.Errors["kept"] != nil {
		t.Fatal(errors.Join(err, res.Errors["kept"]))
	}
	w := &kafkago.Writer{Addr: c.Addr, Topic: "kept", RequiredAcks: kafkago.RequireAll, BatchTimeout: time.Millisecond, Transport: tr}
	for i := range 5 {
		if err := w.WriteMessages(ctx, kafkago.Message{Value: fmt.Appendf(nil, "message %d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), b.Kill(), b.Restart(ctx)); err != nil {
		t.Fatal(err)
	}
	tr.CloseIdleConnections() // those to the killed process
	offsets, err := c.ListOffsets(ctx, &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{"kept": {kafkago.LastOffsetOf(0)}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := offsets.Topics["kept"][0].LastOffset; got != 5 {
		t.Errorf("log ends at %d after the kill, want 5", got)
	}
	if err := b.Restart(ctx); err == nil {
		t.Error("a running broker was started again")
	}
}
