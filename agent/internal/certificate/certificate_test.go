package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/diskio/diskfault"
	"github.com/cavra/cavra/sdk/identity"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var serials int64

// certify makes a certificate of a key, by an authority that nobody knows.
func certify(t *testing.T, k *identity.Key) []byte {
	t.Helper()
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	serials++
	c := &x509.Certificate{SerialNumber: big.NewInt(serials), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public().Crypto(), ca)
	must(t, err)
	return der
}

// rotate goes through a whole rotation, as far as the disk lets it.
func rotate(t *testing.T, f *Folder, generation uint64) error {
	t.Helper()
	k, err := f.Candidate()
	if err != nil {
		return err
	}
	if err := f.Certify(certify(t, k), Service{Address: "127.0.0.1:8481"}); err != nil {
		return err
	}
	return f.Switch(generation)
}

// whole holds that what a folder says it has is there, and nothing else.
func whole(t *testing.T, f *Folder, what string) {
	t.Helper()
	held := 0
	for _, h := range []*Held{f.State().Active, f.State().Candidate} {
		if h == nil {
			continue
		}
		held++
		k, err := f.Key(h)
		if err == nil && h.DER != nil {
			_, err = k.TLS(h.DER)
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if keys, err := filepath.Glob(filepath.Join(f.dir, "tls-*")); err != nil || len(keys) != held {
		t.Errorf("%s: %d keys for %d, %v", what, len(keys), held, err)
	}
}

// TestDiskThatFails lets every single operation of a rotation fail, and goes on
// with what is left: the certificate in use is never lost.
func TestDiskThatFails(t *testing.T) {
	for n := 0; ; n++ {
		dir := t.TempDir()
		f, err := Open(diskio.OS{}, dir)
		must(t, err)
		must(t, rotate(t, f, 1))
		left := n
		broken := diskfault.FS{Under: diskio.OS{}, Fail: func(diskfault.Op, string) error {
			if left--; left < 0 {
				return errors.New("the disk fails")
			}
			return nil
		}}
		f, err = Open(broken, dir)
		must(t, err)
		failed := rotate(t, f, 2)
		if f, err = Open(diskio.OS{}, dir); err != nil {
			t.Fatalf("operation %d: %v", n, err)
		}
		must(t, f.Tidy())
		whole(t, f, "after a failure")
		if a := f.State().Active; a == nil || a.Generation < 1 {
			t.Fatalf("operation %d: no certificate in use is left", n)
		}
		must(t, rotate(t, f, 3))
		whole(t, f, "after the next rotation")
		if failed == nil {
			if n < 10 {
				t.Errorf("a rotation took %d operations", n)
			}
			return
		}
	}
}

func TestUnsureIsRemembered(t *testing.T) {
	f, err := Open(diskio.OS{}, t.TempDir())
	must(t, err)
	k, err := f.Candidate()
	must(t, err)
	der := certify(t, k)
	must(t, f.Certify(der, Service{}))
	must(t, f.Discard())
	leaf, err := identity.ParseCertificate(der)
	must(t, err)
	if again, err := Open(diskio.OS{}, f.dir); err != nil || string(again.State().Unsure) != string(leaf.SerialNumber.Bytes()) || again.State().Candidate != nil {
		t.Errorf("%+v, %v", again.State(), err)
	}
	must(t, rotate(t, f, 1))
	if f.State().Unsure != nil {
		t.Error("it is unsure after a certificate was confirmed")
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "{", "a key elsewhere": `{"active":{"key_file":"../key.pem"}}`, "no key": `{"active":{"certificate":"AAAA"}}`,
	} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, stateFile), []byte(text), 0o600))
		if _, err := Open(diskio.OS{}, dir); err == nil {
			t.Errorf("%s was opened", name)
		}
	}
}
