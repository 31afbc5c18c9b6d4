package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"hash/crc32"
	"math/big"
	"strings"

	"github.com/cavra/cavra/aggregator/internal/control"
)

// Kind is what a secret is for. It stands in the secret, so that a person or a
// scanner for leaked secrets can tell.
type Kind string

// The kinds.
const (
	KindAPI     Kind = "api"
	KindJoin    Kind = "join"
	KindSession Kind = "session"
)

// A secret is "cavra_", its kind, "_", 256 random bits as 43 digits to the base
// of 62, and 6 such digits of the CRC-32 of all before. The checksum is no
// secret: it tells a slip of the hand from a guess before the store is asked.
const (
	base62     = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	randomLen  = 43
	checkLen   = 6
	secretBits = 256
	// MaxSecret bounds the secrets of every kind, in bytes.
	MaxSecret = 64
)

// ErrMalformed says that a string is no secret of the wanted kind; it may have
// been cut short or mistyped.
var ErrMalformed = errors.New("not a token of this kind, or damaged on the way")

// Generate makes a secret and its hash. Only the hash is ever stored.
func Generate(k Kind) (secret string, hash control.Hash) {
	var b [secretBits / 8]byte
	// Read fills b or ends the program (crypto/rand).
	_, _ = rand.Read(b[:])
	body := "cavra_" + string(k) + "_" + digits(new(big.Int).SetBytes(b[:]), randomLen)
	secret = body + checksum(body)
	return secret, sha256.Sum256([]byte(secret))
}

// Parse checks a secret's form and returns its hash, or ErrMalformed. It says
// nothing of whether the secret is good for anything.
func Parse(k Kind, secret string) (control.Hash, error) {
	if len(secret) > MaxSecret {
		return control.Hash{}, ErrMalformed
	}
	rest, ok := strings.CutPrefix(secret, "cavra_"+string(k)+"_")
	if !ok || len(rest) != randomLen+checkLen || strings.Trim(rest, base62) != "" {
		return control.Hash{}, ErrMalformed
	}
	body, check := secret[:len(secret)-checkLen], secret[len(secret)-checkLen:]
	if subtle.ConstantTimeCompare([]byte(check), []byte(checksum(body))) != 1 {
		return control.Hash{}, ErrMalformed
	}
	return sha256.Sum256([]byte(secret)), nil
}

func checksum(body string) string {
	return digits(big.NewInt(int64(crc32.ChecksumIEEE([]byte(body)))), checkLen)
}

// digits writes n to the base of 62 with leading zeros.
func digits(n *big.Int, width int) string {
	out := make([]byte, width)
	base, digit := big.NewInt(int64(len(base62))), new(big.Int)
	n = new(big.Int).Set(n)
	for i := width - 1; i >= 0; i-- {
		n.DivMod(n, base, digit)
		out[i] = base62[digit.Int64()]
	}
	return string(out)
}

func equal(a, b control.Hash) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }
