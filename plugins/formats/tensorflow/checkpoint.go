package tensorflow

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/protowire"
	"github.com/cavra/cavra/plugins/formats/tensor"
	"github.com/cavra/cavra/plugins/formats/window"
)

// IDCheckpoint is the index of a checkpoint: a table of names, each with where
// its tensor lies in the data files beside it. The table is LevelDB's.
const IDCheckpoint = "tf-checkpoint-index"

const (
	// footer ends a table: two handles, padding and the mark.
	footer    = 48
	tableMark = "\x57\xfb\x80\x8b\x24\x75\x47\xdb"
	// trailer follows a block: its compression and its checksum.
	trailer = 5
	// maxKey is how long a key may be, in bytes.
	maxKey = 64 << 10
	// maxBlocks bounds the blocks of a table.
	maxBlocks = 200_000
)

// errTable says that a table breaks the format.
var errTable = errors.New("not a table of a checkpoint")

// Checkpoint is the index of a checkpoint as a format of the program.
type Checkpoint struct{}

// Identify implements content.Format: by the mark at the end.
func (Checkpoint) Identify(_ context.Context, v *content.Visit) (bool, error) {
	if v.Size < footer {
		return false, nil
	}
	var end [len(tableMark)]byte
	err := content.ReadFull(v.Bytes, end[:], v.Size-int64(len(end)))
	return string(end[:]) == tableMark, err
}

// table is one scan of one index.
type table struct {
	v     *content.Visit
	w     *window.Reader
	types protowire.Schema
	// blocks are the extents that were read, with their trailers.
	blocks [][2]int64
	// read is how many bytes that were.
	read int64
}

// Scan implements content.Format.
func (Checkpoint) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = IDCheckpoint
	types, err := schema()
	if err != nil {
		return err
	}
	t := &table{v: v, w: window.New(v.Bytes, v.Size), types: types}
	err = t.scan(ctx)
	if errors.Is(err, errTable) || errors.Is(err, window.ErrBeyond) || protowire.Broken(err) {
		v.Found("tf.malformed", class, 0, err.Error())
		v.Unread(0, v.Size, predicate.Malformed)
		return nil
	}
	return err
}

func (t *table) scan(ctx context.Context) error {
	at := t.v.Size - footer
	meta, rest, err := t.handle(at, t.v.Size)
	if err != nil {
		return err
	}
	index, rest, err := t.handle(rest, t.v.Size)
	if err != nil {
		return err
	}
	zero, err := t.v.IsZero(ctx, rest, t.v.Size-int64(len(tableMark)))
	if err != nil {
		return err
	}
	if !zero {
		return fmt.Errorf("%w: the footer's padding", errTable)
	}
	if err := t.block(ctx, meta, func([]byte, int64, int64) error { return nil }); err != nil {
		return err
	}
	var data [][2]int64
	err = t.block(ctx, index, func(_ []byte, start, end int64) error {
		h, _, err := t.handle(start, end)
		if len(data) >= maxBlocks {
			err = protowire.ErrFields
		}
		data = append(data, h)
		return err
	})
	if err != nil {
		return err
	}
	for _, h := range data {
		if err := t.block(ctx, h, func(key []byte, start, end int64) error { return t.entry(ctx, key, start, end) }); err != nil {
			return err
		}
	}
	t.v.Parsed(at, t.v.Size)
	return t.gaps(ctx, at)
}

// handle reads the extent of a block, without its trailer.
func (t *table) handle(at, end int64) (h [2]int64, rest int64, err error) {
	b, err := t.w.Bytes(at, int(min(end-at, 2*binary.MaxVarintLen64)))
	if err != nil {
		return h, at, err
	}
	start, n := binary.Uvarint(b)
	size, m := binary.Uvarint(b[max(0, n):])
	if n <= 0 || m <= 0 || start > math.MaxInt64 || size > math.MaxInt64 {
		return h, at, fmt.Errorf("%w: a handle", errTable)
	}
	if int64(start) > t.v.Size-footer || int64(size) > t.v.Size-footer-int64(start)-trailer {
		return h, at, fmt.Errorf("%w: a block lies beyond the end", errTable)
	}
	return [2]int64{int64(start), int64(start + size)}, at + int64(n+m), nil
}

// block reads a block's entries, of which each gives the next key and the extent
// of its value.
func (t *table) block(ctx context.Context, h [2]int64, each func(key []byte, start, end int64) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.blocks = append(t.blocks, [2]int64{h[0], h[1] + trailer})
	if t.read += h[1] - h[0] + trailer; t.read > t.v.Size {
		return fmt.Errorf("%w: blocks overlap", errTable)
	}
	packed, err := t.check(h)
	if err != nil {
		return err
	}
	if packed {
		t.v.Unread(h[0], h[1], predicate.UnsupportedCompression)
		return nil
	}
	end, err := t.restarts(h)
	if err != nil {
		return err
	}
	var key []byte
	for at := h[0]; at < end; {
		b, err := t.w.Bytes(at, int(min(end-at, 3*binary.MaxVarintLen32)))
		if err != nil {
			return err
		}
		var n [3]uint64
		for i := range n {
			x, size := binary.Uvarint(b)
			if size <= 0 || x > math.MaxInt32 {
				return fmt.Errorf("%w: an entry", errTable)
			}
			n[i], b, at = x, b[size:], at+int64(size)
		}
		if n[0] > uint64(len(key)) || n[0]+n[1] > maxKey || int64(n[1]+n[2]) > end-at {
			return fmt.Errorf("%w: an entry's lengths", errTable)
		}
		if b, err = t.w.Bytes(at, int(n[1])); err != nil {
			return err
		}
		key = append(key[:n[0]], b...)
		at += int64(n[1])
		if err := each(key, at, at+int64(n[2])); err != nil {
			return err
		}
		at += int64(n[2])
	}
	t.v.Parsed(h[0], h[1]+trailer)
	return nil
}

// restarts gives where a block's entries end: before a list of offsets and its
// length.
func (t *table) restarts(h [2]int64) (int64, error) {
	if h[1]-h[0] < 4 {
		return 0, fmt.Errorf("%w: a block is too short", errTable)
	}
	b, err := t.w.Bytes(h[1]-4, 4)
	if err != nil {
		return 0, err
	}
	n := int64(binary.LittleEndian.Uint32(b))
	if n > (h[1]-h[0]-4)/4 {
		return 0, fmt.Errorf("%w: a block's restarts", errTable)
	}
	return h[1] - 4 - 4*n, nil
}

// check compares a block with its checksum, and reports whether it is compressed.
func (t *table) check(h [2]int64) (packed bool, err error) {
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	for at := h[0]; at < h[1]+1; {
		n := min(h[1]+1-at, window.MaxPiece)
		b, err := t.w.Bytes(at, int(n))
		if err != nil {
			return false, err
		}
		if _, err := sum.Write(b); err != nil {
			return false, err
		}
		at += n
	}
	b, err := t.w.Bytes(h[1], trailer)
	if err != nil {
		return false, err
	}
	// LevelDB masks a checksum, since it may be one of what holds checksums.
	got := sum.Sum32()
	if got = (got>>15 | got<<17) + 0xa282ead8; got != binary.LittleEndian.Uint32(b[1:]) {
		t.v.Found("tf.malformed", class, h[0], "a block's checksum is wrong")
	}
	return b[0] != 0, nil
}

// entry reads what the table says of a tensor; the empty key is the header.
func (t *table) entry(ctx context.Context, key []byte, start, end int64) error {
	kind := "BundleEntryProto"
	if len(key) == 0 {
		kind = "BundleHeaderProto"
	} else if rule := tensor.CheckName(string(key)); rule != "" && !bytes.HasPrefix(key, []byte{0}) {
		// A key of a slice begins with a zero and is no name.
		t.v.Found(rule, class, start, string(bytes.ToValidUTF8(key, []byte("\uFFFD"))))
	}
	return protowire.NewWalk(t.v, t.w, place{t.v, start}).Run(ctx, t.types[kind], start, end)
}

// gaps looks at what no block covers.
func (t *table) gaps(ctx context.Context, end int64) error {
	slices.SortFunc(t.blocks, func(a, b [2]int64) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	at := int64(0)
	for _, b := range append(t.blocks, [2]int64{end, end}) {
		if b[0] > at {
			t.v.Found("archive.entry.hidden", class, at, "bytes between blocks")
			if _, err := t.v.Enter(ctx, t.v.Part(at, b[0])); err != nil {
				return err
			}
		}
		at = max(at, b[1])
	}
	return nil
}

// place checks where a tensor is said to lie.
type place struct {
	v  *content.Visit
	at int64
}

// Begin implements protowire.Visitor.
func (place) Begin(*protowire.Message, *protowire.Field, int64) error { return nil }

// End implements protowire.Visitor.
func (place) End(*protowire.Message) error { return nil }

// Bytes implements protowire.Visitor.
func (place) Bytes(*protowire.Message, *protowire.Field, int64, int64) error { return nil }

// Number implements protowire.Visitor.
func (p place) Number(m *protowire.Message, f *protowire.Field, n uint64) error {
	if m.Name == "BundleEntryProto" && (f.Name == "offset" || f.Name == "size" || f.Name == "shard_id") && n > math.MaxInt64 {
		p.v.Found("tf.malformed", class, p.at, "a tensor's place is negative")
	}
	return nil
}
