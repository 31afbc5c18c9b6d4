package control

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGiveUpPlan(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx := t.Context()
		lost := sha256.Sum256([]byte("lost"))
		p := plan("a", 0, 10)
		must(t, s.RecordPlan(ctx, p))
		p.CreatedAt = c.now()
		for name, other := range map[string]*Plan{"another digest": plan("b", 0, 10), "another end": plan("a", 0, 11), "one never made": plan("a", 10, 11)} {
			if err := s.GiveUpPlan(ctx, other, other.Next, lost, "ops", "gone"); !errors.Is(err, ErrPlanLost) {
				t.Errorf("%s: %v, want ErrPlanLost", name, err)
			}
		}
		for name, bad := range map[string]error{
			"nobody":     s.GiveUpPlan(ctx, p, 10, lost, "", "gone"),
			"no reason":  s.GiveUpPlan(ctx, p, 10, lost, "ops", ""),
			"long":       s.GiveUpPlan(ctx, p, 10, lost, "ops", strings.Repeat("x", maxReason+1)),
			"nothing":    s.GiveUpPlan(ctx, p, 0, lost, "ops", "gone"),
			"beyond its": s.GiveUpPlan(ctx, p, 11, lost, "ops", "gone"),
		} {
			if bad == nil {
				t.Errorf("given up: %s", name)
			}
		}
		if list, err := s.GivenUpPlans(ctx, 10); len(list) != 0 || err != nil {
			t.Errorf("before any: %v, %v", list, err)
		}
		must(t, s.GiveUpPlan(ctx, p, 7, lost, "ops", "the disk was replaced"))
		if err := s.GiveUpPlan(ctx, p, 7, lost, "ops", "again"); !errors.Is(err, ErrPlanLost) {
			t.Errorf("again: %v, want ErrPlanLost", err)
		}
		if err := s.CommitPlan(ctx, p, nil); !errors.Is(err, ErrPlanLost) {
			t.Errorf("commit what was given up: %v, want ErrPlanLost", err)
		}
		open, next, err := s.OpenPlan(ctx, "statements", 3)
		must(t, err)
		want := &Plan{Topic: "statements", Partition: 3, From: 0, Next: 7, SHA256: lost, Owner: "a", CreatedAt: p.CreatedAt}
		if diff := cmp.Diff(want, open); diff != "" || next != 0 {
			t.Errorf("open plan, next %d (-want +got):\n%s", next, diff)
		}
		must(t, s.CommitPlan(ctx, open, nil))
		must(t, s.RecordPlan(ctx, plan("b", 7, 12)))
		list, err := s.GivenUpPlans(ctx, 10)
		must(t, err)
		if diff := cmp.Diff([]GivenUp{{Plan: *p, LostBefore: 7, By: "ops", Reason: "the disk was replaced", At: c.now()}}, list); diff != "" {
			t.Errorf("record (-want +got):\n%s", diff)
		}
	})
}
