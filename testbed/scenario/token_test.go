//go:build keys

package scenario

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// token makes a SoftHSM token with a P-256 key. It returns the key's URI and the
// file of its public half.
func token(t *testing.T, dir string) (uri, public string) {
	t.Helper()
	write := func(name, kind string, b []byte) string {
		t.Helper()
		if kind != "" {
			b = pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", write("softhsm2.conf", "", []byte("directories.tokendir = "+tokens+"\nobjectstore.backend = file\n")))
	file, pin := write("held.pem", "PRIVATE KEY", private), write("pin", "", []byte("correct horse\n"))
	for _, args := range [][]string{
		{"--init-token", "--free", "--label", "cavra", "--so-pin", "not used", "--pin", "correct horse"},
		{"--import", file, "--token", "cavra", "--label", "agent", "--id", "01", "--pin", "correct horse"},
	} {
		if out, err := exec.Command("softhsm2-util", args...).CombinedOutput(); err != nil {
			t.Fatalf("softhsm2-util: %v: %s", err, out)
		}
	}
	return fmt.Sprintf("pkcs11:token=cavra;object=agent?module-path=%s&pin-source=file:%s", softHSM, pin), write("K.pem", "PUBLIC KEY", der)
}

// TestAgentWithAToken: a key in a token certifies the keys of an agent, the
// aggregator takes its statements in, and all of them verify from that key alone.
func TestAgentWithAToken(t *testing.T) {
	dir := folder(t)
	uri, public := token(t, dir)
	w := embedded(t, dir, programs(t))
	a := w.enrol("agent", "--key", uri)
	w.feed(10)
	w.must(a.RunOnce(w.ctx))
	if out := w.cavra(0, nil, "agent", "rotate", "--dir", a.Dir()); !strings.Contains(out, "epoch 2") {
		t.Errorf("rotated: %s", out)
	}
	w.feed(10)
	// What is in the token is not needed to scan.
	if err := os.Rename(filepath.Join(dir, "tokens"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	w.must(a.RunOnce(w.ctx))
	if out := w.cavra(0, nil, "agent", "status", "--dir", a.Dir()); !strings.Contains(out, "certified by") || !strings.Contains(out, "pkcs11:token=cavra") {
		t.Errorf("the status does not say where the key is:\n%s", out)
	}
	for _, unattributed := range []bool{false, true} {
		if refused, err := w.aggregator.Quarantine(w.ctx, unattributed); err != nil || len(refused) > 0 {
			t.Errorf("refused: %+v, %v", refused, err)
		}
	}
	file := w.export(a)
	out := w.cavra(0, nil, "verify", file, "--key", public, "--complete")
	if strings.Count(out, "certified by") != 2 {
		t.Errorf("two epochs of certified keys verify:\n%s", out)
	}
	other := publicPEM(t, filepath.Join(dir, "other.pem"), w.author(a).Key.Public())
	w.cavra(1, nil, "verify", file, "--key", other)
}
