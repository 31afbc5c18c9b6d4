package wire

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"slices"

	"github.com/klauspost/compress/zstd"
)

const (
	// fragment is how many bytes of a canary in a row are taken for a piece of it.
	fragment = 8
	// depth is how many codings around each other are undone.
	depth = 4
	// maxInflated bounds what one compressed piece is decompressed to, in bytes.
	maxInflated = 8 << 20
)

// Canary is a word that no traffic has by chance: long and random.
type Canary struct {
	// Where says where the word stands.
	Where, Word string
}

const alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// NewCanary makes a word that can be a name, of a file as of a Python module.
func NewCanary(where string) Canary {
	b := make([]byte, 24)
	if _, err := rand.Read(b); err != nil {
		panic(err) // crypto/rand ends the program itself
	}
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)]
	}
	return Canary{where, string(b)}
}

// Sighting is a canary, or a piece of one, that was seen.
type Sighting struct {
	Canary Canary
	// Piece is what was found, Coding how it was written, from the outside in.
	Piece, Coding string
}

func (s Sighting) String() string {
	return fmt.Sprintf("%s: %q, written %s", s.Canary.Where, s.Piece, s.Coding)
}

// Sight looks for canaries in what was sent: as they are, reversed, in base64,
// hex, gzip, zlib and zstd, also around each other, and in pieces. Each canary is
// reported once a coding.
func Sight(t Traffic, canaries []Canary) []Sighting {
	l := lookout{pieces: map[string]Sighting{}, seen: map[string]bool{}}
	for _, c := range canaries {
		l.know(c)
	}
	for _, s := range t.Streams {
		l.look(s.Bytes, "plain", depth)
	}
	for _, f := range t.Others {
		l.look(f, "plain", depth)
	}
	return l.found
}

type lookout struct {
	pieces map[string]Sighting
	seen   map[string]bool
	found  []Sighting
}

func (l *lookout) know(c Canary) {
	reversed := []byte(c.Word)
	slices.Reverse(reversed)
	for i := 0; i+fragment <= len(c.Word); i++ {
		l.pieces[c.Word[i:i+fragment]] = Sighting{c, c.Word[i : i+fragment], ""}
		l.pieces[string(reversed[i:i+fragment])] = Sighting{c, string(reversed[i : i+fragment]), " reversed"}
	}
}

var (
	base64Run = regexp.MustCompile(`[A-Za-z0-9+/_-]{12,}`)
	hexRun    = regexp.MustCompile(`[0-9a-fA-F]{16,}`)
)

func (l *lookout) look(b []byte, coding string, left int) {
	for i := 0; i+fragment <= len(b); i++ {
		s, ok := l.pieces[string(b[i:i+fragment])]
		if key := s.Canary.Where + coding + s.Coding; ok && !l.seen[key] {
			l.seen[key] = true
			s.Coding = coding + s.Coding
			l.found = append(l.found, s)
		}
	}
	if left == 0 {
		return
	}
	for _, run := range base64Run.FindAll(b, -1) {
		run = bytes.ReplaceAll(bytes.ReplaceAll(run, []byte("-"), []byte("+")), []byte("_"), []byte("/"))
		for shift := range 4 { // what surrounds it may shift it
			part := run[min(shift, len(run)):]
			out := make([]byte, base64.RawStdEncoding.DecodedLen(len(part)/4*4))
			if n, err := base64.RawStdEncoding.Decode(out, part[:len(part)/4*4]); err == nil {
				l.look(out[:n], coding+", base64", left-1)
			}
		}
	}
	for _, run := range hexRun.FindAll(b, -1) {
		for shift := range 2 {
			part := run[shift:]
			out := make([]byte, len(part)/2)
			if _, err := hex.Decode(out, part[:len(part)/2*2]); err == nil {
				l.look(out, coding+", hex", left-1)
			}
		}
	}
	for _, m := range compressed {
		for at := 0; ; at++ {
			i := bytes.Index(b[at:], m.magic)
			if i < 0 {
				break
			}
			at += i
			if out := m.open(b[at:]); len(out) > 0 {
				l.look(out, coding+", "+m.name, left-1)
			}
		}
	}
}

// compressed are codings with a mark of their own.
var compressed = []struct {
	name  string
	magic []byte
	open  func([]byte) []byte
}{
	{"gzip", []byte{0x1f, 0x8b, 8}, func(b []byte) []byte {
		r, err := gzip.NewReader(bytes.NewReader(b))
		return inflated(r, err)
	}},
	{"zlib", []byte{0x78}, func(b []byte) []byte {
		r, err := zlib.NewReader(bytes.NewReader(b))
		return inflated(r, err)
	}},
	{"zstd", []byte{0x28, 0xb5, 0x2f, 0xfd}, func(b []byte) []byte {
		r, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
		if err != nil {
			return nil
		}
		defer r.Close()
		return inflated(r, nil)
	}},
}

// inflated is what comes before the end or the first error.
func inflated(r io.Reader, err error) []byte {
	if err != nil {
		return nil
	}
	var out bytes.Buffer
	// What breaks off was not of this coding, or is cut: its beginning counts.
	_, _ = io.Copy(&out, io.LimitReader(r, maxInflated))
	return out.Bytes()
}
