package config

import (
	"fmt"
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

// remote is a scope of a remote registry with more settings.
func remote(more string) string { return "scopes:\n- {connector: oci, root: models, " + more + "}\n" }

// TestASecretInTheConfiguration holds that a secret that is written where its file's
// name belongs is not shown.
func TestASecretInTheConfiguration(t *testing.T) {
	if _, err := load(t, remote(`egress: ["a.example:443"], credentials: {token: s3cr3t}`)); err == nil || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("got %v", err)
	}
	c, err := load(t, remote(`egress: ["a.example:443", 10.0.0.0/8], credentials: {token: /run/s3cr3t}, authority: /etc/ca.pem`))
	if err != nil || !c.Scopes[0].Remote() {
		t.Fatalf("%+v, %v", c, err)
	}
	if shown := fmt.Sprint(c.LogValue(), c.Scopes[0].LogValue()); strings.Contains(shown, "s3cr3t") {
		t.Error(shown)
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
		"an old key":      {"scopes:\n- {connector: fs, root: /models}\nkey: {max_age: 2161h}\n", "key.max_age"},
		"egress of files": {"scopes:\n- {connector: fs, root: /models, egress: [\"a.example:443\"]}\n", "reaches no network"},
		"a prefix":        {remote("egress: [\"*.example:443\"]"), "scopes[0].egress"},
		"no port":         {remote("egress: [a.example]"), "want host:port"},
		"a typo in one":   {remote("egres: [\"a.example:443\"]"), `did you mean "egress"?`},
		"no place":        {remote("credentials: {token: /run/token}"), "no place that the connector may reach"},
		"only a network":  {remote("egress: [10.0.0.0/8]"), "no place that the connector may reach"},
		"a relative file": {remote("egress: [\"a.example:443\"], credentials: {token: token}"), "scopes[0].credentials.token: want the absolute path"},
		"a name":          {remote("egress: [\"a.example:443\"], credentials: {A token: /run/token}"), "scopes[0].credentials"},
		"an authority":    {remote("egress: [\"a.example:443\"], authority: ca.pem"), "scopes[0].authority"},
		"one twice":       {remote("egress: [\"a.example:443\"]") + "- {connector: oci, root: models}\n", "the same connector and root as scopes[0]"},
	} {
		if _, err := load(t, tt.text); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), File) {
			t.Errorf("%s: got %v, want it to name %s and %q", name, err, File, tt.want)
		}
	}
}

// TestTheDocumentedScopeLoads takes the scope of a remote registry from the page that
// describes it.
func TestTheDocumentedScopeLoads(t *testing.T) {
	page, err := os.ReadFile("../../../docs/zero-trust.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(page), "```yaml\nscopes:")
	text, _, _ := strings.Cut("scopes:"+block, "```")
	c, err := load(t, text)
	if err != nil || !c.Scopes[0].Remote() || c.Scopes[0].Authority == "" {
		t.Errorf("%+v, %v", c.Scopes, err)
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
