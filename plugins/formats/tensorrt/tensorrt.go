// Package tensorrt knows TensorRT's serialized engines by sight. An engine holds
// code for a device and the creators of plugins to call, in a form that only the
// same version of TensorRT reads: it stays unread, and a rule says so.
package tensorrt

import (
	"context"
	"encoding/binary"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// ID is the format's id.
const ID = "tensorrt"

const ruleEngine = "tensorrt.engine"

// Rules lists the rules that Scan may name.
func Rules() []string { return []string{ruleEngine} }

// maxMetadata bounds the settings that exporters put before an engine, in bytes.
const maxMetadata = 1 << 20

// Format is TensorRT's engines as a format of the program.
type Format struct{}

// Identify implements content.Format. Some exporters put settings in JSON before
// the engine, with their length.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	at, err := engine(v)
	return at >= 0, err
}

// engine is where the engine begins, or -1.
func engine(v *content.Visit) (int64, error) {
	if len(v.Head) < 16 {
		return -1, nil
	}
	if marked(v.Head) {
		return 0, nil
	}
	n := int64(binary.LittleEndian.Uint32(v.Head))
	if v.Head[4] != '{' || n < 2 || n > maxMetadata || 4+n+4 > v.Size {
		return -1, nil
	}
	var mark [4]byte
	if err := content.ReadFull(v.Bytes, mark[:], 4+n); err != nil {
		return -1, err
	}
	if !marked(mark[:]) {
		return -1, nil
	}
	return 4 + n, nil
}

func marked(b []byte) bool { return string(b[:4]) == "ftrt" || string(b[:4]) == "ptrt" }

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	at, err := engine(v)
	if err != nil {
		return err
	}
	v.Found(ruleEngine, ID, at)
	if at > 0 {
		v.Parsed(0, 4)
		if _, err := v.Enter(ctx, v.Part(4, at)); err != nil {
			return err
		}
	}
	v.Unread(at, v.Size, predicate.UnsupportedFormat)
	return nil
}
