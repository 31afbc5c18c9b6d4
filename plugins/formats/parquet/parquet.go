// Package parquet reads Apache Parquet files: the footer, and every page of the
// columns of bytes, in which pickles are looked for. Columns of numbers are inert by
// their extent. What is encrypted, or coded in a way that is not read here, is
// unread; what no part of the file accounts for is scanned as content of its own.
package parquet

import (
	"cmp"
	"context"
	"encoding/binary"
	"io"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
)

// ID is the format's id.
const ID = "parquet"

const (
	rulePickle    = "parquet.pickle"
	rulePath      = "parquet.path.outside"
	ruleMalformed = "parquet.malformed"
	ruleHidden    = "archive.entry.hidden"
)

// Rules lists the rules that Scan may name, besides those of what pages hold.
func Rules() []string {
	return []string{rulePickle, rulePath, ruleMalformed, ruleHidden, "archive.limit", "archive.malformed", "model.limit"}
}

const (
	mark = "PAR1"
	// maxChunks bounds the chunks of columns, maxHoles the parts that nothing
	// accounts for.
	maxChunks = 200_000
	maxHoles  = 1000
)

// Format is Parquet as a format of the program.
type Format struct {
	// Pickle looks for pickles in the values of columns.
	Pickle content.Beside
}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return len(v.Head) >= 4 && string(v.Head[:4]) == mark, nil
}

// extent is a part of the file that the footer names.
type extent struct {
	start, end int64
	// chunk is set for a chunk of a column.
	chunk *chunk
}

// scan is one scan of one file.
type scan struct {
	Format
	v       *content.Visit
	extents []extent
	// sealed is set when a part is encrypted.
	sealed bool
	trials int
}

// Scan implements content.Format.
func (f Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	s := &scan{Format: f, v: v}
	footer, err := s.footer()
	if err != nil {
		return cursor.Settle(v, err, ID, ruleMalformed, 0)
	}
	if s.sealed {
		v.Unread(0, 0, predicate.UnsupportedFormat)
	}
	v.Parsed(0, 4)
	v.Parsed(footer, v.Size)
	slices.SortFunc(s.extents, func(a, b extent) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end)) })
	at, holes := int64(4), 0
	for _, e := range s.extents {
		hole, err := s.gap(ctx, at, e.start)
		if err != nil {
			return err
		}
		if hole {
			holes++
		}
		if holes > maxHoles {
			v.Limited(ID, at, footer, predicate.LimitMembers)
			return nil
		}
		if e.chunk != nil {
			if err := s.column(ctx, e); err != nil {
				return err
			}
		} else {
			v.Parsed(e.start, e.end)
		}
		at = max(at, e.end)
	}
	_, err = s.gap(ctx, at, footer)
	return err
}

// gap looks at what lies between the parts, and reports whether there is anything.
func (s *scan) gap(ctx context.Context, start, end int64) (bool, error) {
	if start >= end {
		return false, nil
	}
	zero, err := s.v.IsZero(ctx, start, end)
	if err != nil || zero {
		s.v.Parsed(start, end)
		return false, err
	}
	s.v.Found(ruleHidden, ID, start, "bytes between the parts")
	_, err = s.v.Enter(ctx, s.v.Part(start, end))
	return true, err
}

// footer reads what describes the file, and gives where it begins.
func (s *scan) footer() (int64, error) {
	var tail [8]byte
	if s.v.Size < 12 {
		return 0, &cursor.Fault{What: "the file is cut short", Why: predicate.Truncated}
	}
	if err := content.ReadFull(s.v.Bytes, tail[:], s.v.Size-8); err != nil {
		return 0, err
	}
	start := s.v.Size - 8 - int64(binary.LittleEndian.Uint32(tail[:]))
	if string(tail[4:]) != mark || start < 4 {
		return 0, &cursor.Fault{What: "there is no footer at the end", Why: predicate.Malformed}
	}
	t := &thrift{Reader: cursor.New(io.NewSectionReader(s.v.Bytes, start, s.v.Size-8-start), s.v.Size-8-start)}
	t.fields(0, func(id int, kind byte) {
		switch {
		case id == 4 && kind == typeList:
			t.list(func(kind byte) { s.group(t, kind, start) })
		case id == 8:
			s.sealed = true
			t.skip(kind, 0)
		default:
			t.skip(kind, 0)
		}
	})
	if t.Ok() && t.Left() > 0 {
		t.Fail("bytes follow the footer")
	}
	return start, t.Err()
}

// group reads a group of rows.
func (s *scan) group(t *thrift, kind byte, end int64) {
	if kind != typeStruct {
		t.Fail("a group of rows that is none")
		return
	}
	t.fields(1, func(id int, kind byte) {
		if id == 1 && kind == typeList {
			t.list(func(kind byte) {
				if kind != typeStruct {
					t.Fail("a column that is none")
					return
				}
				s.chunk(t, end)
			})
			return
		}
		t.skip(kind, 1)
	})
}

// chunk is a part of a column.
type chunk struct {
	kind, codec            int64
	size, data, dictionary int64
	bloom, bloomSize       int64
}

// chunk reads the description of a part of a column, and of its indexes. What it
// names must lie before end.
func (s *scan) chunk(t *thrift, end int64) {
	c := &chunk{kind: -1, dictionary: -1, data: -1}
	var index [4]int64
	t.fields(2, func(id int, kind byte) {
		switch {
		case id == 1 && kind == typeBinary:
			if path := t.text(); path != "" {
				s.elsewhere(cursor.Clean(path))
			}
		case id == 3 && kind == typeStruct:
			c.read(t)
		case id >= 4 && id <= 7 && (kind == typeI32 || kind == typeI64):
			index[id-4] = t.int()
		case id == 8 || id == 9:
			s.sealed = true
			t.skip(kind, 2)
		default:
			t.skip(kind, 2)
		}
	})
	if !t.Ok() {
		return
	}
	if len(s.extents) > maxChunks {
		t.Limit("too many columns", predicate.LimitMembers)
		return
	}
	start := c.data
	if c.dictionary > 0 && c.dictionary < start {
		start = c.dictionary
	}
	s.add(t, start, c.size, end, c)
	s.add(t, index[0], index[1], end, nil)
	s.add(t, index[2], index[3], end, nil)
	s.add(t, c.bloom, c.bloomSize, end, nil)
}

func (s *scan) add(t *thrift, start, size, end int64, c *chunk) {
	switch {
	case size == 0 && c == nil:
	case start < 4 || size < 0 || start > end || size > end-start:
		t.Fail("a part lies outside of the file")
	default:
		s.extents = append(s.extents, extent{start, start + size, c})
	}
}

// elsewhere reports a column that lies in another file.
func (s *scan) elsewhere(path string) {
	if content.Leaves(path) {
		s.v.Found(rulePath, ID, 0, path)
	}
	s.v.Unread(0, 0, predicate.UnsupportedFormat)
}

// read reads a column's own description.
func (c *chunk) read(t *thrift) {
	t.fields(3, func(id int, kind byte) {
		if kind != typeI32 && kind != typeI64 {
			t.skip(kind, 3)
			return
		}
		n := t.int()
		switch id {
		case 1:
			c.kind = n
		case 4:
			c.codec = n
		case 7:
			c.size = n
		case 9:
			c.data = n
		case 11:
			c.dictionary = n
		case 14:
			c.bloom = n
		case 15:
			c.bloomSize = n
		}
	})
}
