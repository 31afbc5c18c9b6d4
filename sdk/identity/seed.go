package identity

import (
	"crypto/ed25519"

	"github.com/cavra/cavra/schemas/predicate"
)

// FromSeed makes the Ed25519 key of a 32-byte seed (RFC 8032), such as that of
// the golden vectors. A key whose seed is known to others signs nothing.
func FromSeed(seed [ed25519.SeedSize]byte) (*Key, error) {
	return newKey(predicate.Ed25519, ed25519.NewKeyFromSeed(seed[:]))
}
