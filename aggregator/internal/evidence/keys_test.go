package evidence

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/sdk/logproof"
)

// fleet is a control store with one agent.
func fleet(t *testing.T) (*control.Store, control.Enrolment, predicate.Digest) {
	t.Helper()
	ctx := t.Context()
	s, err := control.Open(ctx, control.Config{Path: filepath.Join(t.TempDir(), "control.db")})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	must(t, s.CreateTenant(ctx, "acme", "Acme"))
	token := control.Hash{1}
	must(t, s.CreateJoinToken(ctx, control.JoinToken{Hash: token, Tenant: "acme", AgentName: "a", CreatedBy: "test", ExpiresAt: time.Now().Add(time.Hour)}))
	key, err := identity.Generate(predicate.Ed25519)
	must(t, err)
	e, err := s.RedeemJoinToken(ctx, token, key.Public())
	must(t, err)
	return s, e, key.Public().ID()
}

func events(t *testing.T, s *control.Store, l *Ledger, key predicate.Digest) (out []string) {
	t.Helper()
	entries, err := s.KeyEvents(t.Context(), l.ID(), key)
	must(t, err)
	for _, e := range entries {
		out = append(out, fmt.Sprintf("%s at %d", e.Change, e.LogIndex))
	}
	return out
}

// TestLedger: a key's enrolment stands before its statements, and its end behind
// those of every range that was being taken in when it came.
func TestLedger(t *testing.T) {
	ctx := t.Context()
	s, e, key := fleet(t)
	log := open(t, t.TempDir())
	defer func() { must(t, log.Close()) }()
	l := NewLedger(log, s, slog.New(slog.DiscardHandler))
	first, err := l.Append(ctx, digests(0, 2))
	must(t, err)
	if d := cmp.Diff([]string{"enrolled at 0"}, events(t, s, l, key)); d != "" || first[0] != 1 {
		t.Errorf("statements at %d, events: %s", first, d)
	}
	p := control.Plan{Topic: "t", From: 0, Next: 5, Count: 5}
	must(t, s.RecordPlan(ctx, &p))
	must(t, s.RevokeAgent(ctx, "acme", e.Agent))
	// The range was decided on before.
	last, err := l.Append(ctx, digests(2, 4))
	must(t, err)
	if d := cmp.Diff([]string{"enrolled at 0"}, events(t, s, l, key)); d != "" {
		t.Errorf("the end did not wait: %s", d)
	}
	must(t, s.CommitPlan(ctx, &p, nil))
	// A range that comes later does not keep it waiting: it is decided on with the
	// end known.
	later := control.Plan{Topic: "t", From: 5, Next: 6, Count: 1}
	must(t, s.RecordPlan(ctx, &later))
	must(t, l.Enter(ctx))
	want := []string{"enrolled at 0", fmt.Sprintf("revoked at %d", last[1]+1)}
	if d := cmp.Diff(want, events(t, s, l, key)); d != "" {
		t.Errorf("after the range: %s", d)
	}
	must(t, l.Enter(ctx))
	if d := cmp.Diff(want, events(t, s, l, key)); d != "" {
		t.Errorf("entered again: %s", d)
	}
	entries, err := s.KeyEvents(ctx, l.ID(), key)
	must(t, err)
	proofs, err := l.Include(ctx, []uint64{entries[1].LogIndex})
	must(t, err)
	got, err := checkpoint(t, log, proofs.Checkpoint).IncludesKeyEvent(entries[1].Entry, entries[1].LogIndex, proofs.Hashes[0])
	if err != nil || got.Change != logproof.KeyRevoked || got.KeyID != key {
		t.Errorf("proven: %+v, %v", got, err)
	}
}

// TestLedgerOfAnother: each log has the events, whoever was there first.
func TestLedgerOfAnother(t *testing.T) {
	s, _, key := fleet(t)
	for range 2 {
		log := open(t, t.TempDir())
		l := NewLedger(log, s, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		for deadline := time.Now().Add(time.Minute); len(events(t, s, l, key)) == 0 && time.Now().Before(deadline); {
			must(t, l.Enter(ctx))
		}
		cancel()
		<-done
		if d := cmp.Diff([]string{"enrolled at 0"}, events(t, s, l, key)); d != "" {
			t.Error(d)
		}
		must(t, log.Close())
	}
}
