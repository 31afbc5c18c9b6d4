package pickle

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/coverage"

	"github.com/cavra/cavra/plugins/formats/content"
)

const (
	// firstRead is small, so that a look at what turns out to be no pickle is
	// cheap; later reads grow up to window.
	firstRead = 4 << 10
	window    = 256 << 10
	// lookahead covers any opcode with an argument of fixed size.
	lookahead = 16
	// maxLine is how much of a line is kept. Longer ones are walked over.
	maxLine = 4 << 10
	// skipFrom is the size from which a counted payload is skipped unread.
	skipFrom = 64 << 10
	// maxSkips bounds the ranges that skipping makes; then payloads are read.
	maxSkips = 20_000
)

// walker decodes opcodes and their arguments, one after another, in bounded
// memory. It knows nothing of what they do. Its exported results are the
// fields from code on, valid until the next call of next.
type walker struct {
	src  io.ReaderAt
	size int64

	buf      []byte
	base     int64 // offset of buf[0]
	pos, end int   // within buf
	grow     int

	skipped []coverage.Range
	// failed is a read error: not the content's fault.
	failed error
	broken *Break

	code byte
	at   int64
	// num is a numeric argument.
	num int64
	// argAt and argLen are the extent of a line (without its newline) or of a
	// counted payload.
	argAt, argLen int64
	// line is a line argument, cut to maxLine; line2 the second line of two.
	line, line2     []byte
	line1           [maxLine]byte
	argAt2, argLen2 int64
	// cutLines is set when the content ends within the two lines.
	cutLines bool
}

// Break is where and why a stream could not be walked on.
type Break struct {
	At     int64
	Reason predicate.Reason
	What   string
}

func newWalker(src io.ReaderAt, start, size int64) *walker {
	return &walker{src: src, size: size, base: start, grow: firstRead}
}

// offset is that of the next byte.
func (w *walker) offset() int64 { return w.base + int64(w.pos) }

// left is how many bytes follow, buffered or not.
func (w *walker) left() int64 { return w.size - w.offset() }

// fill moves what is left in the window to its front and reads on.
func (w *walker) fill() bool {
	rest := copy(w.buf, w.buf[w.pos:w.end])
	w.base += int64(w.pos)
	w.pos, w.end = 0, rest
	want := min(int64(max(w.grow, rest*2)), window, w.size-w.base)
	if want > int64(len(w.buf)) {
		grown := make([]byte, want)
		copy(grown, w.buf[:rest])
		w.buf = grown
	}
	w.grow = min(w.grow*4, window)
	n := int(min(int64(len(w.buf)), w.size-w.base)) - rest
	if n <= 0 {
		return false
	}
	if err := content.ReadFull(w.src, w.buf[rest:rest+n], w.base+int64(rest)); err != nil {
		w.failed = err
		return false
	}
	w.end += n
	return true
}

func (w *walker) fail(why predicate.Reason, what string) bool {
	if w.failed == nil && w.broken == nil {
		w.broken = &Break{At: w.at, Reason: why, What: what}
	}
	return false
}

func (w *walker) truncated() bool { return w.fail(predicate.Truncated, "truncated") }

// next decodes the next opcode. It reports false at a break or a read error.
func (w *walker) next() bool {
	if w.end-w.pos < lookahead && w.left() > int64(w.end-w.pos) {
		w.fill()
	}
	w.at = w.base + int64(w.pos)
	if w.pos == w.end {
		return w.truncated()
	}
	w.code = w.buf[w.pos]
	if arguments[w.code] == argNone {
		w.pos++
		return true
	}
	return w.argument(arguments[w.code])
}

// fixed is the size in bytes of a form's fixed part.
var fixed = [...]int{
	argU1: 1, argU2: 2, argU4: 4, argI4: 4, argF8: 8,
	argCount1: 1, argCount4: 4, argCount4Signed: 4, argCount8: 8, argFrame: 8,
}

func (w *walker) argument(form argument) bool {
	if form == argUnknown {
		return w.fail(predicate.Malformed, fmt.Sprintf("opcode 0x%02x", w.code))
	}
	p, n := w.pos+1, fixed[form]
	if p+n > w.end {
		return w.truncated()
	}
	w.pos = p + n
	b := w.buf[p : p+n]
	switch form {
	case argU1:
		w.num = int64(b[0])
	case argU2:
		w.num = int64(binary.LittleEndian.Uint16(b))
	case argU4:
		w.num = int64(binary.LittleEndian.Uint32(b))
	case argI4:
		w.num = int64(int32(binary.LittleEndian.Uint32(b)))
	case argCount1:
		return w.counted(int64(b[0]))
	case argCount4:
		return w.counted(int64(binary.LittleEndian.Uint32(b)))
	case argCount4Signed:
		return w.counted(int64(int32(binary.LittleEndian.Uint32(b))))
	case argCount8:
		n := binary.LittleEndian.Uint64(b)
		return w.counted(int64(min(n, math.MaxInt64)))
	case argFrame:
		// More than 63 bits read as less than nothing: beyond any content.
		w.num = int64(binary.LittleEndian.Uint64(b))
	case argLine:
		return w.oneLine()
	case argLines:
		return w.twoLines()
	}
	return true
}

// counted goes past a payload of n bytes. A large one is not even read.
func (w *walker) counted(n int64) bool {
	if n < 0 {
		return w.fail(predicate.Malformed, "negative length")
	}
	w.argAt, w.argLen = w.offset(), n
	if n <= int64(w.end-w.pos) {
		w.pos += int(n)
		return true
	}
	if n > w.left() {
		return w.truncated()
	}
	if n < skipFrom || len(w.skipped) >= maxSkips {
		return w.readThrough(n)
	}
	w.jump(w.base+int64(w.end), w.argAt+n)
	return true
}

// jump goes on at end, and leaves what lies behind start unread.
func (w *walker) jump(start, end int64) {
	w.skipped = append(w.skipped, coverage.Range{Kind: predicate.Inert, Start: start, End: end})
	w.base, w.pos, w.end = end, 0, 0
}

// skip goes past n bytes that are no opcodes: raw array elements.
func (w *walker) skip(n int64) bool {
	if n < 0 || n > w.left() {
		return w.truncated()
	}
	if n < skipFrom || len(w.skipped) >= maxSkips {
		return w.readThrough(n)
	}
	w.jump(w.offset(), w.offset()+n)
	return true
}

// moveTo goes on at an offset behind the present one that another walker has
// reached.
func (w *walker) moveTo(at int64) bool { return w.readThrough(at - w.offset()) }

func (w *walker) readThrough(n int64) bool {
	for n > 0 {
		if w.pos == w.end && !w.fill() {
			return w.truncated()
		}
		step := min(n, int64(w.end-w.pos))
		w.pos += int(step)
		n -= step
	}
	return true
}

func (w *walker) oneLine() bool {
	line, ok := w.readLine()
	w.line = line
	return ok
}

func (w *walker) twoLines() bool {
	line, ok := w.readLine()
	// The first line has to outlive a refill of the window.
	w.line, w.line2 = w.line1[:copy(w.line1[:], line)], nil
	if !ok {
		w.cutLines = w.failed == nil
		return false
	}
	at, n := w.argAt, w.argLen
	w.line2, ok = w.readLine()
	w.argAt2, w.argLen2 = w.argAt, w.argLen
	w.argAt, w.argLen = at, n
	w.cutLines = !ok && w.failed == nil
	return ok
}

// readLine goes past the next newline and returns the line before it, cut to
// maxLine. As _pickle.c has it, a line without a newline is a break; then it
// returns what pickle.py takes for the line, which is all but the last byte.
func (w *walker) readLine() ([]byte, bool) {
	w.argAt = w.offset()
	from := 0
	for {
		if i := bytes.IndexByte(w.buf[w.pos+from:w.end], '\n'); i >= 0 {
			line := w.buf[w.pos : w.pos+from+i]
			w.argLen = int64(len(line))
			w.pos += len(line) + 1
			return line[:min(len(line), maxLine)], true
		}
		from = w.end - w.pos
		if from > window/2 {
			return w.longLine()
		}
		if !w.fill() {
			line := w.buf[w.pos:max(w.pos, w.end-1)]
			w.argLen = int64(len(line))
			return line[:min(len(line), maxLine)], w.truncated()
		}
	}
}

// longLine walks over a line that does not fit the window.
func (w *walker) longLine() ([]byte, bool) {
	head := bytes.Clone(w.buf[w.pos : w.pos+maxLine])
	for {
		i := bytes.IndexByte(w.buf[w.pos:w.end], '\n')
		if i >= 0 {
			w.pos += i
			w.argLen = w.offset() - w.argAt
			w.pos++
			return head, true
		}
		w.pos = w.end
		if !w.fill() {
			return nil, w.truncated()
		}
	}
}
