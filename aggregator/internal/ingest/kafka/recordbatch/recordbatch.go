// Package recordbatch decodes Kafka record batches (message format v2) that
// come from writers nobody trusts.
//
// It guarantees that decoding allocates no more than the caller's limits allow,
// whatever a batch claims about its record count or its decompressed size, that
// it never panics, and that a batch which cannot be decoded still says which
// offsets it covers whenever its header can be read, so that a reader can put
// the batch aside and go on with its successors.
//
// The format is the one of https://kafka.apache.org/documentation/#recordbatch.
package recordbatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// Reasons why a batch was not decoded. Decode wraps exactly one of them.
var (
	// ErrMalformed is a batch whose bytes contradict the format.
	ErrMalformed = errors.New("malformed record batch")
	// ErrChecksum is a batch whose CRC-32C does not fit its bytes.
	ErrChecksum = errors.New("record batch checksum mismatch")
	// ErrTooLarge is a batch that exceeds a limit.
	ErrTooLarge = errors.New("record batch exceeds a limit")
	// ErrUnsupported is a batch in a message format or a compression that is
	// not read here.
	ErrUnsupported = errors.New("unsupported record batch")
)

// Limits bounds what one batch may cost. Every field must be positive.
type Limits struct {
	// Bytes is the largest size of the records after decompression, in bytes.
	Bytes int
	// Records is the largest number of records.
	Records int
	// Headers is the largest number of headers of one record.
	Headers int
}

// DefaultLimits admits what a topic with 8 MiB messages can hold.
func DefaultLimits() Limits {
	return Limits{Bytes: 16 << 20, Records: 100_000, Headers: 64}
}

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Record is one record. Key and Value are nil where the record has none; they
// alias the batch's bytes or its decompressed form.
type Record struct {
	Offset  int64
	Time    time.Time
	Key     []byte
	Value   []byte
	Headers []Header
}

// Batch is a decoded batch. It covers the offsets First to Last, both included,
// also where compaction has removed records between them.
type Batch struct {
	First   int64
	Last    int64
	Control bool // a transaction marker: no records for a reader
	Records []Record
}

const (
	prefixLen = 12 // base offset and length
	headerLen = 61 // up to the first record
	crcStart  = 21 // the CRC covers everything from the attributes on

	// minRecord is the shortest encoding a record can have: length,
	// attributes, two deltas, two absent byte fields and a header count.
	minRecord = 7
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Split cuts the first batch off a fetch response's record bytes. A broker may
// end a response in the middle of a batch: then ok is false and rest is what
// remains.
func Split(b []byte) (batch, rest []byte, ok bool) {
	if len(b) < prefixLen {
		return nil, b, false
	}
	n := int64(int32(binary.BigEndian.Uint32(b[8:12])))
	if n < 0 || n > int64(len(b)-prefixLen) {
		return nil, b, false
	}
	end := prefixLen + int(n)
	return b[:end:end], b[end:], true
}

// Decode decodes exactly one batch. After an error that is not about the header
// itself, First and Last of the returned batch are still valid; after one that
// is, both are the base offset.
func Decode(raw []byte, lim Limits) (Batch, error) {
	if len(raw) < prefixLen+5 {
		return Batch{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(raw))
	}
	first := int64(binary.BigEndian.Uint64(raw))
	b := Batch{First: first, Last: first}
	if magic := raw[16]; magic != 2 {
		return b, fmt.Errorf("%w: message format %d", ErrUnsupported, magic)
	}
	if len(raw) < headerLen {
		return b, fmt.Errorf("%w: header of %d bytes", ErrMalformed, len(raw))
	}
	lastDelta := int32(binary.BigEndian.Uint32(raw[23:]))
	if first < 0 || lastDelta < 0 || first > first+int64(lastDelta) {
		return b, fmt.Errorf("%w: offsets %d+%d", ErrMalformed, first, lastDelta)
	}
	b.Last = first + int64(lastDelta)
	if int64(int32(binary.BigEndian.Uint32(raw[8:]))) != int64(len(raw)-prefixLen) {
		return b, fmt.Errorf("%w: length field does not fit", ErrMalformed)
	}
	if crc32.Checksum(raw[crcStart:], castagnoli) != binary.BigEndian.Uint32(raw[17:]) {
		return b, ErrChecksum
	}
	attributes := int16(binary.BigEndian.Uint16(raw[21:]))
	b.Control = attributes&0x20 != 0
	body, err := decompress(raw[headerLen:], attributes&0x07, lim.Bytes)
	if err != nil {
		return b, err
	}
	count := int64(int32(binary.BigEndian.Uint32(raw[57:])))
	if count < 0 || count*minRecord > int64(len(body)) {
		return b, fmt.Errorf("%w: %d records in %d bytes", ErrMalformed, count, len(body))
	}
	if count > int64(lim.Records) {
		return b, fmt.Errorf("%w: %d records, limit %d", ErrTooLarge, count, lim.Records)
	}
	if b.Control {
		return b, nil
	}
	d := decoder{
		buf: body, first: first, lastDelta: int64(lastDelta), maxHeaders: lim.Headers,
		firstTime: int64(binary.BigEndian.Uint64(raw[27:])),
		maxTime:   int64(binary.BigEndian.Uint64(raw[35:])),
		appended:  attributes&0x08 != 0,
	}
	b.Records, err = d.records(int(count))
	return b, err
}

type decoder struct {
	buf        []byte
	first      int64
	lastDelta  int64
	firstTime  int64
	maxTime    int64
	appended   bool // the broker's append time stands for every record's time
	maxHeaders int
}

func (d *decoder) records(n int) ([]Record, error) {
	records := make([]Record, n)
	previous := int64(-1)
	for i := range records {
		delta, err := d.record(&records[i])
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
		if delta <= previous || delta > d.lastDelta {
			return nil, fmt.Errorf("record %d: %w: offset delta %d after %d", i, ErrMalformed, delta, previous)
		}
		previous = delta
	}
	if len(d.buf) != 0 {
		return nil, fmt.Errorf("%w: %d bytes after the last record", ErrMalformed, len(d.buf))
	}
	return records, nil
}

func (d *decoder) record(r *Record) (delta int64, err error) {
	body, null, err := d.bytes()
	if err != nil || null || len(body) == 0 {
		return 0, fmt.Errorf("%w: record length", ErrMalformed)
	}
	in := decoder{buf: body[1:], maxHeaders: d.maxHeaders}
	timeDelta, err := in.varint()
	if err != nil {
		return 0, err
	}
	if delta, err = in.varint(); err != nil {
		return 0, err
	}
	r.Offset = d.first + delta
	r.Time = time.UnixMilli(d.firstTime + timeDelta)
	if d.appended {
		r.Time = time.UnixMilli(d.maxTime)
	}
	if r.Key, _, err = in.bytes(); err != nil {
		return 0, err
	}
	if r.Value, _, err = in.bytes(); err != nil {
		return 0, err
	}
	if r.Headers, err = in.headers(); err != nil {
		return 0, err
	}
	if len(in.buf) != 0 {
		return 0, fmt.Errorf("%w: %d bytes after the headers", ErrMalformed, len(in.buf))
	}
	return delta, nil
}

func (d *decoder) headers() ([]Header, error) {
	n, err := d.varint()
	if err != nil {
		return nil, err
	}
	switch {
	case n == 0:
		return nil, nil
	case n < 0 || n > int64(len(d.buf)):
		return nil, fmt.Errorf("%w: %d headers", ErrMalformed, n)
	case n > int64(d.maxHeaders):
		return nil, fmt.Errorf("%w: %d headers, limit %d", ErrTooLarge, n, d.maxHeaders)
	}
	headers := make([]Header, n)
	for i := range headers {
		key, null, err := d.bytes()
		if err != nil {
			return nil, err
		}
		if null {
			return nil, fmt.Errorf("%w: header without a key", ErrMalformed)
		}
		headers[i].Key = string(key)
		if headers[i].Value, _, err = d.bytes(); err != nil {
			return nil, err
		}
	}
	return headers, nil
}

func (d *decoder) varint() (int64, error) {
	v, n := binary.Varint(d.buf)
	if n <= 0 {
		return 0, fmt.Errorf("%w: varint", ErrMalformed)
	}
	d.buf = d.buf[n:]
	return v, nil
}

// bytes reads a field with a varint length, of which -1 means that it is absent.
func (d *decoder) bytes() (field []byte, null bool, err error) {
	n, err := d.varint()
	if err != nil {
		return nil, false, err
	}
	if n == -1 {
		return nil, true, nil
	}
	if n < 0 || n > int64(len(d.buf)) {
		return nil, false, fmt.Errorf("%w: field of %d bytes", ErrMalformed, n)
	}
	field = d.buf[:n:n]
	d.buf = d.buf[n:]
	return field, false, nil
}
