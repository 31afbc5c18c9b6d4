package predicate

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxPlainName bounds a plain name, in bytes. Longer ones travel keyed.
const MaxPlainName = 256

const keyedPrefix = "hmac-sha256:"

// Name is a string that came from an artifact or a registry: either plain, or
// keyed, an HMAC-SHA-256 (RFC 2104) under a key that only the customer holds.
// Exactly one of the two is set; the zero Name means "none".
type Name struct {
	Plain string `json:"plain,omitempty"`
	Keyed string `json:"keyed,omitempty"`
}

// PlainName returns s as a plain name when a statement may carry it plain
// (see PlainAllowed), and an error otherwise.
func PlainName(s string) (Name, error) {
	if err := PlainAllowed(s); err != nil {
		return Name{}, err
	}
	return Name{Plain: s}, nil
}

// KeyedName hides s behind the customer's key.
func KeyedName(key []byte, s string) Name {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(s))
	return Name{Keyed: keyedPrefix + hex.EncodeToString(mac.Sum(nil))}
}

// PlainAllowed reports why s cannot be a plain name: empty, too long, not
// UTF-8, or with characters that do not print.
func PlainAllowed(s string) error {
	switch {
	case s == "":
		return errors.New("plain name: empty")
	case len(s) > MaxPlainName:
		return fmt.Errorf("plain name: %d bytes, at most %d", len(s), MaxPlainName)
	case !utf8.ValidString(s):
		return errors.New("plain name: not UTF-8")
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("plain name: character %U does not print", r)
		}
	}
	return nil
}

// IsZero reports whether the name is absent.
func (n Name) IsZero() bool { return n == Name{} }

// String shows a keyed name in a short form.
func (n Name) String() string {
	if h, ok := strings.CutPrefix(n.Keyed, keyedPrefix); ok && len(h) >= 12 {
		return "keyed:" + h[:12]
	}
	return n.Plain
}

// Validate reports whether exactly one form is set, and well.
func (n Name) Validate() error {
	if n.Plain != "" && n.Keyed != "" {
		return errors.New("name: both plain and keyed")
	}
	if n.Plain != "" {
		return PlainAllowed(n.Plain)
	}
	h, ok := strings.CutPrefix(n.Keyed, keyedPrefix)
	if !ok || !isLowerHex(h, sha256.Size*2) {
		return errors.New("name: keyed form is not hmac-sha256 and 64 lower-case hexadecimal digits")
	}
	return nil
}
