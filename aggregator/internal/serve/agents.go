package serve

import (
	"context"
	"errors"
	"fmt"

	"github.com/cavra/cavra/aggregator/internal/clickhouse"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/posture"
	"github.com/cavra/cavra/schemas/predicate"
)

// Agents lists the tenant's agents as they stand.
func (s *Service) Agents(ctx context.Context, tenant string) (AgentList, error) {
	enrolled, err := s.cfg.Control.ListAgents(ctx, tenant)
	if err != nil {
		return AgentList{}, fmt.Errorf("list agents: %w", err)
	}
	chains, err := s.chains(ctx, tenant)
	if err != nil {
		return AgentList{}, err
	}
	reports, err := s.cfg.Rows.AgentReports(ctx, tenant)
	if err != nil {
		return AgentList{}, err
	}
	activities, err := s.cfg.Rows.AgentActivities(ctx, tenant)
	if err != nil {
		return AgentList{}, err
	}
	reportOf := make(map[string]clickhouse.AgentReport, len(reports))
	for _, r := range reports {
		reportOf[r.Agent] = r
	}
	activityOf := make(map[string]clickhouse.AgentActivity, len(activities))
	for _, a := range activities {
		activityOf[a.Agent] = a
	}
	list := AgentList{Agents: make([]Agent, 0, len(enrolled))}
	for _, e := range enrolled {
		list.Agents = append(list.Agents, s.agent(e, chains[e.ID], reportOf[e.ID], activityOf[e.ID]))
	}
	return list, nil
}

func (s *Service) agent(e control.Agent, chains []Chain, r clickhouse.AgentReport, a clickhouse.AgentActivity) Agent {
	out := Agent{
		ID: e.ID, Name: e.Name, Status: string(posture.StatusAt(s.cfg.Now(), a.LastAt)),
		Version: r.Version, Ruleset: r.Ruleset, Sandbox: r.Sandbox, Privacy: r.Privacy, SpoolStatements: r.SpoolStatements,
		LastSeen: moment(a.LastAt), Statements: a.Statements, Replayed: a.Replayed, Chains: chains,
	}
	if e.Status == control.Revoked {
		out.Status = string(posture.Revoked)
	}
	if out.Sandbox == nil {
		out.Sandbox = []string{}
	}
	if out.Chains == nil {
		out.Chains = []Chain{}
	}
	if r.LastRoundAt != nil {
		out.LastRound = moment(*r.LastRoundAt)
	}
	return out
}

func (s *Service) chains(ctx context.Context, tenant string) (map[string][]Chain, error) {
	statuses, err := s.cfg.Control.Chains(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	out := map[string][]Chain{}
	for _, st := range statuses {
		c := Chain{
			Epoch: st.ID.Epoch, HeadSequence: st.Head.Sequence, HeadDigest: st.Head.Digest, Highest: st.Highest,
			Gaps: []Gap{}, GapCount: st.GapCount, Forks: []Fork{}, ForkCount: st.Forks,
		}
		for _, g := range st.Gaps {
			c.Gaps = append(c.Gaps, Gap(g))
		}
		for _, f := range st.Forked {
			c.Forks = append(c.Forks, forkOf(f))
		}
		out[st.ID.Agent] = append(out[st.ID.Agent], c)
	}
	return out, nil
}

func forkOf(f control.Fork) Fork {
	out := Fork{Sequence: f.Sequence, Digests: []predicate.Digest{}, SeenAt: f.SeenAt.UTC()}
	if f.First != predicate.ZeroDigest {
		out.Digests = append(out.Digests, f.First)
	}
	out.Digests = append(out.Digests, f.Second)
	return out
}

// Agent is one agent, or ErrNotFound.
func (s *Service) Agent(ctx context.Context, tenant, id string) (Agent, error) {
	list, err := s.Agents(ctx, tenant)
	if err != nil {
		return Agent{}, err
	}
	for _, a := range list.Agents {
		if a.ID == id {
			return a, nil
		}
	}
	return Agent{}, ErrNotFound
}

// key finds a key of the tenant.
func (s *Service) key(ctx context.Context, tenant string, id predicate.Digest) (control.Key, error) {
	key, err := s.cfg.Control.KeyByID(ctx, id)
	if errors.Is(err, control.ErrNotFound) || err == nil && key.Tenant != tenant {
		return control.Key{}, ErrNotFound
	}
	if err != nil {
		return control.Key{}, fmt.Errorf("find key: %w", err)
	}
	return key, nil
}
