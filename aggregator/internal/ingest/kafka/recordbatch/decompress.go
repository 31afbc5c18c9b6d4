package recordbatch

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Compression codes of a batch's attributes.
const (
	codecNone   = 0
	codecGzip   = 1
	codecSnappy = 2
	codecLZ4    = 3
	codecZstd   = 4
)

// zstdWindow bounds what a zstd frame may ask the decoder to keep. Kafka's own
// writers stay below 8 MiB at every compression level they offer by default.
const zstdWindow = 8 << 20

// decompress returns at most limit bytes, or an error.
func decompress(b []byte, codec int16, limit int) ([]byte, error) {
	switch codec {
	case codecNone:
		if len(b) > limit {
			return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, len(b), limit)
		}
		return b, nil
	case codecGzip:
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("%w: gzip: %w", ErrMalformed, err)
		}
		return drain("gzip", r, limit)
	case codecSnappy:
		return unsnappy(b, limit)
	case codecLZ4:
		return drain("lz4", lz4.NewReader(bytes.NewReader(b)), limit)
	case codecZstd:
		r, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, fmt.Errorf("%w: zstd: %w", ErrMalformed, err)
		}
		defer r.Close()
		return drain("zstd", r, limit)
	}
	return nil, fmt.Errorf("%w: compression %d", ErrUnsupported, codec)
}

func drain(name string, r io.Reader, limit int) ([]byte, error) {
	var out bytes.Buffer
	n, err := out.ReadFrom(io.LimitReader(r, int64(limit)+1))
	if n > int64(limit) {
		return nil, fmt.Errorf("%w: %s beyond %d bytes", ErrTooLarge, name, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, name, err)
	}
	return out.Bytes(), nil
}

// xerialMagic opens the framing that Kafka's Java client puts around snappy
// blocks; other clients write a bare block.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const xerialHeader = 16 // magic and two version numbers

func unsnappy(b []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(b, xerialMagic) {
		return snappyBlock(nil, b, limit)
	}
	if len(b) < xerialHeader {
		return nil, fmt.Errorf("%w: snappy framing", ErrMalformed)
	}
	var out []byte
	for b = b[xerialHeader:]; len(b) > 0; {
		if len(b) < 4 {
			return nil, fmt.Errorf("%w: snappy framing", ErrMalformed)
		}
		n := binary.BigEndian.Uint32(b)
		b = b[4:]
		if uint64(n) > uint64(len(b)) {
			return nil, fmt.Errorf("%w: snappy frame of %d bytes", ErrMalformed, n)
		}
		var err error
		if out, err = snappyBlock(out, b[:n], limit); err != nil {
			return nil, err
		}
		b = b[n:]
	}
	return out, nil
}

// snappyBlock appends one decoded block to out, after it has checked the size
// the block claims: the decoder allocates it up front.
func snappyBlock(out, block []byte, limit int) ([]byte, error) {
	n, err := snappy.DecodedLen(block)
	if err != nil {
		return nil, fmt.Errorf("%w: snappy: %w", ErrMalformed, err)
	}
	if n > limit-len(out) {
		return nil, fmt.Errorf("%w: snappy beyond %d bytes", ErrTooLarge, limit)
	}
	decoded, err := snappy.Decode(nil, block)
	if err != nil {
		return nil, fmt.Errorf("%w: snappy: %w", ErrMalformed, err)
	}
	return append(out, decoded...), nil
}
