package kafka

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/cavra/cavra/aggregator/internal/ingest/kafka/recordbatch"
)

// Header is one header of a message.
type Header = recordbatch.Header

// Message is one record of the log. Key and Value are nil where the record has
// none. They share memory with their neighbours and must not be changed.
type Message struct {
	Topic     string
	Partition int
	Offset    int64
	Key       []byte
	Value     []byte
	Headers   []Header
	Time      time.Time
}

func (m Message) size() int {
	n := len(m.Key) + len(m.Value)
	for _, h := range m.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// Unreadable is a record batch that could not be decoded: a writer got bytes
// past the broker that break the format or a limit. Its offsets are accounted
// for, and what is known about it is enough to quarantine it.
type Unreadable struct {
	// First and Last are the offsets it covers, both included.
	First, Last int64
	// SHA256 is the digest of its bytes as the broker sent them.
	SHA256 [sha256.Size]byte
	// Err wraps one of recordbatch's reasons.
	Err error
}

// Range is what the log holds between two offsets. Every offset in [From, Next)
// is either that of a message, covered by an unreadable batch, or empty in the
// log (compaction, transaction markers): the reader's position has passed Next,
// which is what proves it.
type Range struct {
	From, Next int64
	Messages   []Message
	Unreadable []Unreadable
	// LogEnd is the offset after the last one that the broker had when it
	// answered last.
	LogEnd int64
}

// Partition reads one partition of the statements' topic, outside of any group:
// the caller owns the position. It is not safe for concurrent use. Close it.
type Partition struct {
	client *client
	id     int
	conn   *fetchConn
}

// ID is the partition's number.
func (p *Partition) ID() int { return p.id }

// Close gives back the connection. The partition can be read again afterwards.
func (p *Partition) Close() error {
	if p.conn == nil {
		return nil
	}
	err := p.conn.conn.Close()
	p.conn = nil
	return err
}

const (
	// maxFetch bounds one request's answer, beyond which a broker sends at
	// most one batch.
	maxFetch = 4 << 20
	// frameSlack is what an answer needs besides its records.
	frameSlack = 64 << 10

	minBackoff = 20 * time.Millisecond
	maxBackoff = time.Second

	// checksumTries is how often a batch with a wrong checksum is fetched
	// anew before the log, and not the way here, is taken to be at fault.
	checksumTries = 3
)

// ReadBatch reads from an offset on until it has limit messages, or maxBytes of
// keys, values and headers, or maxWait has passed, and returns what it has, which
// may be nothing. It returns more than maxBytes only to return one message.
//
// An offset outside of the log is an *OutOfRangeError. A broker that cannot be
// reached, or does not send what it reports, is waited for until the stall
// timeout makes it a *StallError. After an error with some messages already read,
// these are returned and the error is left for the next call.
func (p *Partition) ReadBatch(ctx context.Context, from int64, limit, maxBytes int, maxWait time.Duration) (Range, error) {
	if from < 0 || limit <= 0 || maxBytes <= 0 || maxWait < 0 {
		return Range{}, fmt.Errorf("read %s/%d: offset %d, %d messages, %d bytes, %s: not a range",
			p.client.cfg.Topic, p.id, from, limit, maxBytes, maxWait)
	}
	r := collector{p: p, Range: Range{From: from, Next: from}, end: -1, limit: limit, maxBytes: maxBytes}
	deadline := time.Now().Add(maxWait)
	for !r.full {
		if _, err := r.fetch(ctx, max(time.Until(deadline), 0)); err != nil {
			if r.Next > r.From {
				break
			}
			return Range{}, err
		}
		if !time.Now().Before(deadline) {
			break
		}
	}
	return r.Range, nil
}

// ReadExactly reads every message in [from, to) and returns once the log's
// position has passed to, waiting for it until the stall timeout. A log that
// does not hold the range any more, or never did, is an *OutOfRangeError.
func (p *Partition) ReadExactly(ctx context.Context, from, to int64) (Range, error) {
	if from < 0 || to < from {
		return Range{}, fmt.Errorf("read %s/%d: [%d, %d) is not a range", p.client.cfg.Topic, p.id, from, to)
	}
	r := collector{p: p, Range: Range{From: from, Next: from}, end: to, maxBytes: p.client.cfg.MaxRangeBytes}
	watch := stallWatch{since: time.Now()}
	for r.Next < to {
		if r.full {
			return Range{}, fmt.Errorf("read %s/%d: [%d, %d) holds more than %d bytes",
				p.client.cfg.Topic, p.id, from, to, p.client.cfg.MaxRangeBytes)
		}
		moved, err := r.fetch(ctx, 500*time.Millisecond)
		if err != nil {
			return Range{}, err
		}
		if !watch.exceeded(moved, p.client.cfg.StallTimeout) {
			continue
		}
		if r.LogEnd < to {
			return Range{}, p.outOfRange(ctx, from, to)
		}
		return Range{}, p.stalled(r.Next, watch.since, ErrNoProgress)
	}
	return r.Range, nil
}

// Bounds returns the first offset that the log holds and the one after its last.
func (p *Partition) Bounds(ctx context.Context) (start, end int64, err error) {
	c := p.client
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	res, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		c.cfg.Topic: {kafka.FirstOffsetOf(p.id), kafka.LastOffsetOf(p.id)},
	}})
	if err != nil {
		return 0, 0, fmt.Errorf("list offsets of %s/%d: %w", c.cfg.Topic, p.id, err)
	}
	for _, o := range res.Topics[c.cfg.Topic] {
		if o.Partition != p.id {
			continue
		}
		if o.Error != nil {
			return 0, 0, fmt.Errorf("list offsets of %s/%d: %w", c.cfg.Topic, p.id, o.Error)
		}
		return o.FirstOffset, o.LastOffset, nil
	}
	return 0, 0, fmt.Errorf("list offsets of %s/%d: %w", c.cfg.Topic, p.id, kafka.UnknownTopicOrPartition)
}

// collector gathers a range from as many fetches as it takes.
type collector struct {
	Range
	p        *Partition
	end      int64 // not beyond this offset; -1 is open
	limit    int   // number of messages, for an open range
	maxBytes int
	bytes    int
	full     bool
}

func (r *collector) fetch(ctx context.Context, wait time.Duration) (moved bool, err error) {
	want := max(min(r.maxBytes-r.bytes, maxFetch), 1<<10)
	got, err := r.p.fetch(ctx, r.Next, max(r.end, r.Next), want, wait)
	if err != nil {
		return false, err
	}
	before := r.Next
	r.LogEnd = got.highWatermark
	for _, b := range got.batches {
		if r.full {
			break
		}
		r.add(b)
	}
	return r.Next > before, nil
}

// add takes what a batch holds of the range. A batch that reaches back before
// the position, as a broker sends it for an offset in its middle, is cut.
func (r *collector) add(b decoded) {
	if b.last < r.Next {
		return
	}
	if b.err != nil {
		if r.end < 0 || b.first < r.end {
			r.Unreadable = append(r.Unreadable, Unreadable{First: b.first, Last: b.last, SHA256: b.digest, Err: b.err})
		}
		r.advance(b.last + 1)
		return
	}
	for _, rec := range b.records {
		if rec.Offset < r.Next {
			continue
		}
		if r.end >= 0 && rec.Offset >= r.end {
			break
		}
		m := Message{
			Topic: r.p.client.cfg.Topic, Partition: r.p.id, Offset: rec.Offset,
			Key: rec.Key, Value: rec.Value, Headers: rec.Headers, Time: rec.Time,
		}
		if n := m.size(); len(r.Messages) > 0 && r.bytes+n > r.maxBytes {
			r.full = true
			return
		}
		r.Messages = append(r.Messages, m)
		r.bytes += m.size()
		r.Next = rec.Offset + 1
		if r.end < 0 && len(r.Messages) == r.limit {
			r.full = true
			return
		}
	}
	r.advance(b.last + 1)
}

func (r *collector) advance(to int64) {
	if r.end >= 0 {
		to = min(to, r.end)
	}
	r.Next = max(r.Next, to)
}

// decoded is one batch of an answer: its records, or why it has none.
type decoded struct {
	first, last int64
	records     []recordbatch.Record
	digest      [sha256.Size]byte
	err         error
}

type page struct {
	highWatermark int64
	batches       []decoded
}

// fetch fetches once, and again after errors that may pass, until the stall
// timeout. The answer may be empty when wait is over.
func (p *Partition) fetch(ctx context.Context, offset, to int64, maxBytes int, wait time.Duration) (page, error) {
	began := time.Now()
	checksums := 0
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		got, err := p.once(ctx, offset, maxBytes, wait, checksums+1 < checksumTries)
		if err == nil {
			return got, nil
		}
		if ctx.Err() != nil {
			return page{}, fmt.Errorf("read %s/%d: %w", p.client.cfg.Topic, p.id, context.Cause(ctx))
		}
		if errors.Is(err, kafka.OffsetOutOfRange) {
			return page{}, p.outOfRange(ctx, offset, to)
		}
		damaged := errors.Is(err, recordbatch.ErrChecksum)
		if damaged {
			checksums++
		}
		if !damaged && !Retryable(err) {
			return page{}, fmt.Errorf("read %s/%d at offset %d: %w", p.client.cfg.Topic, p.id, offset, err)
		}
		if time.Since(began) > p.client.cfg.StallTimeout {
			return page{}, p.stalled(offset, began, err)
		}
		if err := pause(ctx, backoff); err != nil {
			return page{}, fmt.Errorf("read %s/%d: %w", p.client.cfg.Topic, p.id, err)
		}
	}
}

// once fetches over the present connection or a new one. With strict, a batch
// whose checksum is wrong is an error, otherwise it is unreadable.
func (p *Partition) once(ctx context.Context, offset int64, maxBytes int, wait time.Duration, strict bool) (page, error) {
	if p.conn == nil {
		conn, err := p.client.dialLeader(ctx, p.id)
		if err != nil {
			return page{}, err
		}
		p.conn = &fetchConn{
			conn: conn, clientID: p.client.cfg.ClientID, topic: p.client.cfg.Topic, partition: p.id,
			maxFrame: maxFetch + p.client.cfg.Batch.Bytes + frameSlack, timeout: p.client.cfg.Timeout,
		}
	}
	got, err := p.conn.fetch(ctx, offset, maxBytes, wait)
	if err == nil {
		var out page
		if out, err = p.decode(got, offset, strict); err == nil {
			return out, nil
		}
	}
	// The leader may have moved and the stream may be out of step: both are
	// settled by a new connection.
	return page{}, errors.Join(err, p.Close())
}

func (p *Partition) decode(got fetched, offset int64, strict bool) (page, error) {
	out := page{highWatermark: got.highWatermark}
	for rest := got.records; ; {
		raw, after, ok := recordbatch.Split(rest)
		if !ok {
			if len(out.batches) == 0 && len(rest) > 0 {
				return page{}, fmt.Errorf("%w: no whole batch in %d bytes", errFrame, len(rest))
			}
			return out, out.progress(offset)
		}
		rest = after
		b, err := recordbatch.Decode(raw, p.client.cfg.Batch)
		if strict && errors.Is(err, recordbatch.ErrChecksum) {
			return page{}, err
		}
		d := decoded{first: b.First, last: b.Last, records: b.Records, err: err}
		if err != nil {
			d.digest = sha256.Sum256(raw)
		}
		out.batches = append(out.batches, d)
	}
}

// progress is an error if the broker has records from offset on and sent none:
// a reader that took that for the end of the log would stand still for good.
func (g page) progress(offset int64) error {
	if g.highWatermark <= offset {
		return nil
	}
	for _, b := range g.batches {
		if b.last >= offset {
			return nil
		}
	}
	return ErrNoProgress
}

func (p *Partition) outOfRange(ctx context.Context, from, to int64) error {
	start, end, err := p.Bounds(ctx)
	if err != nil {
		return err
	}
	if start <= from && to <= end {
		// The log has caught up, or another leader has answered.
		return p.stalled(from, time.Now(), kafka.OffsetOutOfRange)
	}
	return &OutOfRangeError{Topic: p.client.cfg.Topic, Partition: p.id, From: from, To: to, LogStart: start, LogEnd: end}
}

func (p *Partition) stalled(offset int64, since time.Time, err error) error {
	return &StallError{Topic: p.client.cfg.Topic, Partition: p.id, Offset: offset, After: time.Since(since), Err: err}
}

// stallWatch measures how long nothing has moved.
type stallWatch struct{ since time.Time }

func (w *stallWatch) exceeded(moved bool, limit time.Duration) bool {
	if moved {
		w.since = time.Now()
	}
	return time.Since(w.since) > limit
}

// pause waits for a random time around d, so that readers do not come back all
// at once.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
