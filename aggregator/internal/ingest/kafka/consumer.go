package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
)

// Consumer takes part in a consumer group, which divides the topic's partitions
// among the aggregators that run, and runs a function for each partition that is
// this one's to read. Where reading starts is not the group's business: the
// function takes its position from the control store.
//
// A group keeps two members from working on one partition as long as each of
// them can hear the coordinator. One that was cut off (a stopped machine, a lost
// network) may go on until its heartbeat fails, for a session timeout at most,
// and a function that ignores its context for longer than the rebalance timeout
// is left behind. Only compare-and-set in the control store closes that gap.
type Consumer struct {
	client *client

	mu         sync.Mutex
	generation *kafka.Generation
	assigned   map[int]bool
}

// NewConsumer checks the configuration and connects to nothing. Close it.
func NewConsumer(cfg Config) (*Consumer, error) {
	if cfg.GroupID == "" {
		return nil, errors.New("kafka: group: none given")
	}
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	return &Consumer{client: c}, nil
}

// Close gives back the connections. Run must have returned.
func (c *Consumer) Close() { c.client.close() }

// Partition returns a reader of one partition, whoever it is assigned to.
func (c *Consumer) Partition(id int) *Partition { return &Partition{client: c.client, id: id} }

// joinBackoff is how long a member waits after it failed to join.
const joinBackoff = time.Second

// partitionWatch is how often a member looks for partitions that were added.
const partitionWatch = 2 * time.Second

// Run joins the group and, for each generation of it, calls fn once for each
// partition that is assigned to this consumer, side by side. The context of fn
// ends with the generation or with ctx, and fn must then return promptly: no
// partition is handed over before it has.
//
// fn returns nil or its context's error after its context has ended. Any other
// return ends Run with that error, so fn deals with what may pass by itself. Run
// returns nil when ctx ends, and an error when the cluster refuses this consumer
// for good; it keeps trying while the cluster cannot be reached.
func (c *Consumer) Run(ctx context.Context, fn func(ctx context.Context, partition int) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cfg := c.client.cfg
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: cfg.GroupID, Brokers: cfg.Brokers, Topics: []string{cfg.Topic}, Dialer: c.client.dialer(nil),
		SessionTimeout: cfg.SessionTimeout, HeartbeatInterval: cfg.SessionTimeout / 5,
		RebalanceTimeout: cfg.RebalanceTimeout, JoinGroupBackoff: joinBackoff, Timeout: cfg.Timeout,
		StartOffset: kafka.FirstOffset,
	})
	if err != nil {
		return fmt.Errorf("configure group %q: %w", cfg.GroupID, err)
	}
	r := &run{consumer: c, fn: fn}
	err = r.generations(ctx, group)
	cancel()
	// Leaves the group and waits for it; never reports an error.
	_ = group.Close()
	if r.ended != nil {
		<-r.ended
	}
	return errors.Join(err, r.failure())
}

// Commit records in the group how far a partition was read: the next offset that
// would be. It trails what the control store knows and serves operators' tools
// only. After the partition was handed over it is refused.
func (c *Consumer) Commit(ctx context.Context, partition int, next int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	gen, mine := c.generation, c.assigned[partition]
	c.mu.Unlock()
	if gen == nil || !mine {
		return fmt.Errorf("commit %s/%d: %w", c.client.cfg.Topic, partition, ErrNotAssigned)
	}
	// Bounded by the group's own request timeout, which takes no context.
	err := gen.CommitOffsets(map[string]map[int]int64{c.client.cfg.Topic: {partition: next}})
	if err != nil {
		return fmt.Errorf("commit %s/%d at %d: %w", c.client.cfg.Topic, partition, next, err)
	}
	return nil
}

func (c *Consumer) set(gen *kafka.Generation, assigned map[int]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation, c.assigned = gen, assigned
}

// run is the state of one call of Run.
type run struct {
	consumer *Consumer
	fn       func(context.Context, int) error
	ended    <-chan struct{} // closed when the last generation's functions have returned

	mu  sync.Mutex
	err error
}

func (r *run) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errors.Join(r.err, err)
}

func (r *run) generations(ctx context.Context, group *kafka.ConsumerGroup) error {
	cfg := r.consumer.client.cfg
	for {
		// Counted before the join, so that a partition that is added while
		// the group assembles is not missed.
		known, err := r.consumer.client.partitions(ctx, cfg.Topic)
		if err != nil {
			known = -1
		}
		gen, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the group ends when it is told to
		case err == nil:
		case !Retryable(err):
			return fmt.Errorf("join group %q: %w", cfg.GroupID, err)
		default:
			cfg.log().WarnContext(ctx, "group not joined, trying again",
				slog.String("group", cfg.GroupID), slog.Any("error", err))
			continue
		}
		r.ended = r.start(ctx, gen, known)
		select {
		case <-r.ended:
		case <-ctx.Done():
			return nil
		}
		if r.failure() != nil {
			return nil //nolint:nilerr // the caller asks for the failure itself
		}
	}
}

// start runs a generation's functions and returns a channel that is closed when
// the last of them has returned.
func (r *run) start(ctx context.Context, gen *kafka.Generation, known int) <-chan struct{} {
	c := r.consumer
	assigned := map[int]bool{}
	for _, a := range gen.Assignments[c.client.cfg.Topic] {
		assigned[a.ID] = true
	}
	c.set(gen, assigned)
	c.client.cfg.log().InfoContext(ctx, "group generation began", slog.String("group", gen.GroupID),
		slog.Int("generation", int(gen.ID)), slog.Int("partitions", len(assigned)))

	ended := make(chan struct{})
	var running atomic.Int64
	running.Store(int64(len(assigned) + 1))
	launch := func(fn func(context.Context) error) {
		gen.Start(func(genCtx context.Context) {
			defer func() {
				if running.Add(-1) == 0 {
					c.set(nil, nil)
					close(ended)
				}
			}()
			fnCtx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			stop := context.AfterFunc(genCtx, func() { cancel(kafka.ErrGenerationEnded) })
			defer stop()
			if err := fn(fnCtx); fnCtx.Err() == nil {
				r.fail(err)
			}
		})
	}
	for id := range assigned {
		launch(func(ctx context.Context) error {
			if err := r.fn(ctx, id); err != nil {
				return fmt.Errorf("partition %d: %w", id, err)
			}
			return fmt.Errorf("partition %d: its function ended by itself", id)
		})
	}
	launch(func(ctx context.Context) error { return c.watch(ctx, known) })
	return ended
}

// watch returns, which ends the generation and so divides the partitions anew,
// when their number is not the known one any more.
func (c *Consumer) watch(ctx context.Context, known int) error {
	tick := time.NewTicker(partitionWatch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		n, err := c.client.partitions(ctx, c.client.cfg.Topic)
		if err != nil {
			// The heartbeat decides whether the cluster is lost.
			c.client.cfg.log().DebugContext(ctx, "partitions not counted", slog.Any("error", err))
			continue
		}
		if known >= 0 && n != known {
			c.client.cfg.log().InfoContext(ctx, "number of partitions changed",
				slog.Int("was", known), slog.Int("is", n))
			return nil
		}
		known = n
	}
}
