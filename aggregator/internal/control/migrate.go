package control

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

//go:embed migrations/*.sql
var migrations embed.FS

// lockPostgreSQL keeps others from migrating until the transaction ends; SQLite
// has locked when the transaction began. The number is arbitrary and ours.
const lockPostgreSQL = `SELECT pg_advisory_xact_lock(4846125070103)`

type migration struct {
	version int64
	name    string
	text    string
	sum     [sha256.Size]byte
}

// readMigrations reads the files NNNN_name.sql of a folder, whose versions are
// 1, 2, 3 and so on.
func readMigrations(fsys fs.FS, folder string) ([]migration, error) {
	files, err := fs.ReadDir(fsys, folder)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	var out []migration
	for _, f := range files {
		text, err := fs.ReadFile(fsys, path.Join(folder, f.Name()))
		if err != nil {
			return nil, fmt.Errorf("read migration %s: %w", f.Name(), err)
		}
		number, name, ok := strings.Cut(strings.TrimSuffix(f.Name(), ".sql"), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if !ok || err != nil || version != int64(len(out))+1 {
			return nil, fmt.Errorf("read migration %s: want %04d_name.sql", f.Name(), len(out)+1)
		}
		out = append(out, migration{version, name, string(text), sha256.Sum256(text)})
	}
	return out, nil
}

func (s *Store) migrate(ctx context.Context, lock string) error {
	ours, err := readMigrations(migrations, "migrations")
	if err != nil {
		return err
	}
	return s.applyMigrations(ctx, lock, ours)
}

// applyMigrations checks what was applied and applies the rest, all in one
// transaction.
func (s *Store) applyMigrations(ctx context.Context, lock string, ours []migration) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if lock != "" {
			if _, err := tx.ExecContext(ctx, lock); err != nil {
				return fmt.Errorf("lock schema: %w", err)
			}
		}
		applied, err := appliedMigrations(ctx, tx)
		if err != nil {
			return err
		}
		if err := compareMigrations(applied, ours); err != nil {
			return err
		}
		for _, m := range ours[len(applied):] {
			if _, err := tx.ExecContext(ctx, m.text); err != nil {
				return fmt.Errorf("apply migration %d (%s): %w", m.version, m.name, err)
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO migrations (version, name, sha256, applied_at) VALUES ($1, $2, $3, $4)`,
				m.version, m.name, m.sum[:], s.millis()); err != nil {
				return fmt.Errorf("record migration %d (%s): %w", m.version, m.name, err)
			}
		}
		return nil
	})
}

func appliedMigrations(ctx context.Context, tx *sql.Tx) ([]migration, error) {
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS migrations
(version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, sha256 BYTEA NOT NULL, applied_at BIGINT NOT NULL)`); err != nil {
		return nil, fmt.Errorf("create table of migrations: %w", err)
	}
	return queryAll(ctx, tx, func(scan scanner, m *migration) error {
		var sum []byte
		if err := scan(&m.version, &m.name, &sum); err != nil {
			return err
		}
		copy(m.sum[:], sum)
		return nil
	}, `SELECT version, name, sha256 FROM migrations ORDER BY version`)
}

// compareMigrations reports whether what was applied is where ours begin.
func compareMigrations(applied, ours []migration) error {
	for i, m := range applied {
		if m.version != int64(i)+1 {
			return &SchemaError{int64(i) + 1, "", "its record is missing from the database although later ones are there; restore the database from a backup"}
		}
		if i >= len(ours) {
			return &SchemaError{m.version, m.name, fmt.Sprintf("the database is newer than this program, which knows versions up to %d; run a program of the version that migrated it, or a later one", len(ours))}
		}
		if m.name != ours[i].name || !slices.Equal(m.sum[:], ours[i].sum[:]) {
			return &SchemaError{m.version, m.name, "what was applied to the database is not what this program holds under that version; run the program that migrated it, or a release that follows it"}
		}
	}
	return nil
}
