package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/chain"
	"github.com/cavra/cavra/sdk/diskio"
)

// A segment begins with a header of segmentHeader bytes, big-endian, so that
// the chain goes on where older segments are gone:
//
//	 0  magic "CAVRASEG"
//	 8  CRC-32C of all that follows
//	12  version
//	16  epoch
//	24  sequence of the first frame
//	32  digest of the statement before the first frame
//	64  id of the epoch's key
const (
	segmentHeader  = 96
	segmentVersion = 1
	segmentSuffix  = ".seg"
)

var segmentMagic = []byte("CAVRASEG")

// segment is what is known of a segment file.
type segment struct {
	name  string
	epoch uint64
	first uint64
	// previous stands before the first frame.
	previous predicate.Digest
	key      predicate.Digest
	// last is the last frame's sequence, first-1 when there is none, and digest
	// that of its statement.
	last   uint64
	digest predicate.Digest
	// size is what is durable, in bytes.
	size int64
}

func segmentName(epoch, first uint64) string {
	return fmt.Sprintf("%012d-%016d%s", epoch, first, segmentSuffix)
}

// end is the head behind the segment.
func (g *segment) end() chain.Head {
	if g.last < g.first {
		return chain.Head{Sequence: g.first - 1, Digest: g.previous}
	}
	return chain.Head{Sequence: g.last, Digest: g.digest}
}

// lastPlace is the place of the segment's last frame.
func (g *segment) lastPlace() Place { return Place{g.epoch, g.last} }

// after counts the statements behind p, and their bytes to within the frames'
// average.
func (g *segment) after(p Place) (statements, size uint64) {
	total := g.last + 1 - g.first
	if total == 0 || !p.Before(g.lastPlace()) {
		return 0, 0
	}
	statements = total
	if p.Epoch == g.epoch && p.Sequence >= g.first {
		statements = g.last - p.Sequence
	}
	return statements, uint64(g.size-segmentHeader) * statements / total
}

func (g *segment) header() []byte {
	b := append([]byte(nil), segmentMagic...)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, segmentVersion)
	b = binary.BigEndian.AppendUint64(b, g.epoch)
	b = binary.BigEndian.AppendUint64(b, g.first)
	b = append(b, sum(g.previous)...)
	b = append(b, sum(g.key)...)
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return b
}

// errHeader says that a segment's header cannot be believed.
var errHeader = errors.New("segment header is damaged")

func readSegmentHeader(r io.ReaderAt, name string) (*segment, error) {
	b := make([]byte, segmentHeader)
	if n, err := r.ReadAt(b, 0); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, errHeader
		}
		return nil, err
	}
	if !bytes.Equal(b[:8], segmentMagic) || crc32.Checksum(b[12:], castagnoli) != binary.BigEndian.Uint32(b[8:]) {
		return nil, errHeader
	}
	if v := binary.BigEndian.Uint32(b[12:]); v != segmentVersion {
		return nil, fmt.Errorf("segment %s has version %d: it is of a newer cavra", name, v)
	}
	g := &segment{
		name: name, epoch: binary.BigEndian.Uint64(b[16:]), first: binary.BigEndian.Uint64(b[24:]),
		previous: predicate.DigestFromSum(b[32:64]), key: predicate.DigestFromSum(b[64:96]), size: segmentHeader,
	}
	if name != segmentName(g.epoch, g.first) {
		return nil, errHeader
	}
	g.last, g.digest = g.first-1, g.previous
	return g, nil
}

// fault is a place in a segment where the frames end before the file does, or
// the chain is broken.
type fault struct {
	at int64
	// next is the offset of the next frame that can be read, -1 for none, and
	// frame what it is.
	next  int64
	frame frame
	// later says that a frame behind it was written when the place was durable
	// already: no crash did this.
	later bool
}

// newFault looks for what can be read from an offset on, given that at should be
// the frame after sequence last.
func newFault(r io.ReaderAt, at, from int64, last uint64, buf []byte) (*fault, error) {
	next, found, err := findFrame(r, from, last, buf)
	if err != nil {
		return nil, err
	}
	out := &fault{at: at, next: next, frame: found}
	for next >= 0 && found.group <= last+1 {
		if next, found, err = findFrame(r, next+found.size(), found.sequence, buf); err != nil {
			return nil, err
		}
	}
	out.later = next >= 0
	return out, nil
}

// scan reads a segment's frames up to the first fault, if there is one.
func (g *segment) scan(r io.ReaderAt, buf []byte) (*fault, error) {
	for {
		f, _, err := readFrame(r, g.size, buf)
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err == nil && f.sequence == g.last+1 && f.previous == g.end().Digest {
			g.last, g.digest = f.sequence, f.digest
			g.size += f.size()
			continue
		}
		if err != nil && !errors.Is(err, errFrame) {
			return nil, fmt.Errorf("read segment %s: %w", g.name, err)
		}
		from := g.size
		if err == nil {
			from++ // whole, but not of this chain
		}
		broken, err := newFault(r, g.size, from, g.last, buf)
		if err != nil {
			return nil, fmt.Errorf("read segment %s: %w", g.name, err)
		}
		return broken, nil
	}
}

// listSegments names the segment files in a folder, in ascending order.
func listSegments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list spool: %w", err)
	}
	var out []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), segmentSuffix) {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}

// createSegment writes a new segment with the frames in b, all of it or none.
func (s *Spool) createSegment(g *segment, b []byte) error {
	g.name = segmentName(g.epoch, g.first)
	if err := diskio.WriteFile(s.cfg.FS, s.path(g.name), append(g.header(), b...), 0o600); err != nil {
		return fmt.Errorf("create segment: %w", err)
	}
	g.size = segmentHeader + int64(len(b))
	return nil
}
