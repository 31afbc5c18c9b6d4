package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/testbed/forge"
	"github.com/cavra/cavra/testbed/stack"
)

// How many agents report, and how much each.
const (
	ingestAgents  = 6
	ingestReports = 10_000
)

// ingest publishes signed reports of several agents and waits until the
// aggregator has every chain whole: what was published was read, verified,
// placed, inserted and committed.
func (b *bench) ingest(ctx context.Context) error {
	aggregator, err := stack.NewAggregator(stack.AggregatorConfig{Programs: b.programs, Dir: filepath.Join(b.dir, "data")})
	if err != nil {
		return err
	}
	defer aggregator.Close()
	if err := aggregator.Start(ctx); err != nil {
		return err
	}
	authors := make([]*forge.Author, ingestAgents)
	reports := make([][][]byte, ingestAgents)
	for i := range authors {
		if authors[i], reports[i], err = b.author(ctx, aggregator, i); err != nil {
			return err
		}
		defer authors[i].Close() //nolint:errcheck // what was published is counted
	}
	began := time.Now()
	outer := ctx
	group, ctx := errgroup.WithContext(ctx)
	for i, author := range authors {
		group.Go(func() error {
			for from := 0; from < len(reports[i]); from += 500 {
				if err := author.Publish(ctx, reports[i][from:min(len(reports[i]), from+500)]...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	published := time.Since(began)
	for _, author := range authors {
		head := stack.Head{Epoch: author.ID.Epoch, Sequence: author.Head.Sequence, Digest: author.Head.Digest}
		if err := aggregator.AwaitHead(outer, author.ID.Agent, head); err != nil {
			return err
		}
	}
	took := time.Since(began)
	const total = ingestAgents * ingestReports
	b.rows = append(b.rows, row{"verified ingest", fmt.Sprintf("%.0f reports/s", total/took.Seconds()), "", "",
		fmt.Sprintf("%d reports of %d agents, from the first write (%.1fs to publish) until the API has every chain whole", total, ingestAgents, published.Seconds())})
	return aggregator.Stop()
}

// author enrols an agent and signs its reports.
func (b *bench) author(ctx context.Context, aggregator *stack.Aggregator, i int) (*forge.Author, [][]byte, error) {
	dir := filepath.Join(b.dir, fmt.Sprintf("agent-%d", i))
	agent, err := stack.NewAgent(b.programs, dir)
	if err != nil {
		return nil, nil, err
	}
	token := dir + ".token"
	if err := aggregator.JoinToken(ctx, token, "--name", filepath.Base(dir)); err != nil {
		return nil, nil, err
	}
	if err := agent.Enrol(ctx, aggregator.URL(), token, "--scan", b.dir); err != nil {
		return nil, nil, err
	}
	author, err := forge.Open(agent)
	if err != nil {
		return nil, nil, err
	}
	reports := make([][]byte, ingestReports)
	for n := range reports {
		s, err := author.Next(fmt.Sprintf("%d %d", i, n))
		if err != nil {
			return nil, nil, err
		}
		reports[n] = s.Envelope
	}
	return author, reports, nil
}
