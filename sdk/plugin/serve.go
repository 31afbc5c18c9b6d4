package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	pb "github.com/cavra/cavra/schemas/gen/cavra/plugin/v1"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/scanner"
)

// ServeScanner serves s to the host that started this process, until the host
// ends it. A main calls it and nothing else, and prints the error that it
// returns when no host did: ErrNotLaunched.
func ServeScanner(s scanner.Scanner) error {
	return serve(func(fds *descriptors) goplugin.Plugin {
		return &wire{register: func(g *grpc.Server) { pb.RegisterScannerServer(g, &scannerServer{scanner: s, fds: fds}) }}
	})
}

// ServeConnector serves c as ServeScanner does a scanner.
func ServeConnector(c connector.Connector) error {
	return serve(func(fds *descriptors) goplugin.Plugin {
		return &wire{register: func(g *grpc.Server) { pb.RegisterConnectorServer(g, newConnectorServer(c, fds)) }}
	})
}

// ServeRemoteConnector serves a connector that reaches its registry by what the host
// gives it: connections to the places that its scope lists, and the scope's
// credentials. make is called once; a host that only looks whether the program works
// gives neither, so that a credential that is missing is best said when it is needed.
func ServeRemoteConnector(make func(connector.Access) (connector.Connector, error)) (err error) {
	if !Launched() {
		return ErrNotLaunched
	}
	access := connector.Access{}
	if f := inherited(egressFd, "egress"); f != nil {
		var d *dialer
		if access, d, err = newAccess(f); err != nil {
			return fmt.Errorf("serve plugin: %w", err)
		}
		defer func() { err = errors.Join(err, d.close()) }()
	}
	c, err := make(access)
	if err != nil {
		return fmt.Errorf("serve plugin: %w", err)
	}
	return ServeConnector(c)
}

func serve(with func(*descriptors) goplugin.Plugin) error {
	if !Launched() {
		return ErrNotLaunched
	}
	if os.Getenv("PLUGIN_CLIENT_CERT") == "" {
		return errors.New("serve plugin: the host offers no mutual TLS")
	}
	var fds *descriptors
	if f := inherited(socketFd, "descriptors"); f != nil {
		var err error
		if fds, err = newDescriptors(f); err != nil {
			return fmt.Errorf("serve plugin: %w", err)
		}
		defer func() { _ = fds.close() }()
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  handshake,
		VersionedPlugins: map[int]goplugin.PluginSet{protocol: {"plugin": with(fds)}},
		GRPCServer:       newServer,
		Logger:           hclog.NewNullLogger(),
	})
	return nil
}

func newServer(opts []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(append(opts, settling()...),
		grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage), grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(maxConcurrent),
		grpc.InitialWindowSize(4*chunk), grpc.InitialConnWindowSize(8*chunk),
	)...)
}

// wire is what go-plugin wants to know of a service. A host speaks to the
// services over the connection itself, so that there is nothing to dispense.
type wire struct {
	goplugin.NetRPCUnsupportedPlugin
	register func(*grpc.Server)
}

// GRPCServer registers the service.
func (w *wire) GRPCServer(_ *goplugin.GRPCBroker, g *grpc.Server) error {
	if w.register == nil {
		return errors.New("register service: this side is the host's")
	}
	w.register(g)
	return nil
}

// GRPCClient gives the connection.
func (w *wire) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return c, nil
}
