package aggregator

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cavra/cavra/aggregator/internal/serve/api"
	"github.com/cavra/cavra/aggregator/internal/serve/web"
	"github.com/cavra/cavra/sdk/diskio"
)

// The files that an embedded aggregator writes once it is ready.
const (
	// AddressFile says where people and agents come.
	AddressFile = "address.json"
	// ServicesFile says how the embedded services are reached on this machine,
	// for operators' tools; it holds passwords.
	ServicesFile = "services.json"
)

// Address is where an aggregator is reached.
type Address struct {
	URL   string `json:"url"`
	Kafka string `json:"kafka,omitempty"`
	// Agents is where agents call, with their certificates.
	Agents string `json:"agents,omitempty"`
}

const (
	headerTimeout   = 10 * time.Second
	requestTimeout  = 90 * time.Second
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 5 * time.Second
	maxHeaderBytes  = 64 << 10
)

func (a *Aggregator) listen(ctx context.Context) (net.Listener, error) {
	set := a.cfg.Settings
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", set.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("the port of %s is in use: stop what uses it, or listen elsewhere with --listen", set.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", set.Listen, err)
	}
	if set.TLS.Certificate == "" {
		return l, nil
	}
	pair, err := tls.LoadX509KeyPair(set.TLS.Certificate, set.TLS.Key)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read certificate: %w", err), l.Close())
	}
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}), nil
}

// handler is everything that is served: enrolment, the API, the page.
func (a *Aggregator) handler() (http.Handler, error) {
	apiHandler, err := api.New(api.Config{Service: a.service, Gate: a.gate, Control: a.store, Agents: a.enrol, Ready: a.ready, Version: a.cfg.Version, Log: a.cfg.Log})
	if err != nil {
		return nil, err
	}
	page, err := web.New(web.Config{Service: a.service, Gate: a.gate, Version: a.cfg.Version, Log: a.cfg.Log})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	path, service := a.enrol.Handler()
	mux.Handle(path, service)
	for _, p := range []string{"/v1/", "/openapi.json", "/openapi.yaml", "/healthz", "/readyz"} {
		mux.Handle(p, apiHandler)
	}
	mux.Handle("/", page)
	return mux, nil
}

// ready says what keeps the aggregator from doing its work; nil is ready.
func (a *Aggregator) ready(ctx context.Context) error {
	errs := []error{a.store.Ping(ctx), a.db.Ping(ctx)}
	for _, h := range a.ingest.Health() {
		if h.State == "stopped" || h.State == "stalled" {
			errs = append(errs, fmt.Errorf("partition %d is %s: %s", h.Partition, h.State, h.LastError))
		}
	}
	return errors.Join(errs...)
}

func (a *Aggregator) serve(ctx context.Context, l net.Listener) error {
	handler, err := a.handler()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	return serveUntil(ctx, l, handler, requestTimeout)
}

// serveUntil serves until ctx ends, whose error it returns. A request may take so
// long.
func serveUntil(ctx context.Context, l net.Listener, handler http.Handler, most time.Duration) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: most, WriteTimeout: most,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
	}
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			// Whoever is still connected has had their time.
			_ = server.Close()
		}
	})
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return ctx.Err()
}

func (a *Aggregator) address(l net.Listener) Address {
	scheme := "http"
	if a.cfg.Settings.TLS.Certificate != "" {
		scheme = "https"
	}
	out := Address{URL: scheme + "://" + l.Addr().String()}
	if a.embedded.broker != nil {
		out.Kafka = a.embedded.broker.Addr()
	}
	if a.agents != nil {
		out.Agents = a.agents.address
	}
	return out
}

// services is what ServicesFile holds.
type services struct {
	Kafka      *login `json:"kafka,omitempty"`
	ClickHouse *login `json:"clickhouse,omitempty"`
}

type login struct {
	Address  string `json:"address"`
	Username string `json:"username"`
	Password string `json:"password"`
	// CA is the authority of a service that speaks TLS, PEM.
	CA string `json:"ca,omitempty"`
}

// publishAddress writes the address and the services into the embedded folder.
func (a *Aggregator) publishAddress(ctx context.Context, address Address) error {
	dir := a.cfg.Settings.Embedded.Dir
	if dir == "" {
		return nil
	}
	var s services
	if a.embedded.broker != nil {
		s.Kafka = &login{Address: a.embedded.broker.Addr(), Username: superuser, Password: a.embedded.password}
		if a.cfg.Settings.Embedded.TLS {
			s.Kafka.CA = a.authority.Bundle()
		}
	}
	if a.embedded.engine != nil {
		at, err := a.embedded.engine.Addr(ctx)
		if err != nil {
			return err
		}
		user, password := a.embedded.engine.Credentials()
		s.ClickHouse = &login{Address: at, Username: user, Password: password}
	}
	for name, document := range map[string]any{ServicesFile: s, AddressFile: address} {
		b, err := json.MarshalIndent(document, "", "  ")
		if err == nil {
			err = diskio.WriteFile(diskio.OS{}, filepath.Join(dir, name), append(b, '\n'), 0o600)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}
