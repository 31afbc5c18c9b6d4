package agent

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/agent/internal/config"
)

// index serves files to whoever bears the token, over HTTPS.
func index(t *testing.T, files map[string]string, token string) *httptest.Server {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/models/")
		content, ok := files[path]
		switch {
		case r.Header.Get("Authorization") != "Bearer "+token:
			w.WriteHeader(http.StatusUnauthorized)
		case path == "index.json":
			entries := []map[string]any{}
			for path, content := range files {
				entries = append(entries, map[string]any{"path": path, "size": len(content), "revision": content})
			}
			_ = json.NewEncoder(w).Encode(entries)
		case ok:
			http.ServeContent(w, r, path, time.Time{}, bytes.NewReader([]byte(content)))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// TestRoundsOverARemoteRegistry has a connector that is built on the sdk alone list
// and open over HTTPS, from within the sandbox, with a credential from a file; and
// what a scope does not allow is refused, counted and told.
func TestRoundsOverARemoteRegistry(t *testing.T) {
	r := newRounds(t)
	plugins := t.TempDir()
	out, err := exec.Command("go", "build", "-C", "../testbed", "-o", plugins+"/", "./registry/cmd/cavra-connector-index").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, name := range []string{"cavra-connector-fs", "cavra-formats"} {
		if err := os.Link(filepath.Join(r.cfg.Settings.PluginDir, name), filepath.Join(plugins, name)); err != nil {
			t.Fatal(err)
		}
	}
	server := index(t, map[string]string{"a.txt": "a text\n", "sub/b.txt": "b text\n"}, "first")
	for _, content := range []string{"a text\n", "b text\n"} {
		r.know(content)
	}
	secrets := t.TempDir()
	token, authority := filepath.Join(secrets, "token"), filepath.Join(secrets, "ca.pem")
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(token, []byte("first\n"))
	write(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	r.cfg.Settings.PluginDir = plugins
	scope := func(egress string) config.Scope {
		return config.Scope{
			Connector: "index", Root: server.URL + "/models", Egress: []string{egress},
			Credentials: map[string]string{"token": token}, Authority: authority,
		}
	}
	all := told{Scanned: []string{"a", "b"}, Listed: []string{"a.txt a", "sub/b.txt b"}, Complete: true}
	at := server.Listener.Addr().String()
	r.cfg.Settings.Scopes = []config.Scope{scope(at)}
	r.save()
	if diff := cmp.Diff(all, r.once()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// The registry has moved to where the scope does not allow.
	r.cfg.Settings.Scopes = []config.Scope{scope("registry.example:443")}
	r.save()
	a := r.open()
	if err := a.round(t.Context()); err != nil {
		t.Error(err)
	}
	if got := a.standing().Refused; got == 0 {
		t.Error("no attempt was counted")
	}
	r.close(a)

	// A credential that is replaced while the agent runs is the one that is used.
	r.cfg.Settings.Scopes = []config.Scope{scope(at)}
	r.save()
	write(token, []byte("second\n"))
	a = r.open()
	defer r.close(a)
	listing := func() error {
		for _, err := range a.connector[connectorOf(scope(at))].List(t.Context(), server.URL+"/models") {
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := listing(); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("a wrong credential: %v", err)
	}
	write(token+".new", []byte("first\n"))
	if err := os.Rename(token+".new", token); err != nil {
		t.Fatal(err)
	}
	if err := listing(); err != nil {
		t.Errorf("the new credential: %v", err)
	}
	if shown := fmt.Sprint(r.cfg.Settings.LogValue(), scope(at).LogValue()); strings.Contains(shown, secrets) {
		t.Errorf("the log shows where credentials are: %s", shown)
	}
}
