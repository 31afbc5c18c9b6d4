package inert

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// Image is a raster image, which is inert when its structure spans the content
// exactly: bytes after its end would be another file's.
type Image struct {
	id    string
	magic func(head []byte) bool
	// end walks the structure and returns where it ends.
	end func(r *stream) error
}

// Images lists the image formats: PNG (ISO/IEC 15948), JPEG (ITU-T T.81), GIF
// (89a) and WebP (RFC 9649).
func Images() []Image {
	prefix := func(p string) func([]byte) bool {
		return func(head []byte) bool { return bytes.HasPrefix(head, []byte(p)) }
	}
	return []Image{
		{"png", prefix("\x89PNG\r\n\x1a\n"), png},
		{"jpeg", prefix("\xff\xd8\xff"), jpeg},
		{"gif", func(h []byte) bool { return prefix("GIF87a")(h) || prefix("GIF89a")(h) }, gif},
		{"webp", func(h []byte) bool { return len(h) > 12 && prefix("RIFF")(h) && string(h[8:12]) == "WEBP" }, webp},
	}
}

// Identify implements content.Format.
func (i Image) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return i.magic(v.Head), nil
}

// Scan implements content.Format.
func (i Image) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = i.id
	src := io.NewSectionReader(v.Bytes, 0, v.Size)
	s := &stream{ctx: ctx, r: bufio.NewReaderSize(src, 64<<10), left: v.Size}
	err := i.end(s)
	end := v.Size - s.left
	switch {
	case err == nil:
		v.Inert(0, end)
		if end < v.Size {
			v.Unread(end, v.Size, predicate.UnknownFormat)
		}
		return nil
	case errors.Is(err, errBroken):
		v.Unread(0, v.Size, predicate.Malformed)
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		v.Unread(0, v.Size, predicate.Truncated)
		return nil
	}
	return fmt.Errorf("read %s: %w", i.id, err)
}

// errBroken says that an image's structure is not what its format says.
var errBroken = errors.New("broken structure")

// stream reads forward and knows how much is left.
type stream struct {
	ctx  context.Context
	r    *bufio.Reader
	left int64
	buf  [16]byte
}

func (s *stream) take(n int) ([]byte, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	got, err := io.ReadFull(s.r, s.buf[:n])
	s.left -= int64(got)
	return s.buf[:n], err
}

func (s *stream) skip(n int64) error {
	if n > s.left {
		return io.ErrUnexpectedEOF
	}
	for n > 0 {
		step := int(min(n, 1<<20))
		got, err := s.r.Discard(step)
		s.left -= int64(got)
		if err != nil {
			return err
		}
		n -= int64(step)
	}
	return s.ctx.Err()
}

func png(s *stream) error {
	if err := s.skip(8); err != nil {
		return err
	}
	for first := true; ; first = false {
		h, err := s.take(8)
		if err != nil {
			return err
		}
		n, kind := int64(binary.BigEndian.Uint32(h)), string(h[4:8])
		for _, c := range []byte(kind) {
			if c|0x20 < 'a' || c|0x20 > 'z' {
				return errBroken
			}
		}
		if first != (kind == "IHDR") {
			return errBroken
		}
		if err := s.skip(n + 4); err != nil {
			return err
		}
		if kind == "IEND" {
			if n != 0 {
				return errBroken
			}
			return nil
		}
	}
}

func jpeg(s *stream) error {
	if err := s.skip(2); err != nil {
		return err
	}
	for {
		m, err := s.take(2)
		if err != nil {
			return err
		}
		if m[0] != 0xff {
			return errBroken
		}
		marker := m[1]
		for marker == 0xff {
			if m, err = s.take(1); err != nil {
				return err
			}
			marker = m[0]
		}
		for {
			switch {
			case marker == 0xd9: // EOI
				return nil
			case marker == 0x01 || marker >= 0xd0 && marker <= 0xd7:
			case marker < 0xc0:
				return errBroken
			default:
				if err := jpegSegment(s); err != nil {
					return err
				}
			}
			if marker != 0xda { // SOS
				break
			}
			if marker, err = entropyCoded(s); err != nil {
				return err
			}
		}
	}
}

func jpegSegment(s *stream) error {
	b, err := s.take(2)
	if err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint16(b))
	if n < 2 {
		return errBroken
	}
	return s.skip(n - 2)
}

// entropyCoded goes past coded data, and returns the marker that ends it.
func entropyCoded(s *stream) (byte, error) {
	for ff := false; ; {
		c, err := s.r.ReadByte()
		if err != nil {
			return 0, err
		}
		s.left--
		if ff && c != 0 && c != 0xff && (c < 0xd0 || c > 0xd7) {
			return c, s.ctx.Err()
		}
		ff = c == 0xff
	}
}

func gif(s *stream) error {
	if err := s.skip(6); err != nil {
		return err
	}
	h, err := s.take(7)
	if err != nil {
		return err
	}
	if err := colourTable(s, h[4]); err != nil {
		return err
	}
	for {
		b, err := s.take(1)
		if err != nil {
			return err
		}
		switch b[0] {
		case 0x3b:
			return nil
		case 0x21:
			err = s.skip(1)
		case 0x2c:
			if h, err = s.take(9); err == nil {
				if err = colourTable(s, h[8]); err == nil {
					err = s.skip(1)
				}
			}
		default:
			return errBroken
		}
		if err == nil {
			err = subBlocks(s)
		}
		if err != nil {
			return err
		}
	}
}

func colourTable(s *stream, flags byte) error {
	if flags&0x80 == 0 {
		return nil
	}
	return s.skip(3 << (flags&7 + 1))
}

func subBlocks(s *stream) error {
	for {
		b, err := s.take(1)
		if err != nil || b[0] == 0 {
			return err
		}
		if err := s.skip(int64(b[0])); err != nil {
			return err
		}
	}
}

func webp(s *stream) error {
	h, err := s.take(12)
	if err != nil {
		return err
	}
	size := int64(binary.LittleEndian.Uint32(h[4:])) + 8
	known := map[string]bool{
		"VP8 ": true, "VP8L": true, "VP8X": true, "ALPH": true, "ANIM": true, "ANMF": true,
		"ICCP": true, "EXIF": true, "XMP ": true,
	}
	for at := int64(12); at < size; {
		h, err := s.take(8)
		if err != nil {
			return err
		}
		n := int64(binary.LittleEndian.Uint32(h[4:]))
		n += n & 1
		if !known[string(h[:4])] || at+8+n > size {
			return errBroken
		}
		if err := s.skip(n); err != nil {
			return err
		}
		at += 8 + n
	}
	return nil
}
