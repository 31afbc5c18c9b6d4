package tar

import (
	"bytes"
	"io"
	"slices"
	"strconv"
	"strings"
)

// paxSparse finds the pieces that extended headers give, in GNU's formats 0.0,
// 0.1 and 1.0. The third keeps them before the data, whose extent is shortened by
// used. It reports false for a map that is broken.
func paxSparse(p *pax, data []byte) (pieces []segment, real, used int64, ok bool) {
	size, has := p.values["GNU.sparse.realsize"]
	if !has {
		size, has = p.values["GNU.sparse.size"]
	}
	real, err := strconv.ParseInt(size, 10, 64)
	if !has || err != nil || real < 0 {
		return nil, 0, 0, false
	}
	if p.values["GNU.sparse.major"] == "1" {
		pieces, used, ok = mapBefore(data)
		return pieces, real, used, ok
	}
	if m, has := p.values["GNU.sparse.map"]; has {
		pieces, ok = pairs(strings.Split(m, ","))
		return pieces, real, 0, ok
	}
	return p.pieces, real, 0, true
}

func pairs(fields []string) ([]segment, bool) {
	if len(fields)%2 != 0 || len(fields) > 2*maxSegments {
		return nil, len(fields) == 1 && fields[0] == ""
	}
	var out []segment
	for i := 0; i < len(fields); i += 2 {
		off, err := strconv.ParseInt(fields[i], 10, 64)
		n, other := strconv.ParseInt(fields[i+1], 10, 64)
		if err != nil || other != nil {
			return nil, false
		}
		out = append(out, segment{off, n})
	}
	return out, true
}

// mapBefore reads the map of format 1.0: a count and then the numbers, a line
// each, up to the end of a block.
func mapBefore(data []byte) (pieces []segment, used int64, ok bool) {
	line := func() (string, bool) {
		s, rest, found := bytes.Cut(data, []byte("\n"))
		if !found || len(s) > 20 {
			return "", false
		}
		used += int64(len(s)) + 1
		data = rest
		return string(s), true
	}
	first, ok := line()
	count, err := strconv.ParseInt(first, 10, 64)
	if !ok || err != nil || count < 0 || count > maxSegments {
		return nil, 0, false
	}
	fields := make([]string, 0, 2*count)
	for range 2 * count {
		s, ok := line()
		if !ok {
			return nil, 0, false
		}
		fields = append(fields, s)
	}
	pieces, ok = pairs(fields)
	return pieces, (used + blockSize - 1) / blockSize * blockSize, ok || count == 0
}

// sparseFile reads a sparse file: zeros but for its pieces, which lie in packed
// one behind the other.
type sparseFile struct {
	packed io.ReaderAt
	pieces []segment
	starts []int64 // of each piece in packed
	size   int64
}

// newSparse returns nil when the pieces overlap, run backwards, or do not fit.
func newSparse(packed io.ReaderAt, n int64, pieces []segment, size int64) *sparseFile {
	s := &sparseFile{packed: packed, size: size}
	end, used := int64(0), int64(0)
	for _, p := range pieces {
		if p.off < end || p.n < 0 || p.off > size || p.n > size-p.off || p.n > n-used {
			return nil
		}
		end = p.off + p.n
		if p.n > 0 {
			s.pieces = append(s.pieces, p)
			s.starts = append(s.starts, used)
		}
		used += p.n
	}
	if used != n {
		return nil
	}
	return s
}

// ReadAt implements io.ReaderAt.
func (s *sparseFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= s.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), s.size-off)]
	clear(want)
	i, _ := slices.BinarySearchFunc(s.pieces, off, func(g segment, off int64) int {
		if g.off+g.n <= off {
			return -1
		}
		return 1
	})
	for ; i < len(s.pieces) && s.pieces[i].off < off+int64(len(want)); i++ {
		g := s.pieces[i]
		from, to := max(g.off, off), min(g.off+g.n, off+int64(len(want)))
		if n, err := s.packed.ReadAt(want[from-off:to-off], s.starts[i]+from-g.off); int64(n) < to-from {
			return 0, err
		}
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}
