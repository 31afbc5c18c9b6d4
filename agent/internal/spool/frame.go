package spool

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
)

// A frame is a header of frameHeader bytes, big-endian, and an envelope:
//
//	 0  magic "CVFR"
//	 4  CRC-32C of all that follows
//	 8  length of the envelope
//	12  kind of the statement
//	16  sequence
//	24  sequence of the first frame of its group
//	32  digest of the statement
//	64  digest of the statement before
//	96  envelope
//
// Frames of a group become durable together: when a frame is found whose group
// begins behind a broken frame, then that one was durable once, and the break
// is corruption and no torn write.
const (
	frameHeader = 96
	maxFrame    = frameHeader + attest.MaxEnvelope
)

var frameMagic = []byte("CVFR")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// kinds are the statements' types by their number in a frame.
var kinds = []string{"", predicate.ScanType, predicate.InventoryType, predicate.GapType, predicate.HeartbeatType, predicate.EpochType}

// frame is a frame without its envelope.
type frame struct {
	kind     uint32
	length   uint32
	sequence uint64
	group    uint64
	digest   predicate.Digest
	previous predicate.Digest
}

func (f frame) size() int64 { return frameHeader + int64(f.length) }

func kindOf(predicateType string) uint32 {
	for i, t := range kinds {
		if i > 0 && t == predicateType {
			return uint32(i)
		}
	}
	return 0
}

// appendFrame writes a frame behind b.
func appendFrame(b []byte, f frame, envelope []byte) []byte {
	start := len(b)
	b = append(b, frameMagic...)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(envelope)))
	b = binary.BigEndian.AppendUint32(b, f.kind)
	b = binary.BigEndian.AppendUint64(b, f.sequence)
	b = binary.BigEndian.AppendUint64(b, f.group)
	b = append(b, sum(f.digest)...)
	b = append(b, sum(f.previous)...)
	b = append(b, envelope...)
	binary.BigEndian.PutUint32(b[start+4:], crc32.Checksum(b[start+8:], castagnoli))
	return b
}

// sum is a digest's 32 bytes; of what is none, zeros.
func sum(d predicate.Digest) []byte {
	b, err := hex.DecodeString(d.Hex())
	if err != nil || len(b) != sha256.Size {
		return make([]byte, sha256.Size)
	}
	return b
}

// errFrame says that the bytes at an offset are no whole frame.
var errFrame = errors.New("not a whole frame")

// readFrame reads the frame at off into buf, which has room for maxFrame bytes,
// and returns its envelope in it. It returns io.EOF at the exact end.
func readFrame(r io.ReaderAt, off int64, buf []byte) (frame, []byte, error) {
	n, err := r.ReadAt(buf[:frameHeader], off)
	if n == 0 && errors.Is(err, io.EOF) {
		return frame{}, nil, io.EOF
	}
	if n < frameHeader {
		return frame{}, nil, ended(err)
	}
	f, err := parseHeader(buf)
	if err != nil {
		return frame{}, nil, err
	}
	whole := buf[:f.size()]
	if n, err := r.ReadAt(whole[frameHeader:], off+frameHeader); n < int(f.length) {
		return frame{}, nil, ended(err)
	}
	if crc32.Checksum(whole[8:], castagnoli) != binary.BigEndian.Uint32(whole[4:]) {
		return frame{}, nil, fmt.Errorf("%w: checksum", errFrame)
	}
	return f, whole[frameHeader:], nil
}

// ended tells the end of the file from a disk that does not read.
func ended(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: cut short", errFrame)
	}
	return err
}

func parseHeader(b []byte) (frame, error) {
	if !bytes.Equal(b[:4], frameMagic) {
		return frame{}, fmt.Errorf("%w: magic", errFrame)
	}
	f := frame{
		length: binary.BigEndian.Uint32(b[8:]), kind: binary.BigEndian.Uint32(b[12:]),
		sequence: binary.BigEndian.Uint64(b[16:]), group: binary.BigEndian.Uint64(b[24:]),
		digest: predicate.DigestFromSum(b[32:64]), previous: predicate.DigestFromSum(b[64:96]),
	}
	if f.length == 0 || f.length > attest.MaxEnvelope || f.kind == 0 || int(f.kind) >= len(kinds) ||
		f.sequence == 0 || f.group == 0 || f.group > f.sequence {
		return frame{}, fmt.Errorf("%w: header", errFrame)
	}
	return f, nil
}

// findFrame returns the offset of the first whole frame at or behind off whose
// sequence is above after, or -1. It reads in bounded memory.
func findFrame(r io.ReaderAt, off int64, after uint64, buf []byte) (int64, frame, error) {
	window := make([]byte, 64<<10)
	for {
		n, err := r.ReadAt(window, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return -1, frame{}, err
		}
		for at := 0; ; {
			i := bytes.Index(window[at:n], frameMagic)
			if i < 0 {
				break
			}
			at += i
			f, _, err := readFrame(r, off+int64(at), buf)
			if err == nil && f.sequence > after {
				return off + int64(at), f, nil
			}
			if err != nil && !errors.Is(err, errFrame) {
				return -1, frame{}, err
			}
			at++
		}
		if n < len(window) {
			return -1, frame{}, nil
		}
		off += int64(n - len(frameMagic) + 1)
	}
}
