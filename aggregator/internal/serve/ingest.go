package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cavra/cavra/aggregator/internal/access"
)

// ErrNothingToGiveUp says that a partition has not stopped at that plan.
var ErrNothingToGiveUp = errors.New("the partition has not stopped, at this aggregator, at an unreadable plan of that range")

// Ingest is how the log is taken in, as far as a person has to see to it.
type Ingest interface {
	// Health lists the partitions that this aggregator has had, by number.
	Health() []IngestPartition
	// GiveUp counts what the unreadable plan of a partition held as lost. It is
	// ErrNothingToGiveUp for every other plan.
	GiveUp(ctx context.Context, partition int, from, next int64, by, reason string) error
}

// IngestHealth is how the log is taken in.
type IngestHealth struct {
	Partitions []IngestPartition `json:"partitions" doc:"By number. Of those that another aggregator has only next_offset is known here."`
	Lost       uint64            `json:"lost" doc:"Offsets that the log dropped before they were read, or that were given up; all that are still within retention."`
	LostRanges []LostRange       `json:"lost_ranges" doc:"The latest first, at most 100."`
	GivenUp    []GivenUp         `json:"given_up" doc:"Plans that an operator gave up: the latest first, at most 100."`
}

// IngestPartition is how one partition does.
type IngestPartition struct {
	Partition    int             `json:"partition"`
	State        string          `json:"state" enum:"running,retrying,stalled,stopped,away" doc:"Stopped needs a person; away is another aggregator's."`
	Next         int64           `json:"next_offset" doc:"Everything before it is accounted for."`
	LogEnd       int64           `json:"log_end" doc:"The log's end when it was last seen."`
	Lag          int64           `json:"lag" doc:"Offsets that wait."`
	LastError    string          `json:"last_error,omitempty"`
	LastErrorAt  *time.Time      `json:"last_error_at,omitempty"`
	LastCommitAt *time.Time      `json:"last_commit_at,omitempty"`
	Unreadable   *UnreadablePlan `json:"unreadable,omitempty" doc:"The plan that it stopped at because the log does not hold any more what the plan was made of: restore the log, or give the plan up."`
}

// UnreadablePlan is a range that was planned and cannot be read again.
type UnreadablePlan struct {
	From       int64     `json:"from"`
	Next       int64     `json:"next" doc:"The offset after the last."`
	Messages   int64     `json:"messages"`
	LostBefore int64     `json:"lost_before" doc:"Giving the plan up counts the offsets before this one as lost."`
	PlannedAt  time.Time `json:"planned_at"`
}

// LostRange is a range of offsets that nobody can read any more.
type LostRange struct {
	Partition int32     `json:"partition"`
	First     int64     `json:"first"`
	Last      int64     `json:"last"`
	At        time.Time `json:"at"`
}

// GivenUp is the record of a plan that was given up.
type GivenUp struct {
	Partition  int       `json:"partition"`
	From       int64     `json:"from"`
	Next       int64     `json:"next"`
	Messages   int64     `json:"messages"`
	LostBefore int64     `json:"lost_before"`
	By         string    `json:"by" doc:"The API token's name."`
	Reason     string    `json:"reason"`
	At         time.Time `json:"at"`
}

// IngestHealth is how the log is taken in, or ErrNotOperator: the log holds every
// tenant's messages.
func (s *Service) IngestHealth(ctx context.Context, p access.Principal) (IngestHealth, error) {
	if !Operates(p) {
		return IngestHealth{}, ErrNotOperator
	}
	out := IngestHealth{Partitions: s.cfg.Ingest.Health(), LostRanges: []LostRange{}, GivenUp: []GivenUp{}}
	var err error
	if out.Partitions, err = s.withOthers(ctx, out.Partitions); err != nil {
		return IngestHealth{}, err
	}
	if out.Lost, err = s.cfg.Rows.CountLost(ctx); err != nil {
		return IngestHealth{}, err
	}
	ranges, err := s.cfg.Rows.LostRanges(ctx, maxLost)
	if err != nil {
		return IngestHealth{}, err
	}
	for _, r := range ranges {
		out.LostRanges = append(out.LostRanges, LostRange{Partition: r.Partition, First: r.First, Last: r.Last, At: r.At.UTC()})
	}
	given, err := s.cfg.Control.GivenUpPlans(ctx, maxLost)
	if err != nil {
		return IngestHealth{}, err
	}
	for _, g := range given {
		out.GivenUp = append(out.GivenUp, GivenUp{
			Partition: g.Partition, From: g.From, Next: g.Next, Messages: g.Count, LostBefore: g.LostBefore, By: g.By, Reason: g.Reason, At: g.At.UTC(),
		})
	}
	return out, nil
}

// withOthers adds the partitions that this aggregator has never had.
func (s *Service) withOthers(ctx context.Context, ours []IngestPartition) ([]IngestPartition, error) {
	all, err := s.cfg.Control.Partitions(ctx)
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	known := map[int]int{}
	for i, p := range ours {
		known[p.Partition] = i
	}
	out := append([]IngestPartition{}, ours...)
	for _, p := range all {
		i, ok := known[p.Partition]
		if !ok {
			out = append(out, IngestPartition{Partition: p.Partition, State: away})
			i = len(out) - 1
		}
		if out[i].State == away {
			// What was seen of it here is old.
			out[i] = IngestPartition{Partition: p.Partition, State: away, Next: p.Next}
		}
	}
	slices.SortFunc(out, func(a, b IngestPartition) int { return cmp.Compare(a.Partition, b.Partition) })
	return out, nil
}

// away is the state of a partition that another aggregator has.
const away = "away"

// GiveUp counts what the unreadable plan of a partition held as lost, in the name
// of a principal. It is ErrNotOperator for whoever does not operate the
// aggregator, and ErrNothingToGiveUp when there is no such plan.
func (s *Service) GiveUp(ctx context.Context, p access.Principal, partition int, from, next int64, reason string) error {
	if !Operates(p) {
		return ErrNotOperator
	}
	return s.cfg.Ingest.GiveUp(ctx, partition, from, next, p.Name, reason)
}
