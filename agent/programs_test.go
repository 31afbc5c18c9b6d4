package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/cavra/cavra/agent/internal/config"
)

// bin is where the plugin programs are built to.
var bin string

func TestMain(m *testing.M) {
	code, err := tested(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func tested(m *testing.M) (code int, err error) {
	if bin, err = os.MkdirTemp("", "cavra-agent-test-"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	// Another user runs them too.
	if err := os.Chmod(bin, 0o755); err != nil {
		return 1, err
	}
	if code = m.Run(); code == 0 {
		err = goleak.Find()
	}
	return code, err
}

// build makes the real plugins, once, for the tests that run them.
var build = sync.OnceValue(func() error {
	out, err := exec.Command("go", "build", "-C", "../plugins", "-o", bin+"/", "./cmd/cavra-formats", "./cmd/cavra-connector-fs").CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
})

// looksAfter gives the agent a folder to look after, and its plugins.
func (w *world) looksAfter(root string) {
	w.t.Helper()
	w.cfg.Settings.Scopes = []config.Scope{{Connector: "fs", Root: root}}
	w.cfg.Settings.Jobs = 2
	w.cfg.Settings.PluginDir = os.Getenv(binVar)
	if w.cfg.Settings.PluginDir == "" {
		w.cfg.Settings.PluginDir = bin
		if err := build(); err != nil {
			w.t.Fatal(err)
		}
	}
	w.save()
}
