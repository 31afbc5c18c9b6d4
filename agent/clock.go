package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/clock"
)

const (
	// clockEvery is how often the clock is looked at, and leastStep what counts as
	// a step: what sets clocks in order for good moves them by less at a time.
	clockEvery = 5 * time.Second
	leastStep  = time.Minute
)

// watchClock tells when the wall clock and the one that only runs drift apart: it
// was set, or the machine slept. What was signed around that moment bears times
// that do not fit.
func (a *Agent) watchClock(ctx context.Context) error {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	began, wall := time.Now(), clock.Now().Round(0)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now := clock.Now().Round(0)
		step := now.Sub(wall.Add(time.Since(began)))
		if step.Abs() < leastStep {
			continue
		}
		a.cfg.Log.WarnContext(ctx, "the clock was set, or the machine slept: a gap statement says so", slog.Duration("step", step))
		if _, err := a.spool.Append(ctx, &predicate.Gap{Cause: predicate.ClockStepped}); err != nil {
			return err
		}
		began, wall = time.Now(), clock.Now().Round(0)
	}
}
