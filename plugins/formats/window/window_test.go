package window

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

func TestBytes(t *testing.T) {
	content := make([]byte, 300_000)
	for i := range content {
		content[i] = byte(i * 31 >> 3)
	}
	r := New(bytes.NewReader(content), int64(len(content)))
	for _, piece := range [][2]int{{0, 8}, {8, 5000}, {5008, 65536}, {299_999, 1}, {300_000, 0}, {100, 200}, {70_000, 65536}, {69_000, 10}} {
		got, err := r.Bytes(int64(piece[0]), piece[1])
		if err != nil || !bytes.Equal(got, content[piece[0]:piece[0]+piece[1]]) {
			t.Errorf("%v: %d bytes, %v", piece, len(got), err)
		}
	}
	for at := 0; at+7 <= len(content); at += 7 {
		if got, err := r.Bytes(int64(at), 7); err != nil || !bytes.Equal(got, content[at:at+7]) {
			t.Fatalf("%d: %v, %v", at, got, err)
		}
	}
}

func TestBeyond(t *testing.T) {
	r := New(bytes.NewReader(make([]byte, 100)), 100)
	for _, piece := range [][2]int64{{0, 101}, {100, 1}, {-1, 1}, {math.MaxInt64, 1}, {0, -1}, {0, MaxPiece + 1}, {101, 0}} {
		if got, err := r.Bytes(piece[0], int(piece[1])); !errors.Is(err, ErrBeyond) {
			t.Errorf("%v: %d bytes, %v", piece, len(got), err)
		}
	}
}
