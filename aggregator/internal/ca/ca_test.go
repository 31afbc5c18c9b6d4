package ca

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string, now func() time.Time) *Authority {
	t.Helper()
	a, err := Open(Config{Dir: dir, TrustDomain: "cavra.test", Life: time.Hour, Now: now})
	must(t, err)
	return a
}

func key(t *testing.T, alg predicate.Algorithm) *identity.Key {
	t.Helper()
	k, err := identity.Generate(alg)
	must(t, err)
	return k
}

func TestIssue(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	a := open(t, dir, func() time.Time { return now })
	k := key(t, predicate.ECDSAP256)
	got, err := a.Issue("acme", "a1", "agent-acme-a1", k.Public())
	must(t, err)
	c, err := identity.ParseCertificate(got.DER)
	must(t, err)
	if _, err := k.TLS(got.DER); err != nil {
		t.Error(err)
	}
	if _, err := key(t, predicate.ECDSAP256).TLS(got.DER); err == nil {
		t.Error("another key was taken with it")
	}
	if !got.NotAfter.Equal(now.Add(time.Hour)) || !c.NotAfter.Equal(got.NotAfter) || c.Subject.CommonName != "agent-acme-a1" || string(c.SerialNumber.Bytes()) != string(got.Serial) {
		t.Errorf("until %s, for %q", c.NotAfter, c.Subject)
	}
	if uri := "spiffe://cavra.test/tenant/acme/agent/a1"; len(c.URIs) != 1 || c.URIs[0].String() != uri {
		t.Errorf("names %v, want %s", c.URIs, uri)
	}
	if !a.IsAgent(c, "acme", "a1") || a.IsAgent(c, "acme", "a2") || a.IsAgent(c, "rival", "a1") {
		t.Error("it is taken for another agent's, or not for its own")
	}
	// The same folder is the same authority; another is another.
	again := open(t, dir, func() time.Time { return now })
	opts := x509.VerifyOptions{Roots: again.pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := c.Verify(opts); err != nil || again.Bundle() != a.Bundle() {
		t.Errorf("after a restart: %v", err)
	}
	opts.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if _, err := c.Verify(opts); err == nil {
		t.Error("an agent can pass for the aggregator")
	}
	opts.KeyUsages, opts.Roots = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, open(t, t.TempDir(), func() time.Time { return now }).pool
	if _, err := c.Verify(opts); err == nil {
		t.Error("another authority verifies it")
	}
	server, err := a.ServerCertificate()
	must(t, err)
	if _, err := server.Leaf.Verify(x509.VerifyOptions{Roots: a.pool, CurrentTime: now, DNSName: a.ServerName()}); err != nil {
		t.Error(err)
	}
	if _, err := server.Leaf.Verify(x509.VerifyOptions{Roots: a.pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("the service's certificate passes for an agent's")
	}
	now = now.Add(20 * 24 * time.Hour)
	if next, err := a.ServerCertificate(); err != nil || next == server {
		t.Errorf("the service's certificate is not made anew: %v", err)
	}
	for _, name := range []string{KeyFile, CertificateFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if name == KeyFile && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, info.Mode())
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	one, other := t.TempDir(), t.TempDir()
	a := open(t, one, nil)
	open(t, other, nil)
	leafDir := t.TempDir()
	k := key(t, predicate.ECDSAP256)
	_, err := a.Issue("acme", "a1", "x", k.Public())
	must(t, err)
	edKey, err := key(t, predicate.Ed25519).MarshalPEM()
	must(t, err)
	ed := filepath.Join(leafDir, "ed.pem")
	must(t, os.WriteFile(ed, edKey, 0o600))
	file := func(dir, name string) string { return filepath.Join(dir, name) }
	for name, tt := range map[string]struct {
		cfg  Config
		want string
	}{
		"another's key":     {Config{Certificate: file(one, CertificateFile), Key: file(other, KeyFile)}, "not the key"},
		"no such key":       {Config{Certificate: file(one, CertificateFile), Key: file(one, "none")}, "none"},
		"an Ed25519 key":    {Config{Certificate: file(one, CertificateFile), Key: ed}, "P-256"},
		"a key for a cert":  {Config{Certificate: file(one, KeyFile), Key: file(one, KeyFile)}, "malformed"},
		"its time is over":  {Config{Dir: one, Now: func() time.Time { return time.Now().Add(2 * rootLife) }}, "good from"},
		"no trust domain":   {Config{Dir: one, TrustDomain: "Cavra_Test"}, "trust domain"},
		"for too long":      {Config{Dir: one, Life: MaxLife + 1}, "want"},
		"not for a minute":  {Config{Dir: one, Life: time.Second}, "want"},
		"an Ed25519 client": {Config{}, "ed25519"},
	} {
		if name == "an Ed25519 client" {
			if _, err := a.Issue("acme", "a1", "x", key(t, predicate.Ed25519).Public()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if tt.cfg.TrustDomain == "" {
			tt.cfg.TrustDomain = "cavra.test"
		}
		if tt.cfg.Life == 0 {
			tt.cfg.Life = time.Hour
		}
		if _, err := Open(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
