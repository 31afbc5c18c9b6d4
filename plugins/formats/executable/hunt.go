package executable

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/window"
)

const (
	// block is how much is searched at a time, in bytes; marks that lie across a
	// border are found by an overlap.
	block   = 256 << 10
	overlap = 8
	// maxMarks bounds the marks that are looked into. Random weights have one in
	// some hundred MiB.
	maxMarks = 20_000
)

// marks begin what is looked for; that of PE is in the middle of its headers.
var marks = [][]byte{
	[]byte("\x7fELF"), []byte("PE\x00\x00"), []byte("MZqFpD='"), []byte("\xce\xfa\xed\xfe"), []byte("\xcf\xfa\xed\xfe"),
	[]byte("\xfe\xed\xfa\xce"), []byte("\xfe\xed\xfa\xcf"), []byte("\x00asm\x01\x00\x00\x00"),
}

const markPE = 1

// Hunt looks for programs in the middle of content, whatever its format. Only
// headers that contradict nothing count, since weights are any bytes.
func Hunt(ctx context.Context, v *content.Visit) error {
	h := &hunt{v: v, w: window.New(v.Bytes, v.Size)}
	buf := make([]byte, min(v.Size, block+overlap))
	for at := int64(0); at < v.Size; at += block {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("look for programs: %w", err)
		}
		b := buf[:min(int64(len(buf)), v.Size-at)]
		if err := content.ReadFull(v.Bytes, b, at); err != nil {
			return err
		}
		for i, m := range marks {
			if err := h.marks(b, at, i, m); err != nil {
				return err
			}
		}
		if h.count > maxMarks {
			v.Found("model.limit", class, at, "too many marks of programs")
			v.Unread(at, v.Size, predicate.LimitMembers)
			return nil
		}
	}
	return nil
}

type hunt struct {
	v     *content.Visit
	w     *window.Reader
	count int
}

// marks looks into each place of a mark in b, which lies at an offset.
func (h *hunt) marks(b []byte, at int64, which int, mark []byte) error {
	for from := 0; h.count <= maxMarks; {
		i := bytes.Index(b[from:], mark)
		if i < 0 || from+i >= block {
			return nil
		}
		h.count++
		place := at + int64(from+i)
		from += i + 1
		if which == markPE {
			var err error
			if place, err = h.stub(place); err != nil {
				return err
			}
		}
		if place <= 0 {
			continue
		}
		image, err := Read(h.w, place)
		if err != nil {
			return err
		}
		if image != nil && image.Fault == "" {
			h.v.Found(ruleEmbedded, class, place, image.Format, image.What)
		}
	}
	return nil
}

// stub is where the image begins whose headers stand at an offset, or -1.
func (h *hunt) stub(place int64) (int64, error) {
	b, err := piece(h.w, place, 6)
	if err != nil || len(b) < 6 || peMachines[binary.LittleEndian.Uint16(b[4:])] == "" {
		return -1, err
	}
	start := max(0, place-maxStub)
	before, err := piece(h.w, start, int(place-start))
	if err != nil {
		return -1, err
	}
	for end := len(before); ; {
		i := bytes.LastIndex(before[:end], []byte("MZ"))
		if i < 0 {
			return -1, nil
		}
		if i+64 <= len(before) && start+int64(i)+int64(binary.LittleEndian.Uint32(before[i+60:])) == place {
			return start + int64(i), nil
		}
		end = i
	}
}
