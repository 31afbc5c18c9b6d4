package identity

import (
	"crypto"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// Purpose is what a key is certified for. It stands in what is signed, so that a
// signature for one is good for no other.
type Purpose string

// The purposes.
const (
	// AtEnrolment: the context is the join token.
	AtEnrolment Purpose = "enrol"
	// AtRenewal: the context is the generation of the certificate before.
	AtRenewal Purpose = "renew"
	// AtReturn: the context is ReturnContext.
	AtReturn Purpose = "return"
)

// ReturnContext is what an agent says of itself when it comes back by its
// enrolled key: the challenge, the generation of its last certificate, the serial
// number of one that it may have confirmed, and its process's instance.
func ReturnContext(challenge string, generation uint64, candidate []byte, instance string) string {
	return strings.Join([]string{challenge, strconv.FormatUint(generation, 10), hex.EncodeToString(candidate), instance}, "\n")
}

// Binding is what is signed so that a TLS key is certified: it binds the key to
// the purpose and to the request's own context, and, unless signer is empty, to
// the enrolled key that speaks for it.
func Binding(p Purpose, context string, signer predicate.Digest, key PublicKey) []byte {
	return []byte(strings.Join([]string{"cavra-tls-v1", string(p), context, string(signer), string(key.ID())}, "\n"))
}

// Crypto returns the key as the standard library knows it.
func (p PublicKey) Crypto() crypto.PublicKey { return p.key }

// TLS returns the key with its certificate, in DER, for connections.
func (k *Key) TLS(certificate []byte) (tls.Certificate, error) {
	leaf, err := ParseCertificate(certificate)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := newPublicKey(k.public.Algorithm, leaf.PublicKey)
	if err != nil || key.ID() != k.public.ID() {
		return tls.Certificate{}, fmt.Errorf("use certificate: it is of another key than %s", k.public.ID())
	}
	return tls.Certificate{Certificate: [][]byte{certificate}, PrivateKey: k.signer, Leaf: leaf}, nil
}
