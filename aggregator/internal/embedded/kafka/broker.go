// Package kafka is the Kafka broker inside the aggregator's own process, for
// installations that have no cluster. It speaks the Kafka protocol on the
// loopback interface, so that everything above the connection is the same as
// with a cluster.
//
// It guarantees that a message whose write was acknowledged is still there after
// the process was killed, that offsets never start over, that clients
// authenticate and hold only the rights they were given, that the log on disk
// stays within a bound (by refusing writes, never by dropping what nobody has
// read), and that no client can bring the process down with a malformed request.
//
// The protocol and the log are those of github.com/twmb/franz-go/pkg/kfake, which
// was made for tests. What it lacks for this purpose is here: see guard.go (what
// may arrive), produce.go (what may be written), and TrimBefore.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/cavra/cavra/aggregator/internal/ingest/kafka/recordbatch"
)

// Topic is a topic that exists from the start.
type Topic struct {
	Name       string
	Partitions int
}

// Config says where the broker keeps its log and whom it lets in. Start from
// Default.
type Config struct {
	// Dir is the folder of the log. It belongs to one broker at a time.
	Dir string
	// Port is the port on 127.0.0.1; 0 takes a free one.
	Port int
	// TLS, if not nil, is the server's configuration for every connection.
	TLS *tls.Config
	// Superuser and Password are the aggregator's own login by SCRAM-SHA-256,
	// which no access rule restricts. A changed password takes effect with the
	// next start.
	Superuser string
	Password  string
	// Topics exist from the start. Partitions of an existing topic are left
	// alone.
	Topics []Topic
	// MaxMessageBytes bounds one produced batch, as it arrives and after
	// decompression.
	MaxMessageBytes int
	// MaxDiskBytes bounds the log. Beyond it writes are refused with
	// KAFKA_STORAGE_ERROR, which clients take for a reason to try again later.
	// A start after a crash reads the whole log into memory once, so this
	// bounds that too.
	MaxDiskBytes int64
	// SegmentBytes is the size at which a partition begins a new file.
	// TrimBefore frees disk in whole files.
	SegmentBytes int
	// MaxConnections bounds the connections that are open at a time, and
	// LoginTime how long one may take to log in.
	MaxConnections int
	LoginTime      time.Duration
	// Log receives what the broker reports. Nil discards it.
	Log *slog.Logger
}

// Default returns the settings that do not depend on the installation.
func Default() Config {
	return Config{
		Superuser:       "cavra-aggregator",
		MaxMessageBytes: 8 << 20,
		MaxDiskBytes:    1 << 30,
		SegmentBytes:    16 << 20,
		MaxConnections:  512,
		LoginTime:       30 * time.Second,
	}
}

func (c Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("embedded kafka: "+format, args...))
	}
	if c.Dir == "" {
		bad("folder: none given")
	}
	if c.Port < 0 || c.Port > math.MaxUint16 {
		bad("port %d: want 0 to 65535", c.Port)
	}
	if c.Superuser == "" || len(c.Password) < 16 {
		bad("superuser: needs a name and a password of at least 16 characters")
	}
	for _, t := range c.Topics {
		if t.Name == "" || t.Partitions < 1 || t.Partitions > 1024 {
			bad("topic %q with %d partitions: want a name and 1 to 1024", t.Name, t.Partitions)
		}
	}
	if c.MaxMessageBytes < 1<<10 || c.MaxMessageBytes > 64<<20 {
		bad("message limit of %d bytes: want 1 KiB to 64 MiB", c.MaxMessageBytes)
	}
	if c.SegmentBytes < 1<<10 || c.SegmentBytes > 1<<30 {
		bad("segments of %d bytes: want 1 KiB to 1 GiB", c.SegmentBytes)
	}
	if c.MaxDiskBytes < int64(c.MaxMessageBytes) {
		bad("disk limit of %d bytes: want at least the message limit of %d", c.MaxDiskBytes, c.MaxMessageBytes)
	}
	if c.MaxConnections < 1 {
		bad("connection limit of %d: want at least 1", c.MaxConnections)
	}
	if c.LoginTime <= 0 {
		bad("login time of %s: want some", c.LoginTime)
	}
	return errors.Join(errs...)
}

// Broker is the embedded broker. New makes it, Run runs it, once.
type Broker struct {
	cfg   Config
	log   *slog.Logger
	ready chan struct{}
	conns guard
	// refused counts the writes that the disk limit turned away.
	refused atomic.Int64

	mu      sync.Mutex
	cluster *kfake.Cluster // nil unless running
	addr    string
}

// New checks the configuration. It touches neither disk nor network.
func New(cfg Config) (*Broker, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b := &Broker{cfg: cfg, log: log, ready: make(chan struct{})}
	// Twice the limit, so that a writer just beyond it is told so instead of
	// being cut off.
	b.conns = guard{maxConns: cfg.MaxConnections, maxFrame: 2*cfg.MaxMessageBytes + frameSlack, loginTime: cfg.LoginTime, log: log, open: make(chan struct{})}
	return b, nil
}

// Ready is closed when clients can connect and Addr is known.
func (b *Broker) Ready() <-chan struct{} { return b.ready }

// Addr is the host:port that clients connect to, or "" before the broker is
// ready.
func (b *Broker) Addr() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.addr
}

// diskCheck is how often the log's size is measured. Between two measurements
// what arrives is added up, so the limit is not overshot.
const diskCheck = time.Second

// Run loads the log, listens, and serves until ctx ends; then it closes the log
// and returns nil. A port or a folder that is in use is an error at once.
func (b *Broker) Run(ctx context.Context) error {
	if err := os.MkdirAll(b.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("create log folder: %w", err)
	}
	unlock, err := lock(b.cfg.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := setSuperuser(b.cfg.Dir, b.cfg.Superuser, b.cfg.Password); err != nil {
		return err
	}
	usage := &usage{dir: b.cfg.Dir, limit: b.cfg.MaxDiskBytes}
	if err := usage.measure(); err != nil {
		return err
	}
	cluster, err := b.open()
	if err != nil {
		return err
	}
	defer cluster.Close()
	b.guardProduce(cluster, usage)
	if err := b.ensureTopics(cluster); err != nil {
		return err
	}
	close(b.conns.open)
	b.publish(cluster, cluster.ListenAddrs()[0])
	defer b.publish(nil, "")
	close(b.ready)
	b.log.InfoContext(ctx, "embedded kafka is listening", slog.String("address", b.Addr()))
	return b.watchDisk(ctx, usage)
}

func (b *Broker) publish(c *kfake.Cluster, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cluster, b.addr = c, addr
}

func (b *Broker) open() (*kfake.Cluster, error) {
	opts := []kfake.Opt{
		kfake.Ports(b.cfg.Port),
		kfake.ListenFn(b.listen),
		kfake.ClusterID("cavra-embedded"),
		kfake.DataDir(b.cfg.Dir),
		kfake.SyncWrites(),
		kfake.EnableSASL(),
		kfake.Superuser("SCRAM-SHA-256", b.cfg.Superuser, b.cfg.Password),
		kfake.EnableACLs(),
		kfake.WithLogger(brokerLog{b.log}),
		kfake.BrokerConfigs(map[string]string{
			"message.max.bytes": strconv.Itoa(b.cfg.MaxMessageBytes),
			"log.segment.bytes": strconv.Itoa(b.cfg.SegmentBytes),
			// kfake's own retention may remove a partition's last file, after
			// which its offsets start over. TrimBefore never does.
			"log.retention.ms":    "-1",
			"log.retention.bytes": "-1",
		}),
	}
	for _, t := range b.cfg.Topics {
		opts = append(opts, kfake.SeedTopics(int32(t.Partitions), t.Name))
	}
	cluster, err := kfake.NewCluster(opts...)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on 127.0.0.1:%d: the port is in use: stop what uses it or configure another port: %w", b.cfg.Port, err)
	}
	if err != nil {
		return nil, fmt.Errorf("start embedded kafka in %s: %w", b.cfg.Dir, err)
	}
	return cluster, nil
}

// ensureTopics makes the configured topics that the log does not know: kfake
// seeds them only into an empty folder.
func (b *Broker) ensureTopics(c *kfake.Cluster) error {
	for _, t := range b.cfg.Topics {
		if c.TopicInfo(t.Name) != nil {
			continue
		}
		if err := c.CreateTopic(t.Name, int32(t.Partitions), nil); err != nil {
			return fmt.Errorf("create topic %q: %w", t.Name, err)
		}
	}
	return nil
}

// listen puts the guard between the network, with TLS taken off, and kfake.
func (b *Broker) listen(network, address string) (net.Listener, error) {
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	if b.cfg.TLS != nil {
		ln = tls.NewListener(ln, b.cfg.TLS)
	}
	return b.conns.wrap(ln), nil
}

func (b *Broker) watchDisk(ctx context.Context, u *usage) error {
	tick := time.NewTicker(diskCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := u.measure(); err != nil {
			return err
		}
		if n := b.refused.Swap(0); n > 0 {
			b.log.WarnContext(ctx, "embedded kafka refused writes: its log has reached the disk limit",
				slog.Int64("writes", n), slog.Int64("bytes", u.bytes()), slog.Int64("limit", b.cfg.MaxDiskBytes))
		}
	}
}

// ErrNotRunning is the answer to calls that need a running broker.
var ErrNotRunning = errors.New("embedded kafka is not running")

// TrimBefore lets go of a partition's messages before an offset, which the
// caller has processed for good, and frees the files that hold nothing else. The
// last batch always stays: kfake knows the next offset from it. After a crash
// messages may come back that had been trimmed from a file that still exists.
func (b *Broker) TrimBefore(topic string, partition int, offset int64) error {
	b.mu.Lock()
	cluster := b.cluster
	b.mu.Unlock()
	if cluster == nil {
		return fmt.Errorf("trim %s/%d: %w", topic, partition, ErrNotRunning)
	}
	info := cluster.PartitionInfo(topic, int32(partition))
	if info == nil {
		return fmt.Errorf("trim %s/%d: no such partition", topic, partition)
	}
	if offset > info.HighWatermark {
		return fmt.Errorf("trim %s/%d before %d: the log ends at %d", topic, partition, offset, info.HighWatermark)
	}
	offset = min(offset, info.HighWatermark-1)
	if offset <= info.LogStartOffset {
		return nil
	}
	if err := cluster.DeleteRecords(topic, int32(partition), offset); err != nil {
		return fmt.Errorf("trim %s/%d before %d: %w", topic, partition, offset, err)
	}
	return nil
}

func (b *Broker) batchLimits() recordbatch.Limits {
	lim := recordbatch.DefaultLimits()
	lim.Bytes = b.cfg.MaxMessageBytes
	return lim
}

// brokerLog hands kfake's messages on. kfake reports a state file that it could
// not write only there.
type brokerLog struct{ log *slog.Logger }

func (l brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case kfake.LogLevelError:
		to = slog.LevelError
	case kfake.LogLevelWarn:
		to = slog.LevelWarn
	}
	l.log.Log(context.Background(), to, "embedded kafka", slog.String("report", fmt.Sprintf(format, args...)))
}
