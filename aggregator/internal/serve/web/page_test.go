package web

import (
	"bytes"
	"fmt"
	"html"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/embedded/clickhouse/enginetest"
	"github.com/cavra/cavra/aggregator/internal/serve/api"
	"github.com/cavra/cavra/aggregator/internal/servetest"
	"github.com/cavra/cavra/schemas/predicate"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }

// newSite serves the page and the API as the aggregator does.
func newSite(tb testing.TB, f *servetest.Fleet) http.Handler {
	tb.Helper()
	log := slog.New(slog.NewTextHandler(tb.Output(), nil))
	page, err := New(Config{Service: f.Service, Gate: f.Gate, Version: "test", Log: log, Now: f.Clock})
	if err != nil {
		tb.Fatal(err)
	}
	answers, err := api.New(api.Config{Service: f.Service, Gate: f.Gate, Control: f.Store, Agents: f, Ready: f.Store.Ping, Version: "test", Log: log})
	if err != nil {
		tb.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, p := range []string{"/v1/", "/openapi.json", "/healthz", "/readyz"} {
		mux.Handle(p, answers)
	}
	mux.Handle("/", page)
	return mux
}

// TestServe leaves the fleet's page running for a browser: it writes the address
// and a token into the folder that CAVRA_WEB_SERVE names, and stops on an
// interrupt.
func TestServe(t *testing.T) {
	dir := os.Getenv("CAVRA_WEB_SERVE")
	if dir == "" {
		t.Skip("set CAVRA_WEB_SERVE to a folder, to look at the page in a browser")
	}
	f := servetest.Start(t)
	empty := f.Token(servetest.OtherTenant, "page", access.Admin)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"token": f.Token(access.DefaultTenant, "page", access.Admin), "token-other": empty, "url": "http://" + l.Addr().String(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := &http.Server{Handler: newSite(t, f)}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	go func() {
		<-stop
		_ = server.Close()
	}()
	if err := server.Serve(l); err != http.ErrServerClosed {
		t.Fatal(err)
	}
}

// browser is a client with a session.
type browser struct {
	tb      testing.TB
	handler http.Handler
	cookie  *http.Cookie
}

func (b *browser) do(method, target, form string, header ...string) *httptest.ResponseRecorder {
	b.tb.Helper()
	r := httptest.NewRequestWithContext(b.tb.Context(), method, target, strings.NewReader(form))
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if b.cookie != nil {
		r.AddCookie(b.cookie)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return w
}

// login opens a session.
func login(tb testing.TB, h http.Handler, token string) *browser {
	tb.Helper()
	b := &browser{tb: tb, handler: h}
	w := b.do(http.MethodPost, "/login", url.Values{"token": {token}}.Encode())
	cookies := w.Result().Cookies()
	if w.Code != http.StatusSeeOther || len(cookies) != 1 {
		tb.Fatalf("log in: %d %v", w.Code, cookies)
	}
	b.cookie = cookies[0]
	return b
}

// paths are pages of every kind, with the scope that each needs.
func paths(f *servetest.Fleet) map[string]access.Scope {
	out := map[string]access.Scope{
		"/": access.PostureRead, "/artifacts": access.PostureRead, "/artifacts?verdict=fail": access.PostureRead,
		"/exposures": access.PostureRead, "/exposures?severity=critical&status=open": access.PostureRead,
		"/agents": access.AgentsRead, "/quarantine": access.QuarantineRead,
	}
	for _, name := range []string{"reverse-shell", "cut-short", "unscanned", "repository"} {
		out["/artifacts/"+string(f.Artifacts[name])] = access.PostureRead
	}
	for _, name := range []string{"reverse-shell", "inventory", "fork-b", "early"} {
		out["/statements/"+string(f.Statements[name])] = access.PostureRead
	}
	for name, id := range f.Agents {
		if name != "elsewhere" {
			out["/agents/"+id] = access.AgentsRead
		}
	}
	return out
}

func TestPages(t *testing.T) {
	f := servetest.Start(t)
	h := newSite(t, f)
	for name, check := range map[string]func(*testing.T, *servetest.Fleet, http.Handler){
		"who may see what": whoMaySeeWhat, "tenants are apart": tenantsAreApart, "every page keeps the policy": everyPageKeepsThePolicy,
		"nothing to assess": nothingToAssess, "odd queries": oddQueries, "drill down": drillDown, "a session's life": sessionsLife,
		"ingest on the overview": ingestOnTheOverview,
	} {
		t.Run(name, func(t *testing.T) { check(t, f, h) })
	}
}

func whoMaySeeWhat(t *testing.T, f *servetest.Fleet, h http.Handler) {
	stranger := &browser{tb: t, handler: h}
	for path := range paths(f) {
		w := stranger.do(http.MethodGet, path, "")
		if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/login") {
			t.Errorf("GET %s without a session: %d to %s", path, w.Code, w.Header().Get("Location"))
		}
	}
	for _, scope := range access.Scopes() {
		b := login(t, h, f.Token(access.DefaultTenant, "see "+string(scope), scope))
		for path, needs := range paths(f) {
			w := b.do(http.MethodGet, path, "")
			if allowed := scope == needs || scope == access.Admin; allowed != (w.Code == http.StatusOK) || !allowed && w.Code != http.StatusForbidden {
				t.Errorf("GET %s with the scope %s: %d", path, scope, w.Code)
			}
		}
	}
}

func tenantsAreApart(t *testing.T, f *servetest.Fleet, h http.Handler) {
	b := login(t, h, f.Token(servetest.OtherTenant, "apart", access.Admin))
	for path := range paths(f) {
		w := b.do(http.MethodGet, path, "")
		if strings.Count(path, "/") > 1 && w.Code != http.StatusNotFound {
			t.Errorf("GET %s of another tenant: %d", path, w.Code)
		}
		for name, digest := range f.Artifacts {
			if name != "theirs" && strings.Contains(w.Body.String(), digest.Hex()[:12]) {
				t.Errorf("GET %s shows artifact %s of another tenant", path, name)
			}
		}
	}
	if w := b.do(http.MethodGet, "/quarantine?unattributed=true", ""); w.Code != http.StatusForbidden {
		t.Errorf("what names no tenant, for a tenant's admin: %d", w.Code)
	}
}

// outside are what a page of ours never has.
var outside = regexp.MustCompile(`(?i)<script|<style|<iframe|<object|<embed|<base|<[^<>]*\s(style|on[a-z]+)=|(src|href|action)="(https?:|//|javascript:|data:)`)

func checkPage(t *testing.T, path string, w *httptest.ResponseRecorder) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("GET %s: header %s is %q", path, name, got)
		}
	}
	text := w.Body.String()
	if m := outside.FindString(text); m != "" {
		t.Errorf("GET %s holds %q", path, m)
	}
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("GET %s holds the character %U", path, r)
			break
		}
	}
	for _, want := range []string{`<html lang="en">`, `<a class="skip" href="#main">`, `<main id="main"`, "<h1"} {
		if !strings.Contains(text, want) {
			t.Errorf("GET %s has not %s", path, want)
		}
	}
	for _, th := range regexp.MustCompile(`<th[ >][^>]*`).FindAllString(text, -1) {
		if !strings.Contains(th, "scope=") {
			t.Errorf("GET %s: %s has no scope", path, th)
		}
	}
}

func everyPageKeepsThePolicy(t *testing.T, f *servetest.Fleet, h http.Handler) {
	b := login(t, h, f.Token(access.DefaultTenant, "policy", access.Admin))
	for path := range paths(f) {
		checkPage(t, path, b.do(http.MethodGet, path, ""))
	}
	checkPage(t, "/login", (&browser{tb: t, handler: h}).do(http.MethodGet, "/login", ""))
	checkPage(t, "/nothing", b.do(http.MethodGet, "/nothing", ""))
	css := b.do(http.MethodGet, "/static/style.css", "")
	if css.Code != http.StatusOK || !strings.HasPrefix(css.Header().Get("Content-Type"), "text/css") || strings.Contains(css.Body.String(), "url(") || strings.Contains(css.Body.String(), "@import") {
		t.Errorf("style sheet: %d %s", css.Code, css.Header().Get("Content-Type"))
	}
}

func nothingToAssess(t *testing.T, f *servetest.Fleet, h http.Handler) {
	if err := f.Store.CreateTenant(t.Context(), "empty", "empty"); err != nil {
		t.Fatal(err)
	}
	w := login(t, h, f.Token("empty", "empty", access.Admin)).do(http.MethodGet, "/", "")
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Not assessed yet") {
		t.Errorf("posture of an empty tenant: %d", w.Code)
	}
	checkPage(t, "/", w)
}

func oddQueries(t *testing.T, f *servetest.Fleet, h http.Handler) {
	b := login(t, h, f.Token(access.DefaultTenant, "odd", access.Admin))
	for path, want := range map[string]int{
		"/artifacts?verdict=good": 400, "/artifacts?after=x": 400, "/exposures?severity=all": 400, "/exposures?status=' OR 1": 400,
		"/exposures?offset=-1": 400, "/exposures?offset=99999999999": 400, "/quarantine?offset=x": 400, "/quarantine?unattributed=yes": 400,
		"/static/": 404, "/artifacts/sha256:xyz": 404, "/statements/%00": 404, "/agents/nobody": 404, "/agents/%ff%00": 404,
	} {
		w := b.do(http.MethodGet, strings.ReplaceAll(path, " ", "%20"), "")
		if w.Code != want {
			t.Errorf("GET %s: %d", path, w.Code)
		}
		checkPage(t, path, w)
	}
}

func drillDown(t *testing.T, f *servetest.Fleet, h http.Handler) {
	b := login(t, h, f.Token(access.DefaultTenant, "drill", access.PostureRead))
	follow := func(text, pattern string) string {
		t.Helper()
		m := regexp.MustCompile(pattern).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("no link %s", pattern)
		}
		return html.UnescapeString(m[1])
	}
	page := b.do(http.MethodGet, "/", "").Body.String()
	if !strings.Contains(page, `<p class="big" id="score"><span>40.0</span>`) || !strings.Contains(page, `id="forked">1<`) {
		t.Error("the overview has not the fleet's figures")
	}
	path := "/artifacts/" + string(f.Artifacts["reverse-shell"])
	if !strings.Contains(page, path) {
		t.Error("the worst artifact is not on the overview")
	}
	page = b.do(http.MethodGet, path, "").Body.String()
	for _, want := range []string{"Loading resolves a name that can run code", "What to do:", "posix", "keyed:", "&lt;script&gt;alert(1)", "Complete: nothing was left unread."} {
		if !strings.Contains(page, want) {
			t.Errorf("the artifact's page has not %q", want)
		}
	}
	path = follow(page, `id="statement" href="([^"]+)"`)
	page = b.do(http.MethodGet, path, "").Body.String()
	if !strings.Contains(page, "Verified again just now") {
		t.Error("the statement's page does not say that it was verified")
	}
	w := b.do(http.MethodGet, follow(page, `id="envelope" href="([^"]+)"`), "")
	if !bytes.Equal(w.Body.Bytes(), f.Envelopes["reverse-shell"]) {
		t.Errorf("envelope: %d, %d bytes", w.Code, w.Body.Len())
	}
	page = b.do(http.MethodGet, "/artifacts/"+string(f.Artifacts["cut-short"]), "").Body.String()
	if !strings.Contains(page, "Not complete") || !strings.Contains(page, "truncated") {
		t.Error("the page of an artifact that was cut short does not say so")
	}
}

func ingestOnTheOverview(t *testing.T, f *servetest.Fleet, h http.Handler) {
	page := login(t, h, f.Token(access.DefaultTenant, "ingest", access.Admin)).do(http.MethodGet, "/", "").Body.String()
	for _, want := range []string{
		`id="running">1<`, `id="behind">1<`, `id="stopped">1<`, `id="waiting">1,220<`, `id="lost">3<`,
		"no room on the disk", "cavra-aggregator ingest give-up", `id="revoked">1<`, `id="never">1<`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the operator's overview has not %q", want)
		}
	}
	for who, token := range map[string]string{
		"another tenant's admin": f.Token(servetest.OtherTenant, "ingest", access.Admin), "a reader": f.Token(access.DefaultTenant, "ingest2", access.PostureRead, access.AgentsRead),
	} {
		if page := login(t, h, token).do(http.MethodGet, "/", "").Body.String(); strings.Contains(page, "ingest-h") {
			t.Errorf("%s sees how all tenants' log is taken in", who)
		}
	}
}

func sessionsLife(t *testing.T, f *servetest.Fleet, h http.Handler) {
	token := f.Token(access.DefaultTenant, "life", access.PostureRead)
	form := url.Values{"token": {token}, "next": {"/exposures?status=open"}}.Encode()
	b := &browser{tb: t, handler: h}
	for _, site := range []string{"cross-site", "same-site"} {
		if w := b.do(http.MethodPost, "/login", form, "Sec-Fetch-Site", site); w.Code != http.StatusForbidden || len(w.Result().Cookies()) != 0 {
			t.Errorf("login from %s: %d", site, w.Code)
		}
	}
	if w := b.do(http.MethodPost, "/login", form, "Sec-Fetch-Site", "", "Origin", "https://evil.example"); w.Code != http.StatusForbidden {
		t.Errorf("login from another origin: %d", w.Code)
	}
	w := b.do(http.MethodPost, "/login", form)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/exposures?status=open" {
		t.Fatalf("login: %d to %s", w.Code, w.Header().Get("Location"))
	}
	b.cookie = w.Result().Cookies()[0]
	if !b.cookie.HttpOnly || b.cookie.SameSite != http.SameSiteStrictMode || strings.Contains(b.cookie.Value, token) {
		t.Errorf("cookie: %v", b.cookie)
	}
	if w := b.do(http.MethodPost, "/logout", "", "Sec-Fetch-Site", "cross-site"); w.Code != http.StatusForbidden {
		t.Errorf("logout from another site: %d", w.Code)
	}
	if w := b.do(http.MethodGet, "/", ""); w.Code != http.StatusOK {
		t.Errorf("posture: %d", w.Code)
	}
	if w := b.do(http.MethodPost, "/logout", ""); w.Code != http.StatusSeeOther || w.Result().Cookies()[0].MaxAge >= 0 {
		t.Errorf("logout: %d", w.Code)
	}
	if w := b.do(http.MethodGet, "/", ""); w.Code != http.StatusSeeOther {
		t.Errorf("posture with the cookie of a session that has ended: %d", w.Code)
	}
}

func TestWrongLogins(t *testing.T) {
	f := servetest.Empty(t)
	b := &browser{tb: t, handler: newSite(t, f)}
	unknown, _ := access.Generate(access.KindAPI)
	w := b.do(http.MethodPost, "/login", url.Values{"token": {unknown}}.Encode())
	if w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), "not good") || strings.Contains(w.Body.String(), unknown) || len(w.Result().Cookies()) != 0 {
		t.Errorf("login with an unknown token: %d", w.Code)
	}
	for range 15 {
		w = b.do(http.MethodPost, "/login", url.Values{"token": {"guess"}}.Encode())
	}
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("after many failures: %d", w.Code)
	}
	if w := b.do(http.MethodPost, "/login", "token="+strings.Repeat("x", 100<<10)); w.Code != http.StatusBadRequest {
		t.Errorf("a form past the bound: %d", w.Code)
	}
}

// hostile are names that somebody else chose.
var hostile = []string{
	`"><script>alert(1)</script>`, `' onmouseover='alert(1)`, `{{template "layout"}}`, "javascript:alert(1)", "</title></textarea></svg>",
	"invoice\u202egpj.pkl", "\u2066\u2067right\u2069", "\x00\x1b[2J\x07", "tab\tline\nfeed", "\xff\xfe\xfd", "\u200b\u200d\ufeff", "&lt;b&gt;&#x3c;",
	"z\u0324\u0324\u0324\u0324\u0324", strings.Repeat("A", 5000), "<!--", "]]>", "%3Cscript%3E", "hmac-sha256:<script>",
}

// TestHostileNames puts names into the rows that no statement could carry: the
// page relies on nothing but itself.
func TestHostileNames(t *testing.T) {
	f := servetest.Start(t)
	h := newSite(t, f)
	artifact := f.Artifacts["reverse-shell"]
	zero := strings.Repeat("0", 64)
	exec := func(query string, args ...any) {
		t.Helper()
		if err := f.Conn.Exec(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range hostile {
		round := fmt.Sprintf("hostile-%d", i)
		exec("INSERT INTO inventories (tenant, agent, registry, root, round, part, parts, complete, references, statement, epoch, sequence, listed_at, received_at) VALUES ('default', ?, ?, ?, ?, 1, 1, true, 1, ?, 1, 1, ?, ?)",
			name, name, name, round, zero, f.Now, f.Now)
		exec("INSERT INTO references (tenant, agent, registry, root, name, version, path, artifact, bundle, size, problem, round, statement, listed_at, received_at) VALUES ('default', ?, ?, ?, ?, ?, ?, ?, ?, 10, '', ?, ?, ?, ?)",
			name, name, name, name, name, name, artifact.Hex(), zero, round, zero, f.Now, f.Now)
		exec("INSERT INTO findings (tenant, artifact, rule, location, statement, class, severity, count, scanned_at, received_at) VALUES ('default', ?, ?, ?, ?, ?, 'high', 1, ?, ?)",
			artifact.Hex(), name, name, f.Statements["reverse-shell"].Hex(), name, f.Now, f.Now)
		exec("INSERT INTO imports (tenant, artifact, module, name, how, judged, statement, scanned_at, received_at) VALUES ('default', ?, ?, ?, ?, 'unknown', ?, ?, ?)",
			artifact.Hex(), name, name, name, f.Statements["reverse-shell"].Hex(), f.Now, f.Now)
		exec("INSERT INTO quarantine (tenant, topic, partition, offset, last_offset, reason, detail, digest, bytes, message, received_at) VALUES ('default', ?, 0, ?, 0, ?, ?, ?, 1, '', ?)",
			name, int64(i), name, name, predicate.DigestOf([]byte(name)).Hex(), f.Now)
	}
	b := login(t, h, f.Token(access.DefaultTenant, "<b>\u202eme</b>", access.Admin))
	for _, path := range []string{"/", "/artifacts", "/artifacts/" + string(artifact), "/exposures", "/quarantine", "/agents"} {
		w := b.do(http.MethodGet, path, "")
		if w.Code != http.StatusOK {
			t.Errorf("GET %s: %d", path, w.Code)
		}
		checkPage(t, path, w)
	}
	page := b.do(http.MethodGet, "/artifacts/"+string(artifact), "").Body.String()
	for _, want := range []string{"&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;", `invoice<span class="esc" title="characters that do not print">\u202e</span>gpj.pkl`, `\x`} {
		if !strings.Contains(page, want) {
			t.Errorf("the artifact's page has not %s", want)
		}
	}
}

func TestStoredEnvelopeThatChangedIsNotShown(t *testing.T) {
	f := servetest.Start(t)
	b := login(t, newSite(t, f), f.Token(access.DefaultTenant, "changed", access.Admin))
	digest := f.Statements["array"]
	good := f.Envelopes["array"]
	at := bytes.Index(good, []byte(`"sig":"`)) + len(`"sig":"`) + 3
	bad := bytes.Clone(good)
	bad[at] = 'A' + (bad[at]-'A'+1)%26
	if err := f.Conn.Exec(t.Context(), `ALTER TABLE statements UPDATE envelope = ? WHERE digest = ? SETTINGS mutations_sync = 2`, string(bad), digest.Hex()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/statements/" + string(digest), "/artifacts/" + string(f.Artifacts["array"])} {
		w := b.do(http.MethodGet, path, "")
		if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "does not verify") {
			t.Errorf("GET %s: %d", path, w.Code)
		}
	}
}
