// Package attest signs and verifies statements: DSSE envelopes
// (https://github.com/secure-systems-lab/dsse) with exactly one signature, over
// the exact bytes of the payload. Nothing of a payload is parsed before its
// signature has been verified, and nothing is marshalled again in order to
// verify.
package attest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

// MaxEnvelope bounds an envelope, in bytes.
const MaxEnvelope = 1_000_000

// Envelope is a DSSE envelope, opened but not yet believed.
type Envelope struct {
	kind    string
	payload []byte
	keyID   predicate.Digest
	sig     []byte
}

type envelopeJSON struct {
	PayloadType string          `json:"payloadType"`
	Payload     string          `json:"payload"`
	Signatures  []signatureJSON `json:"signatures"`
}

type signatureJSON struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// PAE is DSSE's pre-authentication encoding of an in-toto payload: the bytes
// that are signed.
func PAE(payload []byte) []byte { return pae(predicate.PayloadType, payload) }

func pae(kind string, payload []byte) []byte {
	b := make([]byte, 0, len(payload)+len(kind)+64)
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(kind)), 10)
	b = append(b, ' ')
	b = append(b, kind...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}

// Digest is a statement's identity and what the next link names as its
// predecessor: the SHA-256 of the pre-authentication encoding. It depends on
// what was signed and not on how the signature or the envelope is spelled.
func Digest(payload []byte) predicate.Digest { return predicate.DigestOf(PAE(payload)) }

// Signer signs with one key.
type Signer interface {
	Sign(message []byte) ([]byte, error)
	Public() identity.PublicKey
}

// Sign wraps a statement in an envelope with the signer's signature.
func Sign(payload []byte, s Signer) ([]byte, error) {
	return SignKind(predicate.PayloadType, payload, s)
}

// SignKind is Sign for a payload of another type. The type is part of what is
// signed, so that what is good as one is good as nothing else.
func SignKind(payloadType string, payload []byte, s Signer) ([]byte, error) {
	sig, err := s.Sign(pae(payloadType, payload))
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	b := marshal(payloadType, payload, s.Public().ID(), sig)
	if len(b) > MaxEnvelope {
		return nil, fmt.Errorf("sign statement: envelope is %d bytes, at most %d", len(b), MaxEnvelope)
	}
	return b, nil
}

// SignBy is Sign by a key that may be held elsewhere.
func SignBy(ctx context.Context, payload []byte, h identity.Holder) ([]byte, error) {
	sig, err := h.Sign(ctx, PAE(payload))
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	return marshal(predicate.PayloadType, payload, h.Public().ID(), sig), nil
}

func marshal(payloadType string, payload []byte, keyID predicate.Digest, sig []byte) []byte {
	// Marshalling strings and a slice of them cannot fail.
	b, _ := json.Marshal(envelopeJSON{
		PayloadType: payloadType,
		Payload:     base64.StdEncoding.EncodeToString(payload),
		Signatures:  []signatureJSON{{KeyID: string(keyID), Sig: base64.StdEncoding.EncodeToString(sig)}},
	})
	return b
}

// Open reads an envelope in its one canonical spelling. The payload stays
// closed until Verify.
func Open(b []byte) (Envelope, error) { return OpenKind(predicate.PayloadType, b) }

// OpenKind is Open for a payload of another type.
func OpenKind(payloadType string, b []byte) (Envelope, error) {
	if len(b) > MaxEnvelope {
		return Envelope{}, fmt.Errorf("open envelope: %d bytes, at most %d", len(b), MaxEnvelope)
	}
	var j envelopeJSON
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil {
		return Envelope{}, fmt.Errorf("open envelope: %w", err)
	}
	if j.PayloadType != payloadType {
		return Envelope{}, errors.New("open envelope: payload type is not " + payloadType)
	}
	if len(j.Signatures) != 1 {
		return Envelope{}, fmt.Errorf("open envelope: %d signatures, want one", len(j.Signatures))
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(j.Payload)
	if err != nil {
		return Envelope{}, fmt.Errorf("open envelope: payload: %w", err)
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(j.Signatures[0].Sig)
	if err != nil {
		return Envelope{}, fmt.Errorf("open envelope: signature: %w", err)
	}
	e := Envelope{kind: payloadType, payload: payload, keyID: predicate.Digest(j.Signatures[0].KeyID), sig: sig}
	if err := e.keyID.Validate(); err != nil {
		return Envelope{}, fmt.Errorf("open envelope: keyid: %w", err)
	}
	if !bytes.Equal(marshal(payloadType, payload, e.keyID, sig), b) {
		return Envelope{}, fmt.Errorf("open envelope: %w", predicate.ErrNotCanonical)
	}
	return e, nil
}

// KeyID is the key that the envelope claims. It only says where to look.
func (e Envelope) KeyID() predicate.Digest { return e.keyID }

// Digest is the digest of the statement inside, see Digest.
func (e Envelope) Digest() predicate.Digest { return predicate.DigestOf(pae(e.kind, e.payload)) }

// ErrBadSignature says that a signature is not the key's over the payload.
var ErrBadSignature = errors.New("signature does not verify")

// Verify checks the signature with key and returns the payload's exact bytes.
func (e Envelope) Verify(key identity.PublicKey) ([]byte, error) {
	if key.ID() != e.keyID {
		return nil, fmt.Errorf("verify envelope: key %s, not %s: %w", key.ID(), e.keyID, ErrBadSignature)
	}
	if !key.Verify(pae(e.kind, e.payload), e.sig) {
		return nil, fmt.Errorf("verify envelope: %w", ErrBadSignature)
	}
	return e.payload, nil
}
