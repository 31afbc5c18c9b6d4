package index

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cavra/cavra/sdk/conform"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/plugin"
	"github.com/cavra/cavra/sdk/reach"
	"github.com/cavra/cavra/testbed/registry"
)

const token = "a-token-of-the-test"

func files() map[string][]byte {
	return map[string][]byte{"a.bin": []byte("a few bytes"), "dir/b.bin": bytes.Repeat([]byte("0123456789abcdef"), 200_000), "empty": {}}
}

// asRegistry makes the test program a registry, since the kits count what this
// process has open: it serves until its input ends.
const asRegistry = "REGISTRY_OF_THE_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(asRegistry) == "" {
		code := m.Run()
		_ = os.RemoveAll(programs)
		os.Exit(code)
	}
	server := registry.Serve(files(), token)
	fmt.Printf("%s\n%s", server.URL, registry.Authority(server))
	_ = os.Stdout.Close()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// serve starts a registry, and returns its address, and its certificate in PEM.
func serve(t *testing.T) (at string, authority []byte) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), asRegistry+"=1")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(input.Close(), cmd.Wait()) })
	said, err := io.ReadAll(output)
	if err != nil {
		t.Fatal(err)
	}
	url, authority, _ := bytes.Cut(said, []byte("\n"))
	return strings.TrimPrefix(string(url), "https://"), authority
}

// TestConnector runs the kit as an author would, without a host.
func TestConnector(t *testing.T) {
	at, authority := serve(t)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	access := connector.Access{
		Dial: (&net.Dialer{}).DialContext, Connections: 8, Authorities: pool, Credentials: map[string]string{"token": token + "\n"},
	}
	conform.Connector(t, func() connector.Connector { return New(access) }, conform.Scope{
		Root: "https://" + at + "/models", Missing: "https://" + at + "/absent", Want: files(),
	})
}

// programs is where build puts the program, until the tests are over.
var programs string

var build = sync.OnceValues(func() (string, error) {
	var err error
	if programs, err = os.MkdirTemp("", "cavra-registry-test-"); err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-o", programs, "../cmd/cavra-connector-index").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return filepath.Join(programs, "cavra-connector-index"), nil
})

// launch starts the program in the sandbox, with a way to the places of a list.
func launch(t *testing.T, cfg plugin.Egress) *plugin.Connector {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	p, err := plugin.Launch(t.Context(), plugin.Config{Path: bin, Sandbox: plugin.SandboxRequire, Egress: &cfg})
	if errors.Is(err, plugin.ErrSandbox) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	c, err := p.Connector(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func listed(t *testing.T, entries ...string) reach.List {
	t.Helper()
	l, err := reach.Parse(entries)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestConnectorInTheSandbox runs the kit on the program, confined, over HTTPS by way
// of its host.
func TestConnectorInTheSandbox(t *testing.T) {
	at, authority := serve(t)
	c := launch(t, plugin.Egress{
		Allow: listed(t, at), Credentials: map[string][]byte{"token": []byte(token + "\n")}, Authorities: authority,
	})
	conform.Connector(t, func() connector.Connector { return hosted{c} }, conform.Scope{
		Root: "https://" + at + "/models", Missing: "https://" + at + "/absent", Want: files(),
	})
	if n := c.Refused(); n != 0 {
		t.Errorf("%d attempts were refused", n)
	}
}

// hosted ends its process when the kit is done, and with it what it keeps open.
type hosted struct{ *plugin.Connector }

func (h hosted) Close() error { return h.Process().Close() }

// TestScopesThatDoNotAllow lists by scopes that leave something out.
func TestScopesThatDoNotAllow(t *testing.T) {
	at, authority := serve(t)
	place := netip.MustParseAddrPort(at)
	secret := map[string][]byte{"token": []byte(token)}
	for name, tt := range map[string]struct {
		egress  plugin.Egress
		says    string
		refused bool
	}{
		"no place":      {plugin.Egress{Credentials: secret, Authorities: authority}, "not on the list", true},
		"another port":  {plugin.Egress{Allow: listed(t, netip.AddrPortFrom(place.Addr(), place.Port()^1).String()), Credentials: secret}, "not on the list", true},
		"no credential": {plugin.Egress{Allow: listed(t, at), Authorities: authority}, "name its file in the scope's credentials", false},
		"a wrong one":   {plugin.Egress{Allow: listed(t, at), Credentials: map[string][]byte{"token": []byte("x")}, Authorities: authority}, "401", false},
		"no authority":  {plugin.Egress{Allow: listed(t, at), Credentials: secret}, "unknown authority", false},
	} {
		c := launch(t, tt.egress)
		var err error
		for _, err = range c.List(t.Context(), "https://"+at+"/models") {
			if err == nil {
				t.Errorf("%s: something is listed", name)
			}
		}
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
		if (c.Refused() > 0) != tt.refused {
			t.Errorf("%s: %d refused", name, c.Refused())
		}
	}
}
