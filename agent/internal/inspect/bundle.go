package inspect

import (
	"bytes"
	"context"
	"fmt"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/scanner"
)

// Bundle has the bundle at a path of the scope scanned as a whole. What the
// scanners are handed is its canonical manifest, so that the result's digest is the
// bundle's own; they open its files as siblings. An error says that ctx has ended,
// or that the files make no manifest.
func (n *Inspector) Bundle(ctx context.Context, s Scope, path string, files []artifact.File) (Result, error) {
	manifest, err := artifact.Manifest(files)
	if err != nil {
		return Result{}, fmt.Errorf("inspect bundle %s: %w", path, err)
	}
	out := Result{
		Work: Work{Scope: s, Item: artifact.Item{Path: path, Bundle: path}}, Digest: predicate.DigestOf(manifest),
		Size: int64(len(manifest)), Format: scanner.Unknown, Started: n.cfg.Now(),
	}
	target := scanner.Target{Path: path, Content: memory{bytes.NewReader(manifest)}, Siblings: n.siblings(out.Work)}
	if err := n.scan(ctx, target, &out); err != nil {
		return Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return Result{}, context.Cause(ctx)
	}
	out.Finished = n.cfg.Now()
	return out, nil
}
