package control

import (
	"errors"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFleetConfigs(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx := t.Context()
		one, other, theirs := enrol(t, s, "acme").Agent, enrol(t, s, "acme").Agent, enrol(t, s, "rival").Agent
		set := func(agent, settings string) uint64 {
			t.Helper()
			v, err := s.SetFleetConfig(ctx, "acme", FleetConfig{Agent: agent, Settings: settings, CreatedBy: "ada"})
			must(t, err)
			return v
		}
		wants := func(agent string, version uint64, settings string) {
			t.Helper()
			got, err := s.WantedConfig(ctx, "acme", agent)
			if err != nil || got.Version != version || got.Settings != settings {
				t.Errorf("%+v, %v, want version %d of %q", got, err, version, settings)
			}
		}
		wants(one, 0, "")
		if v := set("", `{"jobs":1}`); v != 1 {
			t.Errorf("the first version is %d", v)
		}
		set(one, `{"jobs":2}`)
		wants(one, 2, `{"jobs":2}`)
		wants(other, 1, `{"jobs":1}`)
		set("", `{"jobs":3}`)
		// The version grows although the agent's own settings go on to hold.
		wants(one, 3, `{"jobs":2}`)
		set(one, "")
		wants(one, 4, `{"jobs":3}`)
		wants(other, 3, `{"jobs":3}`)
		set("", "")
		wants(one, 5, "")
		fleet, err := s.Fleet(ctx, "acme")
		must(t, err)
		for _, m := range fleet {
			if m.WantedConfig != 5 {
				t.Errorf("agent %s should have version %d", m.ID, m.WantedConfig)
			}
		}
		for _, agent := range []string{theirs, "nobody"} {
			if _, err := s.SetFleetConfig(ctx, "acme", FleetConfig{Agent: agent, Settings: "{}", CreatedBy: "ada"}); !errors.Is(err, ErrNotFound) {
				t.Errorf("set on %s: %v", agent, err)
			}
		}
		if got, err := s.WantedConfig(ctx, "rival", theirs); err != nil || got.Version != 0 {
			t.Errorf("another tenant's agent wants %+v, %v", got, err)
		}
		page, err := s.FleetConfigs(ctx, "acme", 4, 2)
		must(t, err)
		want := []FleetConfig{{3, "", `{"jobs":3}`, "ada", c.now()}, {2, one, `{"jobs":2}`, "ada", c.now()}}
		if diff := cmp.Diff(want, page); diff != "" {
			t.Errorf("history (-want +got):\n%s", diff)
		}

		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if _, err := s.SetFleetConfig(ctx, "acme", FleetConfig{Settings: "{}", CreatedBy: "ada"}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		wants(other, 13, "{}")
	})
}
