package aggregator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cavra/cavra/aggregator/internal/ingest"
	"github.com/cavra/cavra/aggregator/internal/serve"
)

// ingestView shows ingest to people.
type ingestView struct{ ingest *ingest.Ingest }

// Health lists the partitions.
func (v ingestView) Health() []serve.IngestPartition {
	health := v.ingest.Health()
	out := make([]serve.IngestPartition, len(health))
	for i, h := range health {
		out[i] = serve.IngestPartition{
			Partition: h.Partition, State: string(h.State), Next: h.Next, LogEnd: h.LogEnd, Lag: h.Lag(),
			LastError: h.LastError, LastErrorAt: at(h.LastErrorAt), LastCommitAt: at(h.LastCommitAt),
		}
		if u := h.Unreadable; u != nil {
			out[i].Unreadable = &serve.UnreadablePlan{
				From: u.Plan.From, Next: u.Plan.Next, Messages: u.Plan.Count, LostBefore: u.LostBefore, PlannedAt: u.Plan.CreatedAt.UTC(),
			}
		}
	}
	return out
}

func at(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// GiveUp gives a plan up.
func (v ingestView) GiveUp(ctx context.Context, partition int, from, next int64, by, reason string) error {
	err := v.ingest.GiveUp(ctx, partition, from, next, by, reason)
	if errors.Is(err, ingest.ErrNotUnreadable) {
		return fmt.Errorf("%w: %w", serve.ErrNothingToGiveUp, err)
	}
	return err
}
