package coreml

import (
	"context"
	"encoding/binary"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
)

const (
	// align is what weights begin at a multiple of, in bytes; so long are the
	// header and each entry, too.
	align = 64
	// sentinel marks an entry.
	sentinel = 0xdeadbeef
	// maxBlobs bounds the entries.
	maxBlobs = 1_000_000
)

// Weights is the file of weights beside a program, version 2 of MIL's blob storage:
// a header with the number of entries, and entries with their data behind them.
type Weights struct{}

// Identify implements content.Format.
func (Weights) Identify(_ context.Context, v *content.Visit) (bool, error) {
	h := v.Head
	return len(h) >= 2*align && binary.LittleEndian.Uint32(h[4:]) == 2 && binary.LittleEndian.Uint32(h[align:]) == sentinel, nil
}

// Scan implements content.Format.
func (Weights) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = IDWeights
	r := cursor.New(v.Bytes, v.Size)
	n := r.U32()
	r.Skip(align - 4)
	if n > maxBlobs {
		r.Limit("too many entries", predicate.LimitMembers)
	}
	claimed := int64(0)
	for i := uint32(0); i < n && r.Ok(); i++ {
		if i%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		at := r.At()
		if r.U32() != sentinel {
			r.Fail("an entry without its mark")
		}
		r.U32()
		size, offset := r.U64(), r.U64()
		r.Skip(align - 24)
		if r.Ok() && (offset != uint64(at)+align || size > uint64(r.Left())) {
			r.Fail("the data of an entry do not lie behind it")
		}
		if !r.Ok() {
			break
		}
		v.Parsed(claimed, r.At())
		start := r.At()
		r.Skip(int64(size))
		v.Inert(start, r.At())
		claimed = r.At()
		if i+1 < n {
			r.Skip((align - r.At()%align) % align)
		}
	}
	if err := r.Err(); err != nil {
		return cursor.Settle(v, err, ID, ruleMalformed, claimed)
	}
	v.Parsed(claimed, r.At())
	return v.Trailing(ctx, ID, r.At())
}
