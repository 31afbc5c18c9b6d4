package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/plugin"
)

// maxRestarts bounds how often a connector that keeps crashing is started anew.
const maxRestarts = 16

// Connector is one connector program and its process, which is replaced when it
// crashes. It may be used from several goroutines at once.
type Connector struct {
	host    *Host
	program Program

	mu          sync.Mutex
	process     *plugin.Process
	rpc         *plugin.Connector
	digest      predicate.Digest
	description connector.Description
	restarts    int
}

// Connector starts the connector for a kind of registry, such as "fs". The
// caller closes it.
func (h *Host) Connector(ctx context.Context, kind string) (*Connector, error) {
	programs, err := h.programs(KindConnector, connectorPrefix+kind)
	if err != nil {
		return nil, err
	}
	c := &Connector{host: h, program: programs[0]}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	c.digest, c.description = c.process.Digest(), c.rpc.Describe()
	return c, nil
}

func (c *Connector) start(ctx context.Context) error {
	process, err := plugin.Launch(ctx, plugin.Config{Path: c.program.Path, Digest: c.digest, Logger: c.host.cfg.Logger})
	if err != nil {
		return fmt.Errorf("start connector %s: %w", c.program.Name, err)
	}
	rpc, err := process.Connector(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("start connector %s: %w", c.program.Name, err), process.Close())
	}
	c.process, c.rpc = process, rpc
	return nil
}

// Program names the program, by its own digest.
func (c *Connector) Program() predicate.Scanner {
	return predicate.Scanner{Name: c.description.Name, Version: c.description.Version, Digest: c.digest}
}

// Describe is what the connector said of itself.
func (c *Connector) Describe() connector.Description { return c.description }

// Layers are the layers of isolation in force around it.
func (c *Connector) Layers() []predicate.Layer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process.Layers()
}

// running returns the process that answers, a new one if the last has ended.
func (c *Connector) running(ctx context.Context) (*plugin.Connector, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.process.Exited():
	default:
		return c.rpc, nil
	}
	if c.restarts >= maxRestarts {
		return nil, fmt.Errorf("start connector %s: it has ended %d times", c.program.Name, c.restarts+1)
	}
	c.restarts++
	if err := c.process.Close(); err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	return c.rpc, nil
}

// List is the connector contract's.
func (c *Connector) List(ctx context.Context, root string) iter.Seq2[artifact.Item, error] {
	return func(yield func(artifact.Item, error) bool) {
		rpc, err := c.running(ctx)
		if err != nil {
			yield(artifact.Item{}, err)
			return
		}
		for item, err := range rpc.List(ctx, root) {
			if !yield(item, err) {
				return
			}
		}
	}
}

// Open is the connector contract's.
func (c *Connector) Open(ctx context.Context, root, key string) (artifact.Reader, error) {
	rpc, err := c.running(ctx)
	if err != nil {
		return nil, err
	}
	return rpc.Open(ctx, root, key)
}

// Close ends the process.
func (c *Connector) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process.Close()
}
