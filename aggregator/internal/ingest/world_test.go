package ingest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	gocmp "github.com/google/go-cmp/cmp"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/scram"
	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/aggregator/internal/admit"
	"github.com/cavra/cavra/aggregator/internal/clickhouse"
	"github.com/cavra/cavra/aggregator/internal/control"
	engine "github.com/cavra/cavra/aggregator/internal/embedded/clickhouse"
	broker "github.com/cavra/cavra/aggregator/internal/embedded/kafka"
	"github.com/cavra/cavra/aggregator/internal/evidence"
	"github.com/cavra/cavra/aggregator/internal/ingest/kafka"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/topic"
	"github.com/cavra/cavra/sdk/logproof"
)

const (
	user     = "cavra-aggregator"
	password = "a-password-for-tests"
)

// place says where an aggregator's things are. It travels to child processes.
type place struct {
	Dir, Broker, Library string
	Partitions           int
	// Ends are the offsets at which a child is done.
	Ends []int64
	// MaxMessages of a plan.
	MaxMessages int
}

// aggregator is ingest with the real engine, control store and Kafka client.
type aggregator struct {
	ingest   *Ingest
	store    *control.Store
	db       *clickhouse.DB
	conn     driver.Conn
	consumer *kafka.Consumer
	log      *evidence.Log
	cfg      Config
	close    func() error
}

func openAggregator(ctx context.Context, p place, log *slog.Logger) (*aggregator, error) {
	e, err := engine.New(engine.Config{Dir: filepath.Join(p.Dir, "clickhouse"), Library: p.Library, Log: log})
	if err != nil {
		return nil, err
	}
	engineCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	group, engineCtx := errgroup.WithContext(engineCtx)
	group.Go(func() error { return e.Run(engineCtx) })
	a := &aggregator{close: func() error { stop(); return group.Wait() }}
	if err := a.connect(ctx, p, e, log); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func (a *aggregator) connect(ctx context.Context, p place, e *engine.Engine, log *slog.Logger) (err error) {
	if a.conn, err = e.Open(); err != nil {
		return err
	}
	if a.db, err = clickhouse.New(a.conn, clickhouse.Default()); err != nil {
		return err
	}
	if err := a.db.Migrate(ctx); err != nil {
		return err
	}
	if a.store, err = control.Open(ctx, control.Config{Path: filepath.Join(p.Dir, "control.db")}); err != nil {
		return err
	}
	k := kafka.Default()
	k.Brokers, k.Topic, k.GroupID = []string{p.Broker}, topic.Statements, fmt.Sprintf("cavra-%d", os.Getpid())
	// A group of its own for each process: one that was killed would be waited
	// for, and where reading starts is the control store's business.
	k.Log = log
	k.SASL = kafka.SASL{Mechanism: kafka.ScramSHA256, Username: user, Password: password}
	if a.consumer, err = kafka.NewConsumer(k); err != nil {
		return err
	}
	admitter, err := admit.New(admit.Config{Keys: a.store, Chains: a.store, Archive: a.db})
	if err != nil {
		return err
	}
	if a.log, err = evidence.Open(ctx, evidence.Config{Dir: filepath.Join(p.Dir, "evidence"), Origin: "cavra.test/log", Log: log}); err != nil {
		return err
	}
	stop := a.close
	a.close = func() error {
		a.consumer.Close()
		return errors.Join(a.log.Close(), a.store.Close(), a.db.Close(), stop())
	}
	cfg := Default()
	cfg.Topic, cfg.Owner, cfg.Plans, cfg.Admitter, cfg.Rows, cfg.Offsets = topic.Statements, "test", a.store, admitter, a.db, a.consumer
	cfg.Evidence = a.log
	cfg.Retryable, cfg.Log, cfg.MaxWait = clickhouse.Retryable, log, 50*time.Millisecond
	if p.MaxMessages > 0 {
		cfg.MaxMessages = p.MaxMessages
	}
	a.cfg = cfg
	a.ingest, err = New(cfg)
	return err
}

// change builds the ingest anew with another configuration.
func (a *aggregator) change(tb testing.TB, f func(*Config)) {
	tb.Helper()
	f(&a.cfg)
	var err error
	if a.ingest, err = New(a.cfg); err != nil {
		tb.Fatal(err)
	}
}

// run takes in the topic until every partition has reached its end.
func (a *aggregator) run(ctx context.Context, ends []int64) error {
	ctx, done := context.WithCancel(ctx)
	defer done()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return a.consumer.Run(ctx, func(ctx context.Context, id int) error { return a.ingest.Run(ctx, id, a.consumer.Partition(id)) })
	})
	group.Go(func() error {
		defer done()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for ingest: %w: %+v", ctx.Err(), a.ingest.Health())
			case <-tick.C:
			}
			reached, err := a.reached(ends)
			if reached || err != nil {
				return err
			}
		}
	})
	return group.Wait()
}

func (a *aggregator) reached(ends []int64) (bool, error) {
	reached := make([]bool, len(ends))
	for _, h := range a.ingest.Health() {
		if h.State == Stopped {
			return false, fmt.Errorf("partition %d stopped: %s", h.Partition, h.LastError)
		}
		reached[h.Partition] = h.Next >= ends[h.Partition]
	}
	return !slices.Contains(reached, false), nil
}

// world is a broker with a topic, a place for an aggregator, and what was
// published.
type world struct {
	tb     testing.TB
	place  place
	ledger *ledger
	writer *kafkago.Writer
	broker *broker.Broker
}

func newWorld(tb testing.TB, library string, partitions int) *world {
	tb.Helper()
	cfg := broker.Default()
	cfg.Dir, cfg.Superuser, cfg.Password = tb.TempDir(), user, password
	cfg.Topics = []broker.Topic{{Name: topic.Statements, Partitions: partitions}}
	b, err := broker.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.Run(ctx) })
	tb.Cleanup(func() {
		cancel()
		if err := group.Wait(); err != nil {
			tb.Error(err)
		}
	})
	select {
	case <-b.Ready():
	case <-ctx.Done():
		tb.Fatal(group.Wait())
	}
	mechanism, err := scram.Mechanism(scram.SHA256, user, password)
	if err != nil {
		tb.Fatal(err)
	}
	w := &world{tb: tb, ledger: newLedger(partitions), broker: b, place: place{Dir: tb.TempDir(), Broker: b.Addr(), Library: library, Partitions: partitions, Ends: make([]int64, partitions)}}
	w.writer = &kafkago.Writer{
		Addr: kafkago.TCP(b.Addr()), Topic: topic.Statements, RequiredAcks: kafkago.RequireAll, BatchTimeout: time.Millisecond,
		BatchSize: 500, Transport: &kafkago.Transport{SASL: mechanism, MetadataTTL: time.Second},
		Balancer: kafkago.BalancerFunc(func(m kafkago.Message, ps ...int) int { return int(m.Key[0]) }),
	}
	tb.Cleanup(func() {
		if err := w.writer.Close(); err != nil {
			tb.Error(err)
		}
	})
	store, err := control.Open(ctx, control.Config{Path: w.controlPath()})
	if err == nil {
		err = store.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

func (w *world) controlPath() string { return filepath.Join(w.place.Dir, "control.db") }

// enrol enrols the agents' keys and gives each agent its identifier.
func (w *world) enrol(agents ...*agent) {
	w.tb.Helper()
	ctx := context.Background()
	store, err := control.Open(ctx, control.Config{Path: w.controlPath()})
	if err != nil {
		w.tb.Fatal(err)
	}
	for _, a := range agents {
		if err := store.CreateTenant(ctx, a.id.Tenant, a.id.Tenant); err != nil && !errors.Is(err, control.ErrExists) {
			w.tb.Fatal(err)
		}
		token := control.JoinToken{Hash: sha256.Sum256([]byte(a.key.Public().ID())), Tenant: a.id.Tenant, AgentName: a.id.Agent,
			CreatedBy: "test", ExpiresAt: time.Now().Add(time.Hour)}
		if err := store.CreateJoinToken(ctx, token); err != nil {
			w.tb.Fatal(err)
		}
		e, err := store.RedeemJoinToken(ctx, token.Hash, a.key.Public())
		if err != nil {
			w.tb.Fatal(err)
		}
		a.id.Agent, a.id.Epoch = e.Agent, e.Epoch
	}
	if err := store.Close(); err != nil {
		w.tb.Fatal(err)
	}
}

// send publishes to one partition, in order.
func (w *world) send(partition int, values ...[]byte) {
	w.tb.Helper()
	messages := make([]kafkago.Message, len(values))
	for i, v := range values {
		messages[i] = kafkago.Message{Key: []byte{byte(partition)}, Value: v}
	}
	if err := w.writer.WriteMessages(context.Background(), messages...); err != nil {
		w.tb.Fatal(err)
	}
	w.place.Ends[partition] += int64(len(values))
}

// open starts an aggregator in this process, stopped at the test's end.
func (w *world) open() *aggregator {
	w.tb.Helper()
	a, err := openAggregator(context.Background(), w.place, slog.New(slog.NewTextHandler(w.tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		w.tb.Fatal(err)
	}
	w.tb.Cleanup(func() {
		if err := a.close(); err != nil {
			w.tb.Error(err)
		}
	})
	return a
}

func (w *world) run(a *aggregator) {
	w.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := a.run(ctx, w.place.Ends); err != nil {
		w.tb.Fatal(err)
	}
}

// wait returns when a condition holds.
func (w *world) wait(a *aggregator, holds func() bool) {
	w.tb.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			w.tb.Fatalf("it did not come to pass: %+v", a.ingest.Health())
		case <-tick.C:
		}
	}
}

// runUntil takes in all partitions until their health is as wanted, and returns
// that.
func (w *world) runUntil(a *aggregator, wanted func([]Health) bool) (state []Health) {
	w.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	group, ctx := errgroup.WithContext(ctx)
	for p := range w.place.Partitions {
		group.Go(func() error { return a.ingest.Run(ctx, p, a.consumer.Partition(p)) })
	}
	w.wait(a, func() bool { state = a.ingest.Health(); return wanted(state) })
	cancel()
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		w.tb.Error(err)
	}
	return state
}

// judge compares what the aggregator has with what the ledger implies.
func (w *world) judge(a *aggregator) {
	w.tb.Helper()
	w.judgeReceipts(a)
	w.judgeRows(a)
	w.judgeChains(a)
	w.judgeLog(a)
}

// judgeLog proves every statement that is kept by the transparency log.
func (w *world) judgeLog(a *aggregator) {
	w.tb.Helper()
	var digests []predicate.Digest
	var indexes []uint64
	rows := w.query(a, "SELECT digest, log, log_index FROM statements FINAL ORDER BY digest")
	for rows.Next() {
		var digest, log string
		var index uint64
		if err := rows.Scan(&digest, &log, &index); err != nil {
			w.tb.Fatal(err)
		}
		if log != a.log.ID() {
			w.tb.Fatalf("statement %s is not in the log", digest)
		}
		digests, indexes = append(digests, predicate.Digest("sha256:"+digest)), append(indexes, index)
	}
	w.closed(rows)
	proofs, err := a.log.Include(context.Background(), indexes)
	if err != nil {
		w.tb.Fatal(err)
	}
	tree, err := logproof.Open(proofs.Checkpoint, a.log.Key())
	if err != nil {
		w.tb.Fatal(err)
	}
	for i, d := range digests {
		if err := tree.Includes(d, indexes[i], proofs.Hashes[i]); err != nil {
			w.tb.Fatal(err)
		}
	}
	w.tb.Logf("%d statements are proven by a log of %d entries", len(digests), tree.Size)
}

func (w *world) judgeReceipts(a *aggregator) {
	w.tb.Helper()
	got := make([][]expected, w.place.Partitions)
	rows := w.query(a, "SELECT partition, offset, last_offset, outcome, reason, digest FROM receipts FINAL ORDER BY partition, offset")
	for rows.Next() {
		var partition int32
		var offset, last int64
		var e expected
		if err := rows.Scan(&partition, &offset, &last, &e.Outcome, &e.Reason, &e.Digest); err != nil {
			w.tb.Fatal(err)
		}
		if offset != int64(len(got[partition])) || last != offset {
			w.tb.Fatalf("partition %d: receipt for [%d, %d] after %d receipts", partition, offset, last, len(got[partition]))
		}
		got[partition] = append(got[partition], e)
	}
	w.closed(rows)
	if diff := gocmp.Diff(w.ledger.messages, got); diff != "" {
		w.tb.Errorf("receipts (-ledger +got):\n%s", diff)
	}
}

func (w *world) query(a *aggregator, query string, args ...any) driver.Rows {
	w.tb.Helper()
	rows, err := a.conn.Query(context.Background(), query, args...)
	if err != nil {
		w.tb.Fatal(err)
	}
	return rows
}

func (w *world) closed(rows driver.Rows) {
	w.tb.Helper()
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		w.tb.Fatal(err)
	}
}

// lines reads rows of one string column.
func (w *world) lines(a *aggregator, query string, args ...any) []string {
	w.tb.Helper()
	rows := w.query(a, query, args...)
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			w.tb.Fatal(err)
		}
		out = append(out, s)
	}
	w.closed(rows)
	return out
}

// judgeRows compares the rollups, each with FINAL and with uniqExact.
func (w *world) judgeRows(a *aggregator) {
	w.tb.Helper()
	var statements []string
	want := map[string]int{}
	for _, e := range w.ledger.accepted() {
		statements = append(statements, e.digest.Hex())
		want[tally(e)]++
		add(want, e)
	}
	slices.Sort(statements)
	if diff := gocmp.Diff(statements, w.lines(a, "SELECT digest FROM statements FINAL ORDER BY digest")); diff != "" {
		w.tb.Errorf("statements (-ledger +got):\n%s", diff)
	}
	const final = `
SELECT concat('type ', type, ' ', toString(count())) FROM statements FINAL GROUP BY type
UNION ALL SELECT concat('verdict ', verdict, ' ', toString(count())) FROM scans FINAL GROUP BY verdict
UNION ALL SELECT concat('severity ', severity, ' ', toString(count())) FROM findings FINAL GROUP BY severity
UNION ALL SELECT concat('import ', judged, ' ', toString(count())) FROM imports FINAL GROUP BY judged
UNION ALL SELECT concat('reference ', problem, ' ', toString(count())) FROM references FINAL GROUP BY problem
UNION ALL SELECT concat('inventory ', toString(count())) FROM inventories FINAL
UNION ALL SELECT concat('report ', type, ' ', toString(count())) FROM agent_reports FINAL GROUP BY type`
	const uniq = `
SELECT concat('type ', type, ' ', toString(uniqExact(digest))) FROM statements GROUP BY type
UNION ALL SELECT concat('verdict ', verdict, ' ', toString(uniqExact(statement))) FROM scans GROUP BY verdict
UNION ALL SELECT concat('severity ', severity, ' ', toString(uniqExact(statement, rule, location))) FROM findings GROUP BY severity
UNION ALL SELECT concat('import ', judged, ' ', toString(uniqExact(statement, module, name, how))) FROM imports GROUP BY judged
UNION ALL SELECT concat('reference ', problem, ' ', toString(uniqExact(statement, path))) FROM references GROUP BY problem
UNION ALL SELECT concat('inventory ', toString(uniqExact(statement))) FROM inventories
UNION ALL SELECT concat('report ', type, ' ', toString(uniqExact(statement))) FROM agent_reports GROUP BY type`
	var lines []string
	for what, n := range want {
		lines = append(lines, fmt.Sprintf("%s %d", what, n))
	}
	slices.Sort(lines)
	for name, query := range map[string]string{"FINAL": final, "uniqExact": uniq} {
		got := w.lines(a, query)
		slices.Sort(got)
		if diff := gocmp.Diff(lines, got); diff != "" {
			w.tb.Errorf("rollups by %s (-ledger +got):\n%s", name, diff)
		}
	}
}

func (w *world) judgeChains(a *aggregator) {
	w.tb.Helper()
	tenants := map[string]bool{}
	for id := range w.ledger.chains {
		tenants[id.Tenant] = true
	}
	type status struct {
		ID                             control.ChainID
		Head, Highest, Replays, Forked uint64
		Gaps                           []control.Span
	}
	var want, got []status
	for id := range w.ledger.chains {
		head, highest, gaps := w.ledger.gaps(id)
		want = append(want, status{id, head, highest, w.ledger.replays[id], w.ledger.forks[id], gaps})
	}
	for tenant := range tenants {
		chains, err := a.store.Chains(context.Background(), tenant)
		if err != nil {
			w.tb.Fatal(err)
		}
		for _, c := range chains {
			got = append(got, status{c.ID, c.Head.Sequence, c.Highest, c.Replays, c.Forks, c.Gaps})
		}
	}
	byID := func(a, b status) int { return cmp.Compare(a.ID.String(), b.ID.String()) }
	slices.SortFunc(want, byID)
	slices.SortFunc(got, byID)
	if diff := gocmp.Diff(want, got); diff != "" {
		w.tb.Errorf("chains (-ledger +got):\n%s", diff)
	}
}
