package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cavra/cavra/aggregator/internal/control"
)

// Unreadable says that the log does not give any more what an open plan was made
// of. Nothing can make the plan's rows then, and whether to wait for the log to
// be restored or to count its messages as lost is a person's to decide.
type Unreadable struct {
	Plan *control.Plan
	// LostBefore is the offset before which giving the plan up counts the
	// messages as lost.
	LostBefore int64
	err        error
}

func (u *Unreadable) Error() string { return u.err.Error() }
func (u *Unreadable) Unwrap() error { return u.err }

// ErrNotUnreadable says that there is nothing to give up: the partition is not
// this aggregator's, or has not stopped at that plan.
var ErrNotUnreadable = errors.New("the partition has not stopped here at a plan of that range")

// GiveUp counts the messages of the plan [from, next) that a partition stopped at
// as lost, with a record of who decided it and why, and lets the partition go on
// behind them. It is ErrNotUnreadable for every other plan: what can be read is
// never given up.
func (i *Ingest) GiveUp(ctx context.Context, partition int, from, next int64, by, reason string) error {
	u, resume := i.unreadable(partition)
	if u == nil || u.Plan.From != from || u.Plan.Next != next {
		return fmt.Errorf("give up [%d, %d) of partition %d: %w", from, next, partition, ErrNotUnreadable)
	}
	err := i.cfg.Plans.GiveUpPlan(ctx, u.Plan, u.LostBefore, lostSum(), by, reason)
	if errors.Is(err, control.ErrPlanLost) {
		// Another aggregator was quicker with whatever it did: look again.
		err = fmt.Errorf("%w: %w", ErrNotUnreadable, err)
	}
	if err == nil {
		i.cfg.Log.WarnContext(ctx, "messages lost: an operator gave up a plan that the log does not hold any more",
			slog.Int("partition", partition), slog.Int64("from", from), slog.Int64("to", u.LostBefore), slog.String("by", by), slog.String("reason", reason))
	}
	if err == nil || errors.Is(err, control.ErrPlanLost) {
		i.wake(partition, resume)
	}
	return err
}

func (i *Ingest) unreadable(partition int) (*Unreadable, chan struct{}) {
	i.mu.Lock()
	defer i.mu.Unlock()
	h, ok := i.partitions[partition]
	if !ok || h.State != Stopped {
		return nil, nil
	}
	return h.Unreadable, i.resume[partition]
}

// wake lets a stopped worker go on, once.
func (i *Ingest) wake(partition int, resume chan struct{}) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.resume[partition] == resume && resume != nil {
		close(resume)
		delete(i.resume, partition)
	}
}
