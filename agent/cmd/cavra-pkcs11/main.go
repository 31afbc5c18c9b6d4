//go:build linux && (amd64 || arm64)

// Command cavra-pkcs11 does one operation with a key in a PKCS #11 token for the
// agent, which starts it: the request is JSON on standard input, and so is the
// answer on standard output. It is a program of its own because it loads the
// token vendor's library.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/agent/internal/keys/cryptoki"
	"github.com/cavra/cavra/agent/internal/keys/pkcs11"
)

func main() {
	// Libraries keep state of a thread.
	runtime.LockOSThread()
	answer, err := serve(os.Stdin)
	if err != nil {
		answer = pkcs11.Answer{Error: err.Error()}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(in io.Reader) (pkcs11.Answer, error) {
	// The PIN is in this process's memory: nobody else of its user may look.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return pkcs11.Answer{}, fmt.Errorf("hide this process: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(in, pkcs11.MaxMessage+1))
	if err != nil || len(b) > pkcs11.MaxMessage {
		return pkcs11.Answer{}, fmt.Errorf("read request of at most %d bytes: %w", pkcs11.MaxMessage, errors.Join(err, io.ErrShortBuffer))
	}
	var r pkcs11.Request
	if err := json.Unmarshal(b, &r); err != nil {
		return pkcs11.Answer{}, fmt.Errorf("read request: %w", err)
	}
	u, err := pkcs11.ParseURI(r.URI)
	if err != nil {
		return pkcs11.Answer{}, err
	}
	m, err := cryptoki.Load(u.Module)
	if err != nil {
		return pkcs11.Answer{}, err
	}
	answer, err := operate(m, u, r)
	return answer, errors.Join(err, m.Close())
}

func operate(m *cryptoki.Module, u pkcs11.URI, r pkcs11.Request) (_ pkcs11.Answer, err error) {
	slot, err := m.Slot(u.Token, u.Serial)
	if err != nil {
		return pkcs11.Answer{}, err
	}
	s, err := m.Open(slot, r.PIN)
	if err != nil {
		return pkcs11.Answer{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if len(r.Digest) > 0 {
		sig, err := s.Sign(u.Object, u.ID, r.Digest)
		return pkcs11.Answer{Signature: sig}, err
	}
	point, err := s.Public(u.Object, u.ID)
	if err != nil {
		return pkcs11.Answer{}, err
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return pkcs11.Answer{}, fmt.Errorf("read public key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	return pkcs11.Answer{PublicKey: der}, err
}
