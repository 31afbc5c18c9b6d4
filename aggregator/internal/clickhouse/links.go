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
	if d.cfg.Cluster != "" {
		ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"select_sequential_consistency": 1}))
	}
	rows, err := d.conn.Query(ctx, `SELECT DISTINCT sequence, digest, previous FROM statements
WHERE tenant = ? AND agent = ? AND epoch = ? AND sequence IN (?)
  AND NOT (topic = ? AND partition = ? AND offset >= ?)
ORDER BY sequence, digest`, c.Tenant, c.Agent, c.Epoch, sequences, r.Topic, r.Partition, r.From)
	if err != nil {
		return nil, err
	}
	var out []control.Link
	for rows.Next() {
		var l control.Link
		var digest, previous string
		if err := rows.Scan(&l.Sequence, &digest, &previous); err != nil {
			return nil, err
		}
		l.Digest, l.Previous = predicate.Digest("sha256:"+digest), predicate.Digest("sha256:"+previous)
		out = append(out, l)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return out, rows.Close()
}
