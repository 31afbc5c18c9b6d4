package admit

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
)

// opening is the first statement of next's epoch, signed by a.
func (a *agent) opening(next *agent, edit func(*predicate.Epoch)) []byte {
	a.tb.Helper()
	der, err := next.key.Public().DER()
	if err != nil {
		a.tb.Fatal(err)
	}
	l := a.link(1, predicate.ZeroDigest, 0)
	l.Epoch = next.chain.Epoch
	e := &predicate.Epoch{Link: l, Cause: predicate.Rotated, Algorithm: predicate.Ed25519, Key: &predicate.SigningKey{
		KeyID: next.key.Public().ID(), Algorithm: predicate.Ed25519, PublicKey: der, NotBefore: l.SignedAt,
	}}
	edit(e)
	return a.sign(a.marshal(e))
}

// certify registers next as a's follower: its statements are those of a day.
func (s *store) certify(tb testing.TB, next *agent, by predicate.Digest, notAfter time.Time) {
	tb.Helper()
	from := next.link(1, predicate.ZeroDigest, 0).SignedAt.Time()
	s.exec(tb, `UPDATE keys SET authority = $1, not_before = $2, not_after = $3 WHERE tenant = $4 AND agent = $5 AND epoch = $6`,
		raw(tb, by), from.UnixMilli(), notAfter.UnixMilli(), next.chain.Tenant, next.chain.Agent, next.chain.Epoch)
}

func raw(tb testing.TB, d predicate.Digest) []byte {
	tb.Helper()
	b, err := hex.DecodeString(d.Hex())
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestOpenings: an epoch whose key is certified begins with the authority's
// statement, which certifies what was registered, and with no other.
func TestOpenings(t *testing.T) {
	first, next, stranger := newAgent(t, "one", "a", 1), newAgent(t, "one", "a", 2), newAgent(t, "one", "a", 3)
	other := newAgent(t, "one", "b", 1)
	s := newStore(t, first, next, other)
	end := next.link(1, predicate.ZeroDigest, 0).SignedAt.Time().Add(time.Minute)
	s.certify(t, next, first.key.Public().ID(), end)
	endAt := predicate.At(end)
	same := func(e *predicate.Epoch) { e.Key.NotAfter = &endAt }
	good := first.opening(next, same)
	opened, err := attest.Open(good)
	if err != nil {
		t.Fatal(err)
	}
	second := next.sign(next.payload(next.link(2, opened.Digest(), 1)))
	late := next.sign(next.payload(next.link(3, opened.Digest(), 61)))
	early := next.sign(next.payload(next.link(3, opened.Digest(), -1)))
	longer := predicate.At(end.Add(time.Minute))
	for name, tt := range map[string]struct {
		values [][]byte
		want   []string
	}{
		"as registered":             {[][]byte{good, second}, []string{"linked", "linked"}},
		"late":                      {[][]byte{second, good}, []string{"early", "linked"}},
		"opened by the key itself":  {[][]byte{next.sign(next.payload(next.link(1, predicate.ZeroDigest, 0)))}, []string{"refused:wrong_authority"}},
		"for a longer time":         {[][]byte{first.opening(next, func(e *predicate.Epoch) { e.Key.NotAfter = &longer })}, []string{"refused:wrong_authority"}},
		"for all time":              {[][]byte{first.opening(next, func(*predicate.Epoch) {})}, []string{"refused:wrong_authority"}},
		"for another epoch":         {[][]byte{first.opening(next, func(e *predicate.Epoch) { same(e); e.Epoch = 3 })}, []string{"refused:wrong_authority"}},
		"a key that nobody knows":   {[][]byte{first.opening(stranger, same)}, []string{"refused:wrong_authority"}},
		"by another agent":          {[][]byte{other.opening(next, func(e *predicate.Epoch) { same(e); e.Epoch = 2 })}, []string{"refused:wrong_authority"}},
		"in another agent's name":   {[][]byte{other.opening(next, func(e *predicate.Epoch) { same(e); e.Agent = "a" })}, []string{"refused:wrong_agent"}},
		"signed when it had ended":  {[][]byte{good, late}, []string{"linked", "refused:outside_key_time"}},
		"signed before it was made": {[][]byte{good, early}, []string{"linked", "refused:outside_key_time"}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, outcomes(mustAdmit(t, s, rangeOf(tt.values...)))); d != "" {
				t.Error(d)
			}
		})
	}
	d := mustAdmit(t, s, rangeOf(good, second))
	for _, r := range d.Rows.Receipts {
		if r.Epoch != 2 {
			t.Errorf("sequence %d is of epoch %d", r.Sequence, r.Epoch)
		}
	}
}

// TestEndedKeys: what a retired key signed is taken in until it has ended, as of
// when the range was planned.
func TestEndedKeys(t *testing.T) {
	a := newAgent(t, "one", "a", 1)
	envelopes, _ := a.spool(2)
	s := newStore(t, a)
	for _, tt := range []struct {
		ends time.Time
		want []string
	}{
		{planned.Add(time.Millisecond), []string{"linked", "linked"}},
		{planned, []string{"refused:ended_key", "refused:ended_key"}},
	} {
		s.exec(t, `UPDATE keys SET status = 'retired', retired_at = 1, ends_at = $1`, tt.ends.UnixMilli())
		if d := cmp.Diff(tt.want, outcomes(mustAdmit(t, s, rangeOf(envelopes...)))); d != "" {
			t.Errorf("it ends at %s: %s", tt.ends, d)
		}
	}
}

// TestCertifyingKey: a key that is held elsewhere signs the openings of epochs and
// nothing else.
func TestCertifyingKey(t *testing.T) {
	held, local := newAgent(t, "one", "a", 1), newAgent(t, "one", "a", 1)
	s := newStore(t, local)
	der, err := held.key.Public().DER()
	if err != nil {
		t.Fatal(err)
	}
	s.exec(t, `INSERT INTO authorities (key_id, tenant, agent, algorithm, public_key, status, created_at) VALUES ($1, 'one', 'a', 'ed25519', $2, 'active', 0)`,
		raw(t, held.key.Public().ID()), der)
	end := local.link(1, predicate.ZeroDigest, 0).SignedAt.Time().Add(time.Minute)
	s.certify(t, local, held.key.Public().ID(), end)
	endAt := predicate.At(end)
	opening := held.opening(local, func(e *predicate.Epoch) { e.Cause, e.Key.NotAfter = predicate.Enrolled, &endAt })
	scans, _ := held.spool(2)
	want := []string{"linked", "refused:wrong_authority", "refused:wrong_authority"}
	if d := cmp.Diff(want, outcomes(mustAdmit(t, s, rangeOf(opening, scans[0], scans[1])))); d != "" {
		t.Error(d)
	}
	s.revoked[held.key.Public().ID()] = planned
	if d := cmp.Diff([]string{"refused:revoked_key"}, outcomes(mustAdmit(t, s, rangeOf(opening)))); d != "" {
		t.Errorf("by a revoked key: %s", d)
	}
}
