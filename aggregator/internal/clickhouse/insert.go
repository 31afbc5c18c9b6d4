package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/aggregator/internal/row"
)

// table is one of ours: its columns, and how rows of a batch get into it.
type table struct {
	name    string
	columns []string
	count   func(*row.Batch) int
	fill    func(driver.Batch, *row.Batch) error
}

func tableOf[T any](name string, rows func(*row.Batch) []T) table {
	return table{
		name: name, columns: columnsOf(reflect.TypeFor[T]()),
		count: func(b *row.Batch) int { return len(rows(b)) },
		fill: func(batch driver.Batch, b *row.Batch) error {
			all := rows(b)
			for i := range all {
				if err := batch.AppendStruct(&all[i]); err != nil {
					return fmt.Errorf("row %d: %w", i, err)
				}
			}
			return nil
		},
	}
}

func columnsOf(t reflect.Type) []string {
	out := make([]string, t.NumField())
	for i := range out {
		out[i] = t.Field(i).Tag.Get("ch")
	}
	return out
}

// receipts is written after all others: where a reader finds a message's receipt,
// its rows are there.
var receipts = tableOf("receipts", func(b *row.Batch) []row.Receipt { return b.Receipts })

// tables are all that a batch fills.
var tables = []table{
	tableOf("quarantine", func(b *row.Batch) []row.Quarantined { return b.Quarantine }),
	tableOf("statements", func(b *row.Batch) []row.Statement { return b.Statements }),
	tableOf("scans", func(b *row.Batch) []row.Scan { return b.Scans }),
	tableOf("findings", func(b *row.Batch) []row.Finding { return b.Findings }),
	tableOf("imports", func(b *row.Batch) []row.Import { return b.Imports }),
	tableOf("inventories", func(b *row.Batch) []row.Inventory { return b.Inventories }),
	tableOf("references", func(b *row.Batch) []row.Reference { return b.References }),
	tableOf("agent_reports", func(b *row.Batch) []row.AgentReport { return b.AgentReports }),
	receipts,
}

func (t table) quoted() string { return "`" + t.name + "`" }

func (t table) insertion() string {
	return "INSERT INTO " + t.quoted() + " (`" + strings.Join(t.columns, "`, `") + "`)"
}

// parallelInserts is how many tables of a batch are written at a time.
const parallelInserts = 4

// Insert writes a plan's rows and returns once all of them are durable. token
// names the plan and its content: the same token means the same rows. After an
// error some tables may have their rows; inserting the same batch again
// completes it.
func (d *DB) Insert(ctx context.Context, b *row.Batch, token string) error {
	if token == "" {
		return errors.New("insert batch: no token")
	}
	ctx, cancel := context.WithTimeout(ctx, d.cfg.InsertTimeout)
	defer cancel()
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelInserts)
	for _, t := range tables {
		if t.name != receipts.name {
			group.Go(func() error { return d.insert(groupCtx, t, b, token) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return d.insert(ctx, receipts, b, token)
}

// insert writes one table's rows as one block, in one part.
func (d *DB) insert(ctx context.Context, t table, b *row.Batch, token string) (err error) {
	if t.count(b) == 0 {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("insert into %s: %w", t.name, err)
		}
	}()
	// The rows' keys make a repetition harmless; a token only saves work, and
	// only where it is kept with the part. An unreplicated table writes it down
	// before, and after a crash between the two drops the repetition as well.
	if d.cfg.Cluster != "" {
		ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
			"insert_quorum":              "auto",
			"insert_deduplicate":         1,
			"insert_deduplication_token": token + "/" + t.name,
		}))
	}
	batch, err := d.conn.PrepareBatch(ctx, t.insertion())
	if err != nil {
		return err
	}
	if err := t.fill(batch, b); err != nil {
		// The rows are at fault: the batch was not sent and has nothing to
		// give back but its connection.
		return errors.Join(err, batch.Close())
	}
	return batch.Send()
}
