package control

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"time"
)

// maxReason bounds the words that a person gives for a decision, in bytes.
const maxReason = 500

// GivenUp is a plan that an operator gave up, as it was, and the decision.
type GivenUp struct {
	Plan
	// LostBefore is the offset before which the plan's range counts as lost;
	// what is behind it is planned anew.
	LostBefore int64
	By, Reason string
	At         time.Time
}

// GiveUpPlan replaces the open plan p by one for [p.From, lostBefore) with no
// messages and the given digest, and keeps p with who decided it and why. It is
// ErrPlanLost when p is not the open plan.
func (s *Store) GiveUpPlan(ctx context.Context, p *Plan, lostBefore int64, sum [sha256.Size]byte, by, reason string) error {
	if lostBefore <= p.From || lostBefore > p.Next {
		return fmt.Errorf("give up plan of %s/%d: %d is not within (%d, %d]", p.Topic, p.Partition, lostBefore, p.From, p.Next)
	}
	if by == "" || len(by) > maxLabel || reason == "" || len(reason) > maxReason {
		return fmt.Errorf("give up plan of %s/%d: who decides it (1 to %d bytes) and why (1 to %d bytes) are both needed", p.Topic, p.Partition, maxLabel, maxReason)
	}
	err := s.write(ctx, func(tx *sql.Tx) error {
		// The partition's row first, as in CommitPlan.
		n, err := changed(ctx, tx, `UPDATE partitions SET next_offset = $3 WHERE topic = $1 AND partition = $2 AND next_offset = $3`,
			p.Topic, p.Partition, p.From)
		if err == nil && n != 1 {
			err = ErrPlanLost
		}
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO given_up_plans
(topic, partition, from_offset, to_offset, count, sha256, owner, created_at, lost_before, given_up_by, reason, given_up_at)
SELECT topic, partition, from_offset, to_offset, count, sha256, owner, created_at, $7, $8, $9, $10 FROM plans
WHERE topic = $1 AND partition = $2 AND from_offset = $3 AND to_offset = $4 AND count = $5 AND sha256 = $6 AND state = 'open'`,
			p.Topic, p.Partition, p.From, p.Next, p.Count, p.SHA256[:], lostBefore, by, reason, s.millis()); err != nil {
			return err
		}
		n, err = changed(ctx, tx, `UPDATE plans SET to_offset = $7, count = 0, sha256 = $8
WHERE topic = $1 AND partition = $2 AND from_offset = $3 AND to_offset = $4 AND count = $5 AND sha256 = $6 AND state = 'open'`,
			p.Topic, p.Partition, p.From, p.Next, p.Count, p.SHA256[:], lostBefore, sum[:])
		if err == nil && n != 1 {
			err = ErrPlanLost
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("give up plan of %s/%d from %d: %w", p.Topic, p.Partition, p.From, err)
	}
	return nil
}

// GivenUpPlans lists the plans that were given up, the latest first.
func (s *Store) GivenUpPlans(ctx context.Context, limit int) ([]GivenUp, error) {
	out, err := queryAll(ctx, s.read, func(scan scanner, g *GivenUp) error {
		var created, at int64
		var sum []byte
		if err := scan(&g.Topic, &g.Partition, &g.From, &g.Next, &g.Count, &sum, &g.Owner, &created, &g.LostBefore, &g.By, &g.Reason, &at); err != nil {
			return err
		}
		copy(g.SHA256[:], sum)
		g.CreatedAt, g.At = moment(created), moment(at)
		return nil
	}, `SELECT `+planColumns+`, lost_before, given_up_by, reason, given_up_at FROM given_up_plans
ORDER BY given_up_at DESC, topic, partition, from_offset DESC LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("list given up plans: %w", err)
	}
	return out, nil
}
