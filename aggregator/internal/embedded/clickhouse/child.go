package clickhouse

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// ChildCommand is the hidden subcommand under which the program that holds an
// Engine has to call RunChild.
const ChildCommand = "embedded-clickhouse"

// reportDescriptor is where the child tells its parent how the start went.
// Standard output is left to the engine, which may print.
const reportDescriptor = 3

// maxOrder bounds the order that a child reads, in bytes.
const maxOrder = 1 << 20

// limits of the engine's process.
type limits struct {
	QueryBytes    int64         `json:"query_bytes"`
	BodyBytes     int64         `json:"body_bytes"`
	ResultBytes   int64         `json:"result_bytes"`
	MemoryBytes   int64         `json:"memory_bytes"`
	FreeDiskBytes int64         `json:"free_disk_bytes"`
	Queries       int           `json:"queries"`
	QueryTime     time.Duration `json:"query_time"`
	QueueWait     time.Duration `json:"queue_wait"`
	StopWait      time.Duration `json:"stop_wait"`
}

// order is what the parent writes to its child's standard input, the
// credentials included: arguments and environment are visible to others.
type order struct {
	Dir        string `json:"dir"`
	Library    string `json:"library"`
	User       string `json:"user"`
	Password   string `json:"password"`
	Limits     limits `json:"limits"`
	FastUnsafe bool   `json:"fast_unsafe"`
}

// report is the child's answer to its order.
type report struct {
	Addr    string `json:"addr,omitempty"`
	Version string `json:"version,omitempty"`
	Error   string `json:"error,omitempty"`
	// Kind lets the parent rebuild the sentinel that Error wraps.
	Kind string `json:"kind,omitempty"`
}

const (
	kindLibrary = "library"
	kindInUse   = "in-use"
)

// RunChild is the engine's process: it reads its order from standard input,
// reports on descriptor 3, and serves until standard input closes, which is
// when its parent is gone or wants it gone. It is for the process that an
// Engine starts, and returns an error at once when it runs in another.
func RunChild(ctx context.Context) error {
	// The parent's terminal is not ours to listen to: a Ctrl-C that reached
	// the engine first would fail the writes of the parent's own shutdown.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	var stat unix.Stat_t
	if err := unix.Fstat(reportDescriptor, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFIFO {
		return fmt.Errorf("run engine process: %s is started by the aggregator, not by hand", ChildCommand)
	}
	out := os.NewFile(reportDescriptor, "report")
	input := json.NewDecoder(io.LimitReader(os.Stdin, maxOrder))
	var o order
	if err := input.Decode(&o); err != nil {
		return fmt.Errorf("read engine order: %w", err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	child, err := startChild(o, log)
	if err != nil {
		return errors.Join(err, sendReport(out, failureReport(err)))
	}
	if err := sendReport(out, report{Addr: child.listener.Addr().String(), Version: child.version}); err != nil {
		return err
	}
	if err := child.serve(ctx, os.Stdin, o.Limits.StopWait); err != nil {
		// A query still runs: the end of the process is the way to end it, and
		// what it did not acknowledge it does not owe.
		return err
	}
	child.close()
	return nil
}

func failureReport(err error) report {
	r := report{Error: err.Error()}
	switch {
	case errors.Is(err, ErrLibrary):
		r.Kind = kindLibrary
	case errors.Is(err, ErrInUse):
		r.Kind = kindInUse
	}
	return r
}

func sendReport(out *os.File, r report) error {
	if err := errors.Join(json.NewEncoder(out).Encode(r), out.Close()); err != nil {
		return fmt.Errorf("report engine start: %w", err)
	}
	return nil
}

// child holds what the engine's process has open.
type child struct {
	lock     *os.File
	lib      *library
	root     *connection
	listener net.Listener
	handler  http.Handler
	version  string
}

func startChild(o order, log *slog.Logger) (_ *child, err error) {
	c := &child{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if err := checkLibrary(o.Library); err != nil {
		return nil, err
	}
	if c.lock, err = lockFolder(o.Dir); err != nil {
		return nil, err
	}
	// The engine asks for the working folder at every insert from a file, and
	// the one that the aggregator was started in may be deleted under it.
	if err := os.Chdir(o.Dir); err != nil {
		return nil, fmt.Errorf("go to data folder: %w", err)
	}
	incoming, err := emptyFolder(filepath.Join(o.Dir, "incoming"))
	if err != nil {
		return nil, err
	}
	configFile, err := writeConfig(o.Dir, o)
	if err != nil {
		return nil, err
	}
	if c.lib, err = openLibrary(o.Library); err != nil {
		return nil, err
	}
	args := []string{"clickhouse", "--path=" + filepath.Join(o.Dir, "store"), "--config-file=" + configFile}
	// One connection stays open, for the engine stops with its last one.
	if c.root, err = c.lib.boot(args...); err != nil {
		return nil, err
	}
	if c.version, err = c.root.text("SELECT version()"); err != nil {
		return nil, fmt.Errorf("ask engine's version: %w", err)
	}
	if c.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("listen for queries: %w", err)
	}
	handler := &server{
		lib: c.lib, dir: incoming, args: args, limits: o.Limits, log: log,
		user: o.User, password: sha256.Sum256([]byte(o.Password)),
		slots: make(chan struct{}, o.Limits.Queries), insertTime: insertTime,
	}
	handler.hung = handler.die
	c.handler = handler
	return c, nil
}

// serve answers queries until the context ends or input does, then lets the
// running ones finish within wait.
func (c *child) serve(ctx context.Context, input io.Reader, wait time.Duration) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	server := &http.Server{Handler: c.handler, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 1 << 20}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(c.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve queries: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			return errors.Join(fmt.Errorf("stop serving queries: %w", err), server.Close())
		}
		return nil
	})
	// Outside the group, which would wait for it: a read of a pipe cannot be
	// cancelled, and this process ends when serve returns.
	go func() {
		defer stop()
		// Whatever ends the read, the parent is not there any more.
		_, _ = io.Copy(io.Discard, input)
	}()
	return group.Wait()
}

func (c *child) close() {
	if c.root != nil {
		c.root.close()
	}
	if c.lock != nil {
		// The lock goes with the descriptor; there is nothing to lose.
		_ = c.lock.Close()
	}
}

// lockWait is how long an engine whose parent was killed may take to leave.
const lockWait = 5 * time.Second

// lockFolder makes dir the engine's alone until this process ends. It waits a
// moment for the engine of an aggregator that was killed.
func lockFolder(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	path := filepath.Join(dir, "lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of data folder: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	tick := time.NewTicker(lockWait / 100)
	defer tick.Stop()
	for range 100 {
		if !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		<-tick.C
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		closeErr := file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock data folder: %w: another aggregator runs on %s: stop it, or choose another folder", ErrInUse, dir)
		}
		return nil, errors.Join(fmt.Errorf("lock data folder %s: %w", dir, err), closeErr)
	}
	return file, nil
}

// emptyFolder makes dir, without what a killed process left in it.
func emptyFolder(dir string) (string, error) {
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("clean folder of inserted data: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make folder of inserted data: %w", err)
	}
	return dir, nil
}
