package contact

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/cavra/cavra/agent/internal/certificate"
	"github.com/cavra/cavra/schemas/gen/cavra/agent/v1/agentv1connect"
	"github.com/cavra/cavra/sdk/identity"
)

// The bounds on a call.
const (
	callTimeout = 20 * time.Second
	idleTimeout = 2 * time.Minute
	maxAnswer   = 1 << 20
)

// client calls the service with one certificate.
type client struct {
	agentv1connect.AgentServiceClient
	transport *http.Transport
	leaf      *x509.Certificate
}

// newClient makes a client that trusts the aggregator's own authority, and
// nobody else.
func newClient(way certificate.Service, key *identity.Key, der []byte) (*client, error) {
	pair, err := key.TLS(der)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(way.CA)) {
		return nil, errors.New("call the agents' service: there is no authority to believe")
	}
	t := &http.Transport{
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: way.ServerName,
			Certificates: []tls.Certificate{pair},
		},
		ForceAttemptHTTP2: true, TLSHandshakeTimeout: callTimeout, IdleConnTimeout: idleTimeout,
	}
	return &client{
		AgentServiceClient: agentv1connect.NewAgentServiceClient(&http.Client{Transport: t, Timeout: callTimeout}, "https://"+way.Address, connect.WithReadMaxBytes(maxAnswer)),
		transport:          t, leaf: pair.Leaf,
	}, nil
}

func (c *client) close() {
	if c != nil {
		c.transport.CloseIdleConnections()
	}
}

// errRevoked says that the aggregator has revoked this agent.
var errRevoked = errors.New("the aggregator says that this agent is revoked: an administrator can make a join token for it, for cavra agent enroll --reenroll")

// classify says what a refusal means; other errors stay what they are.
func classify(err error) error {
	var refused *connect.Error
	if errors.As(err, &refused) && connect.IsWireError(err) && refused.Code() == connect.CodePermissionDenied {
		return fmt.Errorf("%w (%w)", errRevoked, err)
	}
	return err
}
