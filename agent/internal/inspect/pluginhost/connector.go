package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
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
	reach   Reach

	mu          sync.Mutex
	process     *plugin.Process
	rpc         *plugin.Connector
	digest      predicate.Digest
	description connector.Description
	// places are what the process may read, and was handed, when it was started.
	places   []place
	restarts int
	// refused is the count of the processes before this one.
	refused uint64
}

// Files is the kind of the connector for files on local disks.
const Files = "fs"

// Connector starts the connector for a kind of registry, such as Files, which gets
// at nothing but what reach says. The caller closes it.
func (h *Host) Connector(ctx context.Context, kind string, reach Reach) (*Connector, error) {
	programs, err := h.programs(KindConnector, connectorPrefix+kind)
	if err != nil {
		return nil, err
	}
	c := &Connector{host: h, program: programs[0], reach: reach}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	c.digest, c.description = c.process.Digest(), c.rpc.Describe()
	return c, nil
}

func (c *Connector) start(ctx context.Context) error {
	places := c.reach.places()
	egress, err := c.reach.egress()
	if err != nil {
		return fmt.Errorf("start connector %s: %w", c.program.Name, err)
	}
	process, err := plugin.Launch(ctx, plugin.Config{
		Path: c.program.Path, Digest: c.digest, Logger: c.host.cfg.Logger, Sandbox: c.host.cfg.Sandbox, Reads: c.reach.Roots, Egress: egress,
	})
	if err != nil {
		return fmt.Errorf("start connector %s: %w", c.program.Name, err)
	}
	rpc, err := process.Connector(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("start connector %s: %w", c.program.Name, err), process.Close())
	}
	c.process, c.rpc, c.places = process, rpc, places
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

// Refused is how often it asked for a place that it may not reach.
func (c *Connector) Refused() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused + c.process.Refused()
}

// refresh ends the process when a root has come, or has been replaced or mounted
// over, or a credential is another one since it was started: what it may read and
// what it was handed were fixed then.
func (c *Connector) refresh() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Equal(c.places, c.reach.places()) {
		return nil
	}
	c.restarts--
	return c.process.Close()
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
	c.refused += c.process.Refused()
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	return c.rpc, nil
}

// List is the connector contract's.
func (c *Connector) List(ctx context.Context, root string) iter.Seq2[artifact.Item, error] {
	return func(yield func(artifact.Item, error) bool) {
		if err := c.refresh(); err != nil {
			yield(artifact.Item{}, err)
			return
		}
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
