package tflite

import (
	"encoding/binary"

	"github.com/cavra/cavra/plugins/formats/flatbuffer"
	"github.com/cavra/cavra/plugins/formats/protowire"
	"github.com/cavra/cavra/plugins/formats/tensorflow"
)

// maxOptions bounds the options that are read, in bytes.
const maxOptions = 64 << 10

// The types of FlexBuffers that options have.
const (
	flexString = 5
	flexVector = 10
	flexBlob   = 25
)

// flexOperator is the operator that a node's options name: a FlexBuffer's vector
// of the name and the node of the graph (NodeDef) as protobuf. The node decides.
// It is empty when the options cannot be read.
func (s *scan) flexOperator(e flatbuffer.Extent) (string, error) {
	if e.End-e.Start > maxOptions || e.End-e.Start < 3 {
		return "", nil
	}
	b, err := s.w.Bytes(e.Start, int(e.End-e.Start))
	if err != nil {
		return "", err
	}
	start, end, ok := secondOf(b)
	if !ok {
		return "", nil
	}
	op, err := tensorflow.NodeOperator(s.w, e.Start+start, e.Start+end)
	if protowire.Broken(err) {
		return "", nil
	}
	return op, err
}

// secondOf is the extent of the second text of the vector at a FlexBuffer's root.
func secondOf(b []byte) (start, end int64, ok bool) {
	n := len(b)
	width, kind := int(b[n-1]), b[n-2]
	if !isWidth(width) || kind>>2 != flexVector || n-2-width < 0 {
		return 0, 0, false
	}
	at, ok := back(b, n-2-width, width)
	if !ok {
		return 0, 0, false
	}
	size := 1 << (kind & 3)
	length, ok := number(b, at-size, size)
	// The items, then a byte for the type of each.
	if !ok || length != 2 || at+2*size+2 > n {
		return 0, 0, false
	}
	item := b[at+2*size+1]
	if item>>2 != flexString && item>>2 != flexBlob {
		return 0, 0, false
	}
	from, ok := back(b, at+size, size)
	if !ok {
		return 0, 0, false
	}
	size = 1 << (item & 3)
	length, ok = number(b, from-size, size)
	if !ok || length > uint64(n-from) {
		return 0, 0, false
	}
	return int64(from), int64(from) + int64(length), true
}

func isWidth(n int) bool { return n == 1 || n == 2 || n == 4 || n == 8 }

// number reads size bytes at a place.
func number(b []byte, at, size int) (uint64, bool) {
	if at < 0 || size > len(b)-at {
		return 0, false
	}
	var whole [8]byte
	copy(whole[:], b[at:at+size])
	return binary.LittleEndian.Uint64(whole[:]), true
}

// back follows an offset, which leads back from where it lies.
func back(b []byte, at, size int) (int, bool) {
	n, ok := number(b, at, size)
	if !ok || n > uint64(at) {
		return 0, false
	}
	return at - int(n), true
}
