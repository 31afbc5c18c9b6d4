package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func load(t *testing.T, text string) (Config, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, File), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(dir)
}

const scope = "scopes:\n- {connector: fs, root: /models}\n"

func TestLoad(t *testing.T) {
	c, err := load(t, scope+"interval: 90s\n")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	if c.Interval != Duration(90*time.Second) || c.Heartbeat != want.Heartbeat || c.Spool != want.Spool || len(c.Scopes) != 1 {
		t.Errorf("%+v", c)
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"no scope":        {"interval: 1m\n", "name at least one"},
		"a typo":          {scope + "privcy: strict\n", `did you mean "privacy"?`},
		"privacy":         {scope + "privacy: none\n", "want one of strict, names"},
		"a relative root": {"scopes:\n- {connector: fs, root: models}\n", "want an absolute path"},
		"a time span":     {scope + "interval: soon\n", "no time span"},
		"a tiny spool":    {scope + "spool: {max_bytes: 5}\n", "spool.max_bytes"},
		"jobs":            {scope + "jobs: 0\n", "jobs: 0"},
	} {
		if _, err := load(t, tt.text); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), File) {
			t.Errorf("%s: got %v, want it to name %s and %q", name, err, File, tt.want)
		}
	}
}

func TestTheExampleLoads(t *testing.T) {
	text, err := os.ReadFile("../../../deploy/examples/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, string(text)); err != nil {
		t.Error(err)
	}
}
