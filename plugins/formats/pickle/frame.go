package pickle

import (
	"context"
	"fmt"
	"io"
	"math"

	"github.com/cavra/cavra/plugins/formats/content"
)

// gap is a part of the content that a loader drops: [cut, resume).
//
// _pickle.c reads a whole frame from a file into its buffer. What an opcode
// still needs behind the frame's end it reads anew, and forgets what the buffer
// held of it. So a file in which an opcode lies across a frame's end has two
// readings: the bytes as they stand, which pickle.loads follows, and the bytes
// without the gap. pickle.py refuses it.
type gap struct {
	cut, resume int64
}

// reading is another way to read a stream.
type reading struct {
	start int64
	gap   gap
	// frame is the offset of the FRAME whose end is at the gap.
	frame int64
}

// maxReadings bounds the other readings of one pickle.
const maxReadings = 32

// spliced is content without a gap.
type spliced struct {
	src io.ReaderAt
	gap gap
}

func (s spliced) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	if off < s.gap.cut {
		head := p[:min(int64(len(p)), s.gap.cut-off)]
		var err error
		if n, err = s.src.ReadAt(head, off); n < len(head) || n == len(p) {
			return n, err
		}
	}
	more, err := s.src.ReadAt(p[n:], off+int64(n)+s.gap.resume-s.gap.cut)
	return n + more, err
}

// leaveFrame is met behind a frame's end, or at a break: it looks whether one
// of the opcode's reads lies across the end.
func (m *machine) leaveFrame() {
	end := m.frameEnd
	if cut := m.across(end); cut > 0 {
		m.event(Malformed, "an opcode lies across a frame's end", "")
		m.readAnew(gap{cut, end})
	}
	m.frameEnd = math.MaxInt64
}

// across gives where the read begins that lies across an offset, or 0. An
// opcode's reads are its argument of fixed size, its payload, and each line.
func (m *machine) across(end int64) int64 {
	form := arguments[m.code]
	if m.at >= end || form == argNone || form == argUnknown {
		return 0
	}
	if n := int64(fixed[form]); n > 0 && m.at+1 < end && end < m.at+1+n {
		return m.at + 1
	}
	if m.argAt > m.at && m.argAt < end && (end < m.argAt+m.argLen || isLine(form) && end <= m.argAt+m.argLen) {
		return m.argAt
	}
	if form == argLines && m.argAt2 > m.at && m.argAt2 < end && end <= m.argAt2+m.argLen2 {
		return m.argAt2
	}
	return 0
}

func isLine(form argument) bool { return form == argLine || form == argLines }

// readAnew keeps another reading of the stream.
func (m *machine) readAnew(g gap) {
	if len(m.readings) < maxReadings {
		m.readings = append(m.readings, reading{start: m.start, gap: g, frame: m.frameAt})
	}
}

// enterFrame notes where a frame ends. A frame that is longer than the content
// is executed by pickle.py as far as it goes, and refused by _pickle.c.
func (m *machine) enterFrame() bool {
	end := int64(math.MaxInt64)
	if m.num < 0 || m.num > m.left() {
		m.event(Malformed, "frame beyond the end", "")
	} else {
		end = m.offset() + m.num
	}
	if known, ok := m.frameEnds[m.at]; ok {
		end = known
	}
	if m.frameEnd != math.MaxInt64 && m.at < m.frameEnd {
		m.event(Malformed, "a frame begins within a frame", "")
		if end != math.MaxInt64 && end > m.frameEnd && m.offset() < m.frameEnd {
			// The inner frame is read from behind the outer one's end.
			m.readAnew(gap{m.offset(), m.frameEnd})
		}
		if end <= m.frameEnd {
			return true
		}
	}
	m.frameAt, m.frameEnd = m.at, end
	return true
}

// without is a machine for another reading.
func (m *machine) without(r reading) *machine {
	c := newMachine(spliced{m.src, r.gap}, r.start, m.size-(r.gap.resume-r.gap.cut), limits{memo: m.memo.limit, stack: m.maxStack}, m.table)
	c.later, c.evaluated = m.later, m.evaluated
	c.gaps = append([]gap{r.gap}, m.gaps...)
	c.frameEnds = map[int64]int64{r.frame: r.gap.cut}
	for at, end := range m.frameEnds {
		if at < r.frame {
			c.frameEnds[at] = end
		}
	}
	return c
}

// place is an offset of the content, from one of this machine's reading.
func (m *machine) place(at int64) int64 {
	for _, g := range m.gaps {
		if at >= g.cut {
			at += g.resume - g.cut
		}
	}
	return at
}

// maxAlternatives bounds the streams that are run besides the first reading.
const maxAlternatives = 100

// alternatives runs what other loaders than the one that was followed would:
// from behind a frame that goes on behind STOP, and with what is dropped at a
// frame's end left out.
func (m *machine) alternatives(ctx context.Context, b *content.Budget) error {
	var queue []*machine
	enqueue := func(from *machine) {
		for _, at := range from.aside {
			c := newMachine(from.src, at, from.size, limits{memo: m.memo.limit, stack: m.maxStack}, m.table)
			c.later, c.gaps, c.evaluated = true, from.gaps, m.evaluated
			queue = append(queue, c)
		}
		for _, r := range from.readings {
			queue = append(queue, from.without(r))
		}
	}
	enqueue(m)
	for i := 0; i < len(queue) && i < maxAlternatives; i++ {
		c := queue[i]
		c.evaluated = m.evaluated
		if m.strayed() {
			m.event(Limited, "other readings are followed no further", "")
			return nil
		}
		if err := m.all(ctx, c, b); err != nil {
			return fmt.Errorf("run another reading: %w", err)
		}
		m.evaluated = c.evaluated
		m.merge(c)
		enqueue(c)
		queue[i] = nil
	}
	if len(queue) > maxAlternatives {
		m.event(Limited, "more readings than are followed", "")
	}
	return nil
}

// maxInRow bounds the streams of another reading.
const maxInRow = 64

// all runs another machine's streams to a break or the end.
func (m *machine) all(ctx context.Context, c *machine, b *content.Budget) error {
	for range maxInRow {
		before := c.out.Opcodes
		ok, err := c.stream(ctx, min(b.OpcodesLeft(), maxAstray-m.astray))
		b.SpendOpcodes(c.out.Opcodes - before)
		m.astray += c.out.Opcodes - before + 1
		if err != nil {
			return err
		}
		if !ok || c.left() == 0 {
			return nil
		}
	}
	return nil
}
