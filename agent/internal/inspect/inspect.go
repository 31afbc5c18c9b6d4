// Package inspect reads artifacts through a connector, hashes them, and has
// them scanned by workers in processes of their own, several at a time within
// bounds. It parses no byte itself. It guarantees a result for every item: what
// could not be read, changed while it was read, took too long, or was given up
// by a scanner is a result that says so, and no artifact stops another. What is
// hashed is what is scanned.
package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/scanner"
)

// The bounds of an inspection.
const (
	// MaxInMemory is the largest content, in bytes, that is read once into
	// memory and both hashed and scanned from there.
	MaxInMemory = 256 << 10
	// DefaultTimeout is what one scanner may take for one artifact.
	DefaultTimeout = 5 * time.Minute
	// DefaultMaxRemote is the largest content, in bytes, that is copied from a
	// connector without descriptors before it is hashed and scanned.
	DefaultMaxRemote = 4 << 30
	// maxJobs bounds the artifacts that are inspected at a time.
	maxJobs = 256
)

// Source opens an item of a scope.
type Source interface {
	Open(ctx context.Context, root, key string) (artifact.Reader, error)
}

// Scanner scans artifacts, each in a process that may be lost. An error that
// is a *plugin.ContractError or a *plugin.CrashError is told apart from others.
type Scanner interface {
	// Program is what scans.
	Program() predicate.Scanner
	// Layers are the layers of isolation in force around every scan.
	Layers() []predicate.Layer
	Scan(ctx context.Context, target scanner.Target) (scanner.Report, error)
}

// Config is what an Inspector needs.
type Config struct {
	Source Source
	// Scanners all look at every artifact; one at least.
	Scanners []Scanner
	// Jobs is how many artifacts are inspected at a time, 1 to 256.
	Jobs int
	// Timeout is what one scanner may take for one artifact; DefaultTimeout
	// when 0.
	Timeout time.Duration
	// MaxRemote bounds content without a descriptor, in bytes;
	// DefaultMaxRemote when 0.
	MaxRemote int64
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Progress, if set, is told of bytes as they are hashed. It is called from
	// several goroutines at once.
	Progress func(bytes int64)
}

// Inspector inspects the items of scopes.
type Inspector struct{ cfg Config }

// New returns an Inspector. It starts nothing.
func New(cfg Config) (*Inspector, error) {
	if cfg.Source == nil || len(cfg.Scanners) == 0 {
		return nil, errors.New("new inspector: want a source and one scanner at least")
	}
	if cfg.Jobs < 1 || cfg.Jobs > maxJobs {
		return nil, fmt.Errorf("new inspector: %d jobs, want 1 to %d", cfg.Jobs, maxJobs)
	}
	if cfg.Timeout < 0 || cfg.MaxRemote < 0 {
		return nil, errors.New("new inspector: a negative limit")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.MaxRemote == 0 {
		cfg.MaxRemote = DefaultMaxRemote
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Progress == nil {
		cfg.Progress = func(int64) {}
	}
	return &Inspector{cfg: cfg}, nil
}

// Scope is where items are opened.
type Scope struct {
	// Root is the connector's root.
	Root string
	// Locate tells the key of the item at a path of the scope, for the siblings
	// that a scanner asks for. Nil knows none.
	Locate func(path string) (key string, ok bool)
}

// Work is an item and the scope that it is opened in.
type Work struct {
	Scope Scope
	Item  artifact.Item
}

// Result is what is known of an item after its inspection.
type Result struct {
	Work
	// Digest is that of the bytes that were scanned. It is empty exactly when
	// Problem says why there is none.
	Digest  predicate.Digest
	Problem predicate.Reason
	// Message says in words what went wrong, if anything did. It is for the
	// person at this machine and never leaves it.
	Message string
	// Size is in bytes: of the content, or as listed if that was not opened.
	Size   int64
	Format string
	// Findings, Imports and Children are those of all scanners, in ascending
	// order; each import is there once.
	Findings                        []finding.Finding
	Imports                         []finding.Import
	Children                        []scanner.Child
	FindingsOmitted, ImportsOmitted uint64
	// Coverage is the account of all scanners together: disjoint, ascending,
	// and over all of Size.
	Coverage []coverage.Range
	// Scanners are the programs that took part, Sandbox the layers that were
	// in force around all of them.
	Scanners []predicate.Scanner
	Sandbox  []predicate.Layer
	// Started and Finished frame the inspection.
	Started, Finished time.Time
}

// Run does all the work and hands each result to emit, one call at a time, in
// the order in which they are done. It returns early only when ctx ends, or when
// work or emit say so by an error, and leaves nothing running.
func (n *Inspector) Run(ctx context.Context, work iter.Seq2[Work, error], emit func(Result) error) error {
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan Work)
	results := make(chan Result)
	group.Go(func() error {
		defer close(queue)
		for w, err := range work {
			if err != nil {
				return err
			}
			select {
			case queue <- w:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	workers, wctx := errgroup.WithContext(ctx)
	for range n.cfg.Jobs {
		workers.Go(func() error {
			for w := range queue {
				r, err := n.Item(wctx, w)
				if err != nil {
					return err
				}
				select {
				case results <- r:
				case <-wctx.Done():
					return context.Cause(wctx)
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(results)
		return workers.Wait()
	})
	group.Go(func() error {
		for r := range results {
			if err := emit(r); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// Item inspects one item. An error says that ctx has ended; everything else is
// part of the result.
func (n *Inspector) Item(ctx context.Context, w Work) (Result, error) {
	out := Result{Work: w, Size: w.Item.Size, Format: scanner.Unknown, Started: n.cfg.Now()}
	if w.Item.Problem != "" {
		out.unreadable(w.Item.Problem, describe(w.Item.Problem))
		out.Finished = n.cfg.Now()
		return out, nil
	}
	err := n.read(ctx, &out)
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	if err != nil {
		out.unreadable(reasonOf(err), err.Error())
	}
	out.Finished = n.cfg.Now()
	return out, nil
}

// unreadable notes why there is no digest. What was found before still stands,
// but none of it covers bytes that nobody can name.
func (r *Result) unreadable(why predicate.Reason, message string) {
	r.Digest, r.Problem, r.Message = "", why, message
	r.Coverage = []coverage.Range{{Kind: predicate.Unread, End: r.Size, Reason: why}}
}

// siblings opens other files of the item's bundle.
func (n *Inspector) siblings(w Work) func(context.Context, string) (artifact.Reader, error) {
	if w.Item.Bundle == "" || w.Scope.Locate == nil {
		return nil
	}
	return func(ctx context.Context, path string) (artifact.Reader, error) {
		if w.Item.Bundle != "." {
			path = w.Item.Bundle + "/" + path
		}
		key, ok := w.Scope.Locate(path)
		if !ok {
			return nil, fmt.Errorf("open sibling: %w", fs.ErrNotExist)
		}
		return n.cfg.Source.Open(ctx, w.Scope.Root, key)
	}
}
