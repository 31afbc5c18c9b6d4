package unpack

import (
	"bufio"
	"encoding/binary"
	"io"
)

// decoder decodes LZMA as its specification (7-Zip's lzma-specification.txt)
// has it. What it has decoded before the data break is given out first, as
// liblzma does. Its dictionary grows with what is decoded, up to most bytes.
type decoder struct {
	src *bufio.Reader
	// grow is asked before the dictionary takes more memory.
	grow func(int64) error
	most int

	rng, code uint32
	// buf holds packed bytes that the source has been asked for, and used is how
	// many of them were read. in is how many more there may be; below 0 is no
	// bound.
	buf  []byte
	used int
	in   int64
	err  error

	lc, lp, pb uint
	state      int
	rep        [4]uint32
	lit        []uint16
	p          probabilities

	dict  []byte
	at    int    // in dict, where the next byte goes
	total uint64 // bytes since the dictionary's reset
	copy  int    // bytes left of a match
	out   int64  // bytes left of the content; below 0 is not known
	ended bool
}

type probabilities struct {
	isMatch, isRep0Long       [12][16]uint16
	isRep, isRep0, isRep1     [12]uint16
	isRep2                    [12]uint16
	slot                      [4][64]uint16
	special                   [115]uint16
	align                     [16]uint16
	matchLength, repeatLength lengths
}

type lengths struct {
	choice, choice2 uint16
	low, mid        [16][8]uint16
	high            [256]uint16
}

const half = 1 << 10

func fill(p []uint16) {
	for i := range p {
		p[i] = half
	}
}

func (l *lengths) reset() {
	l.choice, l.choice2 = half, half
	for i := range l.low {
		fill(l.low[i][:])
		fill(l.mid[i][:])
	}
	fill(l.high[:])
}

// properties takes the byte that holds lc, lp and pb.
func (d *decoder) properties(b byte) error {
	if b >= 9*5*5 {
		return malformed("LZMA properties that are none")
	}
	d.lc, d.lp, d.pb = uint(b%9), uint(b/9%5), uint(b/45)
	n := 0x300 << (d.lc + d.lp)
	if cap(d.lit) < n {
		d.lit = make([]uint16, n)
	}
	d.lit = d.lit[:n]
	d.resetState()
	return nil
}

func (d *decoder) resetState() {
	d.state, d.rep, d.copy = 0, [4]uint32{}, 0
	fill(d.lit)
	p := &d.p
	for i := range 12 {
		fill(p.isMatch[i][:])
		fill(p.isRep0Long[i][:])
	}
	for _, a := range [][]uint16{p.isRep[:], p.isRep0[:], p.isRep1[:], p.isRep2[:], p.special[:], p.align[:]} {
		fill(a)
	}
	for i := range p.slot {
		fill(p.slot[i][:])
	}
	p.matchLength.reset()
	p.repeatLength.reset()
}

// start reads the range coder's first bytes.
func (d *decoder) start() error {
	d.rng, d.code = 0xffffffff, 0
	if d.next() != 0 && d.err == nil {
		return malformed("LZMA data do not begin with 0")
	}
	for range 4 {
		d.code = d.code<<8 | uint32(d.next())
	}
	return d.err
}

func (d *decoder) next() byte {
	if d.used < len(d.buf) {
		d.used++
		return d.buf[d.used-1]
	}
	return d.refill()
}

func (d *decoder) refill() byte {
	d.release()
	if d.in == 0 {
		d.err = errLZMA
		return 0
	}
	if _, err := d.src.Peek(1); err != nil {
		if d.err == nil {
			d.err = noEnd(err)
		}
		return 0
	}
	n := d.src.Buffered()
	if d.in > 0 {
		n = int(min(int64(n), d.in))
		d.in -= int64(n)
	}
	d.buf, d.err = d.src.Peek(n)
	d.used = 1
	return d.buf[0]
}

// release leaves the source behind the last byte that was used.
func (d *decoder) release() {
	if d.in >= 0 {
		d.in += int64(len(d.buf) - d.used)
	}
	if _, err := d.src.Discard(d.used); err != nil && d.err == nil {
		d.err = err
	}
	d.buf, d.used = nil, 0
}

var errLZMA = malformed("LZMA data are broken")

func (d *decoder) bit(p *uint16) int {
	bound := d.rng >> 11 * uint32(*p)
	b := 0
	if d.code < bound {
		d.rng = bound
		*p += (2048 - *p) >> 5
	} else {
		d.rng -= bound
		d.code -= bound
		*p -= *p >> 5
		b = 1
	}
	if d.rng < 1<<24 {
		d.rng <<= 8
		d.code = d.code<<8 | uint32(d.next())
	}
	return b
}

func (d *decoder) tree(p []uint16, bits int) int { return d.walk(p, 1, 1<<bits) - 1<<bits }

// walk goes down a tree of bits from a node until it is beyond the end. It is
// bit, unrolled: most of the time is spent here.
func (d *decoder) walk(p []uint16, m, end int) int {
	rng, code := d.rng, d.code
	for m < end {
		q := &p[m]
		bound := rng >> 11 * uint32(*q)
		if code < bound {
			rng = bound
			*q += (2048 - *q) >> 5
			m <<= 1
		} else {
			rng -= bound
			code -= bound
			*q -= *q >> 5
			m = m<<1 | 1
		}
		if rng < 1<<24 {
			rng <<= 8
			code = code<<8 | uint32(d.next())
		}
	}
	d.rng, d.code = rng, code
	return m
}

func (d *decoder) reverse(p []uint16, bits int) uint32 {
	m, out := 1, 0
	for i := range bits {
		b := d.bit(&p[m])
		m = m<<1 | b
		out |= b << i
	}
	return uint32(out)
}

func (d *decoder) direct(bits int) uint32 {
	var out uint32
	for range bits {
		d.rng >>= 1
		d.code -= d.rng
		t := -(d.code >> 31)
		d.code += d.rng & t
		if d.rng < 1<<24 {
			d.rng <<= 8
			d.code = d.code<<8 | uint32(d.next())
		}
		out = out<<1 + t + 1
	}
	return out
}

func (d *decoder) length(l *lengths, pos int) int {
	switch {
	case d.bit(&l.choice) == 0:
		return d.tree(l.low[pos][:], 3)
	case d.bit(&l.choice2) == 0:
		return 8 + d.tree(l.mid[pos][:], 3)
	}
	return 16 + d.tree(l.high[:], 8)
}

func (d *decoder) distance(length int) uint32 {
	slot := d.tree(d.p.slot[min(length, 3)][:], 6)
	if slot < 4 {
		return uint32(slot)
	}
	bits := slot>>1 - 1
	dist := uint32(2|slot&1) << bits
	if slot < 14 {
		return dist + d.reverse(d.p.special[int(dist)-slot:], bits)
	}
	return dist + d.direct(bits-4)<<4 + d.reverse(d.p.align[:], 4)
}

// back is the byte at a distance; the caller has checked that it is there.
func (d *decoder) back(dist uint32) byte {
	i := d.at - 1 - int(dist)
	if i < 0 {
		i += len(d.dict)
	}
	return d.dict[i]
}

func (d *decoder) has(dist uint32) bool {
	return uint64(dist) < min(d.total, uint64(d.most))
}

func (d *decoder) put(b byte) {
	if d.at == d.most {
		d.at = 0
	}
	if d.at == len(d.dict) {
		if len(d.dict) == cap(d.dict) && !d.room() {
			return
		}
		d.dict = append(d.dict, b)
	} else {
		d.dict[d.at] = b
	}
	d.at++
	d.total++
}

// room makes the dictionary larger.
func (d *decoder) room() bool {
	n := min(d.most, max(64<<10, 2*cap(d.dict)))
	if err := d.grow(int64(n)); err != nil {
		d.err = err
		return false
	}
	larger := make([]byte, len(d.dict), n)
	copy(larger, d.dict)
	d.dict = larger
	return true
}

func (d *decoder) literal() byte {
	prev := byte(0)
	if d.total > 0 {
		prev = d.back(0)
	}
	at := int(d.total)&(1<<d.lp-1)<<d.lc + int(prev)>>(8-d.lc)
	p := d.lit[0x300*at:][:0x300]
	m := 1
	if d.state >= 7 {
		match := int(d.back(d.rep[0]))
		for m < 0x100 {
			want := match >> 7 & 1
			match <<= 1
			b := d.bit(&p[(1+want)<<8+m])
			m = m<<1 | b
			if b != want {
				break
			}
		}
	}
	m = d.walk(p, m, 0x100)
	switch {
	case d.state < 4:
		d.state = 0
	case d.state < 10:
		d.state -= 3
	default:
		d.state -= 6
	}
	return byte(m)
}

// after is the state after a match, by what the state was before.
func (d *decoder) after(literal, match int) {
	if d.state < 7 {
		d.state = literal
	} else {
		d.state = match
	}
}

// symbol decodes one symbol: a literal into p, or a match into copy.
func (d *decoder) symbol(p []byte) int {
	pos := int(d.total) & (1<<d.pb - 1)
	if d.bit(&d.p.isMatch[d.state][pos]) == 0 {
		if d.state >= 7 && !d.has(d.rep[0]) {
			d.err = errLZMA
			return 0
		}
		b := d.literal()
		if d.err != nil {
			return 0
		}
		d.put(b)
		p[0] = b
		return 1
	}
	n := d.match(pos)
	switch {
	case d.err != nil || d.ended:
		return 0
	case !d.has(d.rep[0]):
		d.err = errLZMA
		return 0
	}
	d.copy = n
	return 0
}

// match decodes a match's length and distance; the latter is then rep[0].
func (d *decoder) match(pos int) int {
	if d.bit(&d.p.isRep[d.state]) == 0 {
		n := d.length(&d.p.matchLength, pos)
		d.after(7, 10)
		dist := d.distance(n)
		if dist == 0xffffffff {
			d.ended = true
		}
		d.rep = [4]uint32{dist, d.rep[0], d.rep[1], d.rep[2]}
		return n + 2
	}
	if d.bit(&d.p.isRep0[d.state]) == 0 {
		if d.bit(&d.p.isRep0Long[d.state][pos]) == 0 {
			d.after(9, 11)
			return 1
		}
	} else {
		i := 1
		if d.bit(&d.p.isRep1[d.state]) == 1 {
			i = 2 + d.bit(&d.p.isRep2[d.state])
		}
		dist := d.rep[i]
		copy(d.rep[1:i+1], d.rep[:i])
		d.rep[0] = dist
	}
	n := d.length(&d.p.repeatLength, pos)
	d.after(8, 11)
	return n + 2
}

// Read implements io.Reader.
func (d *decoder) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && d.err == nil {
		if d.out == 0 {
			d.mark()
			d.release()
			return n, io.EOF
		}
		if d.copy == 0 {
			got := d.symbol(p[n:])
			n += got
			if d.out > 0 {
				d.out -= int64(got)
			}
			if d.ended && d.err == nil {
				if d.out > 0 {
					d.err = malformed("LZMA data end early")
					break
				}
				d.release()
				return n, io.EOF
			}
			continue
		}
		n += d.repeat(p[n:])
	}
	if d.err != nil {
		d.release()
	}
	return n, d.err
}

// repeat copies what is left of a match, as far as there is room for it.
func (d *decoder) repeat(p []byte) int {
	left := min(d.copy, len(p))
	if d.out >= 0 {
		left = int(min(int64(left), d.out))
	}
	n := 0
	for n < left {
		if d.at == d.most {
			d.at = 0
		}
		from := d.at - 1 - int(d.rep[0])
		if from < 0 {
			from += len(d.dict)
		}
		k := min(left-n, int(d.rep[0])+1, len(d.dict)-from, d.most-d.at)
		if d.at == len(d.dict) {
			for cap(d.dict)-d.at < k {
				if !d.room() {
					return n
				}
			}
			d.dict = d.dict[:d.at+k]
		} else {
			k = min(k, len(d.dict)-d.at)
		}
		copy(d.dict[d.at:d.at+k], d.dict[from:from+k])
		copy(p[n:n+k], d.dict[d.at:d.at+k])
		d.at += k
		d.total += uint64(k)
		n += k
	}
	d.copy -= n
	if d.out > 0 {
		d.out -= int64(n)
	}
	return n
}

// mark reads over the mark that may stand at the end of content whose size is
// known.
func (d *decoder) mark() {
	if d.in >= 0 || d.ended || d.code == 0 {
		return
	}
	d.ended = true
	pos := int(d.total) & (1<<d.pb - 1)
	if d.bit(&d.p.isMatch[d.state][pos]) == 1 {
		d.match(pos)
	}
}

// newDecoder begins a stream of LZMA by its properties; a size below 0 is not
// known, and then the stream ends with a mark.
func (s *Stream) newDecoder(props []byte, size int64) (*decoder, error) {
	d := &decoder{src: s.src, grow: s.hold, in: -1, out: max(size, -1)}
	d.most = int(max(4096, min(int64(binary.LittleEndian.Uint32(props[1:])), maxWindow)))
	if err := d.properties(props[0]); err != nil {
		return nil, err
	}
	return d, d.start()
}
