package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/embedded/clickhouse/enginetest"
	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/aggregator/internal/serve/api"
	"github.com/cavra/cavra/aggregator/internal/servetest"
	"github.com/cavra/cavra/sdk/attest"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }

// running serves a fleet's API and returns the flags that reach it. change, if
// not nil, sees every request first.
func running(t *testing.T, f *servetest.Fleet, change func(*http.Request)) []string {
	t.Helper()
	handler, err := api.New(api.Config{
		Service: f.Service, Gate: f.Gate, Control: f.Store, Agents: f, Ready: f.Store.Ping, Version: "test",
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: f.Clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if change != nil {
			change(r)
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(f.Token(access.DefaultTenant, t.Name(), access.Admin)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--server", server.URL, "--token-file", file}
}

// run runs a command line.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := root()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestExportFollowsThePages(t *testing.T) {
	f := servetest.Start(t)
	pages := 0
	flags := running(t, f, func(r *http.Request) {
		// Of two statements each: the first page ends between the sides of a fork.
		pages++
		q := r.URL.Query()
		q.Set("limit", "2")
		r.URL.RawQuery = q.Encode()
	})
	file := filepath.Join(t.TempDir(), "chain.json")
	if _, err := run(t, append([]string{"export", "--agent", f.Agents["notebook"], "--output", file}, flags...)...); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// What `cavra verify` reads: these members and no other.
	var doc struct {
		Envelopes []json.RawMessage `json:"envelopes"`
		Keys      []serve.ExportKey `json:"keys"`
		Logs      []serve.LogProof  `json:"logs"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{string(f.Envelopes["fork-a"]): true, string(f.Envelopes["fork-b"]): true, string(f.Envelopes["early"]): true}
	for _, envelope := range doc.Envelopes {
		if _, err := attest.Open(envelope); err != nil {
			t.Error(err)
		}
		delete(want, string(envelope))
	}
	if len(doc.Envelopes) != 4 || len(want) != 0 || len(doc.Keys) != 1 || pages != 2 {
		t.Errorf("%d envelopes, %d missing, %d keys, %d pages", len(doc.Envelopes), len(want), len(doc.Keys), pages)
	}
	shown, err := run(t, append([]string{"export", "--agent", f.Agents["notebook"]}, flags...)...)
	if diff := cmp.Diff(string(raw), shown); err != nil || diff != "" {
		t.Errorf("on standard output: %v (-file +output):\n%s", err, diff)
	}
	_, err = run(t, append([]string{"export", "--agent", "nobody", "--output", file + ".2"}, flags...)...)
	var p *problem
	if !errors.As(err, &p) || p.Status != http.StatusNotFound {
		t.Errorf("of an agent that is not there: %v", err)
	}
	if _, err := os.Stat(file + ".2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a failed export left a file: %v", err)
	}
}

func TestAgents(t *testing.T) {
	f := servetest.Start(t)
	flags := running(t, f, nil)
	shown, err := run(t, append([]string{"agents", "--limit", "2"}, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Fleet of 5 agents", "│ critical │ forked", "2 of 5 agents", "network_namespace", "cavra-formats sha256:", "More: --offset 2"} {
		if !strings.Contains(shown, want) {
			t.Errorf("the fleet does not show %q:\n%s", want, shown)
		}
	}
	var list serve.AgentList
	raw, err := run(t, append([]string{"agents", "--all", "--trouble", "less_isolated", "--format", "json"}, flags...)...)
	if err == nil {
		err = json.Unmarshal([]byte(raw), &list)
	}
	if err != nil || len(list.Agents) != 3 || list.Total != 3 || list.Fleet.Agents.Total != 5 {
		t.Errorf("those that are less isolated: %v, %+v", err, list)
	}
}

func TestFleetConfig(t *testing.T) {
	f := servetest.Start(t)
	flags := running(t, f, nil)
	for args, want := range map[string]string{
		"set": "requires at least 1 arg", "set heartbeat": "want NAME=VALUE", "set jobs=1 jobs=2": "each name once",
		"set privacy=names": "for the installation alone", "set jbos=1": "not known", "set interval=1s": "not within",
	} {
		if _, err := run(t, append(append([]string{"fleet", "config"}, strings.Fields(args)...), flags...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want it to say %q", args, err, want)
		}
	}
	for _, args := range [][]string{{"set", "heartbeat=1m", "jobs=1"}, {"set", "spool_max_bytes=100000000", "--agent", f.Agents["notebook"]}, {"clear"}} {
		if _, err := run(t, append(append([]string{"fleet", "config"}, args...), flags...)...); err != nil {
			t.Fatal(err)
		}
	}
	shown, err := run(t, append([]string{"fleet", "config", "show"}, flags...)...)
	for _, want := range []string{"heartbeat=1m0s jobs=1", "spool_max_bytes=100000000", "taken back", f.Agents["notebook"]} {
		if err != nil || !strings.Contains(shown, want) {
			t.Errorf("%v: the history does not show %q:\n%s", err, want, shown)
		}
	}
}

func TestAgentsRevoke(t *testing.T) {
	f := servetest.Start(t)
	flags := running(t, f, nil)
	if _, err := run(t, append([]string{"agents", "revoke", f.Agents["notebook"]}, flags...)...); err != nil {
		t.Fatal(err)
	}
	var p *problem
	if _, err := run(t, append([]string{"agents", "revoke", f.Agents["elsewhere"]}, flags...)...); !errors.As(err, &p) || p.Status != http.StatusNotFound {
		t.Errorf("another tenant's agent: %v", err)
	}
	raw, err := run(t, append([]string{"agents", "--format", "json"}, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	var list serve.AgentList
	if err := json.Unmarshal([]byte(raw), &list); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, a := range list.Agents {
		got[a.Name] = a.Status
	}
	want := map[string]string{"gpu-node-7": "online", "notebook": "revoked", "ci-runner": "stale", "new-here": "never", "lost-laptop": "revoked"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
	shown, err := run(t, append([]string{"posture"}, flags...)...)
	if err != nil || !strings.Contains(shown, "2 revoked") {
		t.Errorf("posture: %v\n%s", err, shown)
	}
}

func TestIngest(t *testing.T) {
	f := servetest.Start(t)
	flags := running(t, f, nil)
	shown, err := run(t, append([]string{"ingest"}, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3 lost", "stopped", "[40, 60)", "stalled", "1200"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in\n%s", want, shown)
		}
	}
	give := []string{"ingest", "give-up", "--partition", "2", "--from", "40", "--reason", "the disk was replaced"}
	var p *problem
	if _, err := run(t, slices.Concat(give, []string{"--next", "59"}, flags)...); !errors.As(err, &p) || p.Status != http.StatusConflict {
		t.Errorf("another plan: %v", err)
	}
	if _, err := run(t, slices.Concat(give, flags)...); err == nil || !strings.Contains(err.Error(), "next") {
		t.Errorf("without a flag: %v", err)
	}
	if _, err := run(t, slices.Concat(give, []string{"--next", "60"}, flags)...); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"2 [40, 60) by TestIngest: the disk was replaced"}, f.GivenUp); diff != "" {
		t.Errorf("given up (-want +got):\n%s", diff)
	}
}
