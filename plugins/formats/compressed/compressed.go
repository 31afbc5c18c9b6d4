// Package compressed reads content that is compressed as a whole: gzip, zlib,
// bzip2, xz, LZMA, LZ4, Zstandard, and the framing that joblib had before it used
// these. What it decompresses to is scanned as content of its own; what follows
// the last stream, or lies between the frames, is looked at too.
package compressed

import (
	"context"
	"strconv"
	"strings"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/unpack"
)

// Name is what decompressed content is called, since it has no name of its own.
const Name = "content"

const where = "compressed"

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{"archive.entry.hidden", "archive.limit", "archive.malformed"}
}

// Format is one compression.
type Format struct {
	id    string
	codec unpack.Codec
	// start is how many bytes come before the compressed ones.
	start int64
	is    func(head []byte) bool
}

// Formats lists the compressions whose mark tells them from anything else, and
// then those that are told by decompressing their beginning.
func Formats() []Format {
	var list []Format
	for _, c := range []unpack.Codec{
		unpack.Gzip(), unpack.Bzip2(), unpack.XZ(), unpack.Zstd(), unpack.LZ4(), unpack.Zlib(), unpack.LZMA(),
	} {
		list = append(list, Format{id: c.ID(), codec: c, is: c.Is})
	}
	return append(list, Format{id: "zfile", codec: unpack.Zlib(), start: zfileHeader, is: isZfile})
}

// zfileHeader is the size of joblib's old header: "ZF" and the content's length
// in hexadecimal, padded with blanks.
const zfileHeader = 21

func isZfile(h []byte) bool {
	if len(h) < zfileHeader+2 || string(h[:2]) != "ZF" {
		return false
	}
	length, ok := strings.CutPrefix(strings.TrimRight(string(h[2:zfileHeader]), " L\x00"), "0x")
	_, err := strconv.ParseUint(length, 16, 64)
	return ok && err == nil
}

// Identify implements content.Format.
func (f Format) Identify(_ context.Context, v *content.Visit) (bool, error) { return f.is(v.Head), nil }

// Scan implements content.Format.
func (f Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = f.id
	v.Parsed(0, f.start)
	r, err := unpack.Enter(ctx, v, unpack.Member{
		Name: Name, Codec: f.codec, Start: f.start, End: v.Size, Most: -1, Class: where,
	})
	if err != nil {
		return err
	}
	for _, s := range r.Skipped {
		v.Found("archive.entry.hidden", where, s.Start, "a frame that is passed over")
		if _, err := v.Enter(ctx, v.Part(s.Start+8, s.End)); err != nil {
			return err
		}
	}
	if r.Fault == nil {
		return v.Trailing(ctx, where, r.End)
	}
	return nil
}
