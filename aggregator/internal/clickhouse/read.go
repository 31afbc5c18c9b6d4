package clickhouse

import (
	"context"
	"fmt"
	"time"
)

// Reader answers questions about one tenant at a time. Every method takes the
// tenant, and every query names it first; nothing is joined across tenants. What
// a query forgot the wall holds back.
type Reader struct {
	wall wall
}

// Reader reads what d holds.
func (d *DB) Reader() *Reader { return &Reader{wall{d.conn}} }

// The common table expressions that the queries are made of. All of them read
// rows through grouping by their key, so that a row inserted twice counts once,
// merged or not.
const (
	// withRounds: the inventory rounds of every scope, placed by the agent's
	// chain and not by its clock. A round is whole when all its parts are there
	// and each says that it is complete; complete is the last whole one.
	withRounds = `
rounds AS (
  SELECT agent, registry, root, round, max((epoch, sequence)) AS place,
         uniqExact(part) = max(parts) AND min(complete) AS whole
  FROM inventories WHERE tenant = {tenant:String}
  GROUP BY agent, registry, root, round),
scopes AS (
  SELECT agent, registry, root, maxIf(place, whole) AS complete, groupArrayIf(place, whole) AS all_complete
  FROM rounds GROUP BY agent, registry, root),
observed AS (
  SELECT r.agent AS agent, r.registry AS registry, r.root AS root, r.round AS round,
         r.name AS name, r.version AS version, r.path AS path,
         r.artifact AS artifact, r.bundle AS bundle, r.size AS size, r.problem AS problem,
         r.statement AS statement, r.listed_at AS listed_at, o.place AS place, o.whole AS whole
  FROM references AS r INNER JOIN rounds AS o
    ON r.agent = o.agent AND r.registry = o.registry AND r.root = o.root AND r.round = o.round
  WHERE r.tenant = {tenant:String})`

	// withCurrent: where each reference points now. A reference stands until a
	// whole round is without it; a partial round removes nothing.
	withCurrent = withRounds + `,
pointers AS (
  SELECT agent, registry, root, name, version, path,
         argMax(o.artifact, (place, statement)) AS artifact, argMax(o.bundle, (place, statement)) AS bundle,
         argMax(o.size, (place, statement)) AS size, argMax(o.problem, (place, statement)) AS problem,
         min(listed_at) AS first_seen, max(listed_at) AS last_seen, max(place) AS last_place
  FROM observed AS o
  GROUP BY agent, registry, root, name, version, path),
current AS (
  SELECT p.agent AS agent, p.registry AS registry, p.root AS root, p.name AS name, p.version AS version, p.path AS path,
         p.artifact AS artifact, p.bundle AS bundle, p.size AS size, p.problem AS problem,
         p.first_seen AS first_seen, p.last_seen AS last_seen
  FROM pointers AS p LEFT JOIN scopes AS s
    ON p.agent = s.agent AND p.registry = s.registry AND p.root = s.root
  WHERE p.last_place >= s.complete)`

	// withLatest: the latest scan of every artifact: of each agent the last in
	// its chain, and of those the one that arrived last.
	withLatest = `
latest AS (
  SELECT * FROM (
    SELECT * FROM scans WHERE tenant = {tenant:String}
    ORDER BY epoch DESC, sequence DESC, statement DESC LIMIT 1 BY artifact, agent)
  ORDER BY received_at DESC, epoch DESC, sequence DESC, statement DESC LIMIT 1 BY artifact)`

	// withDigests: the artifacts and bundles that something points to now, with
	// their latest scan. The zero digest stands for none.
	withDigests = withCurrent + `,` + withLatest + `,
digests AS (
  SELECT digest, count() AS pointed, min(first_seen) AS first_seen FROM (
    SELECT artifact AS digest, first_seen FROM current
    UNION ALL
    SELECT bundle AS digest, min(first_seen) AS first_seen FROM current GROUP BY bundle, agent, registry, root)
  WHERE digest != {zero:String} GROUP BY digest),
artifacts AS (
  SELECT d.digest AS digest, d.pointed AS pointed, d.first_seen AS first_seen,
         if(l.verdict = '', '` + Unassessed + `', l.verdict) AS verdict,
         l.kind AS kind, l.format AS format, l.size AS size, l.files AS files, l.score AS score, l.complete AS complete,
         l.bytes_parsed AS bytes_parsed, l.bytes_inert AS bytes_inert, l.bytes_unread AS bytes_unread,
         l.findings AS findings, l.imports AS imports, l.ruleset_version AS ruleset_version,
         l.statement AS statement, l.agent AS agent, l.scanned_at AS scanned_at
  FROM digests AS d LEFT JOIN latest AS l ON d.digest = l.artifact)`
)

// Unassessed is the verdict of an artifact that no scan speaks of yet.
const Unassessed = "unassessed"

// Artifact is a digest that something points to now, and its latest scan.
type Artifact struct {
	Digest      string    `ch:"digest"`
	Kind        string    `ch:"kind"`
	Format      string    `ch:"format"`
	Size        uint64    `ch:"size"`
	Files       uint64    `ch:"files"`
	Verdict     string    `ch:"verdict"`
	Score       uint8     `ch:"score"`
	Complete    bool      `ch:"complete"`
	BytesParsed uint64    `ch:"bytes_parsed"`
	BytesInert  uint64    `ch:"bytes_inert"`
	BytesUnread uint64    `ch:"bytes_unread"`
	Findings    uint64    `ch:"findings"`
	Imports     uint64    `ch:"imports"`
	Ruleset     string    `ch:"ruleset_version"`
	Statement   string    `ch:"statement"`
	Agent       string    `ch:"agent"`
	References  uint64    `ch:"pointed"`
	FirstSeen   time.Time `ch:"first_seen"`
	ScannedAt   time.Time `ch:"scanned_at"`
}

// ArtifactPage asks for a page of artifacts: the worst first, after the one
// with AfterScore and AfterDigest unless AfterDigest is empty.
type ArtifactPage struct {
	Verdict     string
	AfterScore  uint8
	AfterDigest string
	Limit       uint32
}

// Artifacts lists what something points to now, by falling score.
func (r *Reader) Artifacts(ctx context.Context, tenant string, p ArtifactPage) ([]Artifact, error) {
	const query = `WITH ` + withDigests + `
SELECT * FROM artifacts
WHERE ({verdict:String} = '' OR verdict = {verdict:String})
  AND ({after_digest:String} = '' OR score < {after_score:UInt8} OR score = {after_score:UInt8} AND digest > {after_digest:String})
ORDER BY score DESC, digest LIMIT {limit:UInt32}`
	var out []Artifact
	err := r.wall.read(ctx, tenant, &out, query, "verdict", p.Verdict, "after_score", p.AfterScore, "after_digest", p.AfterDigest, "limit", p.Limit)
	if err != nil {
		return nil, fmt.Errorf("read artifacts: %w", err)
	}
	return out, nil
}

// Artifact finds one artifact, and false when nothing points to it now.
func (r *Reader) Artifact(ctx context.Context, tenant, digest string) (Artifact, bool, error) {
	const query = `WITH ` + withDigests + ` SELECT * FROM artifacts WHERE digest = {digest:String}`
	var out []Artifact
	if err := r.wall.read(ctx, tenant, &out, query, "digest", digest); err != nil {
		return Artifact{}, false, fmt.Errorf("read artifact: %w", err)
	}
	if len(out) == 0 {
		return Artifact{}, false, nil
	}
	return out[0], true, nil
}

// Count is how many things have a word: a verdict, a severity.
type Count struct {
	Word  string `ch:"word"`
	Count uint64 `ch:"n"`
}

// Verdicts counts the files (not the bundles) that something points to now, by
// verdict.
func (r *Reader) Verdicts(ctx context.Context, tenant string) ([]Count, error) {
	const query = `WITH ` + withDigests + `
SELECT verdict AS word, count() AS n FROM artifacts
WHERE kind != 'bundle' AND digest IN (SELECT artifact FROM current) GROUP BY verdict ORDER BY verdict`
	return r.counts(ctx, query, tenant)
}

// ReferenceCounts counts the references that stand now: those that point to an
// artifact (the empty word), and those that could not be read, by reason.
func (r *Reader) ReferenceCounts(ctx context.Context, tenant string) ([]Count, error) {
	const query = `WITH ` + withCurrent + ` SELECT problem AS word, count() AS n FROM current GROUP BY problem ORDER BY problem`
	return r.counts(ctx, query, tenant)
}

func (r *Reader) counts(ctx context.Context, query, tenant string) ([]Count, error) {
	var out []Count
	if err := r.wall.read(ctx, tenant, &out, query); err != nil {
		return nil, fmt.Errorf("count: %w", err)
	}
	return out, nil
}

// Reference is a place that points to an artifact now.
type Reference struct {
	Agent     string    `ch:"agent"`
	Registry  string    `ch:"registry"`
	Root      string    `ch:"root"`
	Name      string    `ch:"name"`
	Version   string    `ch:"version"`
	Path      string    `ch:"path"`
	Artifact  string    `ch:"artifact"`
	Bundle    string    `ch:"bundle"`
	Size      uint64    `ch:"size"`
	Problem   string    `ch:"problem"`
	FirstSeen time.Time `ch:"first_seen"`
	LastSeen  time.Time `ch:"last_seen"`
}

// References lists what points now to digest, an artifact's or a bundle's.
func (r *Reader) References(ctx context.Context, tenant, digest string, limit uint32) ([]Reference, error) {
	const query = `WITH ` + withCurrent + `
SELECT * FROM current WHERE artifact = {digest:String} OR bundle = {digest:String}
ORDER BY agent, registry, root, path, name, version LIMIT {limit:UInt32}`
	var out []Reference
	if err := r.wall.read(ctx, tenant, &out, query, "digest", digest, "limit", limit); err != nil {
		return nil, fmt.Errorf("read references: %w", err)
	}
	return out, nil
}

// Finding is a finding of an artifact's latest scan.
type Finding struct {
	Rule     string `ch:"rule"`
	Location string `ch:"location"`
	Class    string `ch:"class"`
	Severity string `ch:"severity"`
	Count    uint64 `ch:"count"`
}

// Findings lists the findings that a scan statement holds, the worst first.
func (r *Reader) Findings(ctx context.Context, tenant, artifact, statement string) ([]Finding, error) {
	const query = `
SELECT DISTINCT rule, location, class, severity, count FROM findings
WHERE tenant = {tenant:String} AND artifact = {artifact:String} AND statement = {statement:String}
ORDER BY indexOf(['info', 'low', 'medium', 'high', 'critical'], severity) DESC, rule, location`
	var out []Finding
	if err := r.wall.read(ctx, tenant, &out, query, "artifact", artifact, "statement", statement); err != nil {
		return nil, fmt.Errorf("read findings: %w", err)
	}
	return out, nil
}

// Import is a name that loading an artifact could resolve.
type Import struct {
	Module string `ch:"module"`
	Name   string `ch:"name"`
	How    string `ch:"how"`
	Judged string `ch:"judged"`
}

// Imports lists the imports that a scan statement holds.
func (r *Reader) Imports(ctx context.Context, tenant, artifact, statement string) ([]Import, error) {
	const query = `
SELECT DISTINCT module, name, how, judged FROM imports
WHERE tenant = {tenant:String} AND artifact = {artifact:String} AND statement = {statement:String}
ORDER BY indexOf(['harmless', 'unknown', 'dangerous'], judged) DESC, module, name, how`
	var out []Import
	if err := r.wall.read(ctx, tenant, &out, query, "artifact", artifact, "statement", statement); err != nil {
		return nil, fmt.Errorf("read imports: %w", err)
	}
	return out, nil
}
