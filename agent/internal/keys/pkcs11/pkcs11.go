// Package pkcs11 holds an agent's key in a token that speaks PKCS #11: an HSM, a
// smart card, or SoftHSM. A token's library is the vendor's C code, so it is
// loaded by a program of its own, cavra-pkcs11, which runs for one operation:
// the agent stays one static program, and no foreign code is in the memory that
// holds its local key and its passwords.
//
// It guarantees that only the SHA-256 of what is signed goes there, that the PIN
// is on no command line and in no environment, and that no signature is given
// out which does not verify.
package pkcs11

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/identity"
)

const (
	// Program stands beside the agent's own.
	Program = "cavra-pkcs11"

	timeout = 30 * time.Second
	// MaxMessage bounds a request and an answer, in bytes.
	MaxMessage = 16 << 10
	maxPIN     = 256
	maxStderr  = 4 << 10
)

// Request is what the program reads from its standard input.
type Request struct {
	URI string `json:"uri"`
	PIN string `json:"pin"`
	// Digest is what to sign, a SHA-256; empty asks for the public key alone.
	Digest []byte `json:"digest,omitempty"`
}

// Answer is what it writes.
type Answer struct {
	// PublicKey is PKIX DER.
	PublicKey []byte `json:"public_key,omitempty"`
	// Signature is ECDSA in ASN.1 DER.
	Signature []byte `json:"signature,omitempty"`
	Error     string `json:"error,omitempty"`
}

// Config says which key.
type Config struct {
	URI URI
	// Ask gets the PIN where the URI names no file; nil where nobody can be
	// asked.
	Ask func() (string, error)
	// Program is the path of cavra-pkcs11; empty for the one beside this
	// program.
	Program string
}

// Key is a key in a token.
type Key struct {
	cfg    Config
	pin    string
	public identity.PublicKey
}

// Open finds the key, and asks the token for its public half.
func Open(ctx context.Context, cfg Config) (*Key, error) {
	k := &Key{cfg: cfg}
	if err := k.open(ctx); err != nil {
		return nil, fmt.Errorf("open %s: %w", k.Describe(), err)
	}
	return k, nil
}

func (k *Key) open(ctx context.Context) (err error) {
	if k.cfg.Program == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		k.cfg.Program = filepath.Join(filepath.Dir(self), Program)
	}
	if k.pin, err = k.readPIN(); err != nil {
		return err
	}
	answer, err := k.call(ctx, nil)
	if err != nil {
		return err
	}
	k.public, err = identity.ParsePublicKey(predicate.ECDSAP256, answer.PublicKey)
	return err
}

func (k *Key) readPIN() (string, error) {
	if k.cfg.URI.PINFile == "" {
		if k.cfg.Ask == nil {
			return "", errors.New("there is nobody to ask for the PIN: name a file that holds it with pin-source=file:/…")
		}
		return k.cfg.Ask()
	}
	info, err := os.Stat(k.cfg.URI.PINFile)
	if err != nil {
		return "", fmt.Errorf("read PIN: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("read PIN: others can read %s: chmod 600 it", k.cfg.URI.PINFile)
	}
	b, err := diskio.ReadFile(k.cfg.URI.PINFile, maxPIN)
	if err != nil {
		return "", fmt.Errorf("read PIN: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// Sign signs the SHA-256 of message, in one run of the program.
func (k *Key) Sign(ctx context.Context, message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	answer, err := k.call(ctx, sum[:])
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", k.Describe(), err)
	}
	if !k.public.Verify(message, answer.Signature) {
		return nil, fmt.Errorf("sign with %s: the signature is not that of the key over the digest", k.Describe())
	}
	return answer.Signature, nil
}

// Public returns the public half, as it was when the key was opened.
func (k *Key) Public() identity.PublicKey { return k.public }

// Describe names the key.
func (k *Key) Describe() string { return k.cfg.URI.String() }

func (k *Key) call(ctx context.Context, digest []byte) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := json.Marshal(Request{URI: k.cfg.URI.String(), PIN: k.pin, Digest: digest})
	if err != nil {
		return Answer{}, err
	}
	cmd := exec.CommandContext(ctx, k.cfg.Program)
	cmd.Stdin = bytes.NewReader(request)
	out, stderr := &bounded{most: MaxMessage}, &bounded{most: maxStderr}
	cmd.Stdout, cmd.Stderr = out, stderr
	cmd.WaitDelay = time.Second
	// Tokens' libraries are told where their configuration is by variables of
	// their own, so this program keeps the environment.
	if err := cmd.Run(); err != nil {
		return Answer{}, fmt.Errorf("run %s: %w: %q", filepath.Base(k.cfg.Program), err, stderr.Bytes())
	}
	var answer Answer
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return Answer{}, fmt.Errorf("read the answer of %s: %w", filepath.Base(k.cfg.Program), err)
	}
	if answer.Error != "" {
		return Answer{}, errors.New(answer.Error)
	}
	return answer, nil
}

// bounded keeps the first bytes that are written to it and takes the rest
// without an error, so that the program is not ended halfway by a full pipe; an
// answer that was cut is no JSON.
type bounded struct {
	bytes.Buffer
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	keep := p[:min(len(p), b.most-b.Len())]
	if _, err := b.Buffer.Write(keep); err != nil {
		return 0, err
	}
	return len(p), nil
}
