package clickhouse

import (
	"context"
	"fmt"
	"time"
)

// Statement is a stored statement and its place.
type Statement struct {
	Digest     string    `ch:"digest"`
	Agent      string    `ch:"agent"`
	Epoch      uint64    `ch:"epoch"`
	Sequence   uint64    `ch:"sequence"`
	Previous   string    `ch:"previous"`
	KeyID      string    `ch:"key_id"`
	Type       string    `ch:"type"`
	Outcome    string    `ch:"outcome"`
	SignedAt   time.Time `ch:"signed_at"`
	ReceivedAt time.Time `ch:"received_at"`
	Topic      string    `ch:"topic"`
	Partition  int32     `ch:"partition"`
	Offset     int64     `ch:"offset"`
	// Envelope is the DSSE envelope, byte for byte as it arrived.
	Envelope string `ch:"envelope"`
	// Log is the transparency log that has it, LogIndex its entry there.
	Log      string `ch:"log"`
	LogIndex uint64 `ch:"log_index"`
}

const statementColumns = `digest, agent, epoch, sequence, previous, key_id, type, outcome, signed_at, received_at, topic, partition, offset, envelope, log, log_index`

// Statement finds a statement by its digest.
func (r *Reader) Statement(ctx context.Context, tenant, digest string) (Statement, bool, error) {
	const query = `SELECT ` + statementColumns + ` FROM statements
WHERE tenant = {tenant:String} AND digest = {digest:String} ORDER BY topic, partition, offset LIMIT 1`
	var out []Statement
	if err := r.wall.read(ctx, tenant, &out, query, "digest", digest); err != nil {
		return Statement{}, false, fmt.Errorf("read statement: %w", err)
	}
	if len(out) == 0 {
		return Statement{}, false, nil
	}
	return out[0], true, nil
}

// ChainPlace is where a statement stands among an agent's: the two sides of a
// fork differ in the digest.
type ChainPlace struct {
	Epoch    uint64 `ch:"epoch"`
	Sequence uint64 `ch:"sequence"`
	Digest   string `ch:"digest"`
}

// ChainPage asks for a page of an agent's chain: what follows a place, the zero
// one for the beginning. It ends with the statement whose envelope would be more
// than Bytes in sum, but always has the first one, or after Limit statements.
type ChainPage struct {
	After ChainPlace
	Limit uint32
	Bytes uint64
}

const chainAfter = `tenant = {tenant:String} AND agent = {agent:String}
  AND (epoch, sequence, digest) > ({epoch:UInt64}, {sequence:UInt64}, {digest:String})`

// Chain lists an agent's statements in the order of its chain, both sides of a
// fork among them, and whether there are more after the last of them.
func (r *Reader) Chain(ctx context.Context, tenant, agent string, p ChainPage) ([]Statement, bool, error) {
	// Sizes first: what a page leaves out is not read into memory.
	const sizes = `SELECT epoch, sequence, digest, toUInt64(length(envelope)) AS bytes FROM statements WHERE ` + chainAfter + `
ORDER BY epoch, sequence, digest LIMIT 1 BY epoch, sequence, digest LIMIT {limit:UInt32}`
	args := func(more ...any) []any {
		return append(more, "agent", agent, "epoch", p.After.Epoch, "sequence", p.After.Sequence, "digest", p.After.Digest)
	}
	var places []struct {
		ChainPlace
		Bytes uint64 `ch:"bytes"`
	}
	if err := r.wall.read(ctx, tenant, &places, sizes, args("limit", p.Limit+1)...); err != nil {
		return nil, false, fmt.Errorf("read chain: %w", err)
	}
	n, total := 0, uint64(0)
	for n < len(places) && n < int(p.Limit) && (n == 0 || total+places[n].Bytes <= p.Bytes) {
		total += places[n].Bytes
		n++
	}
	if n == 0 {
		return nil, false, nil
	}
	last := places[n-1].ChainPlace
	const query = `SELECT ` + statementColumns + ` FROM statements WHERE ` + chainAfter + `
  AND (epoch, sequence, digest) <= ({last_epoch:UInt64}, {last_sequence:UInt64}, {last_digest:String})
ORDER BY epoch, sequence, digest, topic, partition, offset LIMIT 1 BY epoch, sequence, digest LIMIT {limit:UInt32}`
	var out []Statement
	err := r.wall.read(ctx, tenant, &out, query, args("limit", uint32(n), "last_epoch", last.Epoch, "last_sequence", last.Sequence, "last_digest", last.Digest)...)
	if err != nil {
		return nil, false, fmt.Errorf("read chain: %w", err)
	}
	// What arrived between the two questions has pushed others to the next page.
	more := n < len(places) || len(out) == 0 || out[len(out)-1].Place() != last
	return out, more, nil
}

// Place is where the statement stands.
func (s *Statement) Place() ChainPlace { return ChainPlace{s.Epoch, s.Sequence, s.Digest} }

// ScanPlace is where a scan statement stands among an artifact's, the latest
// first.
type ScanPlace struct {
	Statement  string    `ch:"statement"`
	ReceivedAt time.Time `ch:"at"`
}

// ScanStatements lists an artifact's scan statements, the latest first: those
// that follow a place, all for the zero one.
func (r *Reader) ScanStatements(ctx context.Context, tenant, artifact string, after ScanPlace, limit uint32) ([]ScanPlace, error) {
	const query = `SELECT statement, max(received_at) AS at FROM scans
WHERE tenant = {tenant:String} AND artifact = {artifact:String} GROUP BY statement
HAVING {after:String} = '' OR (at, statement) < (fromUnixTimestamp64Milli({after_at:Int64}, 'UTC'), {after:String})
ORDER BY at DESC, statement DESC LIMIT {limit:UInt32}`
	var out []ScanPlace
	args := []any{"artifact", artifact, "after", after.Statement, "after_at", after.ReceivedAt.UnixMilli(), "limit", limit}
	if err := r.wall.read(ctx, tenant, &out, query, args...); err != nil {
		return nil, fmt.Errorf("read scan statements: %w", err)
	}
	return out, nil
}

// Refused is a message that was not believed.
type Refused struct {
	Topic      string    `ch:"topic"`
	Partition  int32     `ch:"partition"`
	Offset     int64     `ch:"offset"`
	Reason     string    `ch:"reason"`
	Detail     string    `ch:"detail"`
	Digest     string    `ch:"digest"`
	Bytes      uint64    `ch:"bytes"`
	ReceivedAt time.Time `ch:"received_at"`
}

// Quarantine lists what was refused, the latest first. The tenant is the one
// whose key the message names; messages that name no known key are filed under
// the empty tenant.
func (r *Reader) Quarantine(ctx context.Context, tenant string, offset, limit uint32) ([]Refused, error) {
	const query = `SELECT DISTINCT topic, partition, offset, reason, detail, digest, bytes, received_at FROM quarantine
WHERE tenant = {tenant:String} ORDER BY received_at DESC, topic, partition, offset DESC LIMIT {limit:UInt32} OFFSET {skip:UInt32}`
	var out []Refused
	if err := r.wall.read(ctx, tenant, &out, query, "skip", offset, "limit", limit); err != nil {
		return nil, fmt.Errorf("read quarantine: %w", err)
	}
	return out, nil
}

// Outcomes counts what arrived for a tenant, by outcome: every offset once.
func (r *Reader) Outcomes(ctx context.Context, tenant string) ([]Count, error) {
	const query = `SELECT outcome AS word, uniqExact((topic, partition, offset)) AS n FROM receipts
WHERE tenant = {tenant:String} GROUP BY outcome ORDER BY outcome`
	return r.counts(ctx, query, tenant)
}

// LostRange is a range of offsets that nobody can read any more.
type LostRange struct {
	Topic     string    `ch:"topic"`
	Partition int32     `ch:"partition"`
	First     int64     `ch:"offset"`
	Last      int64     `ch:"last"`
	At        time.Time `ch:"at"`
}

const lostRanges = `SELECT topic, partition, offset, max(last_offset) AS last, max(received_at) AS at FROM receipts
WHERE tenant = {tenant:String} AND outcome = 'lost' GROUP BY topic, partition, offset`

// LostRanges lists the ranges of the log that were gone before they were read,
// the latest first. What they held is not known, so they are no tenant's.
func (r *Reader) LostRanges(ctx context.Context, limit uint32) ([]LostRange, error) {
	var out []LostRange
	if err := r.wall.read(ctx, "", &out, lostRanges+` ORDER BY at DESC, topic, partition, offset DESC LIMIT {limit:UInt32}`, "limit", limit); err != nil {
		return nil, fmt.Errorf("read lost ranges: %w", err)
	}
	return out, nil
}

// CountLost counts the offsets in the ranges that LostRanges lists.
func (r *Reader) CountLost(ctx context.Context) (uint64, error) {
	const query = `SELECT 'lost' AS word, toUInt64(sum(last - offset + 1)) AS n FROM (` + lostRanges + `)`
	counts, err := r.counts(ctx, query, "")
	if err != nil || len(counts) == 0 {
		return 0, err
	}
	return counts[0].Count, nil
}
