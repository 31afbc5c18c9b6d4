//go:build keys

package keys_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/cavra/cavra/agent/internal/keys"
	"github.com/cavra/cavra/agent/internal/keys/keystest"
	"github.com/cavra/cavra/agent/internal/keys/pkcs11"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

// holds tries what every holder has to do.
func holds(t *testing.T, h identity.Holder) {
	t.Helper()
	der, err := h.Public().DER()
	if err != nil {
		t.Fatal(err)
	}
	public, err := identity.ParsePublicKey(predicate.ECDSAP256, der)
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range [][]byte{{}, []byte("a statement"), bytes.Repeat([]byte("long "), 100_000)} {
		sig, err := h.Sign(t.Context(), message)
		if err != nil {
			t.Fatal(err)
		}
		if !public.Verify(message, sig) || public.Verify(append([]byte("x"), message...), sig) {
			t.Errorf("the signature over %d bytes is not that of the message", len(message))
		}
	}
	if h.Describe() == "" || strings.Contains(h.Describe(), keystest.PIN) {
		t.Errorf("it describes itself as %q", h.Describe())
	}
}

func TestKMS(t *testing.T) {
	server := keystest.StartKMS(t)
	h, err := keys.Open(t.Context(), "kms:"+server.Key(t, types.KeySpecEccNistP256), nil)
	if err != nil {
		t.Fatal(err)
	}
	holds(t, h)
	if n := server.Calls("Sign"); n != 3 {
		t.Errorf("three signatures took %d calls", n)
	}
	if n := server.Longest(); n > 1024 {
		t.Errorf("a request had %d bytes: more than a digest went to KMS", n)
	}
	for name, id := range map[string]string{
		"another curve":  server.Key(t, types.KeySpecEccNistP384),
		"RSA":            server.Key(t, types.KeySpecRsa2048),
		"none":           "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-0000-0000-000000000000",
		"another ARN":    "arn:aws:s3:::bucket",
		"a damaged ARN":  "arn:aws",
		"no name at all": "",
	} {
		if h, err := keys.Open(t.Context(), "kms:"+id, nil); err == nil {
			t.Errorf("%s: it opens as %s", name, h.Describe())
		}
	}
}

// program builds the program that loads a token's library.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), pkcs11.Program)
	if out, err := exec.Command("go", "build", "-o", path, "github.com/cavra/cavra/agent/cmd/cavra-pkcs11").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func TestToken(t *testing.T) {
	config := func(uri string) pkcs11.Config {
		t.Helper()
		u, err := pkcs11.ParseURI(uri)
		if err != nil {
			t.Fatal(err)
		}
		return pkcs11.Config{URI: u}
	}
	uri, path := keystest.Token(t), program(t)
	cfg := config(uri)
	cfg.Program = path
	h, err := pkcs11.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	holds(t, h)

	bare, _, _ := strings.Cut(uri, "&pin-source")
	asked := config(bare)
	asked.Program, asked.Ask = path, func() (string, error) { return keystest.PIN, nil }
	if h, err = pkcs11.Open(t.Context(), asked); err != nil {
		t.Fatal(err)
	}
	holds(t, h)

	open := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(open, []byte(keystest.PIN), 0o644); err != nil {
		t.Fatal(err)
	}
	for problem, uri := range map[string]string{
		"nobody to ask":     bare,
		"others can read":   bare + "&pin-source=" + open,
		"0 tokens match":    strings.Replace(uri, "cavra%20test", "another", 1),
		"0 or more public":  strings.Replace(uri, "object=agent", "object=other", 1),
		"load PKCS #11":     strings.Replace(uri, "libsofthsm2.so", "libnone.so", 1),
		"C_GetFunctionList": "pkcs11:object=a?module-path=" + libc(t) + "&pin-source=" + pinFile(uri),
	} {
		cfg := config(uri)
		cfg.Program = path
		if _, err := pkcs11.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: %v, want %q", uri, err, problem)
		}
	}
	wrong := asked
	wrong.Ask = func() (string, error) { return "wrong", nil }
	if _, err := pkcs11.Open(t.Context(), wrong); err == nil || !strings.Contains(err.Error(), "the PIN is wrong") {
		t.Errorf("a wrong PIN: %v", err)
	}
}

func pinFile(uri string) string {
	_, file, _ := strings.Cut(uri, "pin-source=file:")
	return file
}

// libc is a shared library that speaks no PKCS #11.
func libc(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/lib/*/libc.so.6")
	if err != nil || len(found) == 0 {
		t.Skip("no C library to be found")
	}
	return found[0]
}
