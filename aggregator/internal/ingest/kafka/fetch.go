package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/segmentio/kafka-go"
)

// Fetch is spoken in version 11, which brokers from 2.3 to 4.x accept.
// Source: https://kafka.apache.org/protocol#The_Messages_Fetch
const (
	fetchKey     = 1
	fetchVersion = 11
)

// errFrame is a response that is not one: the connection is of no further use.
var errFrame = errors.New("broken response from broker")

// fetchConn is one authenticated connection to a partition's leader. It is not
// safe for concurrent use.
type fetchConn struct {
	conn        net.Conn
	clientID    string
	topic       string
	partition   int
	correlation int32
	// maxFrame bounds a response: the broker sends the first batch whole, even
	// beyond what was asked for.
	maxFrame int
	timeout  time.Duration
}

type fetched struct {
	highWatermark int64
	logStart      int64
	records       []byte
}

// fetch asks for records from offset on and waits up to wait for the first.
// Errors of the protocol are kafka.Error values; after any other error the
// connection must be closed.
func (f *fetchConn) fetch(ctx context.Context, offset int64, maxBytes int, wait time.Duration) (fetched, error) {
	deadline := time.Now().Add(wait + f.timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := f.conn.SetDeadline(deadline); err != nil {
		return fetched{}, fmt.Errorf("set deadline: %w", err)
	}
	// A past deadline frees the read below when ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = f.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	f.correlation++
	if _, err := f.conn.Write(f.request(offset, maxBytes, wait)); err != nil {
		return fetched{}, fmt.Errorf("send fetch: %w", err)
	}
	frame, err := f.frame()
	if err != nil {
		return fetched{}, fmt.Errorf("receive fetch: %w", err)
	}
	return f.response(frame)
}

func (f *fetchConn) request(offset int64, maxBytes int, wait time.Duration) []byte {
	be := binary.BigEndian
	b := make([]byte, 4, 128+len(f.clientID)+len(f.topic))
	str := func(s string) {
		b = be.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	i32 := func(v int32) { b = be.AppendUint32(b, uint32(v)) }
	i64 := func(v int64) { b = be.AppendUint64(b, uint64(v)) }

	b = be.AppendUint16(b, fetchKey)
	b = be.AppendUint16(b, fetchVersion)
	i32(f.correlation)
	str(f.clientID)
	i32(-1) // replica: none, a client
	i32(int32(wait.Milliseconds()))
	i32(1) // minimum bytes
	i32(int32(maxBytes))
	b = append(b, 0) // isolation: uncommitted; agents hold no right to transactions
	i32(0)           // session id and
	i32(-1)          // session epoch: no session
	i32(1)           // topics
	str(f.topic)
	i32(1) // partitions
	i32(int32(f.partition))
	i32(-1) // current leader epoch: unknown
	i64(offset)
	i64(-1) // log start offset: for followers
	i32(int32(maxBytes))
	i32(0)  // forgotten topics
	str("") // rack
	be.PutUint32(b, uint32(len(b)-4))
	return b
}

func (f *fetchConn) frame() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(f.conn, size[:]); err != nil {
		return nil, err
	}
	n := int64(int32(binary.BigEndian.Uint32(size[:])))
	if n < 4 || n > int64(f.maxFrame) {
		return nil, fmt.Errorf("%w: frame of %d bytes, limit %d", errFrame, n, f.maxFrame)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(f.conn, b); err != nil {
		return nil, err
	}
	if got := int32(binary.BigEndian.Uint32(b)); got != f.correlation {
		return nil, fmt.Errorf("%w: answer %d to request %d", errFrame, got, f.correlation)
	}
	return b[4:], nil
}

// response reads the answer for the one partition that was asked for. The
// records alias b.
func (f *fetchConn) response(b []byte) (fetched, error) {
	r := frameReader{b: b}
	r.i32() // throttle time, served by the broker's own delay
	if code := r.i16(); code != 0 {
		return fetched{}, kafka.Error(code)
	}
	r.i32() // session id
	if n := r.i32(); n != 1 && r.err == nil {
		return fetched{}, fmt.Errorf("%w: %d topics", errFrame, n)
	}
	topic := string(r.take(int(r.i16())))
	if n := r.i32(); n != 1 && r.err == nil {
		return fetched{}, fmt.Errorf("%w: %d partitions", errFrame, n)
	}
	partition, code := r.i32(), r.i16()
	out := fetched{highWatermark: r.i64()}
	r.i64() // last stable offset
	out.logStart = r.i64()
	if aborted := r.i32(); aborted > 0 {
		r.take(int(aborted) * 16)
	}
	r.i32() // preferred read replica
	if n := r.i32(); n > 0 {
		out.records = r.take(int(n))
	}
	if r.err != nil {
		return fetched{}, r.err
	}
	if topic != f.topic || int(partition) != f.partition {
		return fetched{}, fmt.Errorf("%w: answer for %s/%d", errFrame, topic, partition)
	}
	if code != 0 {
		return out, kafka.Error(code)
	}
	return out, nil
}

// frameReader reads big-endian fields and keeps the first error.
type frameReader struct {
	b   []byte
	err error
}

func (r *frameReader) take(n int) []byte {
	if r.err == nil && (n < 0 || n > len(r.b)) {
		r.err = fmt.Errorf("%w: field of %d bytes in %d", errFrame, n, len(r.b))
	}
	if r.err != nil {
		return nil
	}
	field := r.b[:n:n]
	r.b = r.b[n:]
	return field
}

func (r *frameReader) i16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *frameReader) i32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *frameReader) i64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}
