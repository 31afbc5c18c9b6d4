package control

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
)

func asked(c *clock, id ChainID, name string) ClientCertificate {
	h := hash(name)
	return ClientCertificate{Serial: h[:16], Tenant: id.Tenant, Agent: id.Agent, KeyID: digest(name), ExpiresAt: c.now().Add(24 * time.Hour), DER: []byte(name)}
}

func TestCertificatesFollowEachOther(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx, id := t.Context(), enrol(t, s, "acme")
		first, err := s.AddFirstCertificate(ctx, asked(c, id, "one"))
		must(t, err)
		if first.Generation != 1 || first.Status != Active || first.Good(c.now()) != nil {
			t.Errorf("the first: %+v", first)
		}
		lost := asked(c, id, "one")
		lost.Serial = []byte("another number")
		if again, err := s.AddFirstCertificate(ctx, lost); err != nil || string(again.Serial) != string(first.Serial) {
			t.Errorf("asked again with the same key: %x, %v", again.Serial, err)
		}

		two, err := s.AddCandidate(ctx, asked(c, id, "two"))
		must(t, err)
		three, err := s.AddCandidate(ctx, asked(c, id, "three"))
		must(t, err)
		if two.Generation != 2 || three.Generation != 2 || !errors.Is(two.Good(c.now()), ErrUnconfirmed) {
			t.Errorf("candidates: %+v, %+v", two, three)
		}
		again, err := s.AddCandidate(ctx, asked(c, id, "two"))
		must(t, err)
		if string(again.Serial) != string(two.Serial) {
			t.Errorf("a candidate asked for again is another")
		}
		for range 2 { // an answer that was lost
			got, err := s.ConfirmCertificate(ctx, two.Serial, time.Minute)
			must(t, err)
			if got.Generation != 2 || got.Status != Active {
				t.Errorf("confirmed: %+v", got)
			}
		}
		if _, err := s.ConfirmCertificate(ctx, three.Serial, time.Minute); !errors.Is(err, ErrOvertaken) {
			t.Errorf("a candidate of the same generation: %v, want ErrOvertaken", err)
		}
		former, err := s.ClientCertificate(ctx, first.Serial)
		must(t, err)
		if former.Good(c.now()) != nil || !errors.Is(former.Good(c.now().Add(time.Minute)), ErrOvertaken) {
			t.Errorf("the former in the overlap and after it: %v, %v", former.Good(c.now()), former.Good(c.now().Add(time.Minute)))
		}
		if _, err := s.AddCandidate(ctx, asked(c, id, "one")); !errors.Is(err, ErrKeyKnown) {
			t.Errorf("a key that is retired: %v, want ErrKeyKnown", err)
		}
		if _, err := s.AddCandidate(ctx, asked(c, enrol(t, s, "rival"), "two")); !errors.Is(err, ErrKeyKnown) {
			t.Errorf("a key of another agent: %v, want ErrKeyKnown", err)
		}
		if n, err := s.Generation(ctx, id.Tenant, id.Agent); err != nil || n != 2 {
			t.Errorf("generation %d, %v", n, err)
		}
	})
}

func TestRevocationEndsCertificates(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx, id := t.Context(), enrol(t, s, "acme")
		first, err := s.AddFirstCertificate(ctx, asked(c, id, "one"))
		must(t, err)
		waiting, err := s.AddCandidate(ctx, asked(c, id, "two"))
		must(t, err)
		must(t, s.RevokeAgent(ctx, id.Tenant, id.Agent))
		for _, serial := range [][]byte{first.Serial, waiting.Serial} {
			got, err := s.ClientCertificate(ctx, serial)
			must(t, err)
			if got.Status != Revoked || !errors.Is(got.Good(c.now()), ErrRevoked) {
				t.Errorf("%+v", got)
			}
		}
		if _, err := s.ConfirmCertificate(ctx, waiting.Serial, time.Minute); !errors.Is(err, ErrRevoked) {
			t.Errorf("confirmed: %v", err)
		}
		if _, err := s.AddCandidate(ctx, asked(c, id, "three")); !errors.Is(err, ErrRevoked) {
			t.Errorf("another: %v", err)
		}
		// A new token is a new authority; what was revoked stays so.
		_, err = s.RedeemJoinToken(ctx, join(t, s, "acme", "back", id.Agent), newKey(t))
		must(t, err)
		back, err := s.AddFirstCertificate(ctx, asked(c, id, "four"))
		must(t, err)
		old, err := s.ClientCertificate(ctx, first.Serial)
		must(t, err)
		if back.Good(c.now()) != nil || !errors.Is(old.Good(c.now()), ErrRevoked) || back.Generation != 2 {
			t.Errorf("back: %+v, and the old one: %v", back, old.Good(c.now()))
		}
	})
}

// Many renew at once: one is confirmed, and never two are active.
func TestConfirmRace(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx, id := t.Context(), enrol(t, s, "acme")
		_, err := s.AddFirstCertificate(ctx, asked(c, id, "one"))
		must(t, err)
		var serials [][]byte
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			got, err := s.AddCandidate(ctx, asked(c, id, name))
			must(t, err)
			serials = append(serials, got.Serial)
		}
		errs := make([]error, len(serials))
		var wg sync.WaitGroup
		for i, serial := range serials {
			wg.Go(func() { _, errs[i] = s.ConfirmCertificate(ctx, serial, time.Minute) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else if !errors.Is(err, ErrOvertaken) {
				t.Errorf("lost with %v, want ErrOvertaken", err)
			}
		}
		if won != 1 {
			t.Errorf("%d were confirmed", won)
		}
	})
}

// What is remembered of an agent that renews for years stays small, and its
// generation is not forgotten.
func TestCertificatesAreBounded(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx, id := t.Context(), enrol(t, s, "acme")
		_, err := s.AddFirstCertificate(ctx, asked(c, id, "first"))
		must(t, err)
		const n = 60
		for i := range n {
			c.move(12 * time.Hour)
			var last ClientCertificate
			for j := range 10 {
				last, err = s.AddCandidate(ctx, asked(c, id, string(predicate.DigestOf([]byte{byte(i), byte(j)}))))
				must(t, err)
			}
			_, err := s.ConfirmCertificate(ctx, last.Serial, time.Minute)
			must(t, err)
		}
		all, err := s.ClientCertificates(ctx, id.Tenant, id.Agent)
		must(t, err)
		if len(all) > 40 || all[len(all)-1].Generation != n+1 {
			t.Errorf("%d certificates, the last of generation %d", len(all), all[len(all)-1].Generation)
		}
		// Away for a year: what it had is still known.
		c.move(365 * 24 * time.Hour)
		next, err := s.AddCandidate(ctx, asked(c, id, "back"))
		must(t, err)
		if next.Generation != n+2 {
			t.Errorf("generation %d after a year", next.Generation)
		}
	})
}
