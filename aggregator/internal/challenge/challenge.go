// Package challenge makes what somebody has to sign who comes without a token.
//
// It guarantees that only challenges of its own are taken, each for its purpose,
// once and for a short time; and that giving one costs no memory and no row, so
// that nobody can use them up for others: what is remembered is those that were
// answered, until they end.
package challenge

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cavra/cavra/aggregator/internal/control"
)

// Life is how long a challenge is good.
const Life = 2 * time.Minute

const (
	timeLen   = 8
	randomLen = 16
	// Len is a challenge's length, in characters.
	Len = (timeLen + randomLen + sha256.Size) * 8 / 6
)

// ErrNotGood says that a challenge is not one of ours, for this purpose, or that
// it is over or was answered. It does not say which.
var ErrNotGood = errors.New("the challenge is not good, is over, or was answered already")

// Spent remembers what was answered.
type Spent interface {
	SpendChallenge(ctx context.Context, challenge control.Hash, expires time.Time) error
}

// Maker makes challenges and takes them back.
type Maker struct {
	secret []byte
	spent  Spent
	now    func() time.Time
}

// New returns a Maker. All aggregators that share a store have the same secret.
func New(secret []byte, spent Spent, now func() time.Time) (*Maker, error) {
	if len(secret) < sha256.Size || spent == nil || now == nil {
		return nil, errors.New("challenges: a secret of 32 bytes, a store and a clock are required")
	}
	return &Maker{secret, spent, now}, nil
}

// Make makes a challenge for a purpose.
func (m *Maker) Make(purpose string) (string, error) {
	b := binary.BigEndian.AppendUint64(nil, uint64(m.now().Add(Life).UnixMilli()))
	random := make([]byte, randomLen)
	if _, err := rand.Read(random); err != nil {
		return "", fmt.Errorf("make challenge: %w", err)
	}
	b = append(b, random...)
	return base64.RawURLEncoding.EncodeToString(append(b, m.mac(purpose, b)...)), nil
}

func (m *Maker) mac(purpose string, b []byte) []byte {
	h := hmac.New(sha256.New, m.secret)
	// The length keeps the two apart.
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(purpose))))
	_, _ = h.Write([]byte(purpose))
	_, _ = h.Write(b)
	return h.Sum(nil)
}

// Check reports whether a challenge is good; Spend then takes it.
func (m *Maker) Check(purpose, challenge string) error {
	_, err := m.open(purpose, challenge)
	return err
}

func (m *Maker) open(purpose, challenge string) (time.Time, error) {
	if len(challenge) > Len+1 {
		return time.Time{}, ErrNotGood
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(challenge)
	if err != nil || len(b) != timeLen+randomLen+sha256.Size {
		return time.Time{}, ErrNotGood
	}
	body, mac := b[:timeLen+randomLen], b[timeLen+randomLen:]
	if !hmac.Equal(mac, m.mac(purpose, body)) {
		return time.Time{}, ErrNotGood
	}
	expires := time.UnixMilli(int64(binary.BigEndian.Uint64(body)))
	if !m.now().Before(expires) {
		return time.Time{}, ErrNotGood
	}
	return expires, nil
}

// Spend takes a challenge whose answer was verified. It succeeds once.
func (m *Maker) Spend(ctx context.Context, purpose, challenge string) error {
	expires, err := m.open(purpose, challenge)
	if err != nil {
		return err
	}
	err = m.spent.SpendChallenge(ctx, sha256.Sum256([]byte(challenge)), expires)
	if errors.Is(err, control.ErrExists) {
		return ErrNotGood
	}
	return err
}
