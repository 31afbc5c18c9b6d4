package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Plan is a range of a partition that ingest decided to take in as one: the
// offsets [From, Next). Whoever works on it reads exactly that range again and
// compares it with Count and SHA256 first.
type Plan struct {
	Topic     string
	Partition int
	// From is the first offset, Next the one after the last.
	From, Next int64
	// Count is the number of messages in the range, and SHA256 whatever digest
	// over them the reader fixes. A range of which the log holds nothing any
	// more is a plan like any other, with a count of 0.
	Count  int64
	SHA256 [sha256.Size]byte
	// Owner names the aggregator that recorded it, for people; whoever has
	// the partition may commit it.
	Owner     string
	CreatedAt time.Time
}

// committedPlans is how many committed plans are kept for each partition, so
// that a late CommitPlan of one of them is known for what it is.
const committedPlans = 16

const planColumns = `topic, partition, from_offset, to_offset, count, sha256, owner, created_at`

func readPlan(scan scanner, p *Plan) error {
	var created int64
	var sum []byte
	if err := scan(&p.Topic, &p.Partition, &p.From, &p.Next, &p.Count, &sum, &p.Owner, &created); err != nil {
		return err
	}
	copy(p.SHA256[:], sum)
	p.CreatedAt = moment(created)
	return nil
}

// OpenPlan returns the partition's recorded and uncommitted plan, nil when there
// is none, and the offset up to which everything is accounted for, which is 0
// for a partition nobody has planned. An open plan is finished before another is
// made; it begins at next.
func (s *Store) OpenPlan(ctx context.Context, topic string, partition int) (open *Plan, next int64, err error) {
	err = s.snapshot(ctx, func(tx *sql.Tx) error {
		next, err = queryOne(ctx, tx, func(scan scanner, n *int64) error { return scan(n) },
			`SELECT next_offset FROM partitions WHERE topic = $1 AND partition = $2`, topic, partition)
		if errors.Is(err, ErrNotFound) {
			next = 0
			return nil
		}
		if err != nil {
			return err
		}
		p, err := queryOne(ctx, tx, readPlan,
			`SELECT `+planColumns+` FROM plans WHERE topic = $1 AND partition = $2 AND state = 'open'`, topic, partition)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		open = &p
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read plan of %s/%d: %w", topic, partition, err)
	}
	return open, next, nil
}

// LastPlan returns the plan of a partition that was committed last, nil when there
// is none.
func (s *Store) LastPlan(ctx context.Context, topic string, partition int) (*Plan, error) {
	p, err := queryOne(ctx, s.read, readPlan, `SELECT `+planColumns+` FROM plans
WHERE topic = $1 AND partition = $2 AND state = 'committed' ORDER BY from_offset DESC LIMIT 1`, topic, partition)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read last plan of %s/%d: %w", topic, partition, err)
	}
	return &p, nil
}

// RecordPlan makes p the partition's open plan. It is ErrPlanTaken when the
// partition has an open plan, even the same one, or when p does not begin where
// the partition stands. It is ErrClockBehind, for an hour, while the clock is
// behind the last plan by half of the retention or more: a machine that starts
// without its time would otherwise date rows so that they are dropped at once.
func (s *Store) RecordPlan(ctx context.Context, p *Plan) error {
	if p.From < 0 || p.Next <= p.From || p.Count < 0 {
		return fmt.Errorf("record plan of %s/%d: [%d, %d) with %d messages is not a range", p.Topic, p.Partition, p.From, p.Next, p.Count)
	}
	err := s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO partitions (topic, partition, next_offset) VALUES ($1, $2, 0)
ON CONFLICT (topic, partition) DO NOTHING`, p.Topic, p.Partition); err != nil {
			return err
		}
		// The update changes nothing; it holds the row until the end.
		n, err := changed(ctx, tx, `UPDATE partitions SET next_offset = $3 WHERE topic = $1 AND partition = $2 AND next_offset = $3`,
			p.Topic, p.Partition, p.From)
		if err == nil && n != 1 {
			err = ErrPlanTaken
		}
		if err != nil {
			return err
		}
		now := s.millis()
		if err := s.believeClock(ctx, tx, now); err != nil {
			return err
		}
		if err := inEffect(ctx, tx, now); err != nil {
			return err
		}
		n, err = changed(ctx, tx, `INSERT INTO plans (topic, partition, from_offset, to_offset, count, sha256, state, owner, created_at)
VALUES ($1, $2, $3, $4, $5, $6, 'open', $7, $8) ON CONFLICT DO NOTHING`,
			p.Topic, p.Partition, p.From, p.Next, p.Count, p.SHA256[:], p.Owner, now)
		if err == nil && n != 1 {
			err = ErrPlanTaken
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("record plan of %s/%d from %d: %w", p.Topic, p.Partition, p.From, err)
	}
	return nil
}

// clockPatience is how long a clock is waited for that is far behind; then it is
// believed, and the last plan's was wrong.
const clockPatience = time.Hour

// clockWait is since when this process waits for its clock.
type clockWait struct {
	mu    sync.Mutex
	since time.Time
}

// believeClock compares the clock with the last plan's.
func (s *Store) believeClock(ctx context.Context, tx *sql.Tx, now int64) error {
	if s.retention == 0 {
		return nil
	}
	last, err := queryOne(ctx, tx, func(scan scanner, n *int64) error { return scan(n) }, `SELECT COALESCE(MAX(created_at), 0) FROM plans`)
	if err != nil {
		return err
	}
	s.clockWait.mu.Lock()
	defer s.clockWait.mu.Unlock()
	switch {
	case now+(s.retention/2).Milliseconds() > last:
		s.clockWait.since = time.Time{}
	case s.clockWait.since.IsZero():
		s.clockWait.since = time.Now()
		return ErrClockBehind
	case time.Since(s.clockWait.since) < clockPatience:
		return ErrClockBehind
	}
	return nil
}

// inEffect dates back revocations of keys that lie in the future of this clock:
// it was set back since, or another aggregator's is ahead. They were made before
// the plan that is recorded now, and plans are decided on by their time. While a
// plan is open that is later than now, nothing changes: who finishes it has to
// decide as before.
func inEffect(ctx context.Context, tx *sql.Tx, now int64) error {
	for _, table := range []string{"keys", "authorities"} {
		if _, err := tx.ExecContext(ctx, `UPDATE `+table+` SET revoked_at = $1
WHERE status = 'revoked' AND revoked_at > $1 AND NOT EXISTS (SELECT 1 FROM plans WHERE state = 'open' AND created_at > $1)`, now); err != nil {
			return err
		}
	}
	return nil
}

// CommitPlan says that what the plan covers is stored: in one transaction it
// closes the plan, moves the partition on to p.Next, and adds what the range
// said to the chains. Committing a plan that is committed changes nothing and is
// no error, so that a lost answer can be asked for again. A plan that is neither
// the open one nor among the last ones committed is ErrPlanLost.
func (s *Store) CommitPlan(ctx context.Context, p *Plan, heads []ChainUpdate) error {
	heads = slices.Clone(heads)
	slices.SortFunc(heads, func(a, b ChainUpdate) int { return a.ID.compare(b.ID) })
	for i := 1; i < len(heads); i++ {
		if heads[i].ID == heads[i-1].ID {
			return fmt.Errorf("commit plan of %s/%d: two updates of chain %s", p.Topic, p.Partition, heads[i].ID)
		}
	}
	err := s.write(ctx, func(tx *sql.Tx) error {
		// The partition's row first, as in RecordPlan: in another order the two
		// would wait for each other.
		n, err := changed(ctx, tx, `UPDATE partitions SET next_offset = $1 WHERE topic = $2 AND partition = $3 AND next_offset = $4`,
			p.Next, p.Topic, p.Partition, p.From)
		if err != nil {
			return err
		}
		if n == 0 {
			return committedBefore(ctx, tx, p)
		}
		n, err = changed(ctx, tx, `UPDATE plans SET state = 'committed', committed_at = $1
WHERE topic = $2 AND partition = $3 AND from_offset = $4 AND to_offset = $5 AND count = $6 AND sha256 = $7 AND state = 'open'`,
			s.millis(), p.Topic, p.Partition, p.From, p.Next, p.Count, p.SHA256[:])
		if err == nil && n != 1 {
			err = ErrPlanLost
		}
		if err != nil {
			return err
		}
		for i := range heads {
			if err := s.updateChain(ctx, tx, &heads[i]); err != nil {
				return fmt.Errorf("update chain %s: %w", heads[i].ID, err)
			}
		}
		return prunePlans(ctx, tx, p)
	})
	if err != nil {
		return fmt.Errorf("commit plan of %s/%d from %d: %w", p.Topic, p.Partition, p.From, err)
	}
	return nil
}

func committedBefore(ctx context.Context, tx *sql.Tx, p *Plan) error {
	was, err := queryOne(ctx, tx, readPlan, `SELECT `+planColumns+` FROM plans
WHERE topic = $1 AND partition = $2 AND from_offset = $3 AND state = 'committed'`, p.Topic, p.Partition, p.From)
	if errors.Is(err, ErrNotFound) {
		return ErrPlanLost
	}
	if err != nil {
		return err
	}
	if was.Next != p.Next || was.Count != p.Count || !bytes.Equal(was.SHA256[:], p.SHA256[:]) {
		return ErrPlanLost
	}
	return nil
}

func prunePlans(ctx context.Context, tx *sql.Tx, p *Plan) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM plans WHERE topic = $1 AND partition = $2 AND state = 'committed' AND from_offset <
(SELECT MIN(from_offset) FROM (SELECT from_offset FROM plans WHERE topic = $1 AND partition = $2 ORDER BY from_offset DESC LIMIT $3) AS kept)`,
		p.Topic, p.Partition, committedPlans)
	return err
}

// Partition is where ingest stands in one partition.
type Partition struct {
	Topic     string
	Partition int
	Next      int64
}

// Partitions lists where ingest stands, by topic and number.
func (s *Store) Partitions(ctx context.Context) ([]Partition, error) {
	out, err := queryAll(ctx, s.read, func(scan scanner, p *Partition) error {
		return scan(&p.Topic, &p.Partition, &p.Next)
	}, `SELECT topic, partition, next_offset FROM partitions ORDER BY topic, partition`)
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	return out, nil
}
