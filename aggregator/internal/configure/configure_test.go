package configure

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/sdk/remoteconfig"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// enrolled is a tenant's agent in a real store.
func enrolled(t *testing.T, s *control.Store, tenant string) string {
	t.Helper()
	key, err := identity.Generate(predicate.Ed25519)
	must(t, err)
	token := control.JoinToken{Hash: control.Hash([]byte(key.Public().ID())[7:39]), Tenant: tenant, AgentName: "a", CreatedBy: "test", ExpiresAt: time.Now().Add(time.Hour)}
	must(t, s.CreateJoinToken(t.Context(), token))
	e, err := s.RedeemJoinToken(t.Context(), token.Hash, key.Public())
	must(t, err)
	return e.Agent
}

func TestFor(t *testing.T) {
	ctx := t.Context()
	store, err := control.Open(ctx, control.Config{Path: filepath.Join(t.TempDir(), "control.db")})
	must(t, err)
	defer func() { must(t, store.Close()) }()
	must(t, store.CreateTenant(ctx, "acme", "Acme"))
	agent := enrolled(t, store, "acme")
	file := filepath.Join(t.TempDir(), "ca", "config.key")
	key, err := OpenKey(file, true)
	must(t, err)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info, err)
	}
	now := time.Now()
	s, err := New(store, key, func() time.Time { return now })
	must(t, err)
	der, err := s.Key()
	must(t, err)
	public, err := identity.ParsePublicKey(predicate.Ed25519, der)
	must(t, err)

	if b, err := s.For(ctx, "acme", agent, 0, time.Time{}); b != nil || err != nil {
		t.Errorf("nothing was set: %s, %v", b, err)
	}
	_, err = store.SetFleetConfig(ctx, "acme", control.FleetConfig{Settings: `{"heartbeat":"1m0s"}`, CreatedBy: "ada"})
	must(t, err)
	b, err := s.For(ctx, "acme", agent, 0, time.Time{})
	must(t, err)
	d, err := remoteconfig.Open(b, remoteconfig.Holder{Tenant: "acme", Agent: agent, Key: public}, now)
	if err != nil || d.Version != 1 || d.Settings.Heartbeat != remoteconfig.Span(time.Minute) || !d.NotAfter.Time().Equal(predicate.At(now.Add(Life)).Time()) {
		t.Errorf("%+v, %v", d, err)
	}
	end := d.NotAfter.Time()
	if b, err := s.For(ctx, "acme", agent, 1, end); b != nil || err != nil {
		t.Errorf("it has that one: %s, %v", b, err)
	}
	now = now.Add(Life/2 + time.Minute)
	again, err := s.For(ctx, "acme", agent, 1, end)
	must(t, err)
	d, err = remoteconfig.Open(again, remoteconfig.Holder{Tenant: "acme", Agent: agent, Key: public, Version: 1}, now)
	if err != nil || d.Version != 1 || bytes.Equal(again, b) || !d.NotAfter.Time().After(end) {
		t.Errorf("one that is about to end: %+v, %v", d, err)
	}
	if b, err := s.For(ctx, "rival", agent, 0, time.Time{}); b != nil || err != nil {
		t.Errorf("another tenant: %s, %v", b, err)
	}
	// The key stays, and one that is named is not made.
	same, err := OpenKey(file, true)
	must(t, err)
	if same.Public().ID() != key.Public().ID() {
		t.Error("another key after a restart")
	}
	if _, err := OpenKey(file+".other", false); err == nil {
		t.Error("a key that was named was made")
	}
	curve, err := identity.Generate(predicate.ECDSAP256)
	must(t, err)
	if _, err := New(store, curve, nil); err == nil {
		t.Error("a key of another kind was taken")
	}
}
