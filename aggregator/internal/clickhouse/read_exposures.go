package clickhouse

import (
	"context"
	"fmt"
	"time"
)

// Exposure is a finding at a reference, with the status that the observations
// give it: it is derived from what was seen, in whatever order that arrived.
type Exposure struct {
	Agent    string `ch:"agent"`
	Registry string `ch:"registry"`
	Root     string `ch:"root"`
	Name     string `ch:"name"`
	Version  string `ch:"version"`
	Path     string `ch:"path"`
	Artifact string `ch:"artifact"`
	Rule     string `ch:"rule"`
	Location string `ch:"location"`
	Class    string `ch:"class"`
	Severity string `ch:"severity"`
	// Status is open or resolved.
	Status string `ch:"status"`
	// Reopened says that it was gone for at least one complete round before.
	Reopened  bool      `ch:"reopened"`
	FirstSeen time.Time `ch:"first_seen"`
	LastSeen  time.Time `ch:"last_seen"`
}

// withExposures: every reference has pointed to artifacts, and every artifact
// has had findings. The pair of the two is an exposure: open while the
// reference stands, points there, and the artifact's latest scan has the
// finding. A reference that could not be read, an artifact without a scan and
// one that was not wholly looked at are exposures of their own, so that nothing
// unread looks clean.
const withExposures = withCurrent + `,` + withLatest + `,
pairs AS (
  SELECT agent, registry, root, name, version, path, artifact,
         min(listed_at) AS first_seen, max(listed_at) AS last_seen,
         min(place) AS first_place, max(place) AS last_place, uniqExactIf(round, whole) AS rounds_seen
  FROM observed WHERE artifact != {zero:String}
  GROUP BY agent, registry, root, name, version, path, artifact),
standing AS (
  SELECT p.agent AS agent, p.registry AS registry, p.root AS root, p.name AS name, p.version AS version, p.path AS path,
         p.artifact AS artifact, p.first_seen AS first_seen, p.last_seen AS last_seen,
         c.path != '' AND c.artifact = p.artifact AS points,
         arrayCount(t -> t >= p.first_place AND t <= p.last_place, s.all_complete) > p.rounds_seen AS was_gone
  FROM pairs AS p
  LEFT JOIN current AS c ON p.agent = c.agent AND p.registry = c.registry AND p.root = c.root
    AND p.name = c.name AND p.version = c.version AND p.path = c.path
  LEFT JOIN scopes AS s ON p.agent = s.agent AND p.registry = s.registry AND p.root = s.root),
known AS (
  SELECT f.artifact AS artifact, f.rule AS rule, f.location AS location, any(f.class) AS class,
         argMax(f.severity, (f.received_at, f.statement)) AS severity, max(f.statement = l.statement) AS stands
  FROM findings AS f INNER JOIN latest AS l ON f.artifact = l.artifact
  WHERE f.tenant = {tenant:String} GROUP BY artifact, rule, location),
exposures AS (
  SELECT s.agent AS agent, s.registry AS registry, s.root AS root, s.name AS name, s.version AS version, s.path AS path,
         s.artifact AS artifact, rule, location, class, severity,
         if(s.points AND stands, 'open', 'resolved') AS status, s.points AND stands AND s.was_gone AS reopened,
         s.first_seen AS first_seen, s.last_seen AS last_seen
  FROM standing AS s INNER JOIN known AS f ON s.artifact = f.artifact
  UNION ALL
  SELECT c.agent, c.registry, c.root, c.name, c.version, c.path, c.artifact,
         multiIf(c.problem != '', 'reference.unreadable', l.statement = '', 'artifact.unscanned', 'artifact.incomplete') AS rule,
         'artifact' AS location, 'unscanned_or_stale_assessment' AS class, 'medium' AS severity,
         'open' AS status, false AS reopened, c.first_seen, c.last_seen
  FROM current AS c LEFT JOIN latest AS l ON c.artifact = l.artifact
  WHERE c.problem != '' OR l.statement = '' OR NOT l.complete)`

// ExposurePage asks for a page of exposures; an empty Severity or Status means
// any.
type ExposurePage struct {
	Severity, Status string
	Offset, Limit    uint32
}

const severityRank = `indexOf(['info', 'low', 'medium', 'high', 'critical'], severity)`

// Exposures lists exposures: open ones first, then by falling severity.
func (r *Reader) Exposures(ctx context.Context, tenant string, p ExposurePage) ([]Exposure, error) {
	const query = `WITH ` + withExposures + `
SELECT * FROM exposures
WHERE ({severity:String} = '' OR severity = {severity:String}) AND ({status:String} = '' OR status = {status:String})
ORDER BY status, ` + severityRank + ` DESC, agent, registry, root, path, name, version, artifact, rule, location
LIMIT {limit:UInt32} OFFSET {offset:UInt32}`
	var out []Exposure
	err := r.wall.read(ctx, tenant, &out, query, "severity", p.Severity, "status", p.Status, "limit", p.Limit, "offset", p.Offset)
	if err != nil {
		return nil, fmt.Errorf("read exposures: %w", err)
	}
	return out, nil
}

// OpenBySeverity counts the open exposures by severity.
func (r *Reader) OpenBySeverity(ctx context.Context, tenant string) ([]Count, error) {
	const query = `WITH ` + withExposures + `
SELECT severity AS word, count() AS n FROM exposures WHERE status = 'open' GROUP BY severity ORDER BY ` + severityRank
	return r.counts(ctx, query, tenant)
}
