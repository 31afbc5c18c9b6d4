package enrol

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/cavra/cavra/aggregator/internal/control"
)

// The pauses between tries to take away what revoked agents should not have.
const (
	firstPause = time.Second
	lastPause  = 5 * time.Minute
)

// Revoke ends an agent: its keys, the join tokens that would enrol it anew, and
// its access to Kafka. From the moment the store knows, nothing that it signs is
// believed, whatever becomes of the rest; an error says that it has to be asked
// for again. It is control.ErrNotFound for an agent that the tenant has not.
// Revoking again changes nothing.
func (s *Service) Revoke(ctx context.Context, tenant, agent string) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	leave, err := s.enter(ctx, tenant, agent)
	if err != nil {
		return fmt.Errorf("revoke agent %q: %w", agent, err)
	}
	defer leave()
	// Not the other way round: an enrolment elsewhere that gave it access in
	// between would not see that it was revoked.
	if err := s.cfg.Store.RevokeAgent(ctx, tenant, agent); err != nil {
		return err
	}
	if err := s.cfg.Kafka.RevokeAgent(ctx, Username(tenant, agent)); err != nil {
		return fmt.Errorf("take agent %q off Kafka: its keys are revoked: %w", agent, err)
	}
	s.cfg.Log.InfoContext(ctx, "agent revoked", slog.String("tenant", tenant), slog.String("agent", agent))
	return nil
}

// Run takes access away from the agents that were revoked when Kafka could not
// be reached, or when this program ended halfway, and then waits for the end of
// ctx, whose error it returns.
func (s *Service) Run(ctx context.Context) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := s.settle(ctx)
		if err == nil {
			<-ctx.Done()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.cfg.Log.WarnContext(ctx, "revoked agents may still have access to Kafka, trying again", slog.Any("error", err))
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (s *Service) settle(ctx context.Context) error {
	revoked, err := s.cfg.Store.RevokedAgents(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range revoked {
		errs = append(errs, s.settleOne(ctx, a))
	}
	return errors.Join(errs...)
}

func (s *Service) settleOne(ctx context.Context, a control.Agent) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	leave, err := s.enter(ctx, a.Tenant, a.ID)
	if err != nil {
		return err
	}
	defer leave()
	// It may have been enrolled anew since it was listed.
	a, err = s.cfg.Store.Agent(ctx, a.Tenant, a.ID)
	if err != nil || a.Status != control.Revoked {
		return err
	}
	return s.cfg.Kafka.RevokeAgent(ctx, Username(a.Tenant, a.ID))
}

// enter waits for its turn to change what an agent may do on Kafka.
func (s *Service) enter(ctx context.Context, tenant, agent string) (leave func(), err error) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(Username(tenant, agent))) // it never fails
	turn := s.turns[h.Sum32()%turns]
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for other enrolments: %w", ctx.Err())
	}
}
