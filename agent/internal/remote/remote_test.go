package remote

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/agent/internal/config"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/sdk/remoteconfig"
)

// world is an agent's folder and an aggregator that signs.
type world struct {
	t   *testing.T
	key *identity.Key
	now time.Time
	cfg Config
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	w.key = w.another()
	local := config.Default()
	local.Scopes = []config.Scope{{Connector: "fs", Root: "/models"}}
	local.RemoteConfig, local.Jobs = config.RemoteOn, 4
	w.cfg = Config{
		Dir: t.TempDir(), Tenant: "acme", Agent: "a1", Key: w.der(w.key), Local: local,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: func() time.Time { return w.now },
	}
	return w
}

func (w *world) another() *identity.Key {
	w.t.Helper()
	k, err := identity.Generate(predicate.Ed25519)
	must(w.t, err)
	return k
}

func (w *world) der(k *identity.Key) []byte {
	w.t.Helper()
	der, err := k.Public().DER()
	must(w.t, err)
	return der
}

func (w *world) open() *Remote {
	w.t.Helper()
	r, err := Open(w.t.Context(), w.cfg)
	must(w.t, err)
	return r
}

func (w *world) document(version uint64, set remoteconfig.Settings, change ...func(*remoteconfig.Document)) []byte {
	w.t.Helper()
	d := remoteconfig.Document{
		Tenant: "acme", Agent: "a1", Version: version, IssuedAt: predicate.At(w.now), NotAfter: predicate.At(w.now.Add(time.Hour)), Settings: set,
	}
	for _, c := range change {
		c(&d)
	}
	b, err := remoteconfig.Sign(d, w.key)
	must(w.t, err)
	return b
}

func (w *world) take(r *Remote, envelope []byte) {
	w.t.Helper()
	must(w.t, r.Take(w.t.Context(), envelope))
}

// stands checks which version holds, and what was refused.
func (w *world) stands(r *Remote, version uint64, refused *predicate.RefusedConfiguration) {
	w.t.Helper()
	if diff := cmp.Diff(&predicate.Configuration{Remote: true, Version: version, Refused: refused}, r.Standing()); diff != "" {
		w.t.Errorf("standing (-want +got):\n%s", diff)
	}
}

const minute = remoteconfig.Span(time.Minute)

func TestTake(t *testing.T) {
	w := newWorld(t)
	r := w.open()
	own, changed := r.Settings()
	w.take(r, w.document(3, remoteconfig.Settings{Heartbeat: minute, Jobs: 2, SpoolMaxBytes: 100 << 20}))
	select {
	case <-changed:
	default:
		t.Error("nobody was told that the settings changed")
	}
	want := own
	want.Heartbeat, want.Jobs, want.Spool.MaxBytes = config.Duration(time.Minute), 2, 100<<20
	for name, r := range map[string]*Remote{"at once": r, "after a restart": w.open()} {
		got, _ := r.Settings()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		w.stands(r, 3, nil)
		if takes, version, end := r.Have(); !takes || version != 3 || !end.Equal(w.now.Add(time.Hour)) {
			t.Errorf("%s: %t, version %d until %s", name, takes, version, end)
		}
	}
	// The next one sets everything anew, and nothing is its own again.
	w.take(r, w.document(4, remoteconfig.Settings{}))
	if got, _ := r.Settings(); cmp.Diff(own, got) != "" {
		t.Errorf("after nothing was set: %+v", got)
	}
	w.stands(r, 4, nil)
}

func TestRefuse(t *testing.T) {
	heartbeat := remoteconfig.Settings{Heartbeat: minute}
	raw := func(w *world, payload string) []byte {
		b, err := attest.SignKind(remoteconfig.PayloadType, []byte(payload), w.key)
		must(w.t, err)
		return b
	}
	const head = `{"tenant":"acme","agent":"a1","version":9,"issued_at":"2026-01-02T03:04:05.000Z","not_after":"2026-01-02T04:04:05.000Z","settings":`
	for name, tt := range map[string]struct {
		envelope func(w *world) []byte
		want     predicate.RefusedConfiguration
	}{
		"of another aggregator": {func(w *world) []byte {
			w.key = w.another()
			return w.document(9, heartbeat)
		}, predicate.RefusedConfiguration{Reason: predicate.ConfigurationBadSignature}},
		"another tenant's": {func(w *world) []byte {
			return w.document(9, heartbeat, func(d *remoteconfig.Document) { d.Tenant = "rival" })
		}, predicate.RefusedConfiguration{Version: 9, Reason: predicate.ConfigurationWrongTenant}},
		"another agent's": {func(w *world) []byte {
			return w.document(9, heartbeat, func(d *remoteconfig.Document) { d.Agent = "a2" })
		}, predicate.RefusedConfiguration{Version: 9, Reason: predicate.ConfigurationWrongAgent}},
		"rolled back": {func(w *world) []byte { return w.document(4, heartbeat) },
			predicate.RefusedConfiguration{Version: 4, Reason: predicate.ConfigurationRolledBack}},
		"expired": {func(w *world) []byte {
			return w.document(9, heartbeat, func(d *remoteconfig.Document) { d.NotAfter = predicate.At(w.now) })
		}, predicate.RefusedConfiguration{Version: 9, Reason: predicate.ConfigurationExpired}},
		"more than the machine's share": {func(w *world) []byte { return w.document(9, remoteconfig.Settings{Jobs: 5}) },
			predicate.RefusedConfiguration{Version: 9, Reason: predicate.ConfigurationOutOfBounds}},
		"more than the disk's share": {func(w *world) []byte { return w.document(9, remoteconfig.Settings{SpoolMaxBytes: 2 << 30}) },
			predicate.RefusedConfiguration{Version: 9, Reason: predicate.ConfigurationOutOfBounds}},
		"scopes": {func(w *world) []byte {
			return raw(w, head+`{"heartbeat":"1m0s","scopes":[{"connector":"fs","root":"/"}]}}`)
		},
			predicate.RefusedConfiguration{Version: 9, Reason: predicate.ConfigurationLocal}},
		"itself": {func(w *world) []byte { return raw(w, head+`{"remote_config":"on"}}`) },
			predicate.RefusedConfiguration{Version: 9, Reason: predicate.ConfigurationLocal}},
		"an unknown setting": {func(w *world) []byte { return raw(w, head+`{"heart_beat":"1m0s"}}`) },
			predicate.RefusedConfiguration{Version: 9, Reason: predicate.ConfigurationUnknown}},
		"oversized": {func(*world) []byte { return make([]byte, remoteconfig.MaxEnvelope+1) },
			predicate.RefusedConfiguration{Reason: predicate.ConfigurationTooLarge}},
		"rubbish": {func(*world) []byte { return []byte("{}") },
			predicate.RefusedConfiguration{Reason: predicate.ConfigurationMalformed}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := w.open()
			w.take(r, w.document(5, remoteconfig.Settings{Interval: 10 * minute}))
			good, key := w.document(6, heartbeat), w.key
			w.take(r, tt.envelope(w))
			w.key = key
			// What held goes on to hold, over a restart as well, and the refusal is
			// remembered until something is taken.
			for _, r := range []*Remote{r, w.open()} {
				if s, _ := r.Settings(); s.Interval != config.Duration(10*time.Minute) || s.Heartbeat == config.Duration(time.Minute) {
					t.Errorf("it holds %+v", s)
				}
				w.stands(r, 5, &tt.want)
			}
			w.take(r, good)
			w.stands(r, 6, nil)
		})
	}
}

func TestExpiry(t *testing.T) {
	w := newWorld(t)
	r := w.open()
	own, _ := r.Settings()
	w.take(r, w.document(3, remoteconfig.Settings{Heartbeat: minute}))
	w.now = w.now.Add(time.Hour)
	for name, r := range map[string]*Remote{"at once": r, "after a restart": w.open()} {
		if got, _ := r.Settings(); cmp.Diff(own, got) != "" {
			t.Errorf("%s: %+v holds after its end", name, got)
		}
		w.stands(r, 0, nil)
	}
	// It forgets none of what came before.
	r = w.open()
	w.take(r, w.document(2, remoteconfig.Settings{Heartbeat: minute}))
	w.stands(r, 0, &predicate.RefusedConfiguration{Version: 2, Reason: predicate.ConfigurationRolledBack})
	w.take(r, w.document(3, remoteconfig.Settings{Heartbeat: minute}))
	w.stands(r, 3, nil)
}

func TestTheInstallationDecides(t *testing.T) {
	w := newWorld(t)
	w.take(w.open(), w.document(3, remoteconfig.Settings{Jobs: 3}))
	document := w.document(4, remoteconfig.Settings{Jobs: 1})

	// The installation gives less than it did.
	w.cfg.Local.Jobs = 2
	r := w.open()
	if s, _ := r.Settings(); s.Jobs != 2 {
		t.Errorf("%d jobs", s.Jobs)
	}
	w.stands(r, 0, nil)

	w.cfg.Local.RemoteConfig = config.RemoteOff
	r = w.open()
	w.take(r, document)
	if s, _ := r.Settings(); s.Jobs != 2 || r.Standing().Remote {
		t.Errorf("with remote_config off: %+v", s)
	}
	if _, err := os.Stat(filepath.Join(w.cfg.Dir, File)); err != nil {
		t.Error(err)
	}
	w.cfg.Local.RemoteConfig, w.cfg.Key = config.RemoteOn, nil
	r = w.open()
	w.take(r, document)
	if s, _ := r.Settings(); s.Jobs != 2 || r.Standing().Remote {
		t.Errorf("enrolled without a key: %+v", s)
	}
	// Enrolled anew, with another aggregator: what the first one said counts for
	// nothing.
	w.key = w.another()
	w.cfg.Key = w.der(w.key)
	r = w.open()
	w.take(r, w.document(1, remoteconfig.Settings{Jobs: 1}))
	w.stands(r, 1, nil)
}

func TestADamagedFileIsSaid(t *testing.T) {
	w := newWorld(t)
	must(t, os.WriteFile(filepath.Join(w.cfg.Dir, File), []byte("{"), 0o600))
	if _, err := Open(t.Context(), w.cfg); err == nil {
		t.Error("it was passed over")
	}
}
