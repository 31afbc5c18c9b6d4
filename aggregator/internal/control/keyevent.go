package control

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/logproof"
)

// noteKey records what happened to a key, for the logs. Once is enough.
func noteKey(ctx context.Context, tx *sql.Tx, change logproof.KeyChange, k *Key, at int64) error {
	moments := func(t time.Time) *predicate.Time {
		if t.IsZero() {
			return nil
		}
		m := predicate.At(t)
		return &m
	}
	e := logproof.KeyEvent{
		Change: change, Tenant: k.Tenant, Agent: k.Agent, Epoch: k.Epoch, KeyID: k.ID, Algorithm: k.Public.Algorithm, At: predicate.At(moment(at)),
	}
	switch change {
	case logproof.KeyCertified:
		e.Authority, e.NotBefore, e.NotAfter = k.Authority, moments(k.NotBefore), moments(k.NotAfter)
	case logproof.KeyRetired:
		e.EndsAt = moments(k.EndsAt)
	}
	entry, err := e.Marshal()
	if err != nil {
		return err
	}
	// The counter's row is held until the end of the transaction.
	if _, err := tx.ExecContext(ctx, `UPDATE key_event_counter SET last = last + 1`); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO key_events (seq, key_id, change, entry)
SELECT last, $1, $2, $3 FROM key_event_counter WHERE TRUE ON CONFLICT (key_id, change) DO NOTHING`,
		digestValue(k.ID), string(change), entry)
	return err
}

// settleAtOnce bounds the keys that are settled in one transaction.
const settleAtOnce = 500

// SettleKeys records what became of keys by the passing of time alone: that
// their time is over. It also records the enrolment of those that were there
// before events were. It returns how many there were, and is to be called again
// until there are none.
func (s *Store) SettleKeys(ctx context.Context) (n int, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		n = 0
		now := s.millis()
		const untold = ` AND NOT EXISTS (SELECT 1 FROM key_events AS e WHERE e.key_id = keys.key_id AND e.change = $2)`
		for _, due := range []struct {
			change logproof.KeyChange
			where  string
		}{
			{logproof.KeyEnrolled, `authority IS NULL AND created_at <= $1`},
			{logproof.KeyRevoked, `status = 'revoked' AND revoked_at <= $1`},
			{logproof.KeyEnded, `status <> 'revoked' AND ends_at > 0 AND ends_at <= $1`},
		} {
			keys, err := queryAll(ctx, tx, readKey, `SELECT `+keyColumns+` FROM keys WHERE `+due.where+untold+` ORDER BY created_at, key_id LIMIT $3`,
				now, string(due.change), settleAtOnce)
			if err != nil {
				return err
			}
			n += len(keys)
			for i := range keys {
				if err := noteKey(ctx, tx, due.change, &keys[i], now); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("settle keys: %w", err)
	}
	return n, nil
}

// KeyEvent is a recorded event. Its entry's Seq rises with the time at which it
// became visible.
type KeyEvent struct {
	Seq    uint64
	Change logproof.KeyChange
	// Entry is what the log gets.
	Entry []byte
	// LogIndex is where it stands in the log that was asked about.
	LogIndex uint64
}

// PendingKeyEvents are the events behind a seq that a log does not have yet, in
// order.
func (s *Store) PendingKeyEvents(ctx context.Context, log string, after uint64) ([]KeyEvent, error) {
	out, err := queryAll(ctx, s.read, func(scan scanner, e *KeyEvent) error { return scan(&e.Seq, &e.Change, &e.Entry) },
		`SELECT e.seq, e.change, e.entry FROM key_events AS e WHERE e.seq > $1
AND NOT EXISTS (SELECT 1 FROM key_event_entries AS n WHERE n.log = $2 AND n.seq = e.seq) ORDER BY e.seq`, after, log)
	if err != nil {
		return nil, fmt.Errorf("list key events: %w", err)
	}
	return out, nil
}

// RecordKeyEntries records where events stand in a log. Where one is recorded
// already, that stays.
func (s *Store) RecordKeyEntries(ctx context.Context, log string, entered []KeyEvent) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		for _, e := range entered {
			if _, err := tx.ExecContext(ctx, `INSERT INTO key_event_entries (log, seq, log_index) VALUES ($1, $2, $3)
ON CONFLICT (log, seq) DO NOTHING`, log, e.Seq, e.LogIndex); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record key events' entries: %w", err)
	}
	return nil
}

// KeyEvents are the events of a key that a log has, in the order of their
// entries.
func (s *Store) KeyEvents(ctx context.Context, log string, key predicate.Digest) ([]KeyEvent, error) {
	out, err := queryAll(ctx, s.read, func(scan scanner, e *KeyEvent) error { return scan(&e.Seq, &e.Change, &e.Entry, &e.LogIndex) },
		`SELECT e.seq, e.change, e.entry, n.log_index FROM key_events AS e JOIN key_event_entries AS n ON n.seq = e.seq
WHERE n.log = $1 AND e.key_id = $2 ORDER BY n.log_index`, log, digestValue(key))
	if err != nil {
		return nil, fmt.Errorf("list events of key %s: %w", key, err)
	}
	return out, nil
}

// PlanID names a plan.
type PlanID struct {
	Topic     string
	Partition int
	From      int64
}

// OpenPlans are the plans that are being taken in now, of all partitions.
func (s *Store) OpenPlans(ctx context.Context) ([]PlanID, error) {
	out, err := queryAll(ctx, s.read, func(scan scanner, p *PlanID) error { return scan(&p.Topic, &p.Partition, &p.From) },
		`SELECT topic, partition, from_offset FROM plans WHERE state = 'open' ORDER BY topic, partition`)
	if err != nil {
		return nil, fmt.Errorf("list open plans: %w", err)
	}
	return out, nil
}
