package control

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAWSRules(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		ctx := t.Context()
		rule := AWSRule{Tenant: "acme", Name: "gpu", ARN: "arn", AgentName: "{name}", CreatedBy: "test"}
		must(t, s.CreateAWSRule(ctx, rule))
		if err := s.CreateAWSRule(ctx, rule); !errors.Is(err, ErrExists) {
			t.Errorf("twice: %v", err)
		}
		rule.CreatedAt = c.now()
		got, err := s.AWSRules(ctx, "acme")
		must(t, err)
		if diff := cmp.Diff([]AWSRule{rule}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if _, err := s.AWSRule(ctx, "rival", "gpu"); !errors.Is(err, ErrNotFound) {
			t.Errorf("another tenant's: %v", err)
		}
		if err := s.DeleteAWSRule(ctx, "rival", "gpu"); !errors.Is(err, ErrNotFound) {
			t.Errorf("deleted by another tenant: %v", err)
		}
		must(t, s.DeleteAWSRule(ctx, "acme", "gpu"))
		for i := range MaxAWSRules {
			must(t, s.CreateAWSRule(ctx, AWSRule{Tenant: "acme", Name: fmt.Sprintf("r%d", i), ARN: "arn", AgentName: "x", CreatedBy: "test"}))
		}
		if err := s.CreateAWSRule(ctx, rule); err == nil {
			t.Error("there is no bound")
		}
	})
}

// A token for one key is good for no other, and stays good for that one.
func TestTokenForOneKey(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store, c *clock) {
		key := newKey(t)
		must(t, s.CreateJoinToken(t.Context(), JoinToken{
			Hash: hash("one"), Tenant: "acme", AgentName: "x", CreatedBy: "test", ForKey: key.ID(), ExpiresAt: c.now().Add(time.Minute),
		}))
		if _, err := s.RedeemJoinToken(t.Context(), hash("one"), newKey(t)); !errors.Is(err, ErrTokenUsed) {
			t.Errorf("another key: %v", err)
		}
		if _, err := s.RedeemJoinToken(t.Context(), hash("one"), key); err != nil {
			t.Errorf("its own key: %v", err)
		}
	})
}
