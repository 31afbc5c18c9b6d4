package agent

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/agent/internal/inspect/pluginhost"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/plugin"
)

// TestConnectorReadsItsRootsOnly has the connector of files list and open what is
// below its roots, wherever these are by now, and nothing beside them.
func TestConnectorReadsItsRootsOnly(t *testing.T) {
	if err := build(); err != nil {
		t.Fatal(err)
	}
	catalogue, err := finding.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put := func(path, content string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // models
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("agent/key", "secret")
	put("models/a", "first")
	if err := os.Symlink("../agent/key", filepath.Join(dir, "models", "link")); err != nil {
		t.Fatal(err)
	}
	host, err := pluginhost.New(pluginhost.Config{
		Dir: bin, Catalogue: catalogue, Workers: 1, Distrust: func([]finding.Finding) bool { return false }, Sandbox: plugin.SandboxRequire,
	})
	if err != nil {
		t.Fatal(err)
	}
	models, later := filepath.Join(dir, "models"), filepath.Join(dir, "later")
	c, err := host.Connector(t.Context(), pluginhost.Files, pluginhost.Reach{Roots: []string{models, later}})
	if errors.Is(err, plugin.ErrSandbox) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	read := func(root string) map[string]string {
		t.Helper()
		out := make(map[string]string)
		for item, err := range c.List(t.Context(), root) {
			if err != nil {
				out["list"] = "refused"
				break
			}
			r, err := c.Open(t.Context(), root, item.Key)
			if err != nil {
				out[item.Path] = "refused"
				continue
			}
			b, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
			if err := errors.Join(err, r.Close()); err != nil {
				t.Error(err)
			}
			out[item.Path] = string(b)
		}
		return out
	}
	want := func(root string, files map[string]string) {
		t.Helper()
		if diff := cmp.Diff(files, read(root)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", root, diff)
		}
	}
	want(models, map[string]string{"a": "first", "link": "refused"})
	want(dir, map[string]string{"list": "refused"})
	put("later/b", "second")
	want(later, map[string]string{"b": "second"})
	if err := os.Rename(models, filepath.Join(dir, "old")); err != nil {
		t.Fatal(err)
	}
	put("models/c", "third")
	want(models, map[string]string{"c": "third"})
	want(filepath.Join(dir, "old"), map[string]string{"list": "refused"})
}
