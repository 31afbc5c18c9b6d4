package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/embedded/clickhouse/enginetest"
	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/aggregator/internal/servetest"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/topic"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/logproof"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }

// client asks a handler, each time from another address, so that failures are
// counted apart.
type client struct {
	tb      testing.TB
	handler http.Handler
	from    netip.Addr
}

func newClient(tb testing.TB, f *servetest.Fleet) *client {
	tb.Helper()
	h, err := New(Config{
		Service: f.Service, Gate: f.Gate, Control: f.Store, Agents: f, Ready: f.Store.Ping, Version: "test",
		Log: slog.New(slog.NewTextHandler(tb.Output(), nil)), Now: f.Clock,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return &client{tb, h, netip.MustParseAddr("10.0.0.1")}
}

// ask sends one request; header is a list of names and values.
func (c *client) ask(method, target, body string, header ...string) *httptest.ResponseRecorder {
	c.tb.Helper()
	c.from = c.from.Next()
	r := httptest.NewRequestWithContext(c.tb.Context(), method, target, strings.NewReader(body))
	r.RemoteAddr = c.from.String() + ":1"
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	return w
}

func bearer(token string) []string {
	if token == "" {
		return nil
	}
	return []string{"Authorization", "Bearer " + token}
}

// get reads a document.
func (c *client) get(token, target string, into any) {
	c.tb.Helper()
	w := c.ask(http.MethodGet, target, "", bearer(token)...)
	if w.Code != http.StatusOK {
		c.tb.Fatalf("GET %s: %d %s", target, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
		c.tb.Fatal(err)
	}
}

// sample is a good request for an operation.
func sample(f *servetest.Fleet, o operation, n int) (target, body string) {
	target = strings.NewReplacer(
		"/artifacts/{digest}", "/artifacts/"+string(f.Artifacts["reverse-shell"]),
		"/statements/{digest}", "/statements/"+string(f.Statements["reverse-shell"]),
		"{id}", f.Agents["notebook"], "{name}", fmt.Sprintf("spare-%d", n)).Replace(o.path)
	switch o.op.OperationID {
	case "create-join-token":
		body = `{"ttl_seconds":60,"agent_name":"x"}`
	case "revoke-agent":
		target = strings.Replace(target, f.Agents["notebook"], f.Agents["lost-laptop"], 1)
	case "create-aws-rule":
		body = fmt.Sprintf(`{"name":"made-%d","arn":"arn:aws:sts::123456789012:assumed-role/gpu/*"}`, n)
	case "delete-aws-rule":
		_ = f.Store.CreateAWSRule(context.Background(), control.AWSRule{
			Tenant: access.DefaultTenant, Name: fmt.Sprintf("spare-%d", n), ARN: "arn:aws:iam::123456789012:user/ada", AgentName: "x", CreatedBy: "test",
		})
	case "give-up-plan":
		body = `{"partition":2,"from":40,"next":60,"reason":"the disk was replaced"}`
	case "set-fleet-configuration":
		body = `{"settings":{"heartbeat":"1m","jobs":1}}`
	case "create-token":
		body = fmt.Sprintf(`{"name":"made-%d","scopes":["tokens:write"]}`, n)
	}
	return target, body
}

func TestAuthorizationOfEveryOperation(t *testing.T) {
	f := servetest.Start(t)
	c := newClient(t, f)
	admin := access.Principal{Tenant: access.DefaultTenant, Name: "test", Scopes: []access.Scope{access.Admin}}
	expired, err := f.Gate.CreateToken(t.Context(), admin, "expired", []access.Scope{access.Admin}, f.Now.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	f.Now = f.Now.Add(2 * time.Second)
	revoked := f.Token(access.DefaultTenant, "revoked", access.Admin)
	if err := f.Gate.RevokeToken(t.Context(), admin, "revoked"); err != nil {
		t.Fatal(err)
	}
	unknown, _ := access.Generate(access.KindAPI)
	join, err := f.Gate.CreateJoinToken(t.Context(), admin, "", "x", f.Now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string][]string{
		"no token": nil, "an unknown token": bearer(unknown), "an expired token": bearer(expired), "a revoked token": bearer(revoked),
		"a join token": bearer(join), "another scheme": {"Authorization", "Basic " + unknown}, "an empty token": {"Authorization", "Bearer "},
		"an unknown session": {"Cookie", "cavra-session=" + unknown, "Sec-Fetch-Site", "same-origin"},
		"a token as session": {"Cookie", "cavra-session=" + f.Token(access.DefaultTenant, "cookie", access.Admin), "Sec-Fetch-Site", "same-origin"},
	}
	tokens := map[access.Scope]string{}
	for _, scope := range access.Scopes() {
		tokens[scope] = f.Token(access.DefaultTenant, "only "+string(scope), scope)
	}
	n := 0
	for _, o := range all(t) {
		for who, header := range bad {
			n++
			target, body := sample(f, o, n)
			w := c.ask(o.method, target, body, header...)
			if w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") == "" || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s %s with %s: %d %s", o.method, o.path, who, w.Code, w.Body)
			}
		}
		for scope, token := range tokens {
			n++
			f.Token(access.DefaultTenant, fmt.Sprintf("spare-%d", n), access.PostureRead)
			target, body := sample(f, o, n)
			w := c.ask(o.method, target, body, bearer(token)...)
			if allowed := scope == o.scope || scope == access.Admin; allowed != (w.Code/100 == 2) || !allowed && w.Code != http.StatusForbidden {
				t.Errorf("%s %s with the scope %s: %d %s", o.method, o.path, scope, w.Code, w.Body)
			}
		}
	}
}

func TestFleet(t *testing.T) {
	f := servetest.Start(t)
	for name, check := range map[string]func(*testing.T, *servetest.Fleet){
		"tenants are apart": tenantsAreApart, "figures are the fleet's": figuresAreTheFleets,
		"artifacts page by page": artifactsPageByPage, "fleet page by page": fleetPages, "envelope is exact": envelopeIsExact,
		"evidence page by page": evidencePageByPage, "ingest is the operator's": ingestIsTheOperators,
		"evidence is in the log": evidenceIsInTheLog, "what is odd": whatIsOdd,
	} {
		t.Run(name, func(t *testing.T) { check(t, f) })
	}
}

func tenantsAreApart(t *testing.T, f *servetest.Fleet) {
	c := newClient(t, f)
	ours, theirs := f.Token(access.DefaultTenant, t.Name()+"ours", access.Admin), f.Token(servetest.OtherTenant, t.Name()+"theirs", access.Admin)
	for _, o := range all(t) {
		if !strings.Contains(o.path, "{") {
			continue
		}
		target, body := sample(f, o, 0)
		if w := c.ask(o.method, target, body, bearer(theirs)...); w.Code != http.StatusNotFound {
			t.Errorf("%s %s of another tenant: %d %s", o.method, o.path, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/v1/artifacts/" + string(f.Artifacts["theirs"]), "/v1/statements/" + string(f.Statements["theirs"]) + "/envelope", "/v1/agents/" + f.Agents["elsewhere"]} {
		if w := c.ask(http.MethodGet, path, "", bearer(ours)...); w.Code != http.StatusNotFound {
			t.Errorf("GET %s of another tenant: %d", path, w.Code)
		}
	}
	// A tenant is not to be asked for.
	if w := c.ask(http.MethodGet, "/v1/posture?tenant=other", "", bearer(ours)...); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("posture with a tenant in the query: %d %s", w.Code, w.Body)
	}
	if w := c.ask(http.MethodPost, "/v1/join-tokens", `{"ttl_seconds":60,"agent":"`+f.Agents["notebook"]+`"}`, bearer(theirs)...); w.Code != http.StatusNotFound {
		t.Errorf("join token for another tenant's agent: %d %s", w.Code, w.Body)
	}
	if w := c.ask(http.MethodGet, "/v1/quarantine?unattributed=true", "", bearer(theirs)...); w.Code != http.StatusForbidden {
		t.Errorf("what names no tenant, for a tenant's admin: %d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/v1/posture", "/v1/artifacts", "/v1/exposures", "/v1/agents", "/v1/agent-events", "/v1/quarantine", "/v1/tokens"} {
		text := c.ask(http.MethodGet, path, "", bearer(theirs)...).Body.String()
		for name, id := range f.Agents {
			if name != "elsewhere" && strings.Contains(text, id) {
				t.Errorf("GET %s shows agent %s of another tenant", path, name)
			}
		}
		for name, digest := range f.Artifacts {
			if name != "theirs" && strings.Contains(text, digest.Hex()) {
				t.Errorf("GET %s shows artifact %s of another tenant", path, name)
			}
		}
	}
}

func figuresAreTheFleets(t *testing.T, f *servetest.Fleet) {
	c := newClient(t, f)
	token := f.Token(access.DefaultTenant, t.Name()+"ours", access.Admin)
	var p serve.Posture
	c.get(token, "/v1/posture", &p)
	score := 40.0
	want := serve.Posture{
		Tenant: access.DefaultTenant, AsOf: f.Now, Score: &score, ScoreDefinition: p.ScoreDefinition,
		Artifacts: serve.ArtifactCounts{Total: 10, Pass: 4, Warn: 1, Fail: 2, Error: 2, Unassessed: 1}, References: serve.ReferenceCounts{Total: 14, Unreadable: 1},
		Exposures: serve.SeverityCounts{Total: 14, Critical: 2, High: 3, Medium: 6, Low: 3}, Agents: serve.AgentCounts{Total: 5, Online: 2, Stale: 1, Never: 1, Revoked: 1},
		Statements: serve.StatementOutcome{Linked: 20, Early: 1, Forked: 1, Replayed: 1, Refused: 1},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("posture (-want +got):\n%s", diff)
	}
	for path, reasons := range map[string][]string{
		"/v1/quarantine": {"bad_signature"}, "/v1/quarantine?unattributed=true": {"malformed_envelope", "unknown_key"},
	} {
		var list serve.RefusedList
		c.get(token, path, &list)
		var got []string
		for _, r := range list.Refused {
			got = append(got, r.Reason)
		}
		if diff := cmp.Diff(reasons, got); diff != "" {
			t.Errorf("GET %s (-want +got):\n%s", path, diff)
		}
	}
	var a serve.Agent
	c.get(token, "/v1/agents/"+f.Agents["notebook"], &a)
	if len(a.Chains) != 1 || len(a.Chains[0].Gaps) != 1 || len(a.Chains[0].Forks) != 1 {
		t.Errorf("chains of the notebook: %+v", a.Chains)
	}
}

// fleetPages: the worst agents come first, page by page each once, and what
// narrows the list narrows nothing of the fleet.
func fleetPages(t *testing.T, f *servetest.Fleet) {
	c := newClient(t, f)
	token := f.Token(access.DefaultTenant, t.Name(), access.AgentsRead)
	var all serve.AgentList
	c.get(token, "/v1/agents", &all)
	troubles := map[string][]string{}
	for _, a := range all.Agents {
		for _, t := range a.Troubles {
			troubles[a.Name] = append(troubles[a.Name], t.Kind)
		}
	}
	if diff := cmp.Diff(map[string][]string{
		"notebook": {"forked", "cloned", "gap", "less_isolated"}, "gpu-node-7": {"less_isolated", "clock_off"},
		"ci-runner": {"less_isolated", "stale", "key_replaced"},
	}, troubles); diff != "" {
		t.Errorf("troubles (-want +got):\n%s", diff)
	}
	if first, last := all.Agents[0], all.Agents[len(all.Agents)-1]; first.Name != "notebook" || last.Name != "lost-laptop" || last.Status != "revoked" {
		t.Errorf("from %s to %s", first.Name, last.Name)
	}
	if all.Total != 5 || all.Fleet.Agents.Total != 5 || all.Fleet.Severities.Critical != 1 || all.Fleet.Severities.High != 2 || all.Next != 0 {
		t.Errorf("the fleet: %+v", all)
	}
	for _, a := range all.Agents {
		if a.Name == "notebook" && !slices.Equal(a.SandboxMissing, []string{"empty_environment", "landlock", "network_namespace", "no_new_privs", "rlimits", "seccomp"}) {
			t.Errorf("missing at the notebook: %v", a.SandboxMissing)
		}
	}
	var names []string
	for offset := uint32(0); ; {
		var page serve.AgentList
		c.get(token, fmt.Sprintf("/v1/agents?limit=2&offset=%d", offset), &page)
		for _, a := range page.Agents {
			names = append(names, a.Name)
		}
		if diff := cmp.Diff(all.Fleet, page.Fleet); diff != "" {
			t.Errorf("the fleet of a page (-want +got):\n%s", diff)
		}
		if offset = page.Next; offset == 0 {
			break
		}
	}
	slices.Sort(names)
	if want := []string{"ci-runner", "gpu-node-7", "lost-laptop", "new-here", "notebook"}; !slices.Equal(names, want) {
		t.Errorf("page by page: %v", names)
	}
	for query, want := range map[string]int{
		"trouble=less_isolated": 3, "trouble=backlog": 0, "status=revoked": 1, "q=NODE": 1, "q=" + f.Agents["notebook"]: 1, "q=elsewhere": 0,
		"trouble=less_isolated&status=stale": 1, "offset=5": 0,
	} {
		var list serve.AgentList
		c.get(token, "/v1/agents?"+query, &list)
		if len(list.Agents) != want {
			t.Errorf("%s: %d agents, want %d", query, len(list.Agents), want)
		}
	}
	for _, query := range []string{"trouble=evil", "status=gone", "limit=501", "offset=-1"} {
		if w := c.ask(http.MethodGet, "/v1/agents?"+query, "", bearer(token)...); w.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", query, w.Code)
		}
	}
}

// whatIsOdd: each tenant sees its own, and the operator what belongs to none.
func whatIsOdd(t *testing.T, f *servetest.Fleet) {
	c := newClient(t, f)
	ours, theirs := f.Token(access.DefaultTenant, t.Name()+"ours", access.Admin), f.Token(servetest.OtherTenant, t.Name()+"theirs", access.Admin)
	reader := f.Token(access.DefaultTenant, t.Name()+"reader", access.AgentsRead)
	kinds := func(token, query string) (out []string, unknown bool) {
		var list serve.AgentEventList
		c.get(token, "/v1/agent-events"+query, &list)
		for _, e := range list.Events {
			out = append(out, e.Kind)
		}
		slices.Sort(out)
		return out, list.UnknownTokens != nil && *list.UnknownTokens == 1
	}
	for name, tt := range map[string]struct {
		token, query string
		want         []string
		operator     bool
	}{
		"the operator":        {ours, "", []string{"clock_skew", "cloned", "token_reused"}, true},
		"whoever reads":       {reader, "", []string{"clock_skew", "cloned", "token_reused"}, false},
		"of one agent":        {ours, "?agent=" + f.Agents["notebook"], []string{"cloned"}, true},
		"another tenant":      {theirs, "", []string{"restored"}, false},
		"of another tenant's": {theirs, "?agent=" + f.Agents["notebook"], nil, false},
	} {
		got, operator := kinds(tt.token, tt.query)
		if diff := cmp.Diff(tt.want, got); diff != "" || operator != tt.operator {
			t.Errorf("%s: sees unknown tokens: %t; events (-want +got):\n%s", name, operator, diff)
		}
	}
	var a serve.Agent
	c.get(ours, "/v1/agents/"+f.Agents["gpu-node-7"], &a)
	if a.Contact == nil || !a.Contact.ClockOff || a.Contact.ClockSkew != -7380 || a.Contact.Generation != 1 {
		t.Errorf("its contact: %+v", a.Contact)
	}
}

// fleetConfigured: what is set is listed, what no aggregator may set is refused in
// words, and an agent that has not got it is shown.
func fleetConfigured(t *testing.T, f *servetest.Fleet) {
	c := newClient(t, f)
	token := f.Token(access.DefaultTenant, t.Name(), access.Admin)
	post := func(body string) *httptest.ResponseRecorder {
		return c.ask(http.MethodPost, "/v1/fleet/configurations", body, bearer(token)...)
	}
	for body, want := range map[string]string{
		`{"settings":{"heartbeat":"1s"}}`:                   "heartbeat: 1s is not within",
		`{"settings":{"heartbeat":"soon"}}`:                 "no time span",
		`{"settings":{"spool_max_bytes":5}}`:                "spool_max_bytes: 5 is less",
		`{"settings":{"scopes":[]}}`:                        "unexpected property",
		`{"settings":{"privacy":"names"},"agent":"nobody"}`: "unexpected property",
	} {
		if w := post(body); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	for _, agent := range []string{"nobody", f.Agents["elsewhere"]} {
		if w := post(`{"settings":{"jobs":1},"agent":"` + agent + `"}`); w.Code != http.StatusNotFound {
			t.Errorf("on %s: %d %s", agent, w.Code, w.Body)
		}
	}
	var list serve.FleetConfigList
	c.get(token, "/v1/fleet/configurations?limit=1", &list)
	before := uint64(0)
	if len(list.Configurations) > 0 {
		before = list.Configurations[0].Version
	}
	for i, body := range []string{`{"settings":{"heartbeat":"60s","jobs":1}}`, `{"agent":"` + f.Agents["gpu-node-7"] + `","settings":{}}`, `{}`} {
		w := post(body)
		var made serve.FleetConfig
		if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Code != http.StatusCreated || made.Version != before+uint64(i)+1 {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	c.get(token, "/v1/fleet/configurations", &list)
	last, first := list.Configurations[0], list.Configurations[2]
	if !last.Cleared || last.Agent != "" || last.CreatedBy != t.Name() || first.Settings != (serve.FleetSettings{Heartbeat: "1m0s", Jobs: 1}) || first.Cleared {
		t.Errorf("history: %+v", list)
	}
	c.get(token, fmt.Sprintf("/v1/fleet/configurations?limit=1&before=%d", last.Version), &list)
	if len(list.Configurations) != 1 || list.Configurations[0].Agent != f.Agents["gpu-node-7"] || list.Next != before+2 {
		t.Errorf("the page after: %+v", list)
	}
	var a serve.Agent
	c.get(token, "/v1/agents/"+f.Agents["gpu-node-7"], &a)
	if a.Configuration == nil || a.Configuration.Wanted != before+3 || !slices.ContainsFunc(a.Troubles, func(t serve.Trouble) bool { return t.Kind == "configuration_drift" }) {
		t.Errorf("an agent that has not got it: %+v, %+v", a.Configuration, a.Troubles)
	}
	theirs := f.Token(servetest.OtherTenant, t.Name(), access.Admin)
	c.get(theirs, "/v1/fleet/configurations", &list)
	if len(list.Configurations) != 0 {
		t.Errorf("another tenant sees %+v", list)
	}
}

func artifactsPageByPage(t *testing.T, f *servetest.Fleet) {
	c := newClient(t, f)
	token := f.Token(access.DefaultTenant, t.Name()+"ours", access.PostureRead)
	seen := map[predicate.Digest]bool{}
	after := ""
	for range 20 {
		var list serve.ArtifactList
		c.get(token, "/v1/artifacts?limit=3&after="+after, &list)
		for _, a := range list.Artifacts {
			if seen[a.Digest] {
				t.Errorf("%s is listed twice", a.Digest)
			}
			seen[a.Digest] = true
		}
		if after = list.Next; after == "" {
			break
		}
	}
	if len(seen) != 11 { // ten files and a bundle
		t.Errorf("%d artifacts", len(seen))
	}
}

func envelopeIsExact(t *testing.T, f *servetest.Fleet) {
	c := newClient(t, f)
	token := f.Token(access.DefaultTenant, t.Name()+"ours", access.PostureRead)
	for _, name := range []string{"reverse-shell", "fork-a", "fork-b", "inventory"} {
		digest := f.Statements[name]
		w := c.ask(http.MethodGet, "/v1/statements/"+string(digest)+"/envelope", "", bearer(token)...)
		if w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), f.Envelopes[name]) {
			t.Errorf("%s: %d, %d bytes of %d", name, w.Code, w.Body.Len(), len(f.Envelopes[name]))
		}
		want := `attachment; filename="` + digest.Hex() + `.dsse.json"`
		if w.Header().Get("Content-Type") != topic.ContentType || w.Header().Get("Content-Disposition") != want {
			t.Errorf("%s: headers %v", name, w.Header())
		}
	}
	var export serve.Export
	c.get(token, "/v1/artifacts/"+string(f.Artifacts["reverse-shell"])+"/evidence", &export)
	if len(export.Envelopes) != 1 || !bytes.Equal(export.Envelopes[0], f.Envelopes["reverse-shell"]) || len(export.Keys) != 1 {
		t.Errorf("export: %+v", export)
	}
}

func ingestIsTheOperators(t *testing.T, f *servetest.Fleet) {
	c := newClient(t, f)
	ours, theirs := f.Token(access.DefaultTenant, t.Name()+"ours", access.Admin), f.Token(servetest.OtherTenant, t.Name()+"theirs", access.Admin)
	// Another aggregator has partition 5.
	if err := f.Store.RecordPlan(t.Context(), &control.Plan{Topic: topic.Statements, Partition: 5, Next: 9, Count: 9, Owner: "other"}); err != nil {
		t.Fatal(err)
	}
	var got serve.IngestHealth
	c.get(ours, "/v1/ingest", &got)
	want := serve.IngestHealth{
		Partitions: append(slices.Clone(f.Partitions), serve.IngestPartition{Partition: 5, State: "away"}),
		Lost:       3, LostRanges: []serve.LostRange{{First: got.LostRanges[0].First, Last: got.LostRanges[0].First + 2, At: f.Now.Add(-2 * time.Hour)}},
		GivenUp: []serve.GivenUp{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ingest (-want +got):\n%s", diff)
	}
	const path = "/v1/ingest/give-up"
	for body, code := range map[string]int{
		`{"partition":2,"from":40,"next":60,"reason":"the disk was replaced"}`: 204,
		`{"partition":2,"from":40,"next":61,"reason":"a typo"}`:                409,
		`{"partition":1,"from":7,"next":60,"reason":"it only lags"}`:           409,
		`{"partition":2,"from":40,"next":60,"reason":""}`:                      422,
		`{"partition":2,"from":40,"next":60}`:                                  422,
	} {
		if w := c.ask(http.MethodPost, path, body, bearer(ours)...); w.Code != code {
			t.Errorf("POST %s %s: %d %s", path, body, w.Code, w.Body)
		}
		if w := c.ask(http.MethodPost, path, body, bearer(theirs)...); w.Code == http.StatusNoContent {
			t.Errorf("POST %s %s by a tenant's admin: %d", path, body, w.Code)
		}
	}
	if w := c.ask(http.MethodGet, "/v1/ingest", "", bearer(theirs)...); w.Code != http.StatusForbidden {
		t.Errorf("GET /v1/ingest by a tenant's admin: %d %s", w.Code, w.Body)
	}
	by := "2 [40, 60) by " + t.Name() + "ours: the disk was replaced"
	if diff := cmp.Diff([]string{by}, f.GivenUp); diff != "" {
		t.Errorf("given up (-want +got):\n%s", diff)
	}
}

// evidenceIsInTheLog: every statement of an export is proven by the log, and the
// log's trees each extend the ones before.
func evidenceIsInTheLog(t *testing.T, f *servetest.Fleet) {
	c := newClient(t, f)
	token := f.Token(access.DefaultTenant, t.Name()+"ours", access.Admin)
	var state serve.LogState
	c.get(token, "/v1/log", &state)
	if state.Key != f.Evidence.Key() {
		t.Errorf("the log's key is %q", state.Key)
	}
	var export serve.Export
	c.get(token, "/v1/agents/"+f.Agents["notebook"]+"/evidence", &export)
	if len(export.Logs) != 1 || len(export.Logs[0].Entries) != len(export.Envelopes) {
		t.Fatalf("%d envelopes, proven by %+v", len(export.Envelopes), export.Logs)
	}
	tree, err := logproof.Open([]byte(export.Logs[0].Checkpoint), state.Key)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range export.Logs[0].Entries {
		envelope, err := attest.Open(export.Envelopes[i])
		if err != nil || envelope.Digest() != e.Statement {
			t.Errorf("entry %d is of %s: %v", i, e.Statement, err)
		}
		if err := tree.Includes(e.Statement, e.Index, e.Proof); err != nil {
			t.Error(err)
		}
	}
	if _, err := f.Evidence.Append(t.Context(), []predicate.Digest{predicate.DigestOf([]byte("more"))}); err != nil {
		t.Fatal(err)
	}
	var growth serve.LogGrowth
	c.get(token, fmt.Sprintf("/v1/log/growth?from=%d", tree.Size), &growth)
	grown, err := logproof.Open([]byte(growth.Checkpoint), state.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := grown.Extends(tree, growth.Proof); err != nil || grown.Size <= tree.Size {
		t.Errorf("from %d to %d: %v", tree.Size, grown.Size, err)
	}
	if w := c.ask(http.MethodGet, fmt.Sprintf("/v1/log/growth?from=%d", grown.Size+1), "", bearer(token)...); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("of a size that it has not: %d", w.Code)
	}
}

// evidencePageByPage: the notebook's chain has two statements at its second
// sequence, and a page of two ends between them.
func evidencePageByPage(t *testing.T, f *servetest.Fleet) {
	c := newClient(t, f)
	token := f.Token(access.DefaultTenant, t.Name()+"ours", access.Admin)
	path := "/v1/agents/" + f.Agents["notebook"] + "/evidence"
	var whole serve.Export
	c.get(token, path, &whole)
	if len(whole.Envelopes) != 4 || whole.Next != "" {
		t.Fatalf("%d envelopes, then %q", len(whole.Envelopes), whole.Next)
	}
	for limit := 1; limit <= 4; limit++ {
		var got []json.RawMessage
		after, pages := "", 0
		for {
			var page serve.Export
			c.get(token, fmt.Sprintf("%s?limit=%d&after=%s", path, limit, after), &page)
			if len(page.Envelopes) > limit || len(page.Keys) != 1 {
				t.Fatalf("a page of %d has %d envelopes and %d keys", limit, len(page.Envelopes), len(page.Keys))
			}
			got = append(got, page.Envelopes...)
			pages++
			if after = page.Next; after == "" {
				break
			}
		}
		if diff := cmp.Diff(whole.Envelopes, got); diff != "" || pages != (4+limit-1)/limit {
			t.Errorf("by %d: %d pages (-whole +got):\n%s", limit, pages, diff)
		}
	}
	for _, target := range []string{path, "/v1/artifacts/" + string(f.Artifacts["weights"]) + "/evidence"} {
		for _, after := range []string{"1", "1-2", "1-2-3", "x-2-" + strings.Repeat("f", 64), "1-" + strings.Repeat("g", 64), "-"} {
			if w := c.ask(http.MethodGet, target+"?after="+after, "", bearer(token)...); w.Code != http.StatusUnprocessableEntity {
				t.Errorf("GET %s?after=%s: %d", target, after, w.Code)
			}
		}
	}
}

func TestStoredEnvelopeThatChangedIsNotShown(t *testing.T) {
	f := servetest.Start(t)
	c := newClient(t, f)
	digest := f.Statements["reverse-shell"]
	// Whoever can write into the database still cannot sign: the newest row of
	// the statement's key is the one that is read.
	envelope := bytes.Replace(f.Envelopes["array"], []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1)
	if err := f.Conn.Exec(t.Context(), `ALTER TABLE statements UPDATE envelope = ? WHERE digest = ? SETTINGS mutations_sync = 2`, string(envelope), digest.Hex()); err != nil {
		t.Fatal(err)
	}
	token := f.Token(access.DefaultTenant, "ours", access.PostureRead)
	for _, path := range []string{"", "/envelope"} {
		w := c.ask(http.MethodGet, "/v1/statements/"+string(digest)+path, "", bearer(token)...)
		if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "does not verify") {
			t.Errorf("GET …%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestFleetConfigurations(t *testing.T) { fleetConfigured(t, servetest.Start(t)) }

func TestSessionsChangeThingsOnlyFromOurPages(t *testing.T) {
	f := servetest.Empty(t)
	c := newClient(t, f)
	cookie, err := f.Gate.Login(t.Context(), netip.MustParseAddr("10.0.0.1"), f.Token(access.DefaultTenant, "admin", access.Admin))
	if err != nil {
		t.Fatal(err)
	}
	session := cookie.Name + "=" + cookie.Value
	const body = `{"ttl_seconds":60,"agent_name":"x"}`
	for site, want := range map[string]int{"same-origin": 201, "cross-site": 403, "same-site": 403, "none": 403, "": 403} {
		if w := c.ask(http.MethodPost, "/v1/join-tokens", body, "Cookie", session, "Sec-Fetch-Site", site); w.Code != want {
			t.Errorf("POST with Sec-Fetch-Site %q: %d %s", site, w.Code, w.Body)
		}
		if w := c.ask(http.MethodGet, "/v1/posture", "", "Cookie", session, "Sec-Fetch-Site", site); w.Code != http.StatusOK {
			t.Errorf("GET with Sec-Fetch-Site %q: %d", site, w.Code)
		}
	}
}

func TestTokens(t *testing.T) {
	f := servetest.Empty(t)
	c := newClient(t, f)
	writer := bearer(f.Token(access.DefaultTenant, "writer", access.TokensWrite, access.PostureRead, access.AgentsEnrol))
	for _, step := range []struct {
		method, path, body string
		want               int
		says               string
	}{
		{"POST", "/v1/tokens", `{"name":"reader","scopes":["posture:read"],"ttl_seconds":60}`, 201, "cavra_api_"},
		{"POST", "/v1/tokens", `{"name":"reader","scopes":["posture:read"]}`, 409, "taken"},
		{"POST", "/v1/tokens", `{"name":"root","scopes":["admin"]}`, 403, "nobody can give away"},
		{"POST", "/v1/tokens", `{"name":"odd","scopes":["posture:write"]}`, 422, "want one of"},
		{"POST", "/v1/tokens", `{"name":"..","scopes":["posture:read"]}`, 422, "name"},
		{"POST", "/v1/tokens", `{"name":"a/b","scopes":["posture:read"]}`, 422, "name"},
		{"POST", "/v1/tokens", `{"name":"none","scopes":[]}`, 422, "scopes"},
		{"POST", "/v1/tokens", `{"name":"none","scopes":null}`, 422, "scopes"},
		{"POST", "/v1/tokens", `{"name":"x","scopes":["posture:read"],"tenant":"other"}`, 422, "unexpected property"},
		{"GET", "/v1/tokens", ``, 200, `"name":"reader"`},
		{"DELETE", "/v1/tokens/reader", ``, 204, ""},
		{"DELETE", "/v1/tokens/reader", ``, 404, "no such thing"},
		{"POST", "/v1/join-tokens", `{"ttl_seconds":60,"agent_name":"x"}`, 201, "cavra_join_"},
		{"POST", "/v1/join-tokens", `{"ttl_seconds":60,"agent_name":"a\u202eb"}`, 422, "does not print"},
		{"POST", "/v1/join-tokens", `{"ttl_seconds":0,"agent_name":"x"}`, 422, "ttl_seconds"},
		{"POST", "/v1/join-tokens", `{"ttl_seconds":2592001,"agent_name":"x"}`, 422, "ttl_seconds"},
		{"POST", "/v1/join-tokens", `{"ttl_seconds":60,"agent":"nobody"}`, 404, "no such thing"},
		{"POST", "/v1/join-tokens", `{"ttl_seconds":60,`, 400, ""},
		{"POST", "/v1/join-tokens", ``, 400, ""},
		{"POST", "/v1/join-tokens", `{"agent_name":"` + strings.Repeat("x", 70<<10) + `"}`, 413, ""},
	} {
		w := c.ask(step.method, step.path, step.body, writer...)
		if w.Code != step.want || !strings.Contains(w.Body.String(), step.says) {
			t.Errorf("%s %s %.80s: %d %s", step.method, step.path, step.body, w.Code, w.Body)
		}
	}
}

func TestFailedLoginsAreLimited(t *testing.T) {
	f := servetest.Empty(t)
	c := newClient(t, f)
	unknown, _ := access.Generate(access.KindAPI)
	good := f.Token(access.DefaultTenant, "good", access.PostureRead)
	last := 0
	ask := func(token string) *httptest.ResponseRecorder {
		c.from = netip.MustParseAddr("10.9.9.9")
		return c.ask(http.MethodGet, "/v1/artifacts", "", bearer(token)...)
	}
	for range 15 {
		last = ask(unknown).Code
	}
	if w := ask(unknown); last != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("after many failures: %d %v", last, w.Header())
	}
	if w := ask(good); w.Code != http.StatusOK {
		t.Errorf("a good token from there: %d %s", w.Code, w.Body)
	}
}

func TestOpenToEverybody(t *testing.T) {
	f := servetest.Empty(t)
	down := errors.New("the database at 10.1.2.3 is gone")
	ready := error(nil)
	h, err := New(Config{Service: f.Service, Gate: f.Gate, Control: f.Store, Agents: f, Ready: func(context.Context) error { return ready }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t, h, netip.MustParseAddr("10.0.0.1")}
	for path, want := range map[string]int{"/healthz": 204, "/readyz": 204, "/openapi.json": 200, "/v1/": 404, "/v1/nothing": 404} {
		w := c.ask(http.MethodGet, path, "")
		if w.Code != want || w.Header().Get("Content-Security-Policy") == "" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("GET %s: %d %v", path, w.Code, w.Header())
		}
	}
	if w := c.ask(http.MethodPut, "/v1/posture", "{}"); w.Code != http.StatusNotFound || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("PUT /v1/posture: %d %s", w.Code, w.Body)
	}
	ready = down
	if w := c.ask(http.MethodGet, "/readyz", ""); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "10.1.2.3") {
		t.Errorf("GET /readyz: %d %s", w.Code, w.Body)
	}
	if w := c.ask(http.MethodGet, "/healthz", ""); w.Code != http.StatusNoContent {
		t.Errorf("GET /healthz while not ready: %d", w.Code)
	}
}

func TestFailureTellsNothingOfTheInside(t *testing.T) {
	f := servetest.Start(t)
	c := newClient(t, f)
	token := f.Token(access.DefaultTenant, "ours", access.Admin)
	if err := f.Conn.Exec(t.Context(), "DROP TABLE scans"); err != nil {
		t.Fatal(err)
	}
	w := c.ask(http.MethodGet, "/v1/artifacts", "", bearer(token)...)
	if w.Code != http.StatusServiceUnavailable || strings.Contains(strings.ToLower(w.Body.String()), "scans") || !strings.Contains(w.Body.String(), "try again") {
		t.Errorf("with a table missing: %d %s", w.Code, w.Body)
	}
}

// FuzzParameters holds that no value of a path or a query makes the API fail.
func FuzzParameters(f *testing.F) {
	fleet := servetest.Start(f)
	token := fleet.Token(access.DefaultTenant, "fuzz", access.Admin)
	f.Add(0, "x", "verdict=fail&limit=1")
	f.Add(1, "sha256:"+strings.Repeat("0", 64), "")
	f.Add(2, "%00", "severity=critical&status=open&offset=4294967296")
	f.Add(3, "a'b", "offset=-1&limit=0")
	f.Add(4, "..", "after=100-"+strings.Repeat("f", 64))
	f.Add(0, "", "after=300-x&verdict=%ff")
	f.Add(5, fleet.Agents["notebook"], "after=18446744073709551615-1-"+strings.Repeat("f", 64))
	f.Add(5, "x", "after=1-2-&limit=10001")
	f.Add(8, "sha256:"+strings.Repeat("0", 64), "after=4503599627370497-"+strings.Repeat("f", 64))
	f.Add(6, "x", "unattributed=maybe&offset=10000000&limit=500")
	f.Add(2, "x", "limit=1;limit=2&%zz&status=open&status=closed")
	f.Fuzz(func(t *testing.T, which int, segment, query string) {
		c := newClient(t, fleet)
		paths := []string{"/v1/artifacts", "/v1/artifacts/{}", "/v1/exposures", "/v1/agents/{}", "/v1/statements/{}/envelope", "/v1/agents/{}/evidence", "/v1/quarantine", "/v1/tokens", "/v1/artifacts/{}/evidence"}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.URL.Path = strings.ReplaceAll(paths[(which%len(paths)+len(paths))%len(paths)], "{}", segment)
		r.URL.RawQuery = query
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		c.handler.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("GET %q?%q: %d %s", r.URL.Path, query, w.Code, w.Body)
		}
	})
}
