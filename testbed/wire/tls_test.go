package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
)

// taped is a connection that keeps what is written.
type taped struct {
	net.Conn
	sent *bytes.Buffer
}

func (c taped) Write(b []byte) (int, error) {
	c.sent.Write(b)
	return c.Conn.Write(b)
}

// talk has a client send and a server answer over TLS 1.3, and returns what a
// capture sees, and the server's key log.
func talk(t testing.TB, question, answer []byte) (Traffic, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"broker"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	var keyLog, up, down bytes.Buffer
	a, b := net.Pipe()
	client := tls.Client(taped{a, &up}, &tls.Config{RootCAs: pool, ServerName: "broker", MinVersion: tls.VersionTLS13})
	server := tls.Server(taped{b, &down}, &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS13, KeyLogWriter: &keyLog,
	})
	done := make(chan error, 1)
	go func() {
		got := make([]byte, len(question))
		_, err := io.ReadFull(server, got)
		if err == nil {
			_, err = server.Write(answer)
		}
		done <- err
	}()
	if _, err := client.Write(question); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(answer))
	if _, err := io.ReadFull(client, got); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return Traffic{Streams: []Stream{{1000, 9092, up.Bytes()}, {9092, 1000, down.Bytes()}, {7, 8, []byte("no TLS")}}}, keyLog.Bytes()
}

func TestDecrypt(t *testing.T) {
	question, answer := bytes.Repeat([]byte("a canary, split over many records; "), 5000), []byte("taken")
	traffic, keyLog := talk(t, question, answer)
	secrets, err := ParseKeyLog(keyLog)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(traffic.Streams[0].Bytes, []byte("canary")) {
		t.Fatal("the stream is not encrypted")
	}
	plain, n, err := Decrypt(traffic, secrets)
	if err != nil || n != 2 {
		t.Fatalf("%d streams, %v", n, err)
	}
	if !bytes.HasSuffix(plain.Streams[0].Bytes, question) || !bytes.HasSuffix(plain.Streams[1].Bytes, answer) || string(plain.Streams[2].Bytes) != "no TLS" {
		t.Error("what was said is not what was read")
	}
	_, other := talk(t, question, answer)
	if secrets, err = ParseKeyLog(other); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Decrypt(traffic, secrets); !errors.Is(err, errSecret) {
		t.Errorf("with the secrets of another connection: %v", err)
	}
}

// FuzzDecrypt reads streams that nobody sent.
func FuzzDecrypt(f *testing.F) {
	traffic, keyLog := talk(f, []byte("question"), []byte("answer"))
	f.Add(traffic.Streams[0].Bytes, traffic.Streams[1].Bytes)
	f.Add([]byte{22, 3, 1, 0, 0}, []byte{23, 3, 3, 255, 255})
	secrets, err := ParseKeyLog(keyLog)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, up, down []byte) {
		out, _, err := Decrypt(Traffic{Streams: []Stream{{1, 2, up}, {2, 1, down}}}, secrets)
		if total := len(up) + len(down); err == nil && len(out.Streams[0].Bytes)+len(out.Streams[1].Bytes) > total {
			t.Errorf("%d bytes grew", total)
		}
	})
}
