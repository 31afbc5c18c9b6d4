// Package httpclient makes the HTTP client by which an agent calls the aggregator's
// enrolment service. It guarantees that what is secret travels over TLS, or on
// this machine alone.
package httpclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

const timeout = 30 * time.Second

// ErrClear says that an address would have secrets travel in the clear.
var ErrClear = errors.New("what is secret would travel in the clear; plain http is for this machine alone")

// New calls a server, whose certificate is of the authority, PEM; nil for the
// system's.
func New(server string, authority []byte) (*http.Client, error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%q: want https://host:port", server)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, fmt.Errorf("%q: %w", server, ErrClear)
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	if len(authority) > 0 {
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(authority) {
			return nil, fmt.Errorf("call %s: the certificate authority holds no certificate", server)
		}
	}
	return &http.Client{Transport: transport, Timeout: timeout}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
