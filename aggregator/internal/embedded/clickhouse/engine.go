package clickhouse

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"golang.org/x/sys/unix"
)

// Conditions that a start fails with and that trying again does not change.
var (
	// ErrLibrary: the engine's library is missing or cannot be loaded here.
	ErrLibrary = errors.New("engine library unusable")
	// ErrInUse: another process has the data folder.
	ErrInUse = errors.New("data folder in use")
	// ErrStopped: the engine's Run has returned.
	ErrStopped = errors.New("engine stopped")
)

// User is the name clients give; the password is made anew by each Engine.
const User = "cavra"

// Config of an Engine. Dir, Library and Log are required; a zero of the rest
// stands for the default.
type Config struct {
	// Dir is the data folder, made when missing, for this engine alone.
	Dir string
	// Library is the path of libchdb.so.
	Library string
	// Log receives the engine's life and its standard error.
	Log *slog.Logger
	// Command starts the engine's process: a program and arguments that end
	// in RunChild. The default is this program with ChildCommand.
	Command []string

	// Queries is how many run at a time. The default is two a CPU, and at
	// least 4; more wait up to QueueWait (default 30 s), then get an error.
	Queries   int
	QueueWait time.Duration
	// QueryTime is how long a query may take unless its own
	// max_execution_time says otherwise. Default 5 minutes.
	QueryTime time.Duration
	// StartWait is how long clients wait for a starting engine. Default 30 s.
	StartWait time.Duration
	// StopWait is how long running queries may take to end when the engine
	// stops. Default 5 s.
	StopWait time.Duration
	// MemoryBytes is what the engine may use, at most 90 % of the machine's.
	// Default 4 GiB.
	MemoryBytes int64
	// BodyBytes bounds the body of an insert, QueryBytes a query's text, and
	// ResultBytes a result before encoding. Defaults 1 GiB, 4 MiB, 256 MiB.
	BodyBytes, QueryBytes, ResultBytes int64
	// FreeDiskBytes is what an insert must leave free on the disk; one that
	// would not fails with NOT_ENOUGH_SPACE. Default 256 MiB.
	FreeDiskBytes int64
	// FastUnsafe acknowledges inserts before they are on disk: a power cut
	// then loses rows. For measurements.
	FastUnsafe bool
}

// Validate says what is wrong with c, without looking at the disk.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("configure embedded engine: Dir is empty")
	case c.Library == "":
		return errors.New("configure embedded engine: Library is empty")
	case c.Log == nil:
		return errors.New("configure embedded engine: Log is nil")
	case c.Queries < 0,
		min(c.QueueWait, c.QueryTime, c.StartWait, c.StopWait) < 0,
		min(c.MemoryBytes, c.BodyBytes, c.QueryBytes, c.ResultBytes, c.FreeDiskBytes) < 0:
		return errors.New("configure embedded engine: a limit is negative")
	}
	return nil
}

func (c Config) withDefaults() Config {
	orElse(&c.Queries, max(4, 2*runtime.NumCPU()))
	orElse(&c.QueueWait, 30*time.Second)
	orElse(&c.QueryTime, 5*time.Minute)
	orElse(&c.StartWait, 30*time.Second)
	orElse(&c.StopWait, 5*time.Second)
	orElse(&c.MemoryBytes, 4<<30)
	orElse(&c.BodyBytes, 1<<30)
	orElse(&c.QueryBytes, 4<<20)
	orElse(&c.ResultBytes, 256<<20)
	orElse(&c.FreeDiskBytes, 256<<20)
	return c
}

func orElse[T int | int64 | time.Duration](value *T, otherwise T) {
	if *value == 0 {
		*value = otherwise
	}
}

// Engine is the parent's side: it keeps one engine process running and gives
// clients a way to it that stays the same when the process is replaced.
type Engine struct {
	cfg      Config
	password string

	mu      sync.Mutex
	addr    string        // of the running process, or empty
	version string        // of the engine, once it has run
	changed chan struct{} // closed and replaced when addr or err changes
	err     error         // set once Run has returned
}

// New checks cfg. Run starts the engine.
func New(cfg Config) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("resolve data folder: %w", err)
	}
	library, err := filepath.Abs(cfg.Library)
	if err != nil {
		return nil, fmt.Errorf("resolve engine library: %w", err)
	}
	cfg.Dir, cfg.Library = dir, library
	return &Engine{cfg: cfg.withDefaults(), password: rand.Text(), changed: make(chan struct{})}, nil
}

// Backoff between a crash and the next start.
const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 10 * time.Second
	// An engine that ran this long starts over at firstBackoff.
	healthy = time.Minute
)

// Run keeps the engine running until ctx ends, then stops it and returns nil.
// It returns an error when a start cannot succeed by trying again.
func (e *Engine) Run(ctx context.Context) error {
	err := e.keepRunning(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.addr, e.err = "", ErrStopped
	if err != nil {
		e.err = fmt.Errorf("%w: %w", ErrStopped, err)
	}
	e.announce()
	return err
}

func (e *Engine) keepRunning(ctx context.Context) error {
	backoff := firstBackoff
	for {
		started := time.Now()
		err := e.runOnce(ctx)
		// What never worked is a mistake to report; what worked is worth
		// another try.
		if ctx.Err() != nil || e.Version() == "" || errors.Is(err, ErrLibrary) || errors.Is(err, ErrInUse) {
			return err
		}
		if time.Since(started) > healthy {
			backoff = firstBackoff
		}
		wait := backoff/2 + mathrand.N(backoff)
		e.cfg.Log.ErrorContext(ctx, "engine process ended, starting it again",
			slog.Any("error", err), slog.Duration("after", time.Since(started)), slog.Duration("wait", wait))
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

// setAddr publishes where the engine listens; empty means nowhere.
func (e *Engine) setAddr(addr, version string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.addr = addr
	if version != "" {
		e.version = version
	}
	e.announce()
}

// announce wakes who waits for a change. The caller holds mu.
func (e *Engine) announce() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// leave forgets an address that refused a connection: its process has ended
// and its parent has not seen it yet.
func (e *Engine) leave(addr string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.addr == addr {
		e.addr = ""
		e.announce()
	}
}

// dial connects to the engine, and waits for one that starts.
func (e *Engine) dial(ctx context.Context, _ string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.StartWait)
	defer cancel()
	var dialer net.Dialer
	for {
		addr, err := e.Addr(ctx)
		if err != nil {
			return nil, err
		}
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if !errors.Is(err, unix.ECONNREFUSED) {
			return conn, err
		}
		e.leave(addr)
	}
}

// Addr waits until the engine accepts queries and returns its address, which
// changes with each restart.
func (e *Engine) Addr(ctx context.Context) (string, error) {
	for {
		e.mu.Lock()
		addr, err, changed := e.addr, e.err, e.changed
		e.mu.Unlock()
		if err != nil {
			return "", err
		}
		if addr != "" {
			return addr, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("wait for embedded engine: %w", ctx.Err())
		case <-changed:
		}
	}
}

// Version is the engine's, once it has run.
func (e *Engine) Version() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.version
}

// Credentials are those of this Engine's process, through its restarts.
func (e *Engine) Credentials() (user, password string) { return User, e.password }

// Options are for clickhouse-go: they find the engine anew at each dial and
// wait for one that is starting. A caller may change what is not about the
// connection. A query that was running when the engine crashed gets an error;
// whether it took effect is not known, as with any database.
func (e *Engine) Options() *clickhouse.Options {
	return &clickhouse.Options{
		Protocol: clickhouse.HTTP,
		// A label that is never dialled. On loopback, since a proxy that the
		// environment names would be asked for any other host.
		Addr:        []string{"127.0.0.1:8123"},
		Auth:        clickhouse.Auth{Username: User, Password: e.password},
		DialContext: e.dial,
		// A kept connection would outlive the process behind it and cost a
		// later query an error; a new one on loopback costs next to nothing.
		TransportFunc: func(t *http.Transport) (http.RoundTripper, error) {
			t.DisableKeepAlives = true
			return t, nil
		},
		// How long a query's first byte may take.
		ReadTimeout:  e.cfg.QueryTime + e.cfg.QueueWait,
		MaxOpenConns: e.cfg.Queries,
		MaxIdleConns: e.cfg.Queries,
	}
}

// Open returns a connection pool that outlives restarts of the engine.
func (e *Engine) Open() (driver.Conn, error) {
	conn, err := clickhouse.Open(e.Options())
	if err != nil {
		return nil, fmt.Errorf("open embedded engine: %w", err)
	}
	return conn, nil
}

// OpenDB is Open for database/sql.
func (e *Engine) OpenDB() *sql.DB {
	options := e.Options()
	// database/sql has its own pool, and clickhouse-go insists.
	options.MaxOpenConns, options.MaxIdleConns = 0, 0
	return clickhouse.OpenDB(options)
}
