package rdata

import (
	"strconv"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
)

const (
	// maxItems and maxDepth bound the objects; R itself refuses a few thousand
	// calls within each other.
	maxItems = 6_000_000
	maxDepth = 1_000
	// maxText is how much of a name is kept, in bytes.
	maxText = 256
	// maxWord bounds a number in the text representation, in bytes.
	maxWord = 512
	// bulk is the size in bytes from which numbers are claimed as inert.
	bulk = 4096
)

// scan is one scan of one stream.
type scan struct {
	v    *content.Visit
	r    *cursor.Reader
	ctx  func() error
	text bool
	// workspace is set for a file whose objects are put into the user's workspace.
	workspace bool
	items     int
	// refs are the names of symbols that may be referred to; other objects have none.
	refs []string
	// claimed is the end of what was claimed.
	claimed int64
	// noted are notes that are given once.
	closure, bytecode, pointer, promise bool
	// bound is set while what a variable is bound to is about to be read.
	bound bool
}

// claim claims what was read as parsed.
func (s *scan) claim() {
	if s.r.Ok() {
		s.v.Parsed(s.claimed, s.r.At())
		s.claimed = s.r.At()
	}
}

// space steps over what separates words in the text representation.
func (s *scan) space() {
	for s.text && s.r.Ok() && s.r.Left() > 0 {
		switch s.r.Bytes(1)[0] {
		case ' ', '\n', '\t', '\r':
		default:
			s.r.Goto(s.r.At() - 1)
			return
		}
	}
}

// word is the next one in the text representation.
func (s *scan) word() string {
	s.space()
	var w []byte
	for s.r.Ok() && s.r.Left() > 0 {
		b := s.r.Bytes(1)
		if b == nil || b[0] == ' ' || b[0] == '\n' || b[0] == '\t' || b[0] == '\r' {
			break
		}
		if len(w) >= maxWord {
			s.r.Fail("a number is too long")
			break
		}
		w = append(w, b[0])
	}
	if len(w) == 0 {
		s.r.Fail("a number is missing")
	}
	return string(w)
}

// int reads an integer; NA is the smallest.
func (s *scan) int() int32 {
	if !s.text {
		return int32(s.r.U32())
	}
	w := s.word()
	if w == "NA" {
		return -1 << 31
	}
	n, err := strconv.ParseInt(w, 10, 32)
	if err != nil {
		s.r.Fail("a number is none")
		return 0
	}
	return int32(n)
}

// length reads the length of a vector; a long one has two parts.
func (s *scan) length() int64 {
	n := int64(s.int())
	if n == -1 {
		high, low := int64(s.int()), int64(uint32(s.int()))
		if high < 0 || high > 1<<16 {
			s.r.Fail("the length of a vector is none")
			return 0
		}
		n = high<<32 + low
	}
	if n < 0 || n > s.r.Left() {
		s.r.Fail("a vector is longer than the content")
		return 0
	}
	return n
}

// numbers steps over n numbers of width bytes each.
func (s *scan) numbers(n, width int64) {
	if s.text {
		if width == 16 {
			n *= 2
		}
		for range n {
			if w := s.word(); !s.r.Ok() || !number(w) {
				s.r.Fail("a number is none")
				return
			}
			if s.count() {
				return
			}
		}
		return
	}
	start := s.r.At()
	s.r.Items(n, width)
	if s.r.Ok() && n*width >= bulk {
		s.v.Parsed(s.claimed, start)
		s.v.Inert(start, s.r.At())
		s.claimed = s.r.At()
	}
}

func number(w string) bool {
	if w == "NA" {
		return true
	}
	if _, err := strconv.ParseFloat(w, 64); err == nil {
		return true
	}
	_, err := strconv.ParseUint(w, 16, 8)
	return err == nil
}

// count counts an object, and reports whether the reading is over.
func (s *scan) count() bool {
	if s.items++; s.items > maxItems {
		s.r.Limit("too many objects", predicate.LimitMembers)
	}
	if s.items%4096 == 0 {
		if err := s.ctx(); err != nil {
			s.r.Stop(err)
		}
	}
	return !s.r.Ok()
}

// chars reads n characters, of which it keeps some.
func (s *scan) chars(n int64) string {
	if !s.text {
		return cursor.Clean(s.r.Text(n, maxText))
	}
	s.space()
	var kept []byte
	for range n {
		c := s.char()
		if !s.r.Ok() {
			return ""
		}
		if len(kept) < maxText {
			kept = append(kept, c)
		}
	}
	return cursor.Clean(string(kept))
}

// char reads a character of the text representation, which may be escaped.
func (s *scan) char() byte {
	c := s.r.U8()
	if c != '\\' {
		return c
	}
	switch c = s.r.U8(); c {
	case 'n':
		return '\n'
	case 't':
		return '\t'
	case 'v':
		return '\v'
	case 'b':
		return '\b'
	case 'r':
		return '\r'
	case 'f':
		return '\f'
	case 'a':
		return '\a'
	}
	if c < '0' || c > '7' {
		return c
	}
	n := c - '0'
	for range 2 {
		if s.r.Left() == 0 {
			break
		}
		if c = s.r.U8(); c < '0' || c > '7' {
			s.r.Goto(s.r.At() - 1)
			break
		}
		n = n<<3 + c - '0'
	}
	return n
}
