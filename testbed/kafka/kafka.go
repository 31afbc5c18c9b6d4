// Package kafka starts a real Apache Kafka for tests: one KRaft node on the
// loopback interface, with SCRAM logins and access rules in force as in a
// production cluster, that a test can stop, kill and start again.
//
// It needs java and mvn. The jars are pinned by version and digest.
package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/cavra/cavra/testbed/stack"
)

// Config says where a broker lives.
type Config struct {
	// Dir holds its data, settings and output (broker.log).
	Dir string
	// Cache holds the jars; DefaultCache finds the repository's own.
	Cache string
	// Port is the port on 127.0.0.1 for clients; 0 takes a free one and keeps
	// it over restarts.
	Port int
	// User and Password are the administrator's login by SCRAM-SHA-256.
	User     string
	Password string
	// Settings are added to the broker's own and prevail over them.
	Settings map[string]string
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

func (c Config) validate() error {
	switch {
	case c.Dir == "" || c.Cache == "":
		return errors.New("kafka: a folder for data and one for jars are needed")
	case !plainWord.MatchString(c.User) || !plainWord.MatchString(c.Password):
		return errors.New("kafka: user and password are letters, digits, dots, dashes and underscores")
	}
	return nil
}

// DefaultCache is .cache/kafka at the root of the repository around dir.
func DefaultCache(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find repository: %w", err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return filepath.Join(dir, ".cache", "kafka"), nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find repository: no go.work above")
		}
	}
}

// Broker is a broker. Its methods are not safe for concurrent use.
type Broker struct {
	cfg        Config
	jars       string
	port       int
	internal   int
	controller int
	process    *exec.Cmd
	done       chan struct{} // closed when the process has ended
	exit       error         // set before done is closed
}

// startTimeout is how long a node may take to serve, recovery after a kill
// included.
const startTimeout = 90 * time.Second

// Start fetches what is missing, prepares an empty folder, and returns when the
// broker serves. The caller stops it; ctx bounds the start only.
func Start(ctx context.Context, cfg Config) (*Broker, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	jars, err := Fetch(ctx, cfg.Cache)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, jars: jars, port: ports[0], internal: ports[1], controller: ports[2]}
	if cfg.Port != 0 {
		b.port = cfg.Port
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	if err := os.WriteFile(b.settings(), b.properties(), 0o600); err != nil {
		return nil, fmt.Errorf("write settings: %w", err)
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, "data", "meta.properties")); errors.Is(err, os.ErrNotExist) {
		if err := b.format(ctx); err != nil {
			return nil, err
		}
	}
	return b, b.Restart(ctx)
}

// Addr is the host:port for clients.
func (b *Broker) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port)) }

func (b *Broker) settings() string { return filepath.Join(b.cfg.Dir, "broker.properties") }

func (b *Broker) java(ctx context.Context, heap, class string, args ...string) *exec.Cmd {
	all := append([]string{
		"-Xmx" + heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=info", "-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-cp", filepath.Join(b.jars, "*"), class,
	}, args...)
	return exec.CommandContext(ctx, "java", all...)
}

// clusterID is any 16 bytes in URL-safe base64; a test's cluster has no other.
const clusterID = "Y2F2cmEtdGVzdGJlZC0wMQ"

func (b *Broker) format(ctx context.Context) error {
	login := fmt.Sprintf("SCRAM-SHA-256=[name=%s,password=%s]", b.cfg.User, b.cfg.Password)
	cmd := b.java(ctx, "256m", "kafka.tools.StorageTool", "format", "-t", clusterID, "-c", b.settings(), "--add-scram", login)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format storage: %w\n%s", err, out)
	}
	return nil
}

// Restart starts the broker again after Stop or Kill and returns when it serves.
func (b *Broker) Restart(ctx context.Context) error {
	if b.process != nil {
		return errors.New("start kafka: it runs already")
	}
	log, err := os.OpenFile(filepath.Join(b.cfg.Dir, "broker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	// The process outlives ctx.
	cmd := b.java(context.WithoutCancel(ctx), "512m", "kafka.Kafka", b.settings())
	out := &watcher{to: log, mark: []byte("Kafka Server started"), seen: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start kafka (is java installed?): %w", err), log.Close())
	}
	b.process, b.done = cmd, make(chan struct{})
	go func() { // ends with the process, which Stop and Kill wait for
		b.exit = errors.Join(cmd.Wait(), log.Close())
		close(b.done)
	}()
	limit := time.NewTimer(startTimeout)
	defer limit.Stop()
	select {
	case <-out.seen:
		return nil
	case <-b.done:
		b.process = nil
		return fmt.Errorf("start kafka: it ended: %w: see %s", b.exit, log.Name())
	case <-ctx.Done():
		err = ctx.Err()
	case <-limit.C:
		err = errors.New("it took too long")
	}
	return errors.Join(fmt.Errorf("start kafka: %w: see %s", err, log.Name()), b.Kill())
}

// Kill ends the process with SIGKILL and waits for it.
func (b *Broker) Kill() error { return b.end(syscall.SIGKILL) }

// stopTimeout is how long an orderly end may take before it becomes a kill.
const stopTimeout = 20 * time.Second

// Stop ends the broker in good order.
func (b *Broker) Stop() error { return b.end(syscall.SIGTERM) }

func (b *Broker) end(how syscall.Signal) error {
	if b.process == nil {
		return nil
	}
	if err := b.process.Process.Signal(how); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end kafka: %w", err)
	}
	limit := time.NewTimer(stopTimeout)
	defer limit.Stop()
	select {
	case <-b.done:
		b.process = nil
		return nil // how it ended was our doing
	case <-limit.C:
		if how == syscall.SIGKILL {
			return errors.New("end kafka: it outlived SIGKILL")
		}
		return b.end(syscall.SIGKILL)
	}
}

// watcher copies output and notices the first line that holds a mark.
type watcher struct {
	to   *os.File
	mark []byte
	seen chan struct{}
	once sync.Once
	tail []byte
}

func (w *watcher) Write(p []byte) (int, error) {
	w.tail = append(w.tail, p...)
	if bytes.Contains(w.tail, w.mark) {
		w.once.Do(func() { close(w.seen) })
	}
	w.tail = w.tail[max(0, len(w.tail)-len(w.mark)):]
	return w.to.Write(p)
}

// freePorts finds ports that are free now. A test that loses the race for one
// fails when its broker starts.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		var err error
		if ports[i], err = stack.FreePort(); err != nil {
			return nil, err
		}
	}
	return ports, nil
}
