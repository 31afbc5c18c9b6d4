// Package control is the aggregator's transactional store, for everything that
// needs compare-and-set: tenants, agents and their keys, join tokens, API tokens
// and sessions, ingest plans, and what is remembered of every chain.
//
// It guarantees that a write is durable when its method has returned without an
// error, that a method's effects are there whole or not at all, that what is
// decided by comparison (a token's one use, a plan's one owner, a chain's head)
// is decided once whoever else runs, and that everything which belongs to a
// tenant is read and changed with that tenant named.
//
// One set of queries runs on SQLite, embedded, and on PostgreSQL.
package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"
)

// Config says where the store is. Exactly one of Path and PostgreSQL is set.
type Config struct {
	// Path is the SQLite file. It is made, readable by its owner only, when
	// it is missing; its folder is not.
	Path string
	// PostgreSQL is a connection string, as a URL or as libpq's keywords. The
	// database exists, and its user may create tables in it.
	PostgreSQL string
	// Overlap is for how long what a retired key signed is still taken in:
	// MinOverlap, which 0 stands for, or more.
	Overlap time.Duration
	// Retention is for how long what is planned is kept; 0 for ever. A clock that
	// is behind by so much that rows of its time would be dropped soon is waited
	// for: see RecordPlan.
	Retention time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// LogValue shows which engine it is and nothing that may hold a password.
func (c Config) LogValue() slog.Value {
	if c.PostgreSQL != "" {
		return slog.GroupValue(slog.String("engine", "postgresql"))
	}
	return slog.GroupValue(slog.String("engine", "sqlite"), slog.String("path", c.Path))
}

// Validate reports whether the configuration says one place.
func (c Config) Validate() error {
	if (c.Path == "") == (c.PostgreSQL == "") {
		return errors.New("control store: set either a path, for SQLite, or a PostgreSQL connection string")
	}
	if c.Overlap != 0 && c.Overlap < MinOverlap {
		return fmt.Errorf("control store: an overlap of keys of %s, want %s at least", c.Overlap, MinOverlap)
	}
	return nil
}

// The limits on connections and on waiting.
const (
	readers     = 4
	connections = 8
	busyTimeout = 10 * time.Second
	writeTries  = 6
	firstPause  = 5 * time.Millisecond
)

// Store is an open control store. It is safe for concurrent use.
type Store struct {
	read, change *sql.DB
	now          func() time.Time
	overlap      time.Duration
	// queue is who writes, where one can at a time: a pool of connections hands
	// its own out in no order, so that under load some would never get it.
	queue     chan struct{}
	retention time.Duration
	clockWait clockWait
}

// Open connects, brings the schema up to date, and returns the store. A schema
// that does not fit the program is a *SchemaError.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Store{now: cfg.Now, retention: cfg.Retention, overlap: max(cfg.Overlap, MinOverlap)}
	if s.now == nil {
		s.now = time.Now
	}
	var err error
	lock := ""
	if cfg.PostgreSQL != "" {
		lock = lockPostgreSQL
		err = s.openPostgreSQL(cfg.PostgreSQL)
	} else {
		err = s.openSQLite(cfg.Path)
	}
	if err == nil {
		err = s.migrate(ctx, lock)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open control store: %w", err), s.Close())
	}
	return s, nil
}

func (s *Store) openPostgreSQL(dsn string) error {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		// The parser's error can quote the connection string.
		return errors.New("the PostgreSQL connection string cannot be read: want postgres://user:password@host:port/database")
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	s.read, s.change = db, db
	return nil
}

// openSQLite opens one connection that writes, and some that cannot.
func (s *Store) openSQLite(path string) error {
	if err := makePrivate(path); err != nil {
		return err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	base := "file:" + (&url.URL{Path: abs}).EscapedPath()
	pragmas := fmt.Sprintf("?_dqs=0&_pragma=busy_timeout(%d)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)",
		busyTimeout.Milliseconds())
	if s.change, err = sql.Open("sqlite", base+pragmas+"&_txlock=immediate"); err != nil {
		return err
	}
	s.change.SetMaxOpenConns(1)
	s.queue = make(chan struct{}, 1)
	if s.read, err = sql.Open("sqlite", base+pragmas+"&_pragma=query_only(1)"); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	return nil
}

// makePrivate creates the file with the owner's rights only; SQLite gives its
// journal the same.
func makePrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// Close waits for what runs and gives back the connections.
func (s *Store) Close() error {
	var errs []error
	if s.read != nil && s.read != s.change {
		errs = append(errs, s.read.Close())
	}
	if s.change != nil {
		errs = append(errs, s.change.Close())
	}
	return errors.Join(errs...)
}

// Ping reports whether the store answers.
func (s *Store) Ping(ctx context.Context) error {
	var one int
	if err := s.read.QueryRowContext(ctx, `SELECT 1`).Scan(&one); err != nil {
		return fmt.Errorf("reach control store: %w", err)
	}
	return nil
}

// write runs f in a transaction that can write, anew when the engine gave up in
// favour of another one. f has no effects outside of its transaction.
func (s *Store) write(ctx context.Context, f func(*sql.Tx) error) error {
	pause := firstPause
	for try := 1; ; try++ {
		err := s.writeOnce(ctx, f)
		if err == nil || try == writeTries || !conflict(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(pause + rand.N(pause)):
		}
		pause *= 2
	}
}

func (s *Store) writeOnce(ctx context.Context, f func(*sql.Tx) error) error {
	if s.queue != nil {
		select {
		case s.queue <- struct{}{}:
			defer func() { <-s.queue }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	tx, err := s.change.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, ended(tx.Rollback()))
	}
	return tx.Commit()
}

// snapshot runs f in a transaction that sees one state of the store.
func (s *Store) snapshot(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return err
	}
	return errors.Join(f(tx), ended(tx.Rollback()))
}

// ended passes over the error that says that the transaction is over already,
// as it is when its context has ended.
func ended(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}
