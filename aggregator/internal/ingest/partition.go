package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/ingest/kafka"
	"github.com/cavra/cavra/aggregator/internal/row"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/faultpoint"
)

// Run takes in one partition until ctx ends, whose error it returns. What may
// pass is tried again; what does not stops the partition until then, with its
// error in Health. It closes r.
func (i *Ingest) Run(ctx context.Context, partition int, r Reader) error {
	w := &worker{Ingest: i, id: partition, reader: r, log: i.cfg.Log.With(slog.Int("partition", partition))}
	i.note(partition, func(h *Health, now time.Time) { h.State, h.idleAt = Running, now })
	defer i.note(partition, func(h *Health, _ time.Time) { h.State = Away })
	w.loop(ctx)
	if err := r.Close(); err != nil {
		w.log.DebugContext(ctx, "reader not closed cleanly", slog.Any("error", err))
	}
	return context.Cause(ctx)
}

// worker takes in one partition.
type worker struct {
	*Ingest
	id     int
	reader Reader
	log    *slog.Logger
	// recognised says that the log is the one that was taken in before.
	recognised bool
}

// failure is an error with what it means for the partition.
type failure struct {
	err       error
	retryable bool
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func (w *worker) fail(err error, retryable bool) error {
	if err == nil {
		return nil
	}
	// A step that took too long may be faster the next time.
	return &failure{err, retryable || errors.Is(err, context.DeadlineExceeded)}
}

func (w *worker) controlled(err error) error  { return w.fail(err, control.Retryable(err)) }
func (w *worker) readFailed(err error) error  { return w.fail(err, kafka.Retryable(err)) }
func (w *worker) writeFailed(err error) error { return w.fail(err, w.cfg.Retryable(err)) }

// loop runs plan after plan until ctx ends.
func (w *worker) loop(ctx context.Context) {
	pause := w.cfg.FirstPause
	for ctx.Err() == nil {
		err := w.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			pause = w.cfg.FirstPause
			continue
		}
		var f *failure
		if !errors.As(err, &f) || !f.retryable {
			if !w.stop(ctx, err) {
				return
			}
			pause = w.cfg.FirstPause
			continue
		}
		w.note(w.id, func(h *Health, now time.Time) {
			h.State, h.LastError, h.LastErrorAt = Retrying, err.Error(), now
		})
		wait := pause/2 + rand.N(pause)
		w.log.WarnContext(ctx, "partition not taken in, trying again", slog.Any("error", err), slog.Duration("wait", wait))
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		pause = min(2*pause, w.cfg.LastPause)
	}
}

// stop waits: a partition that needs a person keeps its place, so that the others
// of its group go on. It reports whether to begin again, which is when the plan
// that could not be read was given up.
func (w *worker) stop(ctx context.Context, err error) bool {
	var unreadable *Unreadable
	errors.As(err, &unreadable)
	resume := make(chan struct{})
	w.note(w.id, func(h *Health, now time.Time) {
		h.State, h.LastError, h.LastErrorAt, h.Unreadable = Stopped, err.Error(), now, unreadable
		w.resume[w.id] = resume
	})
	w.log.ErrorContext(ctx, "partition stopped: it needs a person", slog.Any("error", err))
	select {
	case <-ctx.Done():
	case <-resume:
	}
	w.note(w.id, func(h *Health, now time.Time) {
		h.State, h.Unreadable, h.idleAt = Running, nil, now
		delete(w.resume, w.id)
	})
	return ctx.Err() == nil
}

// once finishes the open plan, or makes one of what the log has and finishes it.
func (w *worker) once(ctx context.Context) error {
	if err := w.recognise(ctx); err != nil {
		return err
	}
	open, next, err := w.openPlan(ctx)
	if err != nil {
		return err
	}
	w.note(w.id, func(h *Health, _ time.Time) { h.Next = next; h.LogEnd = max(h.LogEnd, next) })
	if open != nil {
		r, err := w.readAgain(ctx, open)
		if err != nil {
			return err
		}
		return w.take(ctx, open, r)
	}
	p, r, err := w.read(ctx, next)
	if err != nil || p == nil {
		return err
	}
	if p, err = w.record(ctx, p); err != nil || p == nil {
		return err
	}
	faultpoint.Hit("plan-recorded")
	return w.take(ctx, p, r)
}

// recognise compares what was taken in last with what the log has there.
func (w *worker) recognise(ctx context.Context) error {
	if w.recognised {
		return nil
	}
	stepCtx, cancel := context.WithTimeout(ctx, w.cfg.StepTimeout)
	last, err := w.cfg.Plans.LastPlan(stepCtx, w.cfg.Topic, w.id)
	cancel()
	if err != nil {
		return w.controlled(err)
	}
	if last == nil || last.Count == 0 {
		w.recognised = true
		return nil
	}
	r, err := w.reader.ReadExactly(ctx, last.From, last.Next)
	if err == nil {
		err = matches(last, &r)
	}
	var gone *kafka.OutOfRangeError
	var other *MismatchError
	switch {
	case err == nil, errors.As(err, &gone) && gone.LogStart > last.From:
		w.recognised = true
		return nil
	case errors.As(err, &gone), errors.As(err, &other):
		return &failure{fmt.Errorf("this is not the log that was taken in before: what is in it would be passed over: %w (if the topic was made anew, take it in under another name; if it was restored from a backup, restore the control store from the same)", err), false}
	}
	return w.readFailed(err)
}

func (w *worker) openPlan(ctx context.Context) (*control.Plan, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.StepTimeout)
	defer cancel()
	open, next, err := w.cfg.Plans.OpenPlan(ctx, w.cfg.Topic, w.id)
	return open, next, w.controlled(err)
}

// readAgain reads exactly what a plan covers.
func (w *worker) readAgain(ctx context.Context, p *control.Plan) (*kafka.Range, error) {
	if p.SHA256 == lostSum() {
		return &kafka.Range{From: p.From, Next: p.Next}, nil
	}
	r, err := w.reader.ReadExactly(ctx, p.From, p.Next)
	if err == nil {
		err = matches(p, &r)
	}
	var rewritten *MismatchError
	var gone *kafka.OutOfRangeError
	switch {
	case errors.As(err, &rewritten):
		return nil, &Unreadable{Plan: p, LostBefore: p.Next, err: err}
	case errors.As(err, &gone):
		u := &Unreadable{Plan: p, LostBefore: p.Next, err: fmt.Errorf("read plan again: %w", err)}
		if gone.LogStart > p.From && gone.LogStart < p.Next {
			// What is behind can still be read, as a plan of its own.
			u.LostBefore = gone.LogStart
		}
		return nil, u
	case err != nil:
		return nil, w.readFailed(fmt.Errorf("read plan again: %w", err))
	}
	return &r, nil
}

// read makes a plan of what the log has from next on, none when that is nothing.
func (w *worker) read(ctx context.Context, next int64) (*control.Plan, *kafka.Range, error) {
	p := &control.Plan{Topic: w.cfg.Topic, Partition: w.id, From: next, Owner: w.cfg.Owner}
	r, err := w.reader.ReadBatch(ctx, next, w.cfg.MaxMessages, w.cfg.MaxBytes, w.cfg.MaxWait)
	var gone *kafka.OutOfRangeError
	if errors.As(err, &gone) && gone.LogStart > next {
		// Retention was faster than we were. What is left must not be lost
		// for it, and what is gone must be seen.
		w.log.ErrorContext(ctx, "messages lost: the log dropped them before they were read",
			slog.Int64("from", next), slog.Int64("to", gone.LogStart))
		w.note(w.id, func(h *Health, _ time.Time) { h.LogEnd = gone.LogEnd })
		p.Next, p.SHA256 = gone.LogStart, lostSum()
		return p, &kafka.Range{From: next, Next: gone.LogStart}, nil
	}
	if err != nil {
		return nil, nil, w.readFailed(err)
	}
	w.note(w.id, func(h *Health, now time.Time) {
		h.LogEnd = max(r.LogEnd, r.Next)
		if r.Next == next {
			h.State, h.idleAt = Running, now
		}
	})
	if r.Next == next {
		return nil, nil, nil
	}
	p.Next, p.Count, p.SHA256 = r.Next, int64(len(r.Messages)), sum(&r)
	return p, &r, nil
}

// record makes p the partition's plan, and returns it with the time that it has
// got; none when another one was quicker.
func (w *worker) record(ctx context.Context, p *control.Plan) (*control.Plan, error) {
	stepCtx, cancel := context.WithTimeout(ctx, w.cfg.StepTimeout)
	defer cancel()
	switch err := w.cfg.Plans.RecordPlan(stepCtx, p); {
	case errors.Is(err, control.ErrPlanTaken):
		return nil, nil
	case err != nil:
		return nil, w.controlled(err)
	}
	open, _, err := w.openPlan(ctx)
	if err != nil || !same(open, p) {
		return nil, err
	}
	return open, nil
}

func same(open, p *control.Plan) bool {
	return open != nil && open.From == p.From && open.Next == p.Next && open.Count == p.Count && open.SHA256 == p.SHA256
}

// take decides on a plan's range, keeps the rows, and commits.
func (w *worker) take(ctx context.Context, p *control.Plan, r *kafka.Range) error {
	stepCtx, cancel := context.WithTimeout(ctx, w.cfg.StepTimeout)
	rows, chains, err := w.cfg.Admitter.Admit(stepCtx, ranged(p, r))
	cancel()
	if err != nil {
		return w.fail(err, control.Retryable(err) || w.cfg.Retryable(err))
	}
	// The chains were loaded before this: if the plan is still open, they did
	// not have its own statements, which would have been taken for replays.
	open, _, err := w.openPlan(ctx)
	if err != nil || !same(open, p) {
		return err
	}
	faultpoint.Hit("admitted")
	if err := w.publish(ctx, rows); err != nil {
		return err
	}
	if err := w.cfg.Rows.Insert(ctx, rows, token(p, rows)); err != nil {
		return w.writeFailed(err)
	}
	faultpoint.Hit("inserted")
	commitCtx, cancel := context.WithTimeout(ctx, w.cfg.StepTimeout)
	defer cancel()
	switch err := w.cfg.Plans.CommitPlan(commitCtx, p, chains); {
	case errors.Is(err, control.ErrPlanLost):
		// Another aggregator has finished it, and its rows are these.
		w.log.InfoContext(ctx, "plan was finished by another aggregator", slog.Int64("from", p.From))
		return nil
	case err != nil:
		return w.controlled(err)
	}
	faultpoint.Hit("committed")
	w.committed(ctx, p)
	w.count(rows.Receipts)
	return nil
}

// publish enters what was accepted in the transparency log. A plan that runs again
// after a crash enters it a second time: both entries can be proven.
func (w *worker) publish(ctx context.Context, rows *row.Batch) error {
	if w.cfg.Evidence == nil || len(rows.Statements) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, w.cfg.StepTimeout)
	defer cancel()
	digests := make([]predicate.Digest, len(rows.Statements))
	for i := range rows.Statements {
		digests[i] = predicate.Digest("sha256:" + rows.Statements[i].Digest)
	}
	indexes, err := w.cfg.Evidence.Append(ctx, digests)
	if err != nil {
		return w.fail(err, true)
	}
	for i := range rows.Statements {
		rows.Statements[i].Log, rows.Statements[i].LogIndex = w.cfg.Evidence.ID(), indexes[i]
	}
	return nil
}

// committed shows a committed plan, to Health and to Kafka.
func (w *worker) committed(ctx context.Context, p *control.Plan) {
	w.note(w.id, func(h *Health, now time.Time) {
		h.State, h.LastError, h.Next, h.LogEnd = Running, "", p.Next, max(h.LogEnd, p.Next)
		h.LastCommitAt, h.idleAt = now, now
		if p.SHA256 == lostSum() {
			h.Lost += p.Next - p.From
		}
	})
	if err := w.cfg.Offsets.Commit(ctx, w.id, p.Next); err != nil {
		// The next one makes up for it, and nothing is read from it.
		w.log.DebugContext(ctx, "offset not told to Kafka", slog.Any("error", err))
		return
	}
	faultpoint.Hit("offset-committed")
}
