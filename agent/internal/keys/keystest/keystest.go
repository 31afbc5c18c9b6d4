// Package keystest gives tests real holders of keys: a moto server, which
// answers as AWS KMS does, behind a proxy that counts the calls; and a token of
// SoftHSM. Both belong to one test and end with it.
package keystest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

//go:embed kms_server.py
var motoServer []byte

// KMS is a moto server.
type KMS struct {
	mu    sync.Mutex
	calls map[string]int
	// longest is the longest request, in bytes.
	longest int64
}

// Calls returns how often an operation was asked for since the last Forget.
func (k *KMS) Calls(operation string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls[operation]
}

// Longest is the length of the longest request, in bytes.
func (k *KMS) Longest() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.longest
}

func (k *KMS) count(r *http.Request) {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls[operation]++
	k.longest = max(k.longest, r.ContentLength)
}

// StartKMS starts moto's server with the Python that CAVRA_MOTO_PYTHON names, and points the
// AWS SDK of this process at it.
func StartKMS(t *testing.T) *KMS {
	t.Helper()
	python := os.Getenv("CAVRA_MOTO_PYTHON")
	if python == "" {
		t.Fatal("CAVRA_MOTO_PYTHON names no Python that has moto: run `make test-keys`")
	}
	program := filepath.Join(t.TempDir(), "kms_server.py")
	if err := os.WriteFile(program, motoServer, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(address, ":")
	cmd := exec.Command(python, program, "-H", "127.0.0.1", "-p", port)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Log(log.String())
		}
	})
	target := &url.URL{Scheme: "http", Host: address}
	await(t, target)
	k := &KMS{calls: map[string]int{}}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.count(r)
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": server.URL, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
		"AWS_CONFIG_FILE": filepath.Join(t.TempDir(), "none"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(t.TempDir(), "none"), "AWS_PROFILE": "",
		"AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
	return k
}

func await(t *testing.T, server *url.URL) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.String()+"/moto-api/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := http.DefaultClient.Do(r); err == nil {
			if err := answer.Body.Close(); err != nil {
				t.Fatal(err)
			}
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("moto does not answer")
		}
	}
}

// Key makes a key and returns its ARN.
func (k *KMS) Key(t *testing.T, spec types.KeySpec) string {
	t.Helper()
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := kms.NewFromConfig(cfg).CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: spec, KeyUsage: types.KeyUsageTypeSignVerify})
	if err != nil {
		t.Fatal(err)
	}
	return *out.KeyMetadata.Arn
}

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// PIN opens the token.
const PIN = "correct horse"

// Token makes a SoftHSM token with a P-256 key and returns the key's URI; the
// PIN is in a file that it names.
func Token(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", write("softhsm2.conf", "directories.tokendir = "+filepath.Join(dir, "tokens")+"\nobjectstore.backend = file\n"))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	run(t, "softhsm2-util", "--init-token", "--free", "--label", "cavra test", "--so-pin", "not used", "--pin", PIN)
	run(t, "softhsm2-util", "--import", file, "--token", "cavra test", "--label", "agent", "--id", "01", "--pin", PIN)
	return fmt.Sprintf("pkcs11:token=cavra%%20test;object=agent?module-path=%s&pin-source=file:%s", softHSM, write("pin", PIN+"\n"))
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}
