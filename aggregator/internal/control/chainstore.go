package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/chain"
)

// LoadChains returns what is remembered of the wanted chains for judging
// statements of the given sequences. A chain nobody has seen comes back empty.
func (s *Store) LoadChains(ctx context.Context, wanted map[ChainID]Span) (map[ChainID]*Chain, error) {
	out := make(map[ChainID]*Chain, len(wanted))
	err := s.snapshot(ctx, func(tx *sql.Tx) error {
		for _, id := range slices.SortedFunc(maps.Keys(wanted), ChainID.compare) {
			c, err := loadChain(ctx, tx, id, wanted[id])
			if err != nil {
				return fmt.Errorf("chain %s: %w", id, err)
			}
			out[id] = c
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load chains: %w", err)
	}
	return out, nil
}

func loadChain(ctx context.Context, tx *sql.Tx, id ChainID, span Span) (*Chain, error) {
	if span.First == 0 || span.Last < span.First {
		return nil, fmt.Errorf("%d to %d is no span of sequences", span.First, span.Last)
	}
	c := &Chain{ID: id, span: span, links: map[uint64][]Link{}}
	_, err := queryOne(ctx, tx, func(scan scanner, _ *struct{}) error {
		return scan(&c.Head.Sequence, digestColumn{&c.Head.Digest}, &c.Highest)
	}, `SELECT head_sequence, head_digest, highest_sequence FROM chains WHERE tenant = $1 AND agent = $2 AND epoch = $3`,
		id.Tenant, id.Agent, id.Epoch)
	if errors.Is(err, ErrNotFound) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	if c.Head.Sequence == 0 {
		c.Head = chain.Head{}
	}
	links, err := queryAll(ctx, tx, func(scan scanner, l *Link) error {
		return scan(&l.Sequence, digestColumn{&l.Digest}, digestColumn{&l.Previous})
	}, `SELECT sequence, digest, previous FROM chain_links
WHERE tenant = $1 AND agent = $2 AND epoch = $3 AND sequence BETWEEN $4 AND $5 ORDER BY sequence, digest`,
		id.Tenant, id.Agent, id.Epoch, span.First-1, span.Last+1)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		c.links[l.Sequence] = append(c.links[l.Sequence], l)
	}
	c.gaps, err = queryAll(ctx, tx, readSpan, `SELECT first_sequence, last_sequence FROM chain_gaps
WHERE tenant = $1 AND agent = $2 AND epoch = $3 AND first_sequence <= $4 AND last_sequence >= $5 ORDER BY first_sequence`,
		id.Tenant, id.Agent, id.Epoch, span.Last+1, span.First-1)
	return c, err
}

func readSpan(scan scanner, g *Span) error { return scan(&g.First, &g.Last) }

// updateChain adds what a plan says of a chain. The row of the chain is held
// from the first statement on, so that updates of a chain follow each other.
func (s *Store) updateChain(ctx context.Context, tx *sql.Tx, u *ChainUpdate) error {
	seen := millisOf(u.SeenAt)
	added, span, replays, err := u.sort()
	if err != nil {
		return err
	}
	zero := make([]byte, 32)
	if _, err := tx.ExecContext(ctx, `INSERT INTO chains
(tenant, agent, epoch, head_sequence, head_digest, highest_sequence, replays, forks, last_seen_at)
VALUES ($1, $2, $3, 0, $4, 0, 0, 0, 0) ON CONFLICT (tenant, agent, epoch) DO NOTHING`,
		u.ID.Tenant, u.ID.Agent, u.ID.Epoch, zero); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE chains SET replays = replays + $1,
last_seen_at = CASE WHEN last_seen_at > $2 THEN last_seen_at ELSE $2 END WHERE tenant = $3 AND agent = $4 AND epoch = $5`,
		replays, seen, u.ID.Tenant, u.ID.Agent, u.ID.Epoch); err != nil {
		return err
	}
	if len(added) == 0 {
		return nil
	}
	if u.Heartbeat != nil {
		if err := writeState(ctx, tx, u.ID, u.Heartbeat); err != nil {
			return err
		}
	}
	c, err := loadChain(ctx, tx, u.ID, span)
	if err != nil {
		return err
	}
	before := slices.Clone(c.gaps)
	fresh, forks, statements := c.take(added)
	if err := s.writeForks(ctx, tx, u, forks); err != nil {
		return fmt.Errorf("write forks: %w", err)
	}
	if err := writeGaps(ctx, tx, u.ID, before, c.gaps); err != nil {
		return fmt.Errorf("write gaps: %w", err)
	}
	return writeLinks(ctx, tx, c, fresh, statements)
}

// sort checks the statements, and returns those that are not replays, the span
// of their sequences, and the number of those that are.
func (u *ChainUpdate) sort() (added []Placed, span Span, replays int, err error) {
	for _, p := range u.Statements {
		if p.Outcome == chain.Replayed {
			replays++
			continue
		}
		if p.Sequence == 0 || p.Outcome != chain.Linked && p.Outcome != chain.Early && p.Outcome != chain.Forked {
			return nil, Span{}, 0, fmt.Errorf("statement %d with outcome %q: not one that was placed", p.Sequence, p.Outcome)
		}
		if len(added) == 0 {
			span = Span{p.Sequence, p.Sequence}
		}
		span = Span{min(span.First, p.Sequence), max(span.Last, p.Sequence)}
		added = append(added, p)
	}
	return added, span, replays, nil
}

// take adds statements to the chain, and returns those to remember, those to
// flag, and how many are new. It flags a second statement at a sequence whatever the caller made of
// it, since another aggregator may have committed the first one in between.
func (c *Chain) take(added []Placed) (fresh []Link, forks []Fork, statements int) {
	for _, p := range added {
		there := c.links[p.Sequence]
		if slices.ContainsFunc(there, func(l Link) bool { return l.Digest == p.Digest }) {
			continue
		}
		statements++
		if p.Outcome == chain.Forked || len(there) > 0 {
			f := Fork{Sequence: p.Sequence, First: predicate.ZeroDigest, Second: p.Digest}
			if p.Other != "" {
				f.First = p.Other
			}
			if len(there) > 0 {
				f.First = there[0].Digest
			}
			forks = append(forks, f)
		}
		if len(there) >= siblings {
			continue
		}
		c.Add(p.Link)
		fresh = append(fresh, p.Link)
	}
	return fresh, forks, statements
}

func (s *Store) writeForks(ctx context.Context, tx *sql.Tx, u *ChainUpdate, forks []Fork) error {
	if len(forks) == 0 {
		return nil
	}
	kept, err := queryOne(ctx, tx, func(scan scanner, n *int64) error { return scan(n) },
		`SELECT COUNT(*) FROM chain_forks WHERE tenant = $1 AND agent = $2 AND epoch = $3`, u.ID.Tenant, u.ID.Agent, u.ID.Epoch)
	if err != nil {
		return err
	}
	var counted int64
	for _, f := range forks {
		if kept >= maxForks {
			counted++
			continue
		}
		n, err := changed(ctx, tx, `INSERT INTO chain_forks (tenant, agent, epoch, sequence, digest_a, digest_b, seen_at)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
			u.ID.Tenant, u.ID.Agent, u.ID.Epoch, f.Sequence, digestValue(f.First), digestValue(f.Second), millisOf(u.SeenAt))
		if err != nil {
			return err
		}
		kept += n
		counted += n
	}
	_, err = tx.ExecContext(ctx, `UPDATE chains SET forks = forks + $1 WHERE tenant = $2 AND agent = $3 AND epoch = $4`,
		counted, u.ID.Tenant, u.ID.Agent, u.ID.Epoch)
	return err
}

func writeGaps(ctx context.Context, tx *sql.Tx, id ChainID, before, after []Span) error {
	for _, g := range before {
		if slices.Contains(after, g) {
			continue
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM chain_gaps WHERE tenant = $1 AND agent = $2 AND epoch = $3 AND first_sequence = $4`,
			id.Tenant, id.Agent, id.Epoch, g.First); err != nil {
			return err
		}
	}
	for _, g := range after {
		if slices.Contains(before, g) {
			continue
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO chain_gaps (tenant, agent, epoch, first_sequence, last_sequence) VALUES ($1, $2, $3, $4, $5)`,
			id.Tenant, id.Agent, id.Epoch, g.First, g.Last); err != nil {
			return err
		}
	}
	return nil
}

// writeLinks writes those links that are to be remembered, moves the head past so
// many statements, and forgets what has left the windows.
func writeLinks(ctx context.Context, tx *sql.Tx, c *Chain, fresh []Link, statements int) error {
	id := c.ID
	head, err := queryOne(ctx, tx, func(scan scanner, n *uint64) error { return scan(n) },
		`SELECT COALESCE(MIN(first_sequence) - 1, $4) FROM chain_gaps WHERE tenant = $1 AND agent = $2 AND epoch = $3`,
		id.Tenant, id.Agent, id.Epoch, c.Highest)
	if err != nil {
		return err
	}
	insert, err := tx.PrepareContext(ctx, `INSERT INTO chain_links (tenant, agent, epoch, sequence, digest, previous)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`)
	if err != nil {
		return err
	}
	defer insert.Close() //nolint:errcheck // it ends with the transaction
	for _, l := range fresh {
		if !c.remembers(head, l.Sequence) {
			continue
		}
		if _, err := insert.ExecContext(ctx, id.Tenant, id.Agent, id.Epoch, l.Sequence, digestValue(l.Digest), digestValue(l.Previous)); err != nil {
			return err
		}
	}
	if err := moveHead(ctx, tx, c, head, statements); err != nil {
		return fmt.Errorf("move head: %w", err)
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM chain_links WHERE tenant = $1 AND agent = $2 AND epoch = $3
AND (sequence <= $4 OR sequence > $5) AND sequence <= $6
AND NOT EXISTS (SELECT 1 FROM chain_gaps AS g WHERE g.tenant = $1 AND g.agent = $2 AND g.epoch = $3 AND g.first_sequence = chain_links.sequence + 1)
AND NOT EXISTS (SELECT 1 FROM chain_gaps AS g WHERE g.tenant = $1 AND g.agent = $2 AND g.epoch = $3 AND g.last_sequence = chain_links.sequence - 1)`,
		id.Tenant, id.Agent, id.Epoch, int64(head)-Window, head, int64(c.Highest)-Window)
	if err != nil {
		return fmt.Errorf("forget links: %w", err)
	}
	return nil
}

// remembers reports whether a link stays: one of the last of the prefix, of the
// last of all, or at the side of a gap.
func (c *Chain) remembers(head, sequence uint64) bool {
	return sequence+Window > c.Highest || sequence <= head && sequence+Window > head ||
		c.missing(sequence+1) || c.missing(sequence-1)
}

// moveHead sets the head to the statement at the end of the prefix; where it is
// forked, to the one that was there first.
func moveHead(ctx context.Context, tx *sql.Tx, c *Chain, head uint64, statements int) error {
	id := c.ID
	digest := predicate.ZeroDigest
	if head > 0 {
		_, err := queryOne(ctx, tx, func(scan scanner, _ *struct{}) error { return scan(digestColumn{&digest}) },
			`SELECT l.digest FROM chain_links AS l WHERE l.tenant = $1 AND l.agent = $2 AND l.epoch = $3 AND l.sequence = $4
ORDER BY (SELECT COUNT(*) FROM chain_forks AS f WHERE f.tenant = l.tenant AND f.agent = l.agent AND f.epoch = l.epoch
AND f.sequence = l.sequence AND f.digest_b = l.digest), l.digest LIMIT 1`,
			id.Tenant, id.Agent, id.Epoch, head)
		if err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `UPDATE chains SET head_sequence = $1, head_digest = $2, highest_sequence = $3, statements = statements + $7
WHERE tenant = $4 AND agent = $5 AND epoch = $6`,
		head, digestValue(digest), c.Highest, id.Tenant, id.Agent, id.Epoch, statements)
	return err
}

// Chains lists how a tenant's chains stand, by agent and epoch: those of the given
// agents, or all of them where none is given.
func (s *Store) Chains(ctx context.Context, tenant string, agents ...string) ([]ChainStatus, error) {
	const query = `SELECT c.tenant, c.agent, c.epoch, c.head_sequence, c.head_digest, c.highest_sequence,
c.replays, c.forks, c.last_seen_at, c.statements,
(SELECT COUNT(*) FROM chain_gaps AS g WHERE g.tenant = c.tenant AND g.agent = c.agent AND g.epoch = c.epoch)
FROM chains AS c WHERE c.tenant = $1`
	var out []ChainStatus
	err := s.snapshot(ctx, func(tx *sql.Tx) error {
		read := func(where string, args ...any) error {
			chains, err := queryAll(ctx, tx, readStatus, query+where+` ORDER BY c.agent, c.epoch`, args...)
			for i := range chains {
				err = errors.Join(err, detail(ctx, tx, &chains[i]))
			}
			out = append(out, chains...)
			return err
		}
		if len(agents) == 0 {
			return read("", tenant)
		}
		for _, agent := range agents {
			if err := read(` AND c.agent = $2`, tenant, agent); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	return out, nil
}

func readStatus(scan scanner, c *ChainStatus) error {
	var seen int64
	err := scan(&c.ID.Tenant, &c.ID.Agent, &c.ID.Epoch, &c.Head.Sequence, digestColumn{&c.Head.Digest}, &c.Highest,
		&c.Replays, &c.Forks, &seen, &c.Statements, &c.GapCount)
	if c.Head.Sequence == 0 {
		c.Head = chain.Head{}
	}
	c.LastSeenAt = moment(seen)
	return err
}

func detail(ctx context.Context, tx *sql.Tx, c *ChainStatus) (err error) {
	if c.GapCount > 0 {
		c.Gaps, err = queryAll(ctx, tx, readSpan, `SELECT first_sequence, last_sequence FROM chain_gaps
WHERE tenant = $1 AND agent = $2 AND epoch = $3 ORDER BY first_sequence LIMIT $4`, c.ID.Tenant, c.ID.Agent, c.ID.Epoch, MaxListed)
	}
	if c.Forks == 0 || err != nil {
		return err
	}
	c.Forked, err = queryAll(ctx, tx, func(scan scanner, f *Fork) error {
		var seen int64
		err := scan(&f.Sequence, digestColumn{&f.First}, digestColumn{&f.Second}, &seen)
		f.SeenAt = moment(seen)
		return err
	}, `SELECT sequence, digest_a, digest_b, seen_at FROM chain_forks
WHERE tenant = $1 AND agent = $2 AND epoch = $3 ORDER BY sequence, digest_b LIMIT $4`, c.ID.Tenant, c.ID.Agent, c.ID.Epoch, MaxListed)
	return err
}
