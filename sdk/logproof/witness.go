package logproof

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// A witness says by its signature that it has seen a log in a state that extends
// every state which it signed before (c2sp.org/tlog-cosignature, cosignature/v1).
const (
	cosignatureType = 0x04
	// timeBytes stand before the signature: when it was made, in seconds since 1970.
	timeBytes = 8
)

// Witness verifies one witness's cosignatures. It is a note.Verifier.
type Witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

// ParseWitness reads a witness's verifier key ("name+hash+base64").
func ParseWitness(vkey string) (Witness, error) {
	parts := strings.SplitN(strings.TrimSpace(vkey), "+", 3)
	if len(parts) != 3 {
		return Witness{}, errors.New("parse witness key: want name+hash+base64")
	}
	b, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(b) != 1+ed25519.PublicKeySize || b[0] != cosignatureType {
		return Witness{}, errors.New("parse witness key: want an Ed25519 key of cosignatures, type 4")
	}
	w := newWitness(parts[0], b[1:])
	if !validName(w.name) || w.String() != strings.TrimSpace(vkey) {
		return Witness{}, errors.New("parse witness key: the name or the hash is not the key's")
	}
	return w, nil
}

func newWitness(name string, key ed25519.PublicKey) Witness {
	sum := sha256.Sum256(append([]byte(name+"\n"), append([]byte{cosignatureType}, key...)...))
	return Witness{name, binary.BigEndian.Uint32(sum[:]), key}
}

// validName reports whether a name can stand in a note's signature.
func validName(s string) bool { return s != "" && !strings.ContainsAny(s, "+ \t\r\n\u0085\u00a0") }

// Name implements note.Verifier.
func (w Witness) Name() string { return w.name }

// KeyHash implements note.Verifier.
func (w Witness) KeyHash() uint32 { return w.hash }

// String is the verifier key.
func (w Witness) String() string {
	return fmt.Sprintf("%s+%08x+%s", w.name, w.hash, base64.StdEncoding.EncodeToString(append([]byte{cosignatureType}, w.key...)))
}

// Verify implements note.Verifier.
func (w Witness) Verify(text, sig []byte) bool {
	if len(sig) != timeBytes+ed25519.SignatureSize {
		return false
	}
	return ed25519.Verify(w.key, cosigned(binary.BigEndian.Uint64(sig), text), sig[timeBytes:])
}

func cosigned(at uint64, text []byte) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", at), text...)
}

// Cosigner makes a witness's signatures. It is a note.Signer.
type Cosigner struct {
	Witness
	key ed25519.PrivateKey
	now func() time.Time
}

// NewCosigner returns the witness of an Ed25519 seed.
func NewCosigner(name string, seed []byte, now func() time.Time) (*Cosigner, error) {
	if !validName(name) || len(seed) != ed25519.SeedSize {
		return nil, errors.New("make witness: want a name without spaces and plus signs, and a seed of 32 bytes")
	}
	key := ed25519.NewKeyFromSeed(seed)
	public, _ := key.Public().(ed25519.PublicKey) // it is one
	return &Cosigner{newWitness(name, public), key, now}, nil
}

// Sign implements note.Signer.
func (c *Cosigner) Sign(text []byte) ([]byte, error) {
	at := uint64(c.now().Unix())
	return append(binary.BigEndian.AppendUint64(nil, at), ed25519.Sign(c.key, cosigned(at, text))...), nil
}

// Cosign returns the line with the witness's signature of a checkpoint that Open
// has opened.
func (c *Cosigner) Cosign(checkpoint []byte, key string) ([]byte, error) {
	v, err := note.NewVerifier(key)
	if err != nil {
		return nil, fmt.Errorf("cosign checkpoint: %w", err)
	}
	n, err := note.Open(checkpoint, note.VerifierList(v))
	if err != nil {
		return nil, fmt.Errorf("cosign checkpoint: %w", err)
	}
	sig, err := c.Sign([]byte(n.Text))
	if err != nil {
		return nil, err
	}
	b := append(binary.BigEndian.AppendUint32(nil, c.hash), sig...)
	return fmt.Appendf(nil, "— %s %s\n", c.name, base64.StdEncoding.EncodeToString(b)), nil
}

// ErrNotWitnessed says that too few of the witnesses have signed a checkpoint.
var ErrNotWitnessed = errors.New("too few of the witnesses have signed it")

// Witnessed checks that at least so many of some witnesses have signed a
// checkpoint, and names those that have.
func Witnessed(checkpoint []byte, witnesses []Witness, need int) ([]string, error) {
	if len(checkpoint) > maxCheckpoint {
		return nil, fmt.Errorf("open checkpoint: %d bytes, at most %d", len(checkpoint), maxCheckpoint)
	}
	verifiers := make([]note.Verifier, len(witnesses))
	for i, w := range witnesses {
		verifiers[i] = w
	}
	var names []string
	n, err := note.Open(checkpoint, note.VerifierList(verifiers...))
	var unverified *note.UnverifiedNoteError
	if err != nil && !errors.As(err, &unverified) {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	if err == nil {
		for _, s := range n.Sigs {
			names = append(names, s.Name)
		}
	}
	if len(names) < need {
		return names, fmt.Errorf("checkpoint: %d of %d witnesses, want %d: %w", len(names), len(witnesses), need, ErrNotWitnessed)
	}
	return names, nil
}
