// Package safetensors reads safetensors files: the header's JSON to its last
// byte, and the tensors' extents, which must cover the rest of the file without
// a hole, an overlap or a byte left over, as the format demands. What the extents
// cover is inert: it is copied into tensors and never interpreted. Whatever else
// lies in the file is scanned as content of its own.
package safetensors

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/tensor"
)

// ID is the format's id.
const ID = "safetensors"

const (
	// maxHeader is how long a header is read, in bytes. The format allows 100 MB;
	// an entry is about a hundred bytes, so that this is enough for 300,000 tensors.
	maxHeader = 32 << 20
	// formatHeader is what the format's own readers accept.
	formatHeader = 100_000_000
	// prefix is the header's length before it.
	prefix = 8
)

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{"model.limit", "safetensors.key.duplicate", "safetensors.malformed", tensor.RuleOdd, tensor.RulePath}
}

// Format is safetensors as a format of the program.
type Format struct{}

// Identify implements content.Format: a length whose upper half is zero, then
// the beginning of a JSON object.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	if len(v.Head) < prefix+1 || binary.LittleEndian.Uint32(v.Head[4:]) != 0 {
		return false, nil
	}
	if n := binary.LittleEndian.Uint32(v.Head); n < 2 || int64(n) > v.Size && n > formatHeader {
		return false, nil
	}
	rest := bytes.TrimLeft(v.Head[prefix:], " \t\r\n")
	if len(rest) == 0 || rest[0] != '{' {
		return false, nil
	}
	rest = bytes.TrimLeft(rest[1:], " \t\r\n")
	return len(rest) == 0 || rest[0] == '"' || rest[0] == '}', nil
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	n := int64(binary.LittleEndian.Uint32(v.Head))
	if n > v.Size-prefix {
		v.Found("safetensors.malformed", ID, 0, "the header is longer than the file")
		v.Unread(0, v.Size, predicate.Truncated)
		return nil
	}
	if n > maxHeader || !v.Budget.Hold(n) {
		v.Found("model.limit", ID, 0, "the header is too long")
		v.Unread(0, v.Size, predicate.LimitBytes)
		return nil
	}
	defer v.Budget.Release(n)
	text := make([]byte, n)
	if err := content.ReadFull(v.Bytes, text, prefix); err != nil {
		return err
	}
	h, err := readHeader(v, text)
	switch {
	case errors.Is(err, errTooMany):
		v.Found("model.limit", ID, prefix, "too many tensors")
		v.Unread(0, v.Size, predicate.LimitMembers)
		return nil
	case err != nil:
		v.Found("safetensors.malformed", ID, prefix+int64(h.end), err.Error())
		v.Parsed(0, prefix)
		v.Unread(prefix, v.Size, predicate.Malformed)
		return nil
	}
	if text[0] != '{' {
		v.Found("safetensors.malformed", ID, prefix, "the header does not begin with a brace")
	}
	v.Parsed(0, prefix+int64(h.end))
	if err := scanPadding(ctx, v, text, h.end); err != nil {
		return err
	}
	return scanTensors(ctx, v, prefix+n, h.tensors)
}

// scanPadding looks at what follows the header's JSON: spaces, by the format.
func scanPadding(ctx context.Context, v *content.Visit, text []byte, end int) error {
	start, stop := prefix+int64(end), prefix+int64(len(text))
	if len(bytes.Trim(text[end:], " ")) == 0 {
		v.Parsed(start, stop)
		return nil
	}
	v.Found("safetensors.malformed", ID, start, "the header's padding is not spaces")
	if len(bytes.Trim(text[end:], " \t\r\n\x00")) == 0 {
		v.Parsed(start, stop)
		return nil
	}
	_, err := v.Enter(ctx, v.Part(start, stop))
	return err
}
