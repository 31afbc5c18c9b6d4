package evidence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/schemas/predicate"
)

// enterEvery is how often events are entered while no statement comes, and
// settleEvery how often it is looked whether keys have ended by the passing of
// time.
const (
	enterEvery  = time.Second
	settleEvery = 10 * time.Second
)

// Store knows what happened to agents' keys.
type Store interface {
	SettleKeys(ctx context.Context) (int, error)
	PendingKeyEvents(ctx context.Context, log string, after uint64) ([]control.KeyEvent, error)
	RecordKeyEntries(ctx context.Context, log string, entered []control.KeyEvent) error
	OpenPlans(ctx context.Context) ([]control.PlanID, error)
}

// Ledger is a log that holds what happened to agents' keys among the statements.
//
// It guarantees that a key's enrolment stands before every statement of it, and
// that its end stands behind every statement of it that was taken in: an end waits
// for the ranges that were being taken in when it came, whose statements were
// decided on before.
type Ledger struct {
	*Log
	store Store
	log   *slog.Logger
	// turn is held by the one that enters events.
	turn chan struct{}
	// known is the event up to which the log has all, and waits are the plans that
	// an end waits for.
	known uint64
	waits map[uint64]map[control.PlanID]bool
}

// NewLedger makes a ledger of a log.
func NewLedger(l *Log, s Store, log *slog.Logger) *Ledger {
	return &Ledger{Log: l, store: s, log: log, turn: make(chan struct{}, 1), waits: map[uint64]map[control.PlanID]bool{}}
}

// Append puts statements into the log, behind all that has happened to the keys
// that signed them.
func (l *Ledger) Append(ctx context.Context, statements []predicate.Digest) ([]uint64, error) {
	if err := l.Enter(ctx); err != nil {
		return nil, err
	}
	return l.Log.Append(ctx, statements)
}

// Enter puts into the log what has happened to keys.
func (l *Ledger) Enter(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	pending, err := l.store.PendingKeyEvents(ctx, l.ID(), l.known)
	if err != nil || len(pending) == 0 {
		return err
	}
	ready, held, err := l.ready(ctx, pending)
	if err != nil {
		return err
	}
	if len(ready) > 0 {
		if err := l.enter(ctx, ready); err != nil {
			return err
		}
	}
	l.known = pending[len(pending)-1].Seq
	if len(held) > 0 {
		l.known = held[0].Seq - 1
	}
	return nil
}

// ready tells the events that can be entered from the ends that have to wait.
func (l *Ledger) ready(ctx context.Context, pending []control.KeyEvent) (ready, held []control.KeyEvent, err error) {
	var open map[control.PlanID]bool
	for _, e := range pending {
		if !e.Change.Ends() {
			ready = append(ready, e)
			continue
		}
		if open == nil {
			if open, err = l.open(ctx); err != nil {
				return nil, nil, err
			}
		}
		if l.waits[e.Seq] == nil {
			l.waits[e.Seq] = open
		}
		if intersect(l.waits[e.Seq], open) {
			held = append(held, e)
			continue
		}
		ready = append(ready, e)
	}
	return ready, held, nil
}

func (l *Ledger) open(ctx context.Context) (map[control.PlanID]bool, error) {
	plans, err := l.store.OpenPlans(ctx)
	out := make(map[control.PlanID]bool, len(plans))
	for _, p := range plans {
		out[p] = true
	}
	return out, err
}

func intersect(a, b map[control.PlanID]bool) bool {
	for p := range a {
		if b[p] {
			return true
		}
	}
	return false
}

func (l *Ledger) enter(ctx context.Context, events []control.KeyEvent) error {
	entries := make([][]byte, len(events))
	for i, e := range events {
		entries[i] = e.Entry
	}
	indexes, err := l.append(ctx, entries)
	if err != nil {
		return err
	}
	for i := range events {
		events[i].LogIndex = indexes[i]
		delete(l.waits, events[i].Seq)
	}
	return l.store.RecordKeyEntries(ctx, l.ID(), events)
}

// Run enters what happens to keys while no statement comes, and what becomes of
// them by the passing of time, until ctx ends, whose error it returns.
func (l *Ledger) Run(ctx context.Context) error {
	tick := time.NewTicker(enterEvery)
	defer tick.Stop()
	var settled time.Time
	for {
		do := l.Enter
		if time.Since(settled) >= settleEvery {
			do, settled = l.settle, time.Now()
		}
		if err := do(ctx); err != nil && ctx.Err() == nil {
			l.log.WarnContext(ctx, "what happened to agents' keys is not in the transparency log yet, trying again", slog.Any("error", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *Ledger) settle(ctx context.Context) error {
	for {
		n, err := l.store.SettleKeys(ctx)
		if err = errors.Join(err, l.Enter(ctx)); err != nil {
			return fmt.Errorf("enter key events: %w", err)
		}
		if n == 0 {
			return nil
		}
	}
}
