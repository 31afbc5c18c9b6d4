package contact

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/enrol"
)

// call is what a call says of the agent's process.
type call struct {
	instance string
	// version is empty where the call does not say it, and skew then means nothing.
	version string
	skew    time.Duration
}

// sayEvery is how often a contact is written where nothing has changed, so that
// the time of it is exact to that.
const sayEvery = 5 * time.Minute

// said is what was written of a contact.
type said struct {
	instance, version string
	off               bool
	at                time.Time
}

// maxSaid bounds the agents of which that is remembered.
const maxSaid = 100_000

type who struct{ tenant, agent string }

// recent remembers what was written last of each agent, so that a further call
// by the same process costs no write.
type recent struct {
	mu   sync.Mutex
	said map[who]said
}

// due reports whether a contact has to be written.
func (r *recent) due(of who, now said) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.said[of]
	age := now.at.Sub(last.at)
	last.at = now.at
	return !ok || last != now || age >= sayEvery || age < 0
}

func (r *recent) wrote(of who, now said) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.said) >= maxSaid {
		clear(r.said)
	}
	r.said[of] = now
}

// seen records a call, and reports whether another process calls with the same
// identity. What cannot be recorded does not keep an agent from its certificate.
func (s *Service) seen(ctx context.Context, a Agent, c call) (cloned bool) {
	off := c.skew.Abs() > SkewTolerance
	of, now := who{a.Tenant, a.ID}, said{c.instance, c.version, off, s.cfg.Now()}
	if c.version != "" && !s.recent.due(of, now) {
		return false
	}
	other, err := s.cfg.Store.RecordContact(ctx, control.Contact{
		Tenant: a.Tenant, Agent: a.ID, Instance: c.instance, Address: a.Address, Version: c.version, Skew: c.skew,
	})
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "cannot record a contact", slog.Any("error", err))
		return false
	}
	s.recent.wrote(of, now)
	if other != nil {
		s.event(ctx, control.AgentEvent{
			Tenant: a.Tenant, Agent: a.ID, Kind: control.Cloned, Subject: pairOf(c.instance, other.ID),
			Presented: fmt.Sprintf("process %s at %s, which had called before", short(c.instance), a.Address),
			Known:     fmt.Sprintf("process %s at %s, first seen %s, last %s", short(other.ID), other.Address, stamp(other.FirstAt), stamp(other.LastAt)),
		})
	}
	if c.version != "" && off {
		s.event(ctx, control.AgentEvent{
			Tenant: a.Tenant, Agent: a.ID, Kind: control.ClockSkew,
			Presented: describeSkew(c.skew), Known: fmt.Sprintf("within %s is tolerated", SkewTolerance),
		})
	}
	return other != nil
}

// pairOf names two processes in one way, whichever comes first.
func pairOf(a, b string) string {
	if a > b {
		a, b = b, a
	}
	return a + " " + b
}

func short(instance string) string { return instance[:min(8, len(instance))] }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// odd records a call that was refused for what the certificate is.
func (s *Service) odd(ctx context.Context, a Agent, why error) {
	c := a.Certificate
	e := control.AgentEvent{
		Tenant: a.Tenant, Agent: a.ID, Kind: control.RetiredCertificate, Subject: fmt.Sprintf("generation %d", c.Generation),
		Presented: fmt.Sprintf("certificate of generation %d, from %s", c.Generation, a.Address), Known: s.present(ctx, a.Tenant, a.ID),
	}
	if errors.Is(why, control.ErrRevoked) {
		e.Kind, e.Subject = control.RevokedCall, ""
	}
	s.event(ctx, e)
}

// overtaken records that two went on from one generation: the second of them is
// refused. Which of them is the agent nobody can tell from here; whoever holds
// the enrolled key comes back by it, and is shown.
func (s *Service) overtaken(ctx context.Context, a Agent, instance string) {
	s.event(ctx, control.AgentEvent{
		Tenant: a.Tenant, Agent: a.ID, Kind: control.Cloned, Subject: fmt.Sprintf("generation %d", a.Certificate.Generation),
		Presented: fmt.Sprintf("process %s at %s, with a certificate of generation %d", short(instance), a.Address, a.Certificate.Generation),
		Known:     s.present(ctx, a.Tenant, a.ID),
	})
}

// returned records what is odd about an agent that comes back by its enrolled
// key.
func (s *Service) returned(ctx context.Context, r enrol.Returning) error {
	current, err := s.cfg.Store.Generation(ctx, r.Tenant, r.Agent)
	if err != nil {
		return err
	}
	generation := r.Generation
	if len(r.Candidate) > 0 {
		// It may have been confirmed, and the answer lost.
		c, err := s.cfg.Store.ClientCertificate(ctx, r.Candidate)
		if err == nil && c.Tenant == r.Tenant && c.Agent == r.Agent && !c.ConfirmedAt.IsZero() {
			generation = max(generation, c.Generation)
		}
	}
	known := s.present(ctx, r.Tenant, r.Agent)
	if generation < current {
		s.event(ctx, control.AgentEvent{
			Tenant: r.Tenant, Agent: r.Agent, Kind: control.Restored, Subject: fmt.Sprintf("generation %d", generation),
			Presented: fmt.Sprintf("process %s at %s, whose last certificate was of generation %d", short(r.Instance), r.Address, generation),
			Known:     known,
		})
	}
	s.seen(ctx, Agent{Tenant: r.Tenant, ID: r.Agent, Address: r.Address}, call{instance: r.Instance})
	return nil
}

// present is what is known of an agent now, in words.
func (s *Service) present(ctx context.Context, tenant, agent string) string {
	n, err := s.cfg.Store.Generation(ctx, tenant, agent)
	if err != nil {
		return "not to be found out"
	}
	out := fmt.Sprintf("generation %d", n)
	i, err := s.cfg.Store.LastInstance(ctx, tenant, agent)
	if err != nil {
		return out
	}
	return out + fmt.Sprintf(", process %s at %s, last seen %s", short(i.ID), i.Address, stamp(i.LastAt))
}

func (s *Service) event(ctx context.Context, e control.AgentEvent) {
	s.cfg.Log.WarnContext(ctx, "something is odd about an agent", slog.String("kind", string(e.Kind)), slog.String("tenant", e.Tenant),
		slog.String("agent", e.Agent), slog.String("presented", e.Presented), slog.String("known", e.Known))
	if err := s.cfg.Store.RecordAgentEvent(ctx, e); err != nil {
		s.cfg.Log.ErrorContext(ctx, "cannot record what is odd about an agent", slog.Any("error", err))
	}
}
