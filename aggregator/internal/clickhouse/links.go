package clickhouse

import (
	"context"
	"fmt"
	"slices"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/row"
	"github.com/cavra/cavra/schemas/predicate"
)

// maxSequences bounds one question about a chain.
const maxSequences = 2000

// Links returns what was kept of a chain at the sequences. What came from the
// partition of r at r.From or later is left out: it was written for a plan that
// was not committed, and a second run of that plan must not meet its own rows.
func (d *DB) Links(ctx context.Context, c control.ChainID, sequences []uint64, r *row.Range) ([]control.Link, error) {
	var out []control.Link
	for part := range slices.Chunk(sequences, maxSequences) {
		links, err := d.links(ctx, c, part, r)
		if err != nil {
			return nil, fmt.Errorf("read links of %s: %w", c, err)
		}
		out = append(out, links...)
	}
	return out, nil
}

func (d *DB) links(ctx context.Context, c control.ChainID, sequences []uint64, r *row.Range) ([]control.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.QueryTimeout)
	defer cancel()
	var settings clickhouse.Settings
	if d.cfg.Cluster != "" {
		settings = clickhouse.Settings{"select_sequential_consistency": 1}
	}
	const query = `SELECT DISTINCT sequence, digest, previous FROM statements
WHERE tenant = {tenant:String} AND agent = {agent:String} AND epoch = {epoch:UInt64} AND sequence IN ({sequences:Array(UInt64)})
  AND NOT (topic = {topic:String} AND partition = {partition:Int32} AND offset >= {from:Int64})
ORDER BY sequence, digest`
	var rows []struct {
		Sequence uint64 `ch:"sequence"`
		Digest   string `ch:"digest"`
		Previous string `ch:"previous"`
	}
	err := wall{d.conn}.readWith(ctx, c.Tenant, settings, &rows, query,
		"agent", c.Agent, "epoch", c.Epoch, "sequences", sequences, "topic", r.Topic, "partition", r.Partition, "from", r.From)
	if err != nil {
		return nil, err
	}
	out := make([]control.Link, len(rows))
	for i, l := range rows {
		out[i] = control.Link{Sequence: l.Sequence, Digest: predicate.Digest("sha256:" + l.Digest), Previous: predicate.Digest("sha256:" + l.Previous)}
	}
	return out, nil
}
