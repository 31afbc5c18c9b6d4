package control

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
)

func TestSchemaMismatch(t *testing.T) {
	tests := map[string]struct{ change, want string }{
		"a changed migration": {`UPDATE migrations SET sha256 = $1 WHERE version = 1`, "not what this program holds"},
		"a newer database":    {`INSERT INTO migrations (version, name, sha256, applied_at) VALUES ((SELECT COUNT(*) + 1 FROM migrations), 'future', $1, 0)`, "newer than this program"},
		"a missing record":    {`DELETE FROM migrations WHERE version = 1 AND sha256 <> $1`, "record is missing"},
	}
	for _, e := range engines() {
		for name, tc := range tests {
			t.Run(e.name+"/"+name, func(t *testing.T) {
				cfg := e.fresh(t)
				s := open(t, cfg)
				_, err := s.change.ExecContext(t.Context(), tc.change, make([]byte, 32))
				must(t, err)
				_, err = Open(t.Context(), cfg)
				var schema *SchemaError
				if !errors.As(err, &schema) || !strings.Contains(schema.Problem, tc.want) {
					t.Errorf("opened: %v, want a SchemaError saying %q", err, tc.want)
				}
			})
		}
	}
}

// A migration that fails leaves nothing behind, and the next try starts over.
func TestFailedMigration(t *testing.T) {
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			cfg := e.fresh(t)
			s, lock := open(t, cfg), ""
			if cfg.PostgreSQL != "" {
				lock = lockPostgreSQL
			}
			ours, err := readMigrations(migrations, "migrations")
			must(t, err)
			version := int64(len(ours)) + 1
			broken := append(ours[:len(ours):len(ours)], migration{version: version, name: "broken", text: "CREATE TABLE half (id BIGINT); SELECT nonsense FROM nowhere;"})
			if err := s.applyMigrations(t.Context(), lock, broken); err == nil || !strings.Contains(err.Error(), "(broken)") {
				t.Errorf("broken migration: %v", err)
			}
			fixed := append(ours[:len(ours):len(ours)], migration{version: version, name: "fixed", text: "CREATE TABLE half (id BIGINT);"})
			must(t, s.applyMigrations(t.Context(), lock, fixed))
		})
	}
}

// Aggregators that start at the same time migrate once.
func TestOpenRace(t *testing.T) {
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			cfg := e.fresh(t)
			if cfg.Path != "" {
				must(t, os.MkdirAll(filepath.Dir(cfg.Path), 0o700))
			}
			var wg sync.WaitGroup
			errs := make([]error, 8)
			for i := range errs {
				wg.Go(func() {
					s, err := Open(t.Context(), cfg)
					if err == nil {
						err = errors.Join(s.Ping(t.Context()), s.Close())
					}
					errs[i] = err
				})
			}
			wg.Wait()
			must(t, errors.Join(errs...))
		})
	}
}

func TestReadMigrations(t *testing.T) {
	for name, want := range map[string]string{"0002_second.sql": "want 0001_name.sql", "first.sql": "want 0001_name.sql", "0001.sql": "want 0001_name.sql"} {
		_, err := readMigrations(fstest.MapFS{"m/" + name: {Data: []byte("SELECT 1")}}, "m")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if _, err := readMigrations(fstest.MapFS{}, "m"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

func TestSQLiteSettings(t *testing.T) {
	cfg := engines()[0].fresh(t)
	s := open(t, cfg)
	for _, db := range []*sql.DB{s.read, s.change} {
		for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "10000"} {
			var got string
			must(t, db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
			if got != want {
				t.Errorf("%s is %s, want %s", pragma, got, want)
			}
		}
	}
	if _, err := s.read.ExecContext(t.Context(), `DELETE FROM tenants`); err == nil {
		t.Error("a connection for reading can write")
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(cfg.Path), "*"))
	must(t, err)
	for _, f := range files {
		info, err := os.Stat(f)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f, info.Mode())
		}
	}
	if len(files) < 2 {
		t.Errorf("files: %v", files)
	}
}

func TestOpenRefuses(t *testing.T) {
	notADatabase := filepath.Join(t.TempDir(), "control.db")
	must(t, os.WriteFile(notADatabase, []byte(strings.Repeat("not a database ", 100)), 0o600))
	for name, cfg := range map[string]Config{
		"nothing":        {},
		"both":           {Path: "x", PostgreSQL: "y"},
		"no folder":      {Path: filepath.Join(t.TempDir(), "none", "control.db")},
		"not a database": {Path: notADatabase},
		"no server":      {PostgreSQL: "postgres://cavra:hunter2@127.0.0.1:1/none?connect_timeout=2"},
		"no string":      {PostgreSQL: "postgres://cavra:hunter2@127.0.0.1:port/"},
	} {
		s, err := Open(t.Context(), cfg)
		if err == nil || s != nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
		if text := slog.AnyValue(cfg).Resolve().String(); strings.Contains(text, "hunter2") {
			t.Errorf("%s: the log would hold %s", name, text)
		}
	}
}

func TestRetryable(t *testing.T) {
	_, err := Open(t.Context(), Config{PostgreSQL: "postgres://cavra@127.0.0.1:1/none?connect_timeout=2"})
	if !Retryable(err) {
		t.Errorf("a server that does not answer is not retryable: %v", err)
	}
	for _, err := range []error{nil, context.Canceled, ErrPlanLost, ErrNotFound, &SchemaError{}} {
		if Retryable(err) {
			t.Errorf("%v is retryable", err)
		}
	}
}
