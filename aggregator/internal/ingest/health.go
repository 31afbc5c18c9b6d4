package ingest

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/cavra/cavra/aggregator/internal/row"
)

// State is how a partition does.
type State string

// The states. Retrying: the last try failed and the next one comes by itself.
// Stalled: there is something to do, and nothing was committed for too long.
// Stopped: it needs a person, and begins again when the aggregator does, the
// partition is assigned anew, or its Unreadable plan is given up. Away: it is
// another aggregator's.
const (
	Running  State = "running"
	Retrying State = "retrying"
	Stalled  State = "stalled"
	Stopped  State = "stopped"
	Away     State = "away"
)

// Health is how a partition does.
type Health struct {
	Partition int
	State     State
	// Next is the offset up to which everything is accounted for, and LogEnd
	// the log's end when it was last seen. Their difference is the lag.
	Next, LogEnd int64
	// LastError is the last one, empty when none came since the last commit.
	LastError    string
	LastErrorAt  time.Time
	LastCommitAt time.Time
	// Lost counts the offsets that the log dropped before they were read,
	// since this aggregator started.
	Lost int64
	// Unreadable is the plan that the partition stopped at because the log does
	// not give any more what it was made of; nil otherwise.
	Unreadable *Unreadable

	// idleAt is when there was last nothing to do, or something was done.
	idleAt time.Time
}

// Lag is the number of offsets that wait.
func (h *Health) Lag() int64 { return max(h.LogEnd-h.Next, 0) }

// Outcome is what became of a message: an outcome, and the reason if it was
// refused.
type Outcome struct{ Outcome, Reason string }

// Health lists the partitions that this aggregator has had since it started, by
// number.
func (i *Ingest) Health() []Health {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.cfg.Now()
	out := make([]Health, 0, len(i.partitions))
	for _, h := range i.partitions {
		c := *h
		if (c.State == Running || c.State == Retrying) && now.Sub(c.idleAt) > i.cfg.StallAfter {
			c.State = Stalled
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Health) int { return cmp.Compare(a.Partition, b.Partition) })
	return out
}

// Outcomes counts what became of the messages that this aggregator has committed
// since it started. A range counts once.
func (i *Ingest) Outcomes() map[Outcome]uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return maps.Clone(i.outcomes)
}

// note changes a partition's health.
func (i *Ingest) note(partition int, change func(h *Health, now time.Time)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	h, ok := i.partitions[partition]
	now := i.cfg.Now()
	if !ok {
		h = &Health{Partition: partition, State: Running, idleAt: now}
		i.partitions[partition] = h
	}
	change(h, now)
}

func (i *Ingest) count(receipts []row.Receipt) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for j := range receipts {
		i.outcomes[Outcome{receipts[j].Outcome, receipts[j].Reason}]++
	}
}
