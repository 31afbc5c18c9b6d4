package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

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
	// roots are what it may read; nil for a connector that has to reach more.
	roots []string

	mu          sync.Mutex
	process     *plugin.Process
	rpc         *plugin.Connector
	digest      predicate.Digest
	description connector.Description
	// places are where the roots were when the process was started.
	places   []place
	restarts int
}

// Files is the kind of the connector for files on local disks, the only one that
// is confined: the others have to reach their registries.
const Files = "fs"

// Connector starts the connector for a kind of registry, such as Files, which may
// read below the roots only. The caller closes it.
func (h *Host) Connector(ctx context.Context, kind string, roots []string) (*Connector, error) {
	programs, err := h.programs(KindConnector, connectorPrefix+kind)
	if err != nil {
		return nil, err
	}
	c := &Connector{host: h, program: programs[0]}
	if kind == Files {
		c.roots = roots
	}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	c.digest, c.description = c.process.Digest(), c.rpc.Describe()
	return c, nil
}

func (c *Connector) start(ctx context.Context) error {
	cfg := plugin.Config{Path: c.program.Path, Digest: c.digest, Logger: c.host.cfg.Logger}
	if c.roots != nil {
		cfg.Sandbox, cfg.Reads = c.host.cfg.Sandbox, c.roots
	}
	c.places = placesOf(c.roots)
	process, err := plugin.Launch(ctx, cfg)
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

// place is a folder or file, whatever it is called.
type place struct{ device, inode uint64 }

// placesOf says where roots are by now; what is not there is nowhere.
func placesOf(roots []string) []place {
	out := make([]place, len(roots))
	for i, root := range roots {
		var st unix.Stat_t
		if unix.Stat(root, &st) == nil {
			out[i] = place{st.Dev, st.Ino}
		}
	}
	return out
}

// refresh ends the process when a root has come, or has been replaced or mounted
// over, since it was started: what it may read was fixed then.
func (c *Connector) refresh() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roots == nil || slices.Equal(c.places, placesOf(c.roots)) {
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
