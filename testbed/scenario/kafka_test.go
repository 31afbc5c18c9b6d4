//go:build kafka

package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	faults "github.com/cavra/cavra/testbed/fault"
	"github.com/cavra/cavra/testbed/kafka"
	"github.com/cavra/cavra/testbed/ledger"
	"github.com/cavra/cavra/testbed/stack"
)

// The administrator's login of the broker.
const (
	kafkaUser     = "cavra-admin"
	kafkaPassword = "a-password-for-tests"
)

// overKafka does every mark once: after a kill, a real group's coordinator waits
// for the dead member's session to end before the next one gets its partitions.
var (
	overKafka     = crashPlan{passes: []int{1}, random: 1, files: 400, step: 15}
	longOverKafka = crashPlan{passes: []int{1, 2, 4}, random: 10, files: 2000, step: 25}
)

// cluster is the real Apache Kafka and what an aggregator has to know of it.
type cluster struct {
	broker   *kafka.Broker
	password string
	// control is the part of the configuration about the control store.
	control string
}

func startKafka(t *testing.T, dir string) *cluster {
	t.Helper()
	cache, err := kafka.DefaultCache(".")
	if err != nil {
		t.Fatal(err)
	}
	b, err := kafka.Start(t.Context(), kafka.Config{Dir: filepath.Join(dir, "kafka"), Cache: cache, User: kafkaUser, Password: kafkaPassword})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Kill(); err != nil {
			t.Error(err)
		}
	})
	control := "control:\n  sqlite: " + filepath.Join(dir, "control.db") + "\n"
	return &cluster{b, write(t, filepath.Join(dir, "kafka.password"), kafkaPassword), control}
}

// postgres puts the control store into a database of its own on the PostgreSQL
// that testbed/postgres/run.sh has started, if it has.
func (c *cluster) postgres(t *testing.T, dir string) {
	t.Helper()
	dsn := os.Getenv("CAVRA_TEST_POSTGRES")
	if dsn == "" {
		t.Log("the control store is SQLite: CAVRA_TEST_POSTGRES is not set")
		return
	}
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.ToLower(t.Name())
	_, err = db.Exec(t.Context(), "CREATE DATABASE "+name)
	if err = errors.Join(err, db.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	dsn = u.String()
	c.control = "control:\n  postgresql_file: " + write(t, filepath.Join(dir, "postgresql.dsn"), dsn) + "\n"
}

// configure writes an aggregator's configuration: Kafka is the cluster, and what
// more does not name is embedded.
func (c *cluster) configure(t *testing.T, dir, name, more string) stack.AggregatorConfig {
	t.Helper()
	port, err := stack.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	cfg := stack.AggregatorConfig{Dir: filepath.Join(dir, name), Config: filepath.Join(dir, name+".yaml")}
	write(t, cfg.Config, fmt.Sprintf(`listen: 127.0.0.1:%d
embedded:
  dir: %s
kafka:
  brokers: [%q]
  mechanism: scram-sha-256
  username: %s
  password_file: %s
  replication: 1
%s`, port, cfg.Dir, c.broker.Addr(), kafkaUser, c.password, more))
	return cfg
}

// over starts an aggregator over the cluster.
func (c *cluster) over(t *testing.T, dir string, p stack.Programs) *world {
	t.Helper()
	cfg := c.configure(t, dir, "data", c.control)
	cfg.Programs = p
	return newWorld(t, dir, p, cfg, func() (ledger.Login, error) {
		return ledger.Login{Address: c.broker.Addr(), Username: kafkaUser, Password: kafkaPassword}, nil
	})
}

// TestKilledAnywhereOverKafka is the crash run over the real Apache Kafka, with
// kills of the broker.
func TestKilledAnywhereOverKafka(t *testing.T) {
	t.Parallel()
	plan := overKafka
	if os.Getenv("CAVRA_SCENARIO_LONG") != "" {
		plan = longOverKafka
	}
	dir := folder(t)
	p := armed(t, dir)
	c := startKafka(t, dir)
	w := c.over(t, dir, p)
	crashes(w, plan, func(began time.Time) { c.killBroker(w, began) })
}

// TestRebalanceOverKafka lets a second aggregator share the group, the control
// store and the first one's engine: it comes, is killed, comes again and goes,
// while statements arrive.
func TestRebalanceOverKafka(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	p := programs(t)
	c := startKafka(t, dir)
	c.postgres(t, dir)
	w := c.over(t, dir, p)
	w.agent = w.enrol("agent")
	w.hurry(w.agent)
	stop := w.neighbour()
	c.rebalance(w, time.Now())
	w.calm(crashPlan{files: 200})
	stop()
	w.judge(w.agent)
}

// TestChaosOverKafka lets the broker be away and its disk be full, and aggregators
// that share the work be stopped, replaced and restarted one after the other, and
// counts what is there after each.
func TestChaosOverKafka(t *testing.T) {
	chaosAsked(t)
	t.Parallel()
	if os.Getenv(faults.Mounts) == "" {
		faults.Rerun(t)
		return
	}
	dir := folder(t)
	disk, err := faults.Mount(filepath.Join(dir, "kafka", "data"), brokerDisk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := disk.Unmount(); err != nil {
			t.Error(err)
		}
	})
	p := armed(t, dir)
	c := startKafka(t, dir)
	c.postgres(t, dir)
	w := inChaos(t, func() *world { return c.over(t, dir, p) })
	rounds, away := chaosTimes()
	chaos(w, []fault{
		{"broker killed and away", func(w *world, away time.Duration) {
			w.must(c.broker.Kill())
			w.pause(away)
			w.must(c.broker.Restart(w.ctx))
		}},
		{"broker's disk full, broker killed and restarted", func(w *world, away time.Duration) {
			w.must(disk.Full(away))
			w.must(c.broker.Kill())
			w.must(c.broker.Restart(w.ctx))
		}},
		{"aggregators replaced one after the other", func(w *world, away time.Duration) {
			second := c.second(w)
			defer second.Close()
			w.must(second.Start(w.ctx))
			w.pause(away)
			w.aggregator.Kill()
			w.must(w.aggregator.Start(w.ctx))
			w.must(second.Stop())
		}},
		{"rolling restart of two aggregators", func(w *world, away time.Duration) {
			second := c.second(w)
			defer second.Close()
			w.must(second.Start(w.ctx))
			c.shared(w, second, 1)
			// The engine belongs to the first, which is therefore the last.
			for _, a := range []*stack.Aggregator{second, w.aggregator} {
				w.must(a.Stop())
				w.feed(5)
				w.must(a.Start(w.ctx))
				w.pause(away)
			}
			w.must(second.Stop())
		}},
		{"aggregator stopped in a plan, which another finishes", func(w *world, _ time.Duration) {
			var second *stack.Aggregator
			w.stopInPlan(func() {
				second = c.second(w) // of the engine that runs now
				w.t.Cleanup(second.Close)
				w.must(second.Start(w.ctx))
				c.hasAll(w, second)
				w.feed(5)
				w.pause(2 * time.Second)
			})
			w.pause(2 * time.Second)
			w.must(second.Stop())
		}},
	}, rounds, away)
}

// brokerDisk is the size of the disk of Kafka's log.
const brokerDisk = 512 << 20

// hasAll waits until a program has every partition.
func (c *cluster) hasAll(w *world, second *stack.Aggregator) {
	w.t.Helper()
	w.must(stack.Poll(w.within(2*time.Minute), "all partitions", func(context.Context) (bool, string, error) {
		b, err := os.ReadFile(second.Log())
		all := shares.FindAllStringSubmatch(string(b), -1)
		return len(all) > 0 && all[len(all)-1][1] == "6", fmt.Sprintf("%v", all), err
	}))
}

// running starts what does not run.
func (w *world) running() {
	w.t.Helper()
	if !w.agent.Running() {
		w.must(w.agent.Launch(nil))
	}
	if !w.aggregator.Running() {
		w.must(w.aggregator.Start(w.ctx))
	}
}

// killBroker kills the broker under both programs, twice.
func (c *cluster) killBroker(w *world, began time.Time) {
	w.t.Helper()
	w.running()
	for i := range 2 {
		w.feed(15)
		w.pause(time.Duration(500+700*i) * time.Millisecond)
		w.must(c.broker.Kill())
		w.feed(15)
		w.pause(time.Second)
		w.must(c.broker.Restart(w.ctx))
		w.t.Logf("%6.1fs: the broker was killed and is back", time.Since(began).Seconds())
	}
}

// shares finds how many partitions a generation of the group gave.
var shares = regexp.MustCompile(`group generation began.*partitions=(\d+)`)

// rebalance is the second aggregator's coming and going.
func (c *cluster) rebalance(w *world, began time.Time) {
	w.t.Helper()
	w.running()
	second := c.second(w)
	defer second.Close()
	w.must(second.Start(w.ctx))
	c.shared(w, second, 1)
	w.t.Logf("%6.1fs: two aggregators share the partitions", time.Since(began).Seconds())
	w.feed(15)
	w.pause(2 * time.Second)
	second.Kill()
	w.feed(15)
	w.must(second.Start(w.ctx))
	c.shared(w, second, 2)
	w.t.Logf("%6.1fs: the second was killed, and shares again", time.Since(began).Seconds())
	w.feed(15)
	w.pause(2 * time.Second)
	w.must(second.Stop())
	w.t.Logf("%6.1fs: the second has left", time.Since(began).Seconds())
}

// second is an aggregator that uses the first one's engine over the network.
func (c *cluster) second(w *world) *stack.Aggregator {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.aggregator.Dir(), "services.json"))
	w.must(err)
	var s struct {
		ClickHouse struct {
			Address  string `json:"address"`
			Username string `json:"username"`
			Password string `json:"password"`
		} `json:"clickhouse"`
	}
	w.must(json.Unmarshal(b, &s))
	password := write(w.t, filepath.Join(w.dir, "clickhouse.password"), s.ClickHouse.Password)
	cfg := c.configure(w.t, w.dir, "second", fmt.Sprintf(`clickhouse:
  protocol: http
  addresses: [%q]
  database: default
  username: %s
  password_file: %s
%s`, strings.TrimPrefix(s.ClickHouse.Address, "http://"), s.ClickHouse.Username, password, c.control))
	cfg.Programs, cfg.TokenFile = w.programs, w.aggregator.TokenFile()
	second, err := stack.NewAggregator(cfg)
	w.must(err)
	return second
}

// shared waits until a program has had a true part of the partitions in so many
// of its lives.
func (c *cluster) shared(w *world, second *stack.Aggregator, lives int) {
	w.t.Helper()
	w.must(stack.Poll(w.within(90*time.Second), "a rebalance", func(context.Context) (bool, string, error) {
		b, err := os.ReadFile(second.Log())
		if err != nil {
			return false, "", err
		}
		parts := 0
		for _, m := range shares.FindAllStringSubmatch(string(b), -1) {
			if m[1] != "0" && m[1] != "6" {
				parts++
			}
		}
		return parts >= lives, fmt.Sprintf("%d generations with a part of the partitions", parts), nil
	}))
}
