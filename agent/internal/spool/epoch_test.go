package spool

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

// opening is the first statement of an epoch, by one key for another.
func opening(t testing.TB, epoch uint64, by, next *identity.Key) []byte {
	t.Helper()
	der, err := next.Public().DER()
	if err != nil {
		t.Fatal(err)
	}
	at := predicate.At(config(t, "").Now())
	payload, err := predicate.Marshal(&predicate.Epoch{
		Link:  predicate.Link{Tenant: "default", Agent: "a-1", KeyID: by.Public().ID(), Epoch: epoch, Sequence: 1, Previous: predicate.ZeroDigest, SignedAt: at},
		Cause: predicate.Rotated, Algorithm: predicate.Ed25519,
		Key: &predicate.SigningKey{KeyID: next.Public().ID(), Algorithm: predicate.Ed25519, PublicKey: der, NotBefore: at},
	})
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := attest.Sign(payload, by)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

// TestSucceed goes over to new epochs while statements are appended and taken:
// each stands in its epoch's chain, and the folder opens again at any of them.
func TestSucceed(t *testing.T) {
	cfg := config(t, t.TempDir())
	s := mustOpen(t, cfg, true)
	const epochs, each = 5, 40
	var taken []Entry
	group, ctx := errgroup.WithContext(t.Context())
	group.Go(func() error {
		for n := uint64(1); n <= epochs; n++ {
			if n > 1 {
				if err := s.Succeed(ctx, Epoch{n, key(t, byte(n)), key(t, byte(n-1)).Public(), opening(t, n, key(t, byte(n-1)), key(t, byte(n)))}); err != nil {
					return err
				}
			}
			for id := range uint64(each) {
				if _, err := s.Append(ctx, beat(n*100+id)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	group.Go(func() error {
		for len(taken) < epochs*each+epochs-1 {
			entries, err := s.Next(ctx, 7, 1<<20)
			if err != nil {
				return err
			}
			taken = append(taken, entries...)
			if err := s.Ack(entries[len(entries)-1].Place); err != nil {
				return err
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	next := Place{1, 0}
	for _, e := range taken {
		if next.Sequence++; e.Place != next && e.Place == (Place{next.Epoch + 1, 1}) {
			next = e.Place
		}
		signer := key(t, byte(e.Epoch))
		if e.Sequence == 1 && e.Epoch > 1 {
			signer = key(t, byte(e.Epoch-1))
		}
		if m := open(t, e, signer); m.Place != next {
			t.Fatalf("%+v came, want %+v", m.Place, next)
		}
	}
	mustClose(t, s)
	last := cfg
	opener := key(t, epochs-1).Public()
	last.Chain.Epoch, last.Signer, last.Opener = epochs, key(t, epochs), &opener
	s = mustOpen(t, last, false)
	if st := s.Stats(); st.Epoch != epochs || st.Head.Sequence != each+1 {
		t.Errorf("opened again: %+v", st)
	}
	mustClose(t, s)
}

// TestBegin begins an epoch with a statement that was signed elsewhere, and with
// no other, and opens again with nothing but that.
func TestBegin(t *testing.T) {
	cfg := config(t, t.TempDir())
	opener := key(t, 9).Public()
	cfg.Opener = &opener
	s := mustOpen(t, cfg, true)
	good := opening(t, 1, key(t, 9), key(t, 1))
	for name, bad := range map[string][]byte{
		"by another key":       opening(t, 1, key(t, 8), key(t, 1)),
		"for another key":      opening(t, 1, key(t, 9), key(t, 2)),
		"of another epoch":     opening(t, 2, key(t, 9), key(t, 1)),
		"of another statement": bytes.Replace(good, []byte(`"payload":"ey`), []byte(`"payload":"eX`), 1),
	} {
		if err := s.Begin(t.Context(), bad); err == nil {
			t.Errorf("%s: it begins", name)
		}
	}
	if err := s.Begin(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	if err := s.Begin(t.Context(), good); err == nil || !strings.Contains(err.Error(), "has begun") {
		t.Errorf("it begins again: %v", err)
	}
	mustClose(t, s)
	s = mustOpen(t, cfg, false)
	mustAppend(t, s, beat(2))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Succeed(ctx, Epoch{Number: 1}); err == nil {
		t.Error("it goes over to the epoch that it is in")
	}
	mustClose(t, s)
	s = mustOpen(t, cfg, false)
	defer mustClose(t, s)
	if n := s.Stats().Head.Sequence; n != 2 {
		t.Errorf("opened again, its head is %d", n)
	}
}
