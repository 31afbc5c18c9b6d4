package serve

import (
	"context"
	"fmt"
	"time"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/posture"
)

// oddFor is how long an event is a trouble of its agent.
const oddFor = 7 * 24 * time.Hour

// clockTolerance is how far an agent's clock may be off.
const clockTolerance = 2 * time.Minute

// AgentEvents lists what is odd about a tenant's agents and join tokens, or about
// one agent, unless that is empty.
func (s *Service) AgentEvents(ctx context.Context, p access.Principal, agent string) (AgentEventList, error) {
	events, dropped, err := s.cfg.Control.AgentEvents(ctx, p.Tenant, agent)
	if err != nil {
		return AgentEventList{}, err
	}
	list := AgentEventList{Events: make([]AgentEvent, len(events)), Dropped: dropped}
	for i, e := range events {
		list.Events[i] = AgentEvent{
			Kind: string(e.Kind), Agent: e.Agent, Presented: e.Presented, Known: e.Known, Count: e.Count, FirstAt: e.FirstAt, LastAt: e.LastAt,
		}
	}
	if Operates(p) {
		n, err := s.cfg.Control.UnknownTokens(ctx)
		if err != nil {
			return AgentEventList{}, err
		}
		list.UnknownTokens = &n
	}
	return list, nil
}

// calls are what is known of the calls of a tenant's agents.
type calls struct {
	contacts         map[string]control.Contact
	cloned, restored map[string]bool
}

func (s *Service) calls(ctx context.Context, tenant string) (calls, error) {
	contacts, err := s.cfg.Control.Contacts(ctx, tenant)
	if err != nil {
		return calls{}, fmt.Errorf("list agents: %w", err)
	}
	events, _, err := s.cfg.Control.AgentEvents(ctx, tenant, "")
	if err != nil {
		return calls{}, fmt.Errorf("list agents: %w", err)
	}
	out := calls{contacts, map[string]bool{}, map[string]bool{}}
	for _, e := range events {
		if s.cfg.Now().Sub(e.LastAt) >= oddFor {
			continue
		}
		switch e.Kind {
		case control.Cloned:
			out.cloned[e.Agent] = true
		case control.Restored:
			out.restored[e.Agent] = true
		}
	}
	return out, nil
}

// tell adds them to what is known of an agent.
func (c calls) tell(agent string, f *posture.Facts) {
	f.Cloned, f.Restored = c.cloned[agent], c.restored[agent]
	f.ClockOff = c.contacts[agent].Skew.Abs() > clockTolerance
}

// contact is an agent's last call; nil for none.
func (c calls) contact(agent string) *AgentContact {
	last, ok := c.contacts[agent]
	if !ok {
		return nil
	}
	return &AgentContact{At: last.At, Address: last.Address, ClockSkew: last.Skew.Seconds(), ClockOff: last.Skew.Abs() > clockTolerance}
}

// certificate adds to an agent's document the certificate that it has in use.
func (s *Service) certificate(ctx context.Context, tenant string, a *Agent) error {
	if a.Contact == nil {
		return nil
	}
	all, err := s.cfg.Control.ClientCertificates(ctx, tenant, a.ID)
	if err != nil {
		return fmt.Errorf("read agent: %w", err)
	}
	for _, c := range all {
		if c.Status == control.Active {
			a.Contact.Generation, a.Contact.NotAfter = c.Generation, &c.ExpiresAt
		}
	}
	return nil
}
