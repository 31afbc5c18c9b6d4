// Package servetest gives the tests of what people see a small fleet: signed
// statements of several agents and tenants, admitted and stored by the real
// parts in a real embedded engine, with every outcome that there is.
package servetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/admit"
	"github.com/cavra/cavra/aggregator/internal/clickhouse"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/embedded/clickhouse/enginetest"
	"github.com/cavra/cavra/aggregator/internal/evidence"
	"github.com/cavra/cavra/aggregator/internal/row"
	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/topic"
	"github.com/cavra/cavra/sdk/finding"
)

// OtherTenant is a second tenant, with one agent and one artifact.
const OtherTenant = "other"

// Fleet is what is served, and what is known of it.
type Fleet struct {
	Service *serve.Service
	Gate    *access.Gate
	Store   *control.Store
	Conn    driver.Conn
	// Evidence is the transparency log of what was taken in.
	Evidence *evidence.Log
	Now      time.Time
	// Artifacts and Statements are by the names that Start gives them; Agents
	// are the agents' ids by name.
	Artifacts, Statements map[string]predicate.Digest
	Envelopes             map[string][]byte
	Agents                map[string]string
	// Partitions are how ingest does, and GivenUp the plans that it was told to
	// give up; those of Partitions can be.
	Partitions []serve.IngestPartition
	GivenUp    []string

	tb       testing.TB
	db       *clickhouse.DB
	admitter *admit.Admitter
	next     int64
}

// Clock is the fleet's clock: it stands still.
func (f *Fleet) Clock() time.Time { return f.Now }

// Empty starts an engine and a store with the two tenants and nothing in them.
func Empty(tb testing.TB) *Fleet {
	tb.Helper()
	f := &Fleet{
		Now: time.Now().UTC().Truncate(time.Second), Conn: enginetest.Start(tb), tb: tb,
		Artifacts: map[string]predicate.Digest{}, Statements: map[string]predicate.Digest{}, Envelopes: map[string][]byte{}, Agents: map[string]string{},
	}
	ctx := tb.Context()
	var err error
	if f.db, err = clickhouse.New(f.Conn, clickhouse.Default()); err != nil {
		tb.Fatal(err)
	}
	if err := f.db.Migrate(ctx); err != nil {
		tb.Fatal(err)
	}
	if f.Store, err = control.Open(ctx, control.Config{Path: filepath.Join(tb.TempDir(), "control.db"), Now: f.Clock}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := f.Store.Close(); err != nil {
			tb.Error(err)
		}
	})
	for _, tenant := range []string{access.DefaultTenant, OtherTenant} {
		if err := f.Store.CreateTenant(ctx, tenant, tenant); err != nil {
			tb.Fatal(err)
		}
	}
	if f.Gate, err = access.New(access.Config{Store: f.Store, InsecureCookies: true, Now: f.Clock}); err != nil {
		tb.Fatal(err)
	}
	if f.admitter, err = admit.New(admit.Config{Keys: f.Store, Chains: f.Store, Archive: f.db}); err != nil {
		tb.Fatal(err)
	}
	f.Evidence, err = evidence.Open(ctx, evidence.Config{Dir: tb.TempDir(), Origin: "cavra.test/log", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := f.Evidence.Close(); err != nil {
			tb.Error(err)
		}
	})
	catalogue, err := finding.Shipped()
	if err != nil {
		tb.Fatal(err)
	}
	f.Service, err = serve.New(serve.Config{Rows: f.db.Reader(), Control: f.Store, Ingest: log{f}, Evidence: f.Evidence, Catalogue: catalogue, Now: f.Clock})
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// Token makes an API token of a tenant.
func (f *Fleet) Token(tenant, name string, scopes ...access.Scope) string {
	f.tb.Helper()
	admin := access.Principal{Tenant: tenant, Name: "test", Scopes: []access.Scope{access.Admin}}
	secret, err := f.Gate.CreateToken(f.tb.Context(), admin, name, scopes, time.Time{})
	if err != nil {
		f.tb.Fatal(err)
	}
	return secret
}

// Revoke revokes an agent, where there are no brokers to tell.
func (f *Fleet) Revoke(ctx context.Context, tenant, agent string) error {
	return f.Store.RevokeAgent(ctx, tenant, agent)
}

// log is the fleet's log.
type log struct{ *Fleet }

// Health lists the fleet's partitions.
func (l log) Health() []serve.IngestPartition { return l.Partitions }

// GiveUp remembers what is given up.
func (l log) GiveUp(_ context.Context, partition int, from, next int64, by, reason string) error {
	for _, p := range l.Partitions {
		if u := p.Unreadable; u != nil && p.Partition == partition && u.From == from && u.Next == next {
			l.GivenUp = append(l.GivenUp, fmt.Sprintf("%d [%d, %d) by %s: %s", partition, from, next, by, reason))
			return nil
		}
	}
	return serve.ErrNothingToGiveUp
}

// LoseRange has ingest take in a range that the log does not hold any more.
func (f *Fleet) LoseRange(at time.Time, n int64) {
	f.tb.Helper()
	f.take(&row.Range{Topic: topic.Statements, From: f.next, To: f.next + n, PlannedAt: at, Lost: true})
}

// feed takes messages in as one plan does, as if they had arrived then.
func (f *Fleet) feed(at time.Time, messages ...[]byte) {
	f.tb.Helper()
	r := &row.Range{Topic: topic.Statements, From: f.next, To: f.next + int64(len(messages)), PlannedAt: at}
	for i, m := range messages {
		r.Messages = append(r.Messages, row.Message{Offset: f.next + int64(i), Value: m})
	}
	f.take(r)
}

func (f *Fleet) take(r *row.Range) {
	f.tb.Helper()
	ctx := f.tb.Context()
	plan := &control.Plan{Topic: r.Topic, From: r.From, Next: r.To, Count: int64(len(r.Messages)), SHA256: sha256.Sum256([]byte{byte(f.next)}), Owner: "test"}
	if err := f.Store.RecordPlan(ctx, plan); err != nil {
		f.tb.Fatal(err)
	}
	batch, chains, err := f.admitter.Admit(ctx, r)
	if err != nil {
		f.tb.Fatal(err)
	}
	digests := make([]predicate.Digest, len(batch.Statements))
	for i := range batch.Statements {
		digests[i] = predicate.Digest("sha256:" + batch.Statements[i].Digest)
	}
	indexes, err := f.Evidence.Append(ctx, digests)
	if err != nil {
		f.tb.Fatal(err)
	}
	for i := range batch.Statements {
		batch.Statements[i].Log, batch.Statements[i].LogIndex = f.Evidence.ID(), indexes[i]
	}
	err = f.db.Insert(ctx, batch, fmt.Sprintf("plan %d", r.From))
	if clickhouse.Retryable(err) { // once more, as ingest does, where the engine was replaced
		err = f.db.Insert(ctx, batch, fmt.Sprintf("plan %d", r.From))
	}
	if err != nil {
		f.tb.Fatal(err)
	}
	if err := f.Store.CommitPlan(ctx, plan, chains); err != nil {
		f.tb.Fatal(err)
	}
	f.next = r.To
}

// enrol enrols a new key, of a new agent or, given its id, of a known one.
func (f *Fleet) enrol(a *agent, id string) {
	f.tb.Helper()
	ctx := context.WithoutCancel(f.tb.Context())
	token := control.JoinToken{
		Hash: sha256.Sum256([]byte(a.key.Public().ID())), Tenant: a.tenant, Agent: id, AgentName: a.name,
		CreatedBy: "test", ExpiresAt: f.Now.Add(time.Hour),
	}
	if err := f.Store.CreateJoinToken(ctx, token); err != nil {
		f.tb.Fatal(err)
	}
	e, err := f.Store.RedeemJoinToken(ctx, token.Hash, a.key.Public())
	if err != nil {
		f.tb.Fatal(err)
	}
	a.id, a.epoch = e.Agent, e.Epoch
	f.Agents[a.name] = a.id
}
