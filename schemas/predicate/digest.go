package predicate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Digest names bytes by their SHA-256, written "sha256:" and 64 lower-case
// hexadecimal digits. The empty Digest means "none". An artifact or a bundle may
// also be named by a keyed digest, see KeyedDigest.
type Digest string

const digestPrefix = "sha256:"

// ZeroDigest is the digest that stands before the first link of a chain: all
// bits zero, which no known bytes hash to.
const ZeroDigest = Digest(digestPrefix + "0000000000000000000000000000000000000000000000000000000000000000")

// DigestOf hashes b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return DigestFromSum(sum[:])
}

// DigestFromSum writes a finished SHA-256 sum (32 bytes) as a Digest.
func DigestFromSum(sum []byte) Digest {
	return Digest(digestPrefix + hex.EncodeToString(sum))
}

// KeyedDigest hides d behind a key: it is the HMAC-SHA-256 (RFC 2104) over d as
// it is written, and written "hmac-sha256:" and 64 digits. Whoever has the key
// and d comes to the same; a guess of the bytes confirms nothing without the key.
func KeyedDigest(key []byte, d Digest) Digest {
	return Digest(KeyedName(key, string(d)).Keyed)
}

// Keyed reports whether d is a keyed digest.
func (d Digest) Keyed() bool { return strings.HasPrefix(string(d), keyedPrefix) }

// Algorithm is what made the digest, as in-toto names it: "sha256", or
// "hmac-sha256" for a keyed one.
func (d Digest) Algorithm() string {
	algorithm, _, _ := strings.Cut(string(d), ":")
	return algorithm
}

// Hex returns the hexadecimal part.
func (d Digest) Hex() string {
	return strings.TrimPrefix(strings.TrimPrefix(string(d), keyedPrefix), digestPrefix)
}

// Validate reports whether d is well-formed and not empty.
func (d Digest) Validate() error {
	h, ok := strings.CutPrefix(string(d), digestPrefix)
	if !ok || !isLowerHex(h, sha256.Size*2) {
		return fmt.Errorf("digest %q: want sha256: and 64 lower-case hexadecimal digits", clip(string(d)))
	}
	return nil
}

// ValidateArtifact reports whether d may name an artifact or a bundle: plainly
// or keyed.
func (d Digest) ValidateArtifact() error {
	if !d.Keyed() {
		return d.Validate()
	}
	if !isLowerHex(d.Hex(), sha256.Size*2) {
		return fmt.Errorf("digest %q: want hmac-sha256: and 64 lower-case hexadecimal digits", clip(string(d)))
	}
	return nil
}

func isLowerHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// clip bounds a string from outside before it enters an error text.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
