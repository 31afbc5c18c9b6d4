package web

import (
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"testing"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/embedded/clickhouse/enginetest"
	"github.com/cavra/cavra/aggregator/internal/serve/api"
	"github.com/cavra/cavra/aggregator/internal/servetest"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }

// site serves the page and the API as the aggregator does.
func newSite(tb testing.TB, f *servetest.Fleet) http.Handler {
	tb.Helper()
	log := slog.New(slog.NewTextHandler(tb.Output(), nil))
	page, err := New(Config{Service: f.Service, Gate: f.Gate, Version: "test", Log: log, Now: f.Clock})
	if err != nil {
		tb.Fatal(err)
	}
	answers, err := api.New(api.Config{Service: f.Service, Gate: f.Gate, Control: f.Store, Ready: f.Store.Ping, Version: "test", Log: log})
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
