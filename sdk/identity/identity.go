// Package identity holds an agent's key: made on the agent, kept in a file that
// only it can read, and never sent anywhere. An identity is a key, never a host
// name; the algorithm belongs to the key, never to a message.
package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/cavra/cavra/schemas/predicate"
)

// PublicKey is an enrolled key: the algorithm and the key of that algorithm.
type PublicKey struct {
	Algorithm predicate.Algorithm
	key       crypto.PublicKey
	id        predicate.Digest
}

// ParsePublicKey reads a key in PKIX DER (RFC 5280) and checks that it is one
// of the given algorithm.
func ParsePublicKey(alg predicate.Algorithm, der []byte) (PublicKey, error) {
	if err := alg.Validate(); err != nil {
		return PublicKey{}, fmt.Errorf("parse public key: %w", err)
	}
	const most = 1 << 10
	if len(der) > most {
		return PublicKey{}, fmt.Errorf("parse public key: %d bytes, at most %d", len(der), most)
	}
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return PublicKey{}, fmt.Errorf("parse public key: %w", err)
	}
	return newPublicKey(alg, k)
}

func newPublicKey(alg predicate.Algorithm, k crypto.PublicKey) (PublicKey, error) {
	switch key := k.(type) {
	case ed25519.PublicKey:
		if alg != predicate.Ed25519 {
			return PublicKey{}, fmt.Errorf("parse public key: an ed25519 key, not %s", alg)
		}
	case *ecdsa.PublicKey:
		if alg != predicate.ECDSAP256 || key.Curve != elliptic.P256() {
			return PublicKey{}, fmt.Errorf("parse public key: an ECDSA key on %s, not %s", key.Curve.Params().Name, alg)
		}
	default:
		return PublicKey{}, fmt.Errorf("parse public key: %T is no known kind of key", k)
	}
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return PublicKey{}, fmt.Errorf("marshal public key: %w", err)
	}
	return PublicKey{Algorithm: alg, key: k, id: predicate.DigestOf(der)}, nil
}

// ID is the key's identity: the digest of its PKIX DER.
func (p PublicKey) ID() predicate.Digest { return p.id }

// DER returns the key in PKIX DER.
func (p PublicKey) DER() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(p.key)
	if err != nil {
		return nil, fmt.Errorf("marshal public key: %w", err)
	}
	return der, nil
}

// Verify reports whether sig is the key's signature over message.
func (p PublicKey) Verify(message, sig []byte) bool {
	switch key := p.key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(key, sum[:], sig)
	}
	return false
}

// Key is an agent's private key.
type Key struct {
	public PublicKey
	signer crypto.Signer
}

// Generate makes a key of the given algorithm.
func Generate(alg predicate.Algorithm) (*Key, error) {
	var signer crypto.Signer
	var err error
	switch alg {
	case predicate.Ed25519:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	case predicate.ECDSAP256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		err = alg.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return newKey(alg, signer)
}

func newKey(alg predicate.Algorithm, signer crypto.Signer) (*Key, error) {
	pub, err := newPublicKey(alg, signer.Public())
	if err != nil {
		return nil, err
	}
	return &Key{public: pub, signer: signer}, nil
}

// Public returns the public half.
func (k *Key) Public() PublicKey { return k.public }

// Sign signs message with the key's own algorithm.
func (k *Key) Sign(message []byte) ([]byte, error) {
	if k.public.Algorithm == predicate.Ed25519 {
		return k.signer.Sign(rand.Reader, message, crypto.Hash(0))
	}
	sum := sha256.Sum256(message)
	return k.signer.Sign(rand.Reader, sum[:], crypto.SHA256)
}

const pemType = "PRIVATE KEY"

// MarshalPEM writes the key in PKCS #8 PEM (RFC 5958). Whoever calls it keeps
// the result where only the agent can read it.
func (k *Key) MarshalPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, fmt.Errorf("marshal key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// ParsePEM reads what MarshalPEM wrote. The algorithm follows from the key.
func ParsePEM(b []byte) (*Key, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != pemType || len(rest) != 0 {
		return nil, errors.New("parse key: want one PEM block of type " + pemType)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse key: %w", err)
	}
	switch key := k.(type) {
	case ed25519.PrivateKey:
		return newKey(predicate.Ed25519, key)
	case *ecdsa.PrivateKey:
		return newKey(predicate.ECDSAP256, key)
	}
	return nil, fmt.Errorf("parse key: %T is no known kind of key", k)
}
