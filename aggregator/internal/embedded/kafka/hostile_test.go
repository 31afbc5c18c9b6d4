package kafka_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/cavra/cavra/aggregator/internal/embedded/kafka"
)

// frame is a request as it goes over the wire, whatever it says about its size.
func frame(size uint32, key, version int16, body ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, size)
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = append(b, 0, 0, 0, 1) // correlation
	return append(b, body...)
}

// TestMalformedRequests sends what would make kfake allocate without bound or
// end the process, and checks that only the connection ends.
func TestMalformedRequests(t *testing.T) {
	b, _ := start(t, config(t.TempDir()))
	login := frame(12+4, 36, 0, 0, 0, 0, 0)
	for _, tc := range []struct {
		name string
		send []byte
	}{
		{"four gigabytes", frame(0xffffffff, 18, 0)},
		{"large login", frame(1<<20, 36, 0)},
		{"large write", append(bytes.Clone(login), frame(32<<20, 0, 3)...)},
		{"unknown request", frame(20, 999, 0)},
		{"request that is not served", append(bytes.Clone(login), frame(20, 22, 0)...)},
		{"topic deletion", append(bytes.Clone(login), frame(20, 20, 0)...)},
		{"negative version", frame(20, 18, -5)},
		{"write before login", frame(20, 0, 3)},
		{"too short", frame(3, 18, 0)},
		{"http", []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", b.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(tc.send); err != nil {
				t.Fatal(err)
			}
			var timeout net.Error
			if _, err := io.Copy(io.Discard, conn); errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("the connection was kept open")
			}
		})
	}
	if err := write(t, b.Addr(), superuser, password, 0, "still here"); err != nil {
		t.Fatal(err)
	}
}

// TestLyingBatches produces batches whose header does not fit their records, as
// an agent with valid credentials could. None may move the partition's end.
func TestLyingBatches(t *testing.T) {
	b, _ := start(t, config(t.TempDir()))
	if err := write(t, b.Addr(), superuser, password, 0, "first"); err != nil {
		t.Fatal(err)
	}
	set := func(at int, v uint32) func([]byte) {
		return func(raw []byte) { binary.BigEndian.PutUint32(raw[at:], v) }
	}
	both := func(last, count uint32) func([]byte) {
		return func(raw []byte) { set(23, last)(raw); set(57, count)(raw) }
	}
	for _, tc := range []struct {
		name  string
		batch []byte
		want  kafkago.Error
	}{
		{"two thousand million records", batch(t, 0, 10, both(1_999_999_999, 2_000_000_000)), kafkago.Error(87)},
		{"minus one record", batch(t, 0, 10, both(0xfffffffe, 0xffffffff)), kafkago.Error(87)},
		{"more offsets than records", batch(t, 0, 10, set(23, 50)), kafkago.Error(87)},
		{"control batch", batch(t, 0, 10, func(raw []byte) { raw[22] |= 0x20 }), kafkago.Error(87)},
		{"decompression bomb", batch(t, protocol.Gzip, 8<<20, nil), kafkago.MessageSizeTooLarge},
		{"large batch", batch(t, 0, 1500<<10, nil), kafkago.MessageSizeTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := produceRaw(t, b, tc.batch); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
			if got := bounds(t, b.Addr(), 0); got != [2]int64{0, 1} {
				t.Fatalf("log is %v", got)
			}
		})
	}
	if err := produceRaw(t, b, batch(t, protocol.Gzip, 100<<10, nil)); err != nil {
		t.Errorf("an honest batch: %v", err)
	}
}

func batch(t *testing.T, compression protocol.Attributes, size int, change func([]byte)) []byte {
	t.Helper()
	set := protocol.RecordSet{Version: 2, Attributes: compression, Records: protocol.NewRecordReader(
		protocol.Record{Time: time.Now(), Value: protocol.NewBytes(make([]byte, size))})}
	var buf bytes.Buffer
	if _, err := set.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	raw := buf.Bytes()[4:]
	if change != nil {
		change(raw)
		binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	}
	return raw
}

func produceRaw(t *testing.T, b *kafka.Broker, raw []byte) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c := kafkago.Client{Addr: kafkago.TCP(b.Addr()), Transport: transport(t, superuser, password)}
	res, err := c.RawProduce(ctx, &kafkago.RawProduceRequest{
		Topic: statement, Partition: 0, RequiredAcks: kafkago.RequireAll,
		RawRecords: protocol.RawRecordSet{Reader: bytes.NewReader(append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...))},
	})
	if err != nil {
		return err
	}
	return res.Error
}

// TestSilentConnections: a peer that does not log in in time gives its place back,
// and one that has may be silent.
func TestSilentConnections(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.LoginTime = 500 * time.Millisecond
	b, _ := start(t, cfg)
	mech, err := scram.Mechanism(scram.SHA256, superuser, password)
	if err != nil {
		t.Fatal(err)
	}
	good, err := (&kafkago.Dialer{SASLMechanism: mech, Timeout: 10 * time.Second}).DialContext(t.Context(), "tcp", b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := good.Brokers(); err != nil {
		t.Fatal(err)
	}
	for name, send := range map[string][]byte{"nothing": nil, "half a login": frame(12+4, 36, 0)[:6], "a question": frame(10, 18, 0, 0, 0)} {
		conn, err := net.Dial("tcp", b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(send); err != nil {
			t.Fatal(err)
		}
		var timeout net.Error
		if _, err := io.Copy(io.Discard, conn); errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("after %s the connection was kept open", name)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := good.Brokers(); err != nil {
		t.Errorf("a connection that had logged in: %v", err)
	}
	if err := good.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestConnectionLimit(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.MaxConnections = 4
	b, _ := start(t, cfg)
	var held []net.Conn
	for range cfg.MaxConnections {
		conn, err := net.Dial("tcp", b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	extra, err := net.Dial("tcp", b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := extra.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := extra.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a connection beyond the limit: %v", err)
	}
	for _, conn := range append(held, extra) {
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// The places are free again once the broker has noticed.
	mech, err := scram.Mechanism(scram.SHA256, superuser, password)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for range 100 {
		conn, err := (&kafkago.Dialer{SASLMechanism: mech, Timeout: time.Second}).DialContext(t.Context(), "tcp", b.Addr())
		if err != nil {
			continue
		}
		brokers, err := conn.Brokers()
		if err := errors.Join(err, conn.Close()); err != nil {
			t.Fatal(err)
		}
		for _, b := range brokers {
			got = append(got, net.JoinHostPort(b.Host, "port"))
		}
		break
	}
	if diff := cmp.Diff([]string{"127.0.0.1:port"}, got); diff != "" {
		t.Error(diff)
	}
}
