package unpack

import (
	"encoding/binary"
	"errors"
	"io"
)

// lzma2Reader reads the chunks of LZMA2.
type lzma2Reader struct {
	d *decoder
	// plain is how much is left of a chunk that is not compressed.
	plain int64
	coded bool
	// ready is set once the dictionary was reset, props once they were given.
	ready, props bool
	ended        bool
}

func (s *Stream) newLZMA2(dictionary byte) (*lzma2Reader, error) {
	if dictionary > 40 {
		return nil, malformed("dictionary size that is none")
	}
	size := int64(1)<<32 - 1
	if dictionary < 40 {
		size = int64(2|dictionary&1) << (dictionary/2 + 11)
	}
	if s.lzma == nil {
		s.lzma = &decoder{src: s.src, grow: s.hold}
	}
	d := s.lzma
	d.most, d.at, d.total, d.err = int(min(size, maxWindow)), 0, 0, nil
	d.dict = d.dict[:0:min(cap(d.dict), d.most)]
	return &lzma2Reader{d: d}, nil
}

func (r *lzma2Reader) Read(p []byte) (int, error) {
	for len(p) > 0 {
		switch {
		case r.ended:
			return 0, io.EOF
		case r.plain > 0:
			n, err := r.d.src.Read(p[:min(int64(len(p)), r.plain)])
			r.plain -= int64(n)
			for _, b := range p[:n] {
				r.d.put(b)
			}
			if err == nil {
				err = r.d.err
			}
			return n, noEnd(err)
		case r.coded:
			n, err := r.d.Read(p)
			if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				// A chunk ends where its header says, and not by a mark.
				r.coded, err = false, nil
				if r.d.in != 0 || r.d.ended {
					err = errLZMA
				}
			}
			if n > 0 || err != nil {
				return n, err
			}
		default:
			if err := r.chunk(); err != nil {
				return 0, err
			}
		}
	}
	return 0, nil
}

// chunk reads the header of the next chunk.
func (r *lzma2Reader) chunk() error {
	var h [6]byte
	read := func(p []byte) error {
		_, err := io.ReadFull(r.d.src, p)
		return noEnd(err)
	}
	if err := read(h[:1]); err != nil {
		return err
	}
	control := h[0]
	if control == 0 {
		r.ended = true
		return nil
	}
	if control == 1 || control >= 0xe0 {
		r.d.dict, r.d.at, r.d.total, r.ready = r.d.dict[:0], 0, 0, true
	}
	if !r.ready || control > 2 && control < 0x80 {
		return errLZMA
	}
	if control < 3 {
		err := read(h[1:3])
		r.plain = int64(binary.BigEndian.Uint16(h[1:])) + 1
		return err
	}
	if err := read(h[1:5]); err != nil {
		return err
	}
	d := r.d
	d.out = int64(control&0x1f)<<16 + int64(binary.BigEndian.Uint16(h[1:])) + 1
	d.in = int64(binary.BigEndian.Uint16(h[3:])) + 1
	switch {
	case control >= 0xc0:
		if err := read(h[5:]); err != nil {
			return err
		}
		if err := d.properties(h[5]); err != nil {
			return err
		}
		if d.lc+d.lp > 4 {
			return errLZMA
		}
		r.props = true
	case !r.props:
		return errLZMA
	case control >= 0xa0:
		d.resetState()
	}
	d.copy, d.err, d.ended = 0, nil, false
	r.coded = true
	return d.start()
}
