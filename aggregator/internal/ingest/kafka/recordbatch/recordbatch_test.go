package recordbatch_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/cavra/cavra/aggregator/internal/ingest/kafka/recordbatch"
)

// encode has kafka-go write the batch, so that the decoder is held against an
// encoder that is not its own.
func encode(t testing.TB, attributes protocol.Attributes, records ...protocol.Record) []byte {
	t.Helper()
	set := protocol.RecordSet{Version: 2, Attributes: attributes, Records: protocol.NewRecordReader(records...)}
	var buf bytes.Buffer
	if _, err := set.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()[4:] // without the size of the set
}

func sample() []protocol.Record {
	at := time.UnixMilli(1_700_000_000_000)
	return []protocol.Record{
		{Time: at, Key: protocol.NewBytes([]byte("agent-1")), Value: protocol.NewBytes([]byte(strings.Repeat("statement ", 50))),
			Headers: []protocol.Header{{Key: "schema", Value: []byte("1")}, {Key: "empty"}}},
		{Time: at.Add(3 * time.Millisecond), Value: protocol.NewBytes([]byte("two"))},
		{Time: at.Add(time.Second), Key: protocol.NewBytes([]byte("k"))},
	}
}

func rebase(raw []byte, offset int64) []byte {
	binary.BigEndian.PutUint64(raw, uint64(offset))
	return raw
}

// patch changes bytes and makes the checksum fit again.
func patch(raw []byte, at int, with []byte) []byte {
	out := bytes.Clone(raw)
	copy(out[at:], with)
	binary.BigEndian.PutUint32(out[17:], crc32.Checksum(out[21:], crc32.MakeTable(crc32.Castagnoli)))
	return out
}

func be32(v int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }

func TestDecodeEveryCompression(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000)
	want := recordbatch.Batch{First: 40, Last: 42, Records: []recordbatch.Record{
		{Offset: 40, Time: at, Key: []byte("agent-1"), Value: []byte(strings.Repeat("statement ", 50)),
			Headers: []recordbatch.Header{{Key: "schema", Value: []byte("1")}, {Key: "empty"}}},
		{Offset: 41, Time: at.Add(3 * time.Millisecond), Value: []byte("two")},
		{Offset: 42, Time: at.Add(time.Second), Key: []byte("k")},
	}}
	for _, c := range []protocol.Attributes{0, protocol.Gzip, protocol.Snappy, protocol.Lz4, protocol.Zstd} {
		t.Run(c.Compression().String(), func(t *testing.T) {
			raw := rebase(encode(t, c, sample()...), 40)
			stream := append(bytes.Clone(raw), raw[:20]...)
			batch, rest, ok := recordbatch.Split(stream)
			if !ok || len(rest) != 20 {
				t.Fatalf("Split: ok %v, %d bytes left", ok, len(rest))
			}
			if _, _, ok := recordbatch.Split(rest); ok {
				t.Error("Split took a truncated batch for a whole one")
			}
			got, err := recordbatch.Decode(batch, recordbatch.DefaultLimits())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	plain := rebase(encode(t, 0, sample()...), 7)
	flipped := bytes.Clone(plain)
	flipped[len(flipped)-1] ^= 1
	bomb := func(c protocol.Attributes) []byte {
		return rebase(encode(t, c, protocol.Record{Value: protocol.NewBytes(make([]byte, 4<<20))}), 7)
	}
	small := recordbatch.Limits{Bytes: 1 << 20, Records: 2, Headers: 1}
	wide := recordbatch.DefaultLimits()
	for _, tc := range []struct {
		name string
		raw  []byte
		lim  recordbatch.Limits
		want error
		last int64
	}{
		{"flipped bit", flipped, wide, recordbatch.ErrChecksum, 9},
		{"two thousand million records", patch(plain, 57, be32(2_000_000_000)), wide, recordbatch.ErrMalformed, 9},
		{"negative record count", patch(plain, 57, be32(-1)), wide, recordbatch.ErrMalformed, 9},
		{"fewer records than bytes", patch(plain, 57, be32(1)), wide, recordbatch.ErrMalformed, 9},
		{"negative offset delta", patch(plain, 23, be32(-5)), wide, recordbatch.ErrMalformed, 7},
		{"too many records", plain, small, recordbatch.ErrTooLarge, 9},
		{"too many headers", plain, recordbatch.Limits{Bytes: 1 << 20, Records: 9, Headers: 1}, recordbatch.ErrTooLarge, 9},
		{"gzip bomb", bomb(protocol.Gzip), small, recordbatch.ErrTooLarge, 7},
		{"snappy bomb", bomb(protocol.Snappy), small, recordbatch.ErrTooLarge, 7},
		{"lz4 bomb", bomb(protocol.Lz4), small, recordbatch.ErrTooLarge, 7},
		{"zstd bomb", bomb(protocol.Zstd), small, recordbatch.ErrTooLarge, 7},
		{"unknown compression", patch(plain, 22, []byte{6}), wide, recordbatch.ErrUnsupported, 9},
		{"plain bytes called gzip", patch(plain, 22, []byte{1}), wide, recordbatch.ErrMalformed, 9},
		{"old message format", patch(plain, 16, []byte{1}), wide, recordbatch.ErrUnsupported, 7},
		{"short", plain[:20], wide, recordbatch.ErrMalformed, 7},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := recordbatch.Decode(tc.raw, tc.lim)
			if !errors.Is(err, tc.want) {
				t.Fatalf("error %v, want %v", err, tc.want)
			}
			if b.First != 7 || b.Last != tc.last {
				t.Errorf("covers %d to %d, want 7 to %d", b.First, b.Last, tc.last)
			}
		})
	}
}

func TestControlBatchHasNoRecords(t *testing.T) {
	raw := patch(rebase(encode(t, 0, sample()...), 7), 22, []byte{0x20})
	b, err := recordbatch.Decode(raw, recordbatch.DefaultLimits())
	if err != nil || !b.Control || len(b.Records) != 0 || b.Last != 9 {
		t.Fatalf("got %+v, %v", b, err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range []protocol.Attributes{0, protocol.Gzip, protocol.Snappy, protocol.Lz4, protocol.Zstd} {
		f.Add(encode(f, c, sample()...), true)
	}
	f.Add([]byte("no batch at all"), false)
	lim := recordbatch.Limits{Bytes: 64 << 10, Records: 1000, Headers: 8}
	f.Fuzz(func(t *testing.T, in []byte, repair bool) {
		raw, _, ok := recordbatch.Split(in)
		if !ok {
			return
		}
		if repair && len(raw) > 21 { // past the checksum, where the parser is
			raw = patch(raw, 0, nil)
		}
		b, err := recordbatch.Decode(raw, lim)
		if err != nil {
			return
		}
		if len(b.Records) > lim.Records || b.Last < b.First {
			t.Fatalf("limits not held: %d records, offsets %d to %d", len(b.Records), b.First, b.Last)
		}
		for _, r := range b.Records {
			if r.Offset < b.First || r.Offset > b.Last || len(r.Headers) > lim.Headers {
				t.Fatalf("record outside its batch: %+v", r)
			}
		}
	})
}
