package aggregator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/aggregator/internal/ca"
	engine "github.com/cavra/cavra/aggregator/internal/embedded/clickhouse"
	broker "github.com/cavra/cavra/aggregator/internal/embedded/kafka"
	"github.com/cavra/cavra/schemas/topic"
	"github.com/cavra/cavra/sdk/diskio"
)

// The embedded parts' settings that are nobody's choice.
const (
	superuser       = "cavra-aggregator"
	passwordBytes   = 24
	embeddedSession = 6 * time.Second
	trimEvery       = 30 * time.Second
	libraryName     = "libchdb.so"
)

// embedded are the services that run within this program.
type embedded struct {
	engine   *engine.Engine
	broker   *broker.Broker
	password string
}

// start runs what is not configured elsewhere, and returns once it is ready.
func (e *embedded) start(ctx context.Context, group *errgroup.Group, cfg Config, authority *ca.Authority) error {
	set := cfg.Settings
	if set.EmbeddedClickHouse() {
		library, err := library(set.Embedded.EngineLibrary)
		if err != nil {
			return err
		}
		e.engine, err = engine.New(engine.Config{Dir: filepath.Join(set.Embedded.Dir, "clickhouse"), Library: library, Log: cfg.Log})
		if err != nil {
			return err
		}
		group.Go(func() error { return e.engine.Run(ctx) })
	}
	if !set.EmbeddedKafka() {
		return nil
	}
	var err error
	if e.password, err = secret(passwordBytes); err != nil {
		return err
	}
	c := broker.Default()
	c.Dir, c.Port, c.Superuser, c.Password, c.Log = filepath.Join(set.Embedded.Dir, "kafka"), set.Embedded.KafkaPort, superuser, e.password, cfg.Log
	if c.MaxConnections, err = connections(); err != nil {
		return err
	}
	if set.Embedded.TLS {
		c.TLS = authority.BrokerTLS()
	}
	c.Topics = []broker.Topic{{Name: topic.Statements, Partitions: set.Kafka.Partitions}}
	if e.broker, err = broker.New(c); err != nil {
		return err
	}
	group.Go(func() error { return e.broker.Run(ctx) })
	select {
	case <-e.broker.Ready():
		return nil
	case <-ctx.Done():
		// The group's error says why.
		return ctx.Err()
	}
}

// connections is how many of the broker's may be open at a time: an agent has two
// while it sends, and the rest of the program needs descriptors too.
func connections() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("ask for the limit of open files: %w", err)
	}
	const most = 1 << 16
	return int(min(limit.Cur/4*3, most)), nil
}

// library finds the engine's library: the configured one, or the one beside the
// program.
func library(configured string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the engine library: %w", err)
	}
	path := filepath.Join(filepath.Dir(self), libraryName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the engine library is missing: %s is not there; fetch it with `make engine`, or name it with --engine-library", path)
	}
	return path, nil
}

// lockFolder keeps a second aggregator off the folder.
func lockFolder(dir string) (func() error, error) {
	unlock, err := diskio.Lock(filepath.Join(dir, "lock"))
	if errors.Is(err, diskio.ErrLocked) {
		return nil, fmt.Errorf("another aggregator uses the folder %s: stop it, or name another folder", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the folder: %w", err)
	}
	return unlock, nil
}

// trim frees the broker's files of what ingest has committed.
func (a *Aggregator) trim(ctx context.Context) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		partitions, err := a.store.Partitions(ctx)
		if err != nil {
			a.cfg.Log.WarnContext(ctx, "cannot trim the broker's log", slog.Any("error", err))
			continue
		}
		for _, p := range partitions {
			if err := a.embedded.broker.TrimBefore(p.Topic, p.Partition, p.Next); err != nil {
				a.cfg.Log.WarnContext(ctx, "cannot trim the broker's log", slog.Int("partition", p.Partition), slog.Any("error", err))
			}
		}
	}
}
