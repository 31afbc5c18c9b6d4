package wire

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestSight finds a canary in every spelling, and in traffic without one nothing.
func TestSight(t *testing.T) {
	c := NewCanary("a place")
	text := "some text around " + c.Word + " of it"
	reversed := []byte(c.Word)
	slices.Reverse(reversed)
	packed := func(s string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, err := w.Write([]byte(s))
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	deflated := func(s string) string {
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		_, err := w.Write([]byte(s))
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	cut := func(s string) string { return s[:len(s)-12] } // without gzip's trailer, and some of what it packed
	b64 := base64.StdEncoding.EncodeToString
	for name, sent := range map[string]string{
		"plain": text, "reversed": string(reversed), "in pieces": c.Word[:12] + "|" + c.Word[12:],
		"base64": b64([]byte(text)), "base64 in base64": b64([]byte(b64([]byte(text)))), "base64 shifted": "x" + b64([]byte("y"+text)),
		"URL's base64": base64.RawURLEncoding.EncodeToString([]byte("\xff\xfe\xfb" + text)),
		"hex":          hex.EncodeToString([]byte(text)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(text))), "odd hex": "a" + hex.EncodeToString([]byte(text)),
		"gzip": "head" + packed(text) + "tail", "zlib": deflated(text), "zstd": string(z.EncodeAll([]byte(text), nil)),
		"gzip in base64": b64([]byte(packed(text))), "cut gzip": cut(packed(text + strings.Repeat("more", 1000))),
	} {
		found := Sight(Traffic{Streams: []Stream{{Bytes: []byte(sent)}}}, []Canary{c})
		if len(found) == 0 {
			t.Errorf("%s: not found in %q", name, sent)
		}
	}
	other := NewCanary("elsewhere")
	if found := Sight(Traffic{Others: [][]byte{[]byte(text + b64([]byte(text)))}}, []Canary{other}); len(found) > 0 {
		t.Errorf("found what is not there: %v", found)
	}
}

// TestCapture sees what a connection in the namespace carries, whole and in order.
func TestCapture(t *testing.T) {
	if os.Getenv(Namespace) == "" {
		Rerun(t)
		return
	}
	c, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("what was sent, in order; "), 100_000)
	go func() {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err == nil {
			_, err = conn.Write(want)
			err = errors.Join(err, conn.Close())
		}
		if err != nil {
			t.Error(err)
		}
	}()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(conn); err != nil {
		t.Fatal(err)
	}
	traffic, err := c.Stop()
	if err != nil {
		t.Fatal(err)
	}
	to := traffic.To(uint16(ln.Addr().(*net.TCPAddr).Port))
	if len(to) != 1 || !bytes.Equal(to[0].Bytes, want) {
		t.Errorf("%s; %d streams to the listener", traffic, len(to))
	}
	if conn, err := net.Dial("tcp", "192.0.2.1:9"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("the namespace has a way out: %v, %v", conn, err)
	}
}
