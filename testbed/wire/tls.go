package wire

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// The numbers of TLS 1.3 (RFC 8446) that are needed to read a captured connection.
const (
	recordHeader     = 5
	maxRecord        = 1<<14 + 256
	recordAlert      = 21
	recordHandshake  = 22
	recordData       = 23
	helloClient      = 1
	helloServer      = 2
	messageFinished  = 20
	messageKeyUpdate = 24
	randomAt         = recordHeader + 4 + 2
	randomBytes      = 32
)

// suites are those of TLS 1.3 that Go speaks.
var suites = map[uint16]suite{
	0x1301: {16, sha256.New, aesGCM},
	0x1302: {32, sha512.New384, aesGCM},
	0x1303: {32, sha256.New, chacha20poly1305.New},
}

type suite struct {
	keyBytes int
	hash     func() hash.Hash
	aead     func(key []byte) (cipher.AEAD, error)
}

func aesGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Secrets are those of a key log in NSS's format, by the client's random and their
// label.
type Secrets map[string]map[string][]byte

// ParseKeyLog reads a key log.
func ParseKeyLog(b []byte) (Secrets, error) {
	out := Secrets{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		parts := strings.Fields(lines.Text())
		if len(parts) == 0 || strings.HasPrefix(parts[0], "#") {
			continue
		}
		if len(parts) != 3 {
			return nil, fmt.Errorf("key log: a line of %d words", len(parts))
		}
		random, err := hex.DecodeString(parts[1])
		secret, err2 := hex.DecodeString(parts[2])
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("key log: %w", err)
		}
		if out[string(random)] == nil {
			out[string(random)] = map[string][]byte{}
		}
		out[string(random)][parts[0]] = secret
	}
	return out, lines.Err()
}

// errSecret says that the key log has no secret for a connection, or another.
var errSecret = errors.New("no secret in the key log opens it")

// Decrypt puts the plain text into the place of every stream of TLS 1.3. That one
// cannot be read to its end is an error: nobody could say then what is in it. A
// record that the end of the capture cuts is left out.
func Decrypt(t Traffic, secrets Secrets) (Traffic, int, error) {
	out := t
	out.Streams = slices.Clone(t.Streams)
	count := 0
	for i, s := range t.Streams {
		if len(s.Bytes) < randomAt+randomBytes || s.Bytes[0] != recordHandshake || s.Bytes[1] != 3 {
			continue
		}
		plain, err := decryptStream(t, s, secrets)
		if err != nil {
			return Traffic{}, count, fmt.Errorf("decrypt the stream from %d to %d: %w", s.From, s.To, err)
		}
		out.Streams[i].Bytes = plain
		count++
	}
	return out, count, nil
}

func decryptStream(t Traffic, s Stream, secrets Secrets) ([]byte, error) {
	isClient := s.Bytes[recordHeader] == helloClient
	var errs []error
	for _, other := range t.Streams { // the other way of the same connection
		if other.From != s.To || other.To != s.From || len(other.Bytes) < randomAt+randomBytes || other.Bytes[0] != recordHandshake {
			continue
		}
		client, server, who := s, other, "CLIENT"
		if !isClient {
			client, server, who = other, s, "SERVER"
		}
		plain, err := decryptWith(s, client, server, who, secrets)
		if err == nil {
			return plain, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(append(errs, errSecret)...)
}

func decryptWith(s, client, server Stream, who string, secrets Secrets) ([]byte, error) {
	if client.Bytes[recordHeader] != helloClient {
		return nil, errors.New("no client's hello")
	}
	of := secrets[string(client.Bytes[randomAt:randomAt+randomBytes])]
	id, err := suiteOf(server.Bytes)
	if err != nil {
		return nil, err
	}
	chosen, ok := suites[id]
	if !ok {
		return nil, fmt.Errorf("cipher suite %#04x", id)
	}
	d := direction{suite: chosen, handshake: of[who+"_HANDSHAKE_TRAFFIC_SECRET"], traffic: of[who+"_TRAFFIC_SECRET_0"]}
	if d.handshake == nil || d.traffic == nil {
		return nil, errSecret
	}
	return d.read(s.Bytes)
}

// suiteOf finds the cipher suite in a server's last hello.
func suiteOf(b []byte) (uint16, error) {
	id, found := uint16(0), false
	for len(b) >= recordHeader && b[0] != recordData {
		n := int(binary.BigEndian.Uint16(b[3:]))
		if len(b) < recordHeader+n {
			break
		}
		body := b[recordHeader : recordHeader+n]
		const before = 4 + 2 + randomBytes
		if b[0] == recordHandshake && len(body) > before && body[0] == helloServer {
			if at := before + 1 + int(body[before]); len(body) >= at+2 {
				id, found = binary.BigEndian.Uint16(body[at:]), true
			}
		}
		b = b[recordHeader+n:]
	}
	if !found {
		return 0, errors.New("no server's hello")
	}
	return id, nil
}

// direction is one way of a connection.
type direction struct {
	suite              suite
	handshake, traffic []byte

	aead     cipher.AEAD
	iv       []byte
	sequence uint64
	// messages are handshake messages that are not whole yet.
	messages []byte
	plain    bytes.Buffer
}

// key takes a secret into use.
func (d *direction) key(secret []byte) error {
	key, err := expand(d.suite.hash, secret, "key", d.suite.keyBytes)
	if err == nil {
		d.aead, err = d.suite.aead(key)
	}
	if err == nil {
		d.iv, err = expand(d.suite.hash, secret, "iv", d.aead.NonceSize())
	}
	d.sequence = 0
	return err
}

// expand is HKDF-Expand-Label without a context (RFC 8446, section 7.1).
func expand(h func() hash.Hash, secret []byte, label string, n int) ([]byte, error) {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(append(info, byte(len("tls13 ")+len(label))), "tls13 "+label...)
	return hkdf.Expand(h, secret, string(append(info, 0)), n)
}

func (d *direction) read(b []byte) ([]byte, error) {
	if err := d.key(d.handshake); err != nil {
		return nil, err
	}
	for len(b) >= recordHeader {
		n := int(binary.BigEndian.Uint16(b[3:]))
		if n > maxRecord {
			return nil, fmt.Errorf("a record of %d bytes", n)
		}
		if len(b) < recordHeader+n {
			break
		}
		if b[0] == recordData {
			if err := d.record(b[:recordHeader], b[recordHeader:recordHeader+n]); err != nil {
				return nil, err
			}
		} else {
			d.plain.Write(b[recordHeader : recordHeader+n])
		}
		b = b[recordHeader+n:]
	}
	return d.plain.Bytes(), nil
}

func (d *direction) record(header, sealed []byte) error {
	nonce := slices.Clone(d.iv)
	for i, c := range binary.BigEndian.AppendUint64(nil, d.sequence) {
		nonce[len(nonce)-8+i] ^= c
	}
	d.sequence++
	inner, err := d.aead.Open(nil, nonce, sealed, header)
	if err != nil {
		return fmt.Errorf("record %d: %w", d.sequence-1, errSecret)
	}
	inner = bytes.TrimRight(inner, "\x00")
	if len(inner) == 0 {
		return errors.New("a record of padding alone")
	}
	kind, body := inner[len(inner)-1], inner[:len(inner)-1]
	d.plain.Write(body)
	if kind != recordHandshake {
		return nil
	}
	return d.message(body)
}

// message follows the handshake, since keys change with it.
func (d *direction) message(b []byte) error {
	d.messages = append(d.messages, b...)
	for len(d.messages) >= 4 {
		n := 4 + int(d.messages[1])<<16 + int(binary.BigEndian.Uint16(d.messages[2:]))
		if len(d.messages) < n {
			return nil
		}
		kind := d.messages[0]
		d.messages = d.messages[n:]
		var err error
		switch kind {
		case messageFinished:
			err = d.key(d.traffic)
		case messageKeyUpdate:
			if d.traffic, err = expand(d.suite.hash, d.traffic, "traffic upd", d.suite.hash().Size()); err == nil {
				err = d.key(d.traffic)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
