package aggregator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/cavra/cavra/aggregator/internal/ca"
	"github.com/cavra/cavra/aggregator/internal/challenge"
	"github.com/cavra/cavra/aggregator/internal/configure"
	"github.com/cavra/cavra/aggregator/internal/contact"
	"github.com/cavra/cavra/aggregator/internal/control"
)

// agents is the service that agents call over mutual TLS.
type agents struct {
	authority *ca.Authority
	contact   *contact.Service
	// challenges are for those who come without a token.
	challenges *challenge.Maker
	listener   net.Listener
	// address is the host:port that agents are given.
	address string
}

// openAgents listens. Close it.
func openAgents(ctx context.Context, cfg Config, store *control.Store, authority *ca.Authority) (*agents, error) {
	set := cfg.Settings
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", set.Agents.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("the port of %s is in use: stop what uses it, or let agents call elsewhere with --agents-listen", set.Agents.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for agents on %s: %w", set.Agents.Listen, err)
	}
	a := &agents{authority: authority, listener: l, address: set.Agents.Address}
	if a.address == "" {
		a.address = l.Addr().String()
	}
	secret, err := authority.Secret("challenge")
	if err == nil {
		a.challenges, err = challenge.New(secret, store, time.Now)
	}
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	c := contact.Config{Store: store, Authority: authority, Address: a.address, Log: cfg.Log}
	if configure, err := openConfigure(cfg, store); err != nil {
		return nil, errors.Join(err, a.close())
	} else if configure != nil {
		c.Configure = configure
	}
	a.contact, err = contact.New(c)
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// openConfigure opens what signs agents' configurations; nil where there is no key.
func openConfigure(cfg Config, store *control.Store) (*configure.Service, error) {
	file, create := cfg.Settings.ConfigKeyFile()
	if file == "" {
		return nil, nil //nolint:nilnil // there is nothing to sign with
	}
	key, err := configure.OpenKey(file, create)
	if err != nil {
		return nil, err
	}
	return configure.New(store, key, nil)
}

// serve serves until ctx ends.
func (a *agents) serve(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle(a.contact.Handler())
	return serveUntil(ctx, tls.NewListener(a.listener, a.authority.ServerTLS()), mux, contact.Timeout)
}

func (a *agents) close() error {
	if err := a.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
