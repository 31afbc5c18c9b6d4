package clickhouse

import (
	"context"
	"crypto/sha256"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migration is a file NNNN_name.sql. Its checksum is that of the file, before
// the places in it are filled in, so that a changed setting is no other
// migration. Its statements can each be run again, since ClickHouse has no
// transaction around them.
type migration struct {
	version uint32
	name    string
	text    string
	sum     string
}

func readMigrations(fsys fs.FS, folder string) ([]migration, error) {
	files, err := fs.ReadDir(fsys, folder)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	out := make([]migration, 0, len(files))
	for _, f := range files {
		text, err := fs.ReadFile(fsys, path.Join(folder, f.Name()))
		if err != nil {
			return nil, fmt.Errorf("read migration %s: %w", f.Name(), err)
		}
		number, name, ok := strings.Cut(strings.TrimSuffix(f.Name(), ".sql"), "_")
		version, err := strconv.ParseUint(number, 10, 32)
		if !ok || err != nil || version != uint64(len(out))+1 {
			return nil, fmt.Errorf("read migration %s: want %04d_name.sql", f.Name(), len(out)+1)
		}
		sum := sha256.Sum256(text)
		out = append(out, migration{uint32(version), name, string(text), fmt.Sprintf("%x", sum)})
	}
	return out, nil
}

// statements fills in the places of the text and divides it. A migration's
// comments have lines of their own, and a semicolon outside of them ends a
// statement.
func (m migration) statements(cfg Config) []string {
	var text strings.Builder
	for line := range strings.Lines(fill(cfg).Replace(m.text)) {
		if !strings.HasPrefix(strings.TrimSpace(line), "--") {
			text.WriteString(line)
		}
	}
	var out []string
	for s := range strings.SplitSeq(text.String(), ";") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

func fill(cfg Config) *strings.Replacer {
	cluster, engine := "", "ReplacingMergeTree"
	if cfg.Cluster != "" {
		cluster = " ON CLUSTER `" + cfg.Cluster + "`"
		engine = "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')"
	}
	return strings.NewReplacer("{on_cluster}", cluster, "{replacing}", engine,
		"{retention_days}", strconv.Itoa(cfg.RetentionDays))
}

const migrationsTable = `CREATE TABLE IF NOT EXISTS migrations{on_cluster}
(version UInt32, name String, sha256 FixedString(64), applied_at DateTime64(3, 'UTC'))
ENGINE = {replacing} ORDER BY version`

// Migrate brings the tables up to date and checks that they are what this
// program writes. Several aggregators may do it at once. A database that does
// not fit is a *SchemaError.
func (d *DB) Migrate(ctx context.Context) error {
	ours, err := readMigrations(migrations, "migrations")
	if err != nil {
		return err
	}
	if err := d.migrate(ctx, ours); err != nil {
		return err
	}
	if err := d.keep(ctx); err != nil {
		return err
	}
	return d.checkSchema(ctx)
}

func (d *DB) migrate(ctx context.Context, ours []migration) error {
	if err := d.define(ctx, fill(d.cfg).Replace(migrationsTable)); err != nil {
		return fmt.Errorf("create table of migrations: %w", err)
	}
	applied, err := d.appliedMigrations(ctx)
	if err != nil {
		return err
	}
	if err := compareMigrations(applied, ours); err != nil {
		return err
	}
	for _, m := range ours[len(applied):] {
		for i, s := range m.statements(d.cfg) {
			if err := d.define(ctx, s); err != nil {
				return fmt.Errorf("apply migration %04d_%s, statement %d: %w", m.version, m.name, i+1, err)
			}
		}
		if err := d.define(ctx, "INSERT INTO migrations (version, name, sha256, applied_at) SELECT ?, ?, ?, now64(3, 'UTC')",
			m.version, m.name, m.sum); err != nil {
			return fmt.Errorf("record migration %04d_%s: %w", m.version, m.name, err)
		}
	}
	return nil
}

// define runs a statement that is not about rows of ours.
func (d *DB) define(ctx context.Context, statement string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.QueryTimeout)
	defer cancel()
	return d.conn.Exec(ctx, statement, args...)
}

func (d *DB) appliedMigrations(ctx context.Context) ([]migration, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.QueryTimeout)
	defer cancel()
	rows, err := d.conn.Query(ctx, "SELECT version, name, sha256 FROM migrations FINAL ORDER BY version")
	if err != nil {
		return nil, fmt.Errorf("read applied migrations: %w", err)
	}
	var out []migration
	for rows.Next() {
		var m migration
		if err := rows.Scan(&m.version, &m.name, &m.sum); err != nil {
			return nil, fmt.Errorf("read applied migrations: %w", err)
		}
		out = append(out, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read applied migrations: %w", err)
	}
	return out, rows.Close()
}

// compareMigrations reports whether what was applied is where ours begin.
func compareMigrations(applied, ours []migration) error {
	for i, m := range applied {
		what := fmt.Sprintf("migration %04d_%s", m.version, m.name)
		switch {
		case m.version != uint32(i)+1:
			return &SchemaError{fmt.Sprintf("migration %04d", i+1), "its record is missing although later ones are there; restore the database from a backup"}
		case i >= len(ours):
			return &SchemaError{what, fmt.Sprintf("the database is newer than this program, which knows versions up to %d; run a program of the version that migrated it, or a later one", len(ours))}
		case m.name != ours[i].name || m.sum != ours[i].sum:
			return &SchemaError{what, "what was applied is not what this program holds under that version; run the program that migrated it, or a release that follows it"}
		}
	}
	return nil
}

// keep applies the retention that is configured now to tables that were made
// with another.
func (d *DB) keep(ctx context.Context) error {
	want := fmt.Sprintf("toIntervalDay(%d)", d.cfg.RetentionDays)
	for _, t := range tables {
		var definition string
		if err := d.ask(ctx, "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = ?", &definition, t.name); err != nil {
			return fmt.Errorf("read retention of %s: %w", t.name, err)
		}
		if strings.Contains(definition, want) {
			continue
		}
		statement := fill(d.cfg).Replace("ALTER TABLE " + t.quoted() + "{on_cluster} MODIFY TTL toDateTime(received_at) + INTERVAL {retention_days} DAY")
		if err := d.define(ctx, statement); err != nil {
			return fmt.Errorf("change retention of %s: %w", t.name, err)
		}
	}
	return nil
}

// ask reads a query's single value.
func (d *DB) ask(ctx context.Context, query string, value any, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.QueryTimeout)
	defer cancel()
	return d.conn.QueryRow(ctx, query, args...).Scan(value)
}

// checkSchema compares the columns that the database has with those that are
// written. A column more is no harm if it has a default.
func (d *DB) checkSchema(ctx context.Context) error {
	for _, t := range tables {
		there, err := d.columns(ctx, t.name)
		if err != nil {
			return err
		}
		if len(there) == 0 {
			return &SchemaError{"table " + t.name, "it is missing; restore the database from a backup"}
		}
		for _, c := range t.columns {
			if !there[c] {
				return &SchemaError{"table " + t.name, fmt.Sprintf("column %s is missing; restore the database from a backup", c)}
			}
		}
	}
	return nil
}

func (d *DB) columns(ctx context.Context, table string) (map[string]bool, error) {
	var names []string
	if err := d.ask(ctx, "SELECT groupArray(name) FROM system.columns WHERE database = currentDatabase() AND table = ?", &names, table); err != nil {
		return nil, fmt.Errorf("read columns of %s: %w", table, err)
	}
	out := make(map[string]bool, len(names))
	for _, n := range names {
		out[n] = true
	}
	return out, nil
}
