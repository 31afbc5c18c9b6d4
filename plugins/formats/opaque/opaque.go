// Package opaque identifies formats that this program knows by sight but does
// not read. Their content is a gap with the reason unsupported_format, so that
// it is named in a report and never passes.
package opaque

import (
	"bytes"
	"context"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// Format is one that is identified only.
type Format struct {
	id string
	is func(head []byte, size int64) bool
}

// Formats lists them; the first that identifies content wins.
func Formats() []Format {
	var list []Format
	for _, m := range magics {
		list = append(list, Format{m.id, func(head []byte, _ int64) bool {
			return len(head) >= m.at && bytes.HasPrefix(head[m.at:], []byte(m.magic))
		}})
	}
	return list
}

var magics = []struct {
	id    string
	at    int
	magic string
}{
	{"ggml", 0, "lmgg"}, {"ggml", 0, "tjgg"}, {"ggml", 0, "fmgg"}, {"ggml", 0, "algg"},
	{"compress", 0, "\x1f\x9d"}, {"lzip", 0, "LZIP"}, {"lzop", 0, "\x89LZO\x00\r\n"}, {"snappy", 0, "\xff\x06\x00\x00sNaPpY"},
	{"cab", 0, "MSCF"}, {"cpio", 0, "070701"}, {"cpio", 0, "070707"}, {"ar", 0, "!<arch>\n"}, {"squashfs", 0, "hsqs"}, {"squashfs", 0, "sqsh"},
	{"dos", 0, "MZ"},
	{"pdf", 0, "%PDF-"},
	{"arrow", 0, "ARROW1"},
	{"sqlite", 0, "SQLite format 3\x00"},
}

// Identify implements content.Format.
func (f Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return f.is(v.Head, v.Size), nil
}

// Scan implements content.Format.
func (f Format) Scan(_ context.Context, v *content.Visit) error {
	v.Format = f.id
	v.Unread(0, v.Size, predicate.UnsupportedFormat)
	return nil
}
