package predicate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Digest names bytes by their SHA-256, written "sha256:" and 64 lower-case
// hexadecimal digits. The empty Digest means "none".
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

// Hex returns the hexadecimal part.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), digestPrefix) }

// Validate reports whether d is well-formed and not empty.
func (d Digest) Validate() error {
	h, ok := strings.CutPrefix(string(d), digestPrefix)
	if !ok || !isLowerHex(h, sha256.Size*2) {
		return fmt.Errorf("digest %q: want sha256: and 64 lower-case hexadecimal digits", clip(string(d)))
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
