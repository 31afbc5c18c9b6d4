package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"

	"github.com/cavra/cavra/aggregator/internal/ingest/kafka/recordbatch"
)

func TestValidateReportsEveryMistake(t *testing.T) {
	good := Default()
	good.Brokers, good.Topic = []string{"127.0.0.1:9092"}, "cavra.statements"
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	bad := Config{Brokers: []string{"nowhere"}, SASL: SASL{Mechanism: Plain}}
	var got []string
	for line := range strings.Lines(bad.Validate().Error()) {
		got = append(got, strings.TrimSpace(line))
	}
	want := []string{
		"kafka: brokers: address nowhere: missing port in address: write it as host:port",
		"kafka: sasl.mechanism plain sends the password: it needs TLS",
		"kafka: sasl: username and password are both needed",
		"kafka: topic: none given",
		"kafka: session timeout: 0s is too short",
		"kafka: rebalance timeout: 0s is too short",
		"kafka: timeout: 0s is too short",
		"kafka: stall timeout: 0s is too short",
		"kafka: limits: every limit must be positive",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := NewConsumer(good); err == nil || !strings.Contains(err.Error(), "group: none given") {
		t.Errorf("consumer without a group: %v", err)
	}
}

func TestLogShowsNoPassword(t *testing.T) {
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", slog.Any("sasl", SASL{Mechanism: ScramSHA256, Username: "u", Password: "secret"}))
	if strings.Contains(out.String(), "secret") || !strings.Contains(out.String(), "sasl.username=u") {
		t.Error(out.String())
	}
}

func TestRetryable(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{context.Canceled, false},
		{context.DeadlineExceeded, true},
		{fmt.Errorf("x: %w", kafka.NotLeaderForPartition), true},
		{kafka.UnknownTopicOrPartition, true},
		{fmt.Errorf("x: %w", kafka.TopicAuthorizationFailed), false},
		{kafka.SASLAuthenticationFailed, false},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, true},
		{io.ErrUnexpectedEOF, true},
		{&OutOfRangeError{}, false},
		{&StallError{Err: ErrNoProgress}, true},
		{&StallError{Err: kafka.TopicAuthorizationFailed}, false},
		{errors.New("something else"), false},
	} {
		if got := Retryable(tc.err); got != tc.want {
			t.Errorf("%v: %v", tc.err, got)
		}
	}
}

func TestCollectorAccountsForHoles(t *testing.T) {
	rec := func(offsets ...int64) (out []recordbatch.Record) {
		for _, o := range offsets {
			out = append(out, recordbatch.Record{Offset: o, Value: []byte("v")})
		}
		return out
	}
	broken := decoded{first: 20, last: 24, err: recordbatch.ErrMalformed}
	log := []decoded{
		{first: 0, last: 9, records: rec(3, 4)}, // compacted
		{first: 10, last: 10},                   // a marker
		{first: 15, last: 17, records: rec(15, 16, 17)},
		broken,
		{first: 25, last: 26, records: rec(25, 26)},
	}
	for _, tc := range []struct {
		name       string
		from, to   int64 // to -1: open
		limit      int
		offsets    []int64
		next       int64
		unreadable int
	}{
		{"all", 0, -1, 100, []int64{3, 4, 15, 16, 17, 25, 26}, 27, 1},
		{"within a batch", 4, 5, 0, []int64{4}, 5, 0},
		{"a hole in a batch", 5, 9, 0, nil, 9, 0},
		{"over the marker", 4, 11, 0, []int64{4}, 11, 0},
		{"a hole between batches", 11, 15, 0, nil, 15, 0},
		{"cut by number", 0, -1, 3, []int64{3, 4, 15}, 16, 0},
		{"the broken one", 18, 25, 0, nil, 25, 1},
		{"up to the broken one", 15, 20, 0, []int64{15, 16, 17}, 20, 0},
		{"a part of the broken one", 22, 23, 0, nil, 23, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := collector{p: &Partition{client: &client{}}, Range: Range{From: tc.from, Next: tc.from}, end: tc.to, limit: tc.limit, maxBytes: 1 << 20}
			for _, b := range log {
				if r.full || (tc.to >= 0 && r.Next >= tc.to) {
					break
				}
				r.add(b)
			}
			var offsets []int64
			for _, m := range r.Messages {
				offsets = append(offsets, m.Offset)
			}
			if diff := cmp.Diff(tc.offsets, offsets); diff != "" || r.Next != tc.next || len(r.Unreadable) != tc.unreadable {
				t.Errorf("next %d, %d unreadable: %s", r.Next, len(r.Unreadable), diff)
			}
		})
	}
}

// answer is a fetch response for topic "t", partition 3.
func answer(code int16, records []byte) []byte {
	be := binary.BigEndian
	b := be.AppendUint32(nil, 0) // throttle
	b = be.AppendUint16(b, 0)    // error
	b = be.AppendUint32(b, 0)    // session
	b = be.AppendUint32(b, 1)    // topics
	b = append(b, 0, 1, 't')     // name
	b = be.AppendUint32(b, 1)    // partitions
	b = be.AppendUint32(b, 3)    // partition
	b = be.AppendUint16(b, uint16(code))
	b = be.AppendUint64(b, 77) // high watermark
	b = be.AppendUint64(b, 77) // last stable
	b = be.AppendUint64(b, 5)  // log start
	b = be.AppendUint32(b, 1)  // aborted transactions
	b = append(b, make([]byte, 16)...)
	b = be.AppendUint32(b, 0xffffffff) // replica
	b = be.AppendUint32(b, uint32(len(records)))
	return append(b, records...)
}

func TestFetchResponse(t *testing.T) {
	f := fetchConn{topic: "t", partition: 3}
	got, err := f.response(answer(0, []byte("records")))
	want := fetched{highWatermark: 77, logStart: 5, records: []byte("records")}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(fetched{})); diff != "" || err != nil {
		t.Errorf("%v: %s", err, diff)
	}
	if _, err := f.response(answer(int16(kafka.OffsetOutOfRange), nil)); !errors.Is(err, kafka.OffsetOutOfRange) {
		t.Errorf("out of range: %v", err)
	}
	other := fetchConn{topic: "t", partition: 4}
	if _, err := other.response(answer(0, nil)); !errors.Is(err, errFrame) {
		t.Errorf("another partition's answer: %v", err)
	}
	whole := answer(0, []byte("records"))
	for n := range whole {
		if _, err := f.response(whole[:n]); !errors.Is(err, errFrame) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

func FuzzFetchResponse(f *testing.F) {
	f.Add(answer(0, []byte("records")))
	f.Add(answer(1, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		conn := fetchConn{topic: "t", partition: 3}
		got, err := conn.response(b)
		var code kafka.Error
		if err != nil && !errors.Is(err, errFrame) && !errors.As(err, &code) {
			t.Fatalf("unclassified: %v", err)
		}
		if len(got.records) > len(b) {
			t.Fatal("more records than bytes")
		}
	})
}

// TestSilentBroker has a listener that accepts and says nothing: every call ends
// within its bounds.
func TestSilentBroker(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	cfg := Default()
	cfg.Brokers, cfg.Topic, cfg.GroupID = []string{ln.Addr().String()}, "t", "g"
	cfg.Timeout, cfg.RebalanceTimeout, cfg.StallTimeout = 200*time.Millisecond, 200*time.Millisecond, 300*time.Millisecond
	cfg.SASL = SASL{Mechanism: ScramSHA256, Username: "u", Password: "p"}
	c, err := NewConsumer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	var stall *StallError
	if _, err := c.Partition(0).ReadBatch(t.Context(), 0, 1, 1, 0); !errors.As(err, &stall) {
		t.Errorf("read: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := c.Run(ctx, func(context.Context, int) error { return nil }); err != nil {
		t.Errorf("group: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}
