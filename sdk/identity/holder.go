package identity

import "context"

// Holder holds a private key somewhere: in a file, in a key management service,
// in a token. The key never leaves it. What is signed is a message, since
// Ed25519 signs no digests; a holder that is not in this process sends the
// SHA-256 of the message and nothing of it.
type Holder interface {
	// Sign signs message with the key's own algorithm.
	Sign(ctx context.Context, message []byte) ([]byte, error)
	Public() PublicKey
	// Describe says where the key is, in words that hold no secret.
	Describe() string
}

// Local holds a key in this process, as read from a file.
type Local struct {
	Key *Key
	// Where names the file.
	Where string
}

// Sign implements Holder.
func (l Local) Sign(_ context.Context, message []byte) ([]byte, error) { return l.Key.Sign(message) }

// Public implements Holder.
func (l Local) Public() PublicKey { return l.Key.Public() }

// Describe implements Holder.
func (l Local) Describe() string { return "file " + l.Where }
