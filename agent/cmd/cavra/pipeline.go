package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/agent/internal/discover"
	"github.com/cavra/cavra/agent/internal/inspect"
	"github.com/cavra/cavra/agent/internal/inspect/pluginhost"
	"github.com/cavra/cavra/agent/internal/judge"
	"github.com/cavra/cavra/agent/internal/report"
	"github.com/cavra/cavra/schemas/predicate"
	schema "github.com/cavra/cavra/schemas/report"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/plugin"
)

// pipeline is a scan without a server: discover, inspect, judge, report.
type pipeline struct {
	catalogue *finding.Catalogue
	connector *pluginhost.Connector
	pools     []*pluginhost.Pool
	inspector *inspect.Inspector
	judge     *judge.Judge
	progress  *progress

	report  *schema.Report
	bundles judge.Bundles
	// places tell where a bundle is, by the path that it is shown by.
	places map[string]bundlePlace
	seen   map[string]bool
	total  int
}

// bundlePlace is a bundle's in the scope that it was listed in.
type bundlePlace struct {
	scope inspect.Scope
	path  string
}

func openPipeline(ctx context.Context, o scanOptions, catalogue *finding.Catalogue, bar *progress) (*pipeline, error) {
	p := &pipeline{catalogue: catalogue, progress: bar, seen: map[string]bool{}, places: map[string]bundlePlace{}}
	if err := p.open(ctx, o); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *pipeline) open(ctx context.Context, o scanOptions) error {
	var err error
	if p.judge, err = judge.New(p.catalogue); err != nil {
		return err
	}
	host, err := openHost(o, p.catalogue, p.judge)
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.Go(func() (err error) {
		p.connector, err = host.Connector(ctx, pluginhost.Files, pluginhost.Reach{Roots: []string{"/"}})
		return err
	})
	group.Go(func() (err error) { p.pools, err = host.Scanners(ctx); return err })
	if err := group.Wait(); err != nil {
		return advise(err)
	}
	scanners := make([]inspect.Scanner, len(p.pools))
	for i, pool := range p.pools {
		scanners[i] = pool
	}
	p.inspector, err = inspect.New(inspect.Config{
		Source: p.connector, Scanners: scanners, Jobs: o.atOnce(), Timeout: o.timeout, Progress: p.progress.bytes,
	})
	return err
}

func openHost(o scanOptions, catalogue *finding.Catalogue, j *judge.Judge) (*pluginhost.Host, error) {
	dir := o.pluginDir
	if dir == "" {
		beside, err := pluginhost.BesideExecutable()
		if err != nil {
			return nil, err
		}
		dir = beside
	}
	return pluginhost.New(pluginhost.Config{
		Dir: dir, Catalogue: catalogue, Workers: o.atOnce(), Distrust: j.Distrusts, Logger: slog.New(slog.DiscardHandler),
		Sandbox: plugin.Sandbox(o.sandbox),
	})
}

// advise says what to do about plugins that are missing or do not start.
func advise(err error) error {
	if errors.Is(err, pluginhost.ErrNoPlugin) {
		return fmt.Errorf("%w: put the plugin programs beside cavra, or name their folder with --plugin-dir", err)
	}
	if errors.Is(err, plugin.ErrSandbox) {
		return fmt.Errorf("%w: --sandbox=best-effort scans with the layers that work here", err)
	}
	return fmt.Errorf("%w: cavra doctor says what is wrong here", err)
}

func (p *pipeline) close() error {
	var err error
	for _, pool := range p.pools {
		err = errors.Join(err, pool.Close())
	}
	if p.connector != nil {
		err = errors.Join(err, p.connector.Close())
	}
	return err
}

// run scans the targets and returns the report.
func (p *pipeline) run(ctx context.Context, targets []target) (*schema.Report, error) {
	p.report = &schema.Report{
		SchemaVersion: schema.Version,
		Tool:          p.tool(),
		Ruleset:       schema.Ruleset{Version: p.catalogue.Version(), Digest: p.catalogue.Digest()},
		StartedAt:     predicate.At(time.Now()),
		Artifacts:     []schema.Artifact{}, Bundles: []schema.Bundle{}, Problems: []string{},
	}
	listings := make([]*discover.Listing, len(targets))
	shown := make(map[string]target, len(targets))
	var bytes int64
	for i, t := range targets {
		listings[i] = discover.All(ctx, p.connector, t.root, 0)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := listings[i].Err; err != nil {
			p.report.Problems = append(p.report.Problems, err.Error())
		}
		shown[t.root] = t
		p.total += len(listings[i].Items)
		bytes += listings[i].Bytes
	}
	p.progress.start(p.total, bytes)
	err := p.inspector.Run(ctx, work(listings), func(r inspect.Result) error {
		p.add(shown[r.Scope.Root], r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p.report, p.finish(ctx)
}

func work(listings []*discover.Listing) iter.Seq2[inspect.Work, error] {
	return func(yield func(inspect.Work, error) bool) {
		for _, l := range listings {
			scope := inspect.Scope{Root: l.Root, Locate: l.Locate}
			for _, item := range l.Items {
				if !yield(inspect.Work{Scope: scope, Item: item}, nil) {
					return
				}
			}
		}
	}
}

func (p *pipeline) tool() schema.Tool {
	t := schema.Tool{Name: "cavra", Version: version, Scanners: []predicate.Scanner{}, Sandbox: slices.Clone(p.pools[0].Layers())}
	for _, pool := range p.pools {
		t.Scanners = append(t.Scanners, pool.Program())
		t.Sandbox = slices.DeleteFunc(t.Sandbox, func(l predicate.Layer) bool { return !slices.Contains(pool.Layers(), l) })
	}
	return t
}

// escapedPercent is how the fs connector spells a percent sign that would read
// as an escape; see path.
var escapedPercent = regexp.MustCompile(`%25([0-9A-Fa-f]{2})`)

// path is how an item's path is shown: the name as it is on disk, and a byte of
// it that is not UTF-8 as %HH.
func path(t target, item string) string {
	if !t.folder {
		return t.shown
	}
	return filepath.Join(t.shown, filepath.FromSlash(escapedPercent.ReplaceAllString(item, "%$1")))
}

// add judges a result and takes it into the report.
func (p *pipeline) add(t target, r inspect.Result) {
	shown := path(t, r.Item.Path)
	p.progress.done(1)
	// PATHs may lie within one another.
	place := t.root
	if t.folder {
		place = filepath.Join(t.root, r.Item.Path)
	}
	if p.seen[place] {
		return
	}
	p.seen[place] = true
	j := p.judge.Artifact(r.Findings, r.FindingsOmitted, r.Coverage)
	a := entry(shown, r, j)
	p.report.Artifacts = append(p.report.Artifacts, a)
	if r.Item.Bundle == "" {
		return
	}
	file := judge.BundleFile{Verdict: j.Verdict, Score: j.Score, Complete: a.Coverage.Complete}
	file.Path = strings.TrimPrefix(r.Item.Path, r.Item.Bundle+"/")
	file.Digest, file.Size = r.Digest, r.Size
	where := path(t, r.Item.Bundle)
	p.places[where] = bundlePlace{scope: r.Scope, path: r.Item.Bundle}
	p.bundles.Add(where, file)
}

// finish has the bundles looked at as wholes, and adds up.
func (p *pipeline) finish(ctx context.Context) error {
	bundles, err := p.bundles.Judge()
	if err != nil {
		return err
	}
	for _, b := range bundles {
		var gaps []schema.Gap
		if files := b.Manifest(); files != nil {
			at := p.places[b.Path]
			r, err := p.inspector.Bundle(ctx, at.scope, at.path, files)
			if err != nil {
				return err
			}
			b = b.With(p.judge.Artifact(r.Findings, r.FindingsOmitted, r.Coverage), coverage.Sum(r.Coverage).Complete)
			gaps = cover(r.Coverage).Gaps
		}
		p.report.Bundles = append(p.report.Bundles, bundleEntry(b, gaps))
	}
	p.report.Summary = summarise(p.report.Artifacts, p.report.Bundles, len(p.report.Problems) == 0)
	p.report.FinishedAt = predicate.At(time.Now())
	report.Sort(p.report)
	return nil
}

// soFar says how far a scan came that did not end.
func (p *pipeline) soFar() string {
	if p.report == nil {
		return "before anything was scanned"
	}
	s := summarise(p.report.Artifacts, nil, false)
	return fmt.Sprintf("after %d of %d files (so far %d fail, %d warn, %d error)", s.Artifacts, p.total, s.Fail, s.Warn, s.Error)
}
