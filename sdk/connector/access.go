package connector

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// ErrUnreachable says that the host does not connect a connector to a place: its
// scope does not list it, or has no egress at all.
var ErrUnreachable = errors.New("not among the places that this connector may reach")

// The bounds of an HTTP client.
const (
	headerTimeout = time.Minute
	idleTimeout   = 15 * time.Second
	maxHeader     = 256 << 10
)

// Access is a connector's way to its registry: its process has no network of its
// own, and its host connects it to what the scope lists. A host hands one over by
// plugin.ServeRemoteConnector; tests make their own.
type Access struct {
	// Dial connects to host:port; the network is "tcp". Nil reaches nothing.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Connections is how many there may be at once; 0 is as many as it takes.
	Connections int
	// Authorities are those whose certificates are trusted: the machine's, and the
	// scope's. Nil trusts those that this process finds itself.
	Authorities *x509.CertPool
	// Credentials are the scope's, by their names.
	Credentials map[string]string
}

// DialContext connects to host:port.
func (a Access) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if a.Dial == nil {
		return nil, fmt.Errorf("dial %s: %w", address, ErrUnreachable)
	}
	return a.Dial(ctx, network, address)
}

// Credential is one of the scope's, without the line's end that a file has.
func (a Access) Credential(name string) (string, error) {
	c, ok := a.Credentials[name]
	if !ok {
		return "", fmt.Errorf("no credential %q: name its file in the scope's credentials", name)
	}
	return strings.TrimRight(c, "\r\n"), nil
}

// Client returns a new HTTP client over DialContext, with bounds on connections,
// headers and their arrival. Its CloseIdleConnections ends what it keeps.
func (a Access) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:            a.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: a.Authorities, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		MaxConnsPerHost:        a.Connections,
		MaxIdleConns:           a.Connections / 2, // leaves some for another host
		MaxIdleConnsPerHost:    a.Connections / 2,
		IdleConnTimeout:        idleTimeout,
		TLSHandshakeTimeout:    headerTimeout / 4,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: maxHeader,
	}}
}
