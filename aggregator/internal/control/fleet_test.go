package control

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/chain"
)

func beat(sequence uint64, version string) *predicate.Heartbeat {
	at := predicate.At(time.UnixMilli(1_700_000_000_000))
	return &predicate.Heartbeat{
		Link: predicate.Link{Sequence: sequence}, AgentVersion: version, RulesetVersion: "1.0.0",
		Plugins: []predicate.Scanner{{Name: "formats", Version: "1", Digest: digest("formats")}},
		Sandbox: []predicate.Layer{predicate.LayerLandlock, predicate.LayerProcess}, StartedAt: at, LastRoundAt: &at,
		SpoolStatements: 7, SpoolBytes: 900, IntervalSeconds: 300, Privacy: predicate.Names,
		Configuration: &predicate.Configuration{Remote: true, Version: 2, Refused: &predicate.RefusedConfiguration{Version: 3, Reason: predicate.ConfigurationExpired}},
	}
}

func TestFleet(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx := t.Context()
		seen, silent := enrol(t, s, "acme"), enrol(t, s, "acme")
		theirs := enrol(t, s, "rival")
		offset := int64(0)
		commit := func(updates ...ChainUpdate) {
			t.Helper()
			p := plan("a", offset, offset+10)
			offset += 10
			must(t, s.RecordPlan(ctx, p))
			must(t, s.CommitPlan(ctx, p, updates))
		}
		at := time.UnixMilli(1_700_000_001_000).UTC()
		update := ChainUpdate{ID: seen, SeenAt: at, Heartbeat: beat(4, "0.2.0"), Statements: []Placed{
			{Link: Link{1, digest("1"), predicate.ZeroDigest}, Outcome: chain.Linked},
			{Link: Link{4, digest("4"), digest("3")}, Outcome: chain.Early},
			{Link: Link{4, digest("4'"), digest("3")}, Outcome: chain.Forked, Other: digest("4")},
			{Link: Link{1, digest("1"), predicate.ZeroDigest}, Outcome: chain.Replayed},
		}}
		commit(update)
		// What came late says how the agent stood, not how it stands.
		commit(ChainUpdate{ID: seen, SeenAt: at, Heartbeat: beat(2, "0.1.0"), Statements: []Placed{{Link: Link{2, digest("2"), digest("1")}, Outcome: chain.Linked}}},
			ChainUpdate{ID: theirs, SeenAt: at, Heartbeat: beat(1, "9.9.9"), Statements: []Placed{{Link: Link{1, digest("1"), predicate.ZeroDigest}, Outcome: chain.Linked}}})

		fleet, err := s.Fleet(ctx, "acme")
		must(t, err)
		if len(fleet) != 2 {
			t.Fatalf("%d agents", len(fleet))
		}
		got, other := fleet[0], fleet[1]
		if got.ID != seen.Agent {
			got, other = other, got
		}
		h := beat(4, "0.2.0")
		want := Member{
			Agent: got.Agent, LastSeen: at, Enrolments: 1, Statements: 4, Replays: 1, Gaps: 1, Forks: 1,
			State: State{
				Reported: true, Version: "0.2.0", Ruleset: "1.0.0", Privacy: predicate.Names, Sandbox: h.Sandbox, Plugins: h.Plugins,
				StartedAt: h.StartedAt.Time(), LastRound: h.LastRoundAt.Time(), SpoolStatements: 7, SpoolSize: 900, Interval: 5 * time.Minute,
				Configuration: h.Configuration,
			},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(Member{Agent: other.Agent, Enrolments: 1}, other); diff != "" || other.ID != silent.Agent || other.Epoch != 1 {
			t.Errorf("one that has said nothing, %+v (-want +got):\n%s", other.Agent, diff)
		}
		must(t, s.RevokeAgent(ctx, "acme", silent.Agent))
		pulses, err := s.Pulses(ctx, "acme")
		must(t, err)
		for _, p := range pulses {
			if (p != Pulse{Active, at, 5 * time.Minute} && p != Pulse{Revoked, time.Time{}, 0}) {
				t.Errorf("pulse %+v", p)
			}
		}
		chains, err := s.Chains(ctx, "acme", seen.Agent)
		must(t, err)
		if len(chains) != 1 || chains[0].Statements != 4 || chains[0].GapCount != 1 {
			t.Errorf("chains of the one: %+v", chains)
		}
		if none, err := s.Chains(ctx, "acme", theirs.Agent); err != nil || len(none) != 0 {
			t.Errorf("chains of another tenant's agent: %+v, %v", none, err)
		}
	})
}
