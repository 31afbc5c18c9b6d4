package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/posture"
	"github.com/cavra/cavra/schemas/predicate"
)

// maxVersions bounds the versions that a fleet lists.
const maxVersions = 20

// AgentQuery narrows a list of agents; what is empty means any.
type AgentQuery struct {
	Trouble, Status string
	// Search is part of a name, an identifier or a version.
	Search        string
	Offset, Limit uint32
}

// Agents lists the tenant's agents, the worst first.
func (s *Service) Agents(ctx context.Context, tenant string, q AgentQuery) (AgentList, error) {
	f, err := s.fleet(ctx, tenant)
	if err != nil {
		return AgentList{}, err
	}
	list := AgentList{Agents: []Agent{}, Fleet: f.summary()}
	var found []*member
	for i := range f.members {
		if m := &f.members[i]; m.matches(q) {
			found = append(found, m)
		}
	}
	list.Total = uint64(len(found))
	limit := int(bounded(q.Limit))
	page := found[min(int(q.Offset), len(found)):]
	if len(page) > limit {
		page, list.Next = page[:limit], q.Offset+uint32(limit)
	}
	if len(page) == 0 {
		return list, nil
	}
	ids := make([]string, len(page))
	for i, m := range page {
		ids[i] = m.ID
	}
	chains, err := s.chains(ctx, tenant, ids...)
	if err != nil {
		return AgentList{}, err
	}
	for _, m := range page {
		list.Agents = append(list.Agents, f.document(m, chains[m.ID]))
	}
	return list, nil
}

// Agent is one agent, or ErrNotFound.
func (s *Service) Agent(ctx context.Context, tenant, id string) (Agent, error) {
	f, err := s.fleet(ctx, tenant)
	if err != nil {
		return Agent{}, err
	}
	i := slices.IndexFunc(f.members, func(m member) bool { return m.ID == id })
	if i < 0 {
		return Agent{}, ErrNotFound
	}
	chains, err := s.chains(ctx, tenant, id)
	if err != nil {
		return Agent{}, err
	}
	out := f.document(&f.members[i], chains[id])
	return out, s.certificate(ctx, tenant, &out)
}

// agentStatuses are those of all of the tenant's agents.
func (s *Service) agentStatuses(ctx context.Context, tenant string) ([]posture.Status, error) {
	pulses, err := s.cfg.Control.Pulses(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("count agents: %w", err)
	}
	out := make([]posture.Status, len(pulses))
	for i, p := range pulses {
		out[i] = statusOf(s.cfg.Now(), p.Status, p.LastSeen, p.Interval)
	}
	return out, nil
}

func statusOf(now time.Time, status control.Status, seen time.Time, interval time.Duration) posture.Status {
	if status == control.Revoked {
		return posture.Revoked
	}
	return posture.StatusAt(now, seen, interval)
}

// fleet is a tenant's agents, judged, the worst first.
type fleet struct {
	members []member
	norm    posture.Norm
	// usual are the programs that most of the fleet runs.
	usual []predicate.Scanner
}

type member struct {
	control.Member
	facts    posture.Facts
	troubles []posture.Trouble
	contact  *AgentContact
}

func (s *Service) fleet(ctx context.Context, tenant string) (*fleet, error) {
	enrolled, err := s.cfg.Control.Fleet(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("list agents: %w", err)
	}
	calls, err := s.calls(ctx, tenant)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	f := &fleet{members: make([]member, len(enrolled))}
	facts := make([]posture.Facts, len(enrolled))
	sets := map[*predicate.Scanner]string{}
	for i, e := range enrolled {
		facts[i] = posture.Facts{
			Status: statusOf(now, e.Status, e.LastSeen, e.Interval), EnrolledAt: e.EnrolledAt, Reported: e.Reported, Version: e.Version,
			Programs: programsOf(sets, e.Plugins), Sandbox: e.Sandbox, RoundsKnown: e.Interval > 0, LastComplete: e.LastComplete,
			SpoolStatements: e.SpoolStatements, Gaps: e.Gaps, Forks: e.Forks, Enrolments: e.Enrolments, Wanted: e.WantedConfig, Config: e.Configuration,
		}
		calls.tell(e.ID, &facts[i])
	}
	f.norm = posture.NormOf(facts)
	for i, e := range enrolled {
		f.members[i] = member{e, facts[i], posture.Judge(&facts[i], f.norm, now), calls.contact(e.ID)}
		if e.Reported && facts[i].Programs == f.norm.Programs {
			f.usual = e.Plugins
		}
	}
	slices.SortFunc(f.members, func(a, b member) int {
		return cmp.Or(posture.Worse(a.troubles, b.troubles), cmp.Compare(last(a.facts.Status), last(b.facts.Status)),
			cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return f, nil
}

// last puts the revoked behind the others.
func last(s posture.Status) int {
	if s == posture.Revoked {
		return 1
	}
	return 0
}

// programsOf spells a set of plugins, each list once.
func programsOf(sets map[*predicate.Scanner]string, plugins []predicate.Scanner) string {
	if len(plugins) == 0 {
		return ""
	}
	if known, ok := sets[&plugins[0]]; ok {
		return known
	}
	var b strings.Builder
	for _, p := range plugins {
		fmt.Fprintf(&b, "%s %s\n", p.Name, p.Digest)
	}
	sets[&plugins[0]] = b.String()
	return b.String()
}

func (m *member) matches(q AgentQuery) bool {
	if q.Status != "" && string(m.facts.Status) != q.Status {
		return false
	}
	if q.Trouble != "" && !slices.Contains(m.troubles, posture.Trouble(q.Trouble)) {
		return false
	}
	word := strings.ToLower(q.Search)
	return word == "" || strings.Contains(strings.ToLower(m.Name), word) || strings.Contains(m.ID, word) || strings.Contains(m.Version, word)
}

func (f *fleet) summary() Fleet {
	out := Fleet{Troubles: []TroubleCount{}, Versions: []VersionCount{}}
	counts := map[posture.Trouble]uint64{}
	statuses := make([]posture.Status, len(f.members))
	type build struct{ version, programs string }
	builds := map[build]*VersionCount{}
	for i := range f.members {
		m := &f.members[i]
		statuses[i] = m.facts.Status
		for _, t := range m.troubles {
			counts[t]++
		}
		if len(m.troubles) > 0 {
			out.Severities.add(m.troubles[0].Severity())
		}
		if !m.Reported || m.facts.Status == posture.Revoked {
			continue
		}
		key := build{m.Version, m.facts.Programs}
		if builds[key] == nil {
			builds[key] = &VersionCount{Version: m.Version, Plugins: f.plugins(m.Plugins)}
		}
		builds[key].Agents++
	}
	out.Agents = AgentCounts(posture.Of(posture.Rows{Agents: statuses}).Agents)
	for _, t := range posture.Troubles() {
		if counts[t] > 0 {
			out.Troubles = append(out.Troubles, TroubleCount{troubleOf(t), counts[t]})
		}
	}
	for _, b := range builds {
		out.Versions = append(out.Versions, *b)
	}
	slices.SortFunc(out.Versions, func(a, b VersionCount) int {
		return cmp.Or(cmp.Compare(b.Agents, a.Agents), cmp.Compare(a.Version, b.Version), comparePlugins(a.Plugins, b.Plugins))
	})
	out.Versions = out.Versions[:min(len(out.Versions), maxVersions)]
	return out
}

func comparePlugins(a, b []Plugin) int {
	return slices.CompareFunc(a, b, func(p, q Plugin) int {
		return cmp.Or(cmp.Compare(p.Name, q.Name), cmp.Compare(p.Digest, q.Digest))
	})
}

func (c *SeverityCounts) add(s predicate.Severity) {
	c.Total++
	switch s {
	case predicate.Critical:
		c.Critical++
	case predicate.High:
		c.High++
	case predicate.Medium:
		c.Medium++
	case predicate.Low:
		c.Low++
	default:
		c.Info++
	}
}

func troubleOf(t posture.Trouble) Trouble {
	return Trouble{Kind: string(t), Severity: string(t.Severity()), Text: t.Text()}
}

func (f *fleet) plugins(of []predicate.Scanner) []Plugin {
	out := make([]Plugin, len(of))
	for i, p := range of {
		usual := slices.ContainsFunc(f.usual, func(u predicate.Scanner) bool { return u.Name == p.Name && u.Digest == p.Digest })
		out[i] = Plugin{p.Name, p.Version, p.Digest, !usual}
	}
	return out
}

func (f *fleet) document(m *member, chains []Chain) Agent {
	out := Agent{
		ID: m.ID, Name: m.Name, Status: string(m.facts.Status), Troubles: []Trouble{}, Version: m.Version, Ruleset: m.Ruleset,
		Plugins: f.plugins(m.Plugins), Privacy: string(m.Privacy), Sandbox: words(m.Sandbox), SandboxMissing: []string{},
		SpoolStatements: m.SpoolStatements, SpoolBytes: m.SpoolSize, IntervalSeconds: uint64(m.Interval / time.Second),
		KeyID: m.KeyID, KeyAuthority: m.Authority, KeyEndsAt: moment(m.KeyNotAfter), Epoch: m.Epoch, EnrolledAt: m.EnrolledAt.UTC(), StartedAt: moment(m.StartedAt), LastSeen: moment(m.LastSeen),
		LastRound: moment(m.LastRound), LastComplete: moment(m.LastComplete), Statements: m.Statements, Replayed: m.Replays, Chains: chains,
		Contact: m.contact,
	}
	for _, t := range m.troubles {
		out.Troubles = append(out.Troubles, troubleOf(t))
	}
	if m.Reported {
		out.SandboxMissing = words(posture.MissingLayers(m.Sandbox))
	}
	if c := m.Configuration; c != nil {
		out.Configuration = &AgentConfig{Remote: c.Remote, Version: c.Version, Wanted: m.facts.Wanted}
		if c.Refused != nil {
			out.Configuration.Refused, out.Configuration.RefusedVersion = string(c.Refused.Reason), c.Refused.Version
		}
	}
	if out.Chains == nil {
		out.Chains = []Chain{}
	}
	return out
}

func words(layers []predicate.Layer) []string {
	out := make([]string, len(layers))
	for i, l := range layers {
		out[i] = string(l)
	}
	return out
}

// chains are those of some agents, by agent.
func (s *Service) chains(ctx context.Context, tenant string, agents ...string) (map[string][]Chain, error) {
	statuses, err := s.cfg.Control.Chains(ctx, tenant, agents...)
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
