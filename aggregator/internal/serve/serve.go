// Package serve answers people: it puts together, for one tenant at a time, the
// documents that the API returns and the page shows. The tenant is always the
// one that the caller was authenticated for, never one that a request names.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cavra/cavra/aggregator/internal/clickhouse"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/evidence"
	"github.com/cavra/cavra/aggregator/internal/posture"
	"github.com/cavra/cavra/aggregator/internal/row"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/finding"
)

// The bounds of the lists.
const (
	MaxPage       = 500
	maxReferences = 1000
	maxStatements = 100
	maxLost       = 100
	// MaxExport bounds a page of evidence, in statements, and maxExportBytes in
	// bytes of envelopes; a page always has at least one.
	MaxExport      = 10_000
	maxExportBytes = 16 << 20
)

// ErrNotFound says that the tenant has no such thing.
var ErrNotFound = errors.New("not found")

// ErrCursor says that a page's cursor is not one of ours.
var ErrCursor = errors.New("the cursor is not one that this list gave")

// Config is what a Service reads from. All members but Evidence are required.
type Config struct {
	// Evidence is the transparency log; nil where there is none.
	Evidence  *evidence.Log
	Rows      *clickhouse.Reader
	Control   *control.Store
	Ingest    Ingest
	Catalogue *finding.Catalogue
	Now       func() time.Time
}

// Service puts documents together.
type Service struct{ cfg Config }

// New returns a Service.
func New(cfg Config) (*Service, error) {
	if cfg.Rows == nil || cfg.Control == nil || cfg.Ingest == nil || cfg.Catalogue == nil || cfg.Now == nil {
		return nil, errors.New("serve: rows, control store, ingest, catalogue and clock are all required")
	}
	return &Service{cfg}, nil
}

// Posture is the tenant's posture now.
func (s *Service) Posture(ctx context.Context, tenant string) (Posture, error) {
	var rows posture.Rows
	var outcomes map[string]uint64
	for _, count := range []struct {
		into *map[string]uint64
		read func(context.Context, string) ([]clickhouse.Count, error)
	}{
		{&rows.Verdicts, s.cfg.Rows.Verdicts},
		{&rows.Problems, s.cfg.Rows.ReferenceCounts},
		{&rows.Severities, s.cfg.Rows.OpenBySeverity},
		{&outcomes, s.cfg.Rows.Outcomes},
	} {
		list, err := count.read(ctx, tenant)
		if err != nil {
			return Posture{}, fmt.Errorf("read posture: %w", err)
		}
		*count.into = byWord(list)
	}
	var err error
	if rows.Agents, err = s.agentStatuses(ctx, tenant); err != nil {
		return Posture{}, err
	}
	p := posture.Of(rows)
	return Posture{
		Tenant: tenant, AsOf: s.cfg.Now().UTC(), Score: p.Score, ScoreDefinition: posture.Definition,
		Artifacts: ArtifactCounts(p.Artifacts), References: ReferenceCounts(p.References),
		Exposures: SeverityCounts(p.Exposures), Agents: AgentCounts(p.Agents),
		Statements: StatementOutcome{
			Linked: outcomes["linked"], Early: outcomes["early"], Forked: outcomes["forked"],
			Replayed: outcomes["replayed"], Refused: outcomes["refused"],
		},
	}, nil
}

func byWord(list []clickhouse.Count) map[string]uint64 {
	out := make(map[string]uint64, len(list))
	for _, c := range list {
		out[c.Word] = c.Count
	}
	return out
}

// Artifacts lists what something points to now, the worst first. An empty
// verdict means any.
func (s *Service) Artifacts(ctx context.Context, tenant, verdict, after string, limit uint32) (ArtifactList, error) {
	page := clickhouse.ArtifactPage{Verdict: verdict, Limit: bounded(limit)}
	if after != "" {
		score, digest, ok := strings.Cut(after, "-")
		n, err := strconv.ParseUint(score, 10, 8)
		if !ok || err != nil || row.ArtifactDigest(digest) == "" {
			return ArtifactList{}, ErrCursor
		}
		page.AfterScore, page.AfterDigest = uint8(n), digest
	}
	rows, err := s.cfg.Rows.Artifacts(ctx, tenant, page)
	if err != nil {
		return ArtifactList{}, err
	}
	list := ArtifactList{Artifacts: make([]Artifact, len(rows))}
	for i, a := range rows {
		list.Artifacts[i] = artifactOf(a)
	}
	if n := len(rows); n == int(page.Limit) {
		list.Next = strconv.Itoa(int(rows[n-1].Score)) + "-" + rows[n-1].Digest
	}
	return list, nil
}

func bounded(limit uint32) uint32 {
	if limit == 0 || limit > MaxPage {
		return MaxPage
	}
	return limit
}

func artifactOf(a clickhouse.Artifact) Artifact {
	return Artifact{
		Digest: row.ArtifactDigest(a.Digest), Kind: a.Kind, Format: a.Format, Size: a.Size, Files: a.Files, Verdict: a.Verdict, Score: a.Score,
		Coverage: Coverage{
			Complete: a.Complete, BytesTotal: a.BytesParsed + a.BytesInert + a.BytesUnread,
			BytesParsed: a.BytesParsed, BytesInert: a.BytesInert, BytesUnread: a.BytesUnread,
		},
		Findings: a.Findings, Imports: a.Imports, References: a.References, Ruleset: a.Ruleset, Agent: a.Agent,
		Statement: digestOf(a.Statement), FirstSeen: a.FirstSeen.UTC(), ScannedAt: moment(a.ScannedAt),
	}
}

// digestOf reads a digest column, in which all zeros or nothing stand for none.
func digestOf(hex string) predicate.Digest {
	d := predicate.Digest("sha256:" + hex)
	if d == predicate.ZeroDigest || d.Validate() != nil {
		return ""
	}
	return d
}

func moment(t time.Time) *time.Time {
	if t.Unix() <= 0 {
		return nil
	}
	t = t.UTC()
	return &t
}

// Artifact is one artifact in detail, or ErrNotFound.
func (s *Service) Artifact(ctx context.Context, tenant string, digest predicate.Digest) (ArtifactDetail, error) {
	kept, ok, err := s.cfg.Rows.Artifact(ctx, tenant, row.Artifact(digest))
	if err != nil {
		return ArtifactDetail{}, err
	}
	if !ok {
		return ArtifactDetail{}, ErrNotFound
	}
	d := ArtifactDetail{Artifact: artifactOf(kept), FoundRules: []Finding{}, ImportList: []Import{}, ReferenceList: []Reference{}, ScanStatements: []predicate.Digest{}}
	found, err := s.cfg.Rows.Findings(ctx, tenant, kept.Digest, kept.Statement)
	if err != nil {
		return ArtifactDetail{}, err
	}
	for _, f := range found {
		d.FoundRules = append(d.FoundRules, s.finding(f))
	}
	imports, err := s.cfg.Rows.Imports(ctx, tenant, kept.Digest, kept.Statement)
	if err != nil {
		return ArtifactDetail{}, err
	}
	for _, i := range imports {
		d.ImportList = append(d.ImportList, Import(i))
	}
	references, err := s.cfg.Rows.References(ctx, tenant, kept.Digest, maxReferences)
	if err != nil {
		return ArtifactDetail{}, err
	}
	for _, r := range references {
		d.ReferenceList = append(d.ReferenceList, Reference{
			Agent: r.Agent, Registry: r.Registry, Root: r.Root, Name: r.Name, Version: r.Version, Path: r.Path,
			Artifact: row.ArtifactDigest(r.Artifact), Bundle: row.ArtifactDigest(r.Bundle), Problem: r.Problem, FirstSeen: r.FirstSeen.UTC(), LastSeen: r.LastSeen.UTC(),
		})
	}
	statements, err := s.cfg.Rows.ScanStatements(ctx, tenant, kept.Digest, clickhouse.ScanPlace{}, maxStatements)
	if err != nil {
		return ArtifactDetail{}, err
	}
	for _, st := range statements {
		d.ScanStatements = append(d.ScanStatements, digestOf(st.Statement))
	}
	return d, nil
}

func (s *Service) finding(f clickhouse.Finding) Finding {
	// A statement may name a rule of another version of the catalogue: it is
	// shown by its id, never dropped.
	out := Finding{Rule: f.Rule, Location: f.Location, Class: f.Class, Severity: f.Severity, Count: f.Count, Title: f.Rule, References: []string{}}
	if rule, ok := s.cfg.Catalogue.Rule(f.Rule); ok {
		out.Title, out.Description, out.Fix = rule.Title, rule.Description, rule.Fix
		out.References = append(out.References, rule.References...)
	}
	return out
}

// unassessed are the titles of the exposures that no scanner's rule stands for.
var unassessed = map[string]string{
	"reference.unreadable": "The place could not be read",
	"artifact.unscanned":   "No scan has arrived yet",
	"artifact.incomplete":  "The artifact was not wholly looked at",
}

// Exposures lists exposures; an empty severity or status means any.
func (s *Service) Exposures(ctx context.Context, tenant, severity, status string, offset, limit uint32) (ExposureList, error) {
	page := clickhouse.ExposurePage{Severity: severity, Status: status, Offset: offset, Limit: bounded(limit)}
	rows, err := s.cfg.Rows.Exposures(ctx, tenant, page)
	if err != nil {
		return ExposureList{}, err
	}
	list := ExposureList{Exposures: make([]Exposure, len(rows))}
	for i, e := range rows {
		title := unassessed[e.Rule]
		if rule, ok := s.cfg.Catalogue.Rule(e.Rule); ok {
			title = rule.Title
		}
		if title == "" {
			title = e.Rule
		}
		list.Exposures[i] = Exposure{
			Agent: e.Agent, Registry: e.Registry, Root: e.Root, Name: e.Name, Version: e.Version, Path: e.Path, Artifact: row.ArtifactDigest(e.Artifact),
			Rule: e.Rule, Title: title, Location: e.Location, Class: e.Class, Severity: e.Severity, Status: e.Status, Reopened: e.Reopened,
			FirstSeen: e.FirstSeen.UTC(), LastSeen: e.LastSeen.UTC(),
		}
	}
	if len(rows) == int(page.Limit) {
		list.Next = offset + page.Limit
	}
	return list, nil
}

// Quarantine lists what was refused.
func (s *Service) Quarantine(ctx context.Context, tenant string, offset, limit uint32) (RefusedList, error) {
	limit = bounded(limit)
	rows, err := s.cfg.Rows.Quarantine(ctx, tenant, offset, limit)
	if err != nil {
		return RefusedList{}, err
	}
	list := RefusedList{Refused: make([]Refused, len(rows))}
	for i, r := range rows {
		list.Refused[i] = Refused{
			Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Reason: r.Reason, Detail: r.Detail,
			Digest: digestOf(r.Digest), Bytes: r.Bytes, ReceivedAt: r.ReceivedAt.UTC(),
		}
	}
	if len(rows) == int(limit) {
		list.Next = offset + limit
	}
	return list, nil
}

// Statement is one stored statement with its envelope, or ErrNotFound.
func (s *Service) Statement(ctx context.Context, tenant string, digest predicate.Digest) (Statement, error) {
	row, ok, err := s.cfg.Rows.Statement(ctx, tenant, digest.Hex())
	if err != nil {
		return Statement{}, err
	}
	if !ok {
		return Statement{}, ErrNotFound
	}
	return s.statement(ctx, tenant, row)
}

// statement opens a stored envelope with the key it was admitted by: what is
// shown has been verified again.
func (s *Service) statement(ctx context.Context, tenant string, row clickhouse.Statement) (Statement, error) {
	key, err := s.key(ctx, tenant, digestOf(row.KeyID))
	if err != nil {
		return Statement{}, err
	}
	envelope, err := attest.Open([]byte(row.Envelope))
	if err != nil {
		return Statement{}, fmt.Errorf("read statement %s: %w", row.Digest, err)
	}
	payload, err := envelope.Verify(key.Public)
	if err != nil {
		return Statement{}, fmt.Errorf("read statement %s: %w", row.Digest, err)
	}
	return Statement{
		Digest: digestOf(row.Digest), Type: row.Type, Agent: row.Agent, Epoch: row.Epoch, Sequence: row.Sequence,
		Previous: predicate.Digest("sha256:" + row.Previous), KeyID: digestOf(row.KeyID), Outcome: row.Outcome,
		SignedAt: row.SignedAt.UTC(), ReceivedAt: row.ReceivedAt.UTC(), Payload: json.RawMessage(payload), Envelope: json.RawMessage(row.Envelope),
	}, nil
}
