// Package clickhouse keeps what arrived and what it says in ClickHouse, a server,
// a cluster's shard and the embedded engine alike, over one connection type.
//
// It guarantees that inserting the batch of a plan again changes no result, that
// a schema it did not make or does not know is refused at the start, and that
// every error is either one to try again or one that a person has to see to.
//
// # What a reader needs to know
//
// The tables are those of migrations/0001_statements.sql, with a comment on every
// column that is not obvious:
//
//   - receipts: one row for every message of the topic and what became of it.
//     It is the truth about outcomes, also where quarantine still has a row of an
//     attempt that crashed and was decided otherwise afterwards.
//   - quarantine: what was refused, as it came.
//   - statements: every accepted statement with its envelope. Both sides of a
//     fork are there; outcome is the place when it arrived, so the present state
//     of a chain (a gap filled since) is the control store's to say.
//   - scans, findings, imports; inventories, references; agent_reports: what the
//     statements say, one row for each thing, joined by (tenant, statement).
//
// A row's identity is its table's ORDER BY, and all of it follows from the
// statement or from the place in the topic. The tables are ReplacingMergeTree: a
// row that was inserted twice is there twice until a merge, so a reader either
// says FINAL or counts with uniqExact over the key. Sums and counts without one
// of the two are wrong after any crash. FINAL merges across partitions, which it
// has to; leave do_not_merge_across_partitions_select_final off.
//
// Every key a reader uses begins with tenant, and every query names one. Digests
// are 64 hexadecimal digits without "sha256:"; row.ZeroDigest stands for none.
// A keyed name is written "hmac-sha256:…".
//
// Times: received_at is the time of the ingest plan and the only one that the
// aggregator vouches for. signed_at, scanned_at and listed_at are an agent's
// clock. Which of an agent's statements is the latest is (epoch, sequence); among
// agents, received_at.
//
// # A cluster
//
// With a cluster's name, tables are made ON CLUSTER with the replicated form of
// the engine, and inserts ask for a quorum. The cluster has one shard: there are
// no distributed tables. That form is written after ClickHouse's documentation
// and was not exercised against a cluster; the native protocol was not exercised
// either. What is tested is HTTP and the embedded engine.
package clickhouse

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Protocol is how a server is spoken to.
type Protocol string

// The protocols.
const (
	HTTP   Protocol = "http"
	Native Protocol = "native"
)

// Connection says where a server is and as whom to use it.
type Connection struct {
	Protocol Protocol
	// Addresses are host:port; of several, the first that answers is used.
	Addresses []string
	Database  string
	Username  string
	Password  string
	// TLS, if not nil, is used for every connection.
	TLS *tls.Config
	// DialTimeout bounds a connection attempt.
	DialTimeout time.Duration
}

// LogValue shows everything but the password.
func (c Connection) LogValue() slog.Value {
	return slog.GroupValue(slog.String("protocol", string(c.Protocol)), slog.Any("addresses", c.Addresses),
		slog.String("database", c.Database), slog.String("username", c.Username), slog.Bool("tls", c.TLS != nil))
}

// Validate reports every setting that cannot work.
func (c Connection) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("clickhouse: "+format, args...)) }
	if c.Protocol != HTTP && c.Protocol != Native {
		bad("protocol %q: want http or native", c.Protocol)
	}
	if len(c.Addresses) == 0 {
		bad("addresses: none given")
	}
	for _, a := range c.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			bad("addresses: %w: write it as host:port", err)
		}
	}
	if c.Database == "" {
		bad("database: none given")
	}
	if c.Password != "" && c.TLS == nil && !loopback(c.Addresses) {
		bad("password: would travel in the clear; set tls")
	}
	if c.DialTimeout <= 0 {
		bad("dial timeout: %s is too short", c.DialTimeout)
	}
	return errors.Join(errs...)
}

func loopback(addresses []string) bool {
	for _, a := range addresses {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			return false
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// Config says how rows are kept. Start from Default.
type Config struct {
	// RetentionDays is how long rows are kept after they were received, 1 to
	// MaxRetentionDays.
	RetentionDays int
	// Cluster, if not empty, is the name of a cluster of one shard.
	Cluster string
	// InsertTimeout bounds one Insert, all its tables together.
	InsertTimeout time.Duration
	// QueryTimeout bounds one question, and one statement of a migration.
	QueryTimeout time.Duration
}

// MaxRetentionDays is thirty years. A row's end of life is a DateTime, whose 32
// bits end in February 2106: a later one would wrap around to 1970, and the row
// be deleted at once. So rows may be received until 2076.
const MaxRetentionDays = 30 * 365

// Default returns the settings that do not depend on the installation.
func Default() Config {
	return Config{RetentionDays: 400, InsertTimeout: 2 * time.Minute, QueryTimeout: time.Minute}
}

var clusterName = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}$`)

// Validate reports every setting that cannot work.
func (c Config) Validate() error {
	var errs []error
	if c.RetentionDays < 1 || c.RetentionDays > MaxRetentionDays {
		errs = append(errs, fmt.Errorf("clickhouse: retention days: %d is not within 1 and %d", c.RetentionDays, MaxRetentionDays))
	}
	if c.Cluster != "" && !clusterName.MatchString(c.Cluster) {
		errs = append(errs, fmt.Errorf("clickhouse: cluster %q: want a plain name", c.Cluster))
	}
	if c.InsertTimeout <= 0 || c.QueryTimeout <= 0 {
		errs = append(errs, errors.New("clickhouse: timeouts: each must be positive"))
	}
	return errors.Join(errs...)
}

// DB is a database that holds the aggregator's tables. It is safe for concurrent
// use.
type DB struct {
	conn driver.Conn
	cfg  Config
}

// Open returns a DB over a server. It connects when it is first used; call
// Migrate before anything else.
func Open(c Connection, cfg Config) (*DB, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	options := &clickhouse.Options{
		Protocol:    clickhouse.HTTP,
		Addr:        c.Addresses,
		Auth:        clickhouse.Auth{Database: c.Database, Username: c.Username, Password: c.Password},
		TLS:         c.TLS,
		DialTimeout: c.DialTimeout,
		ReadTimeout: max(cfg.InsertTimeout, cfg.QueryTimeout),
	}
	if !loopback(c.Addresses) {
		// Within one machine it would only cost, and the embedded engine, which
		// another aggregator may use there, has none.
		options.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
	}
	if c.Protocol == Native {
		options.Protocol = clickhouse.Native
	}
	conn, err := clickhouse.Open(options)
	if err != nil {
		return nil, fmt.Errorf("open clickhouse: %w", err)
	}
	return New(conn, cfg)
}

// New returns a DB over a connection, such as the embedded engine's, and closes
// it in Close. Call Migrate before anything else.
func New(conn driver.Conn, cfg Config) (*DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &DB{conn: conn, cfg: cfg}, nil
}

// Close gives back the connections.
func (d *DB) Close() error {
	if err := d.conn.Close(); err != nil {
		return fmt.Errorf("close clickhouse: %w", err)
	}
	return nil
}

// Ping reports whether the database answers.
func (d *DB) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.QueryTimeout)
	defer cancel()
	var one uint8
	if err := d.conn.QueryRow(ctx, "SELECT toUInt8(1)").Scan(&one); err != nil {
		return fmt.Errorf("reach clickhouse: %w", err)
	}
	return nil
}
