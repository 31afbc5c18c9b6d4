package control

import (
	"strconv"
	"testing"

	"github.com/cavra/cavra/sdk/chain"
)

func benchStore(b *testing.B) *Store {
	b.Helper()
	s, err := Open(b.Context(), Config{Path: b.TempDir() + "/control.db"})
	if err == nil {
		err = s.CreateTenant(b.Context(), "acme", "Acme")
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

// One plan of 10,000 statements from 100 agents, on SQLite: what ingest asks of
// the store about once a second.
func BenchmarkLoadAndCommit(b *testing.B) {
	s, ctx := benchStore(b), b.Context()
	const agents, each = 100, 100
	ids := make([]ChainID, agents)
	for i := range ids {
		ids[i] = ChainID{"acme", "agent" + strconv.Itoa(i), 1}
		if _, err := s.change.ExecContext(ctx, `INSERT INTO agents (tenant, id, name, status, created_at) VALUES ($1, $2, 'x', 'active', 0)`, "acme", ids[i].Agent); err != nil {
			b.Fatal(err)
		}
	}
	first := uint64(1)
	for b.Loop() {
		wanted, updates := map[ChainID]Span{}, []ChainUpdate{}
		for _, id := range ids {
			wanted[id] = Span{first, first + each - 1}
			u := ChainUpdate{ID: id}
			for n := first; n < first+each; n++ {
				u.Statements = append(u.Statements, Placed{Link: link(n), Outcome: chain.Linked})
			}
			updates = append(updates, u)
		}
		if _, err := s.LoadChains(ctx, wanted); err != nil {
			b.Fatal(err)
		}
		p := plan("a", int64(first-1)*agents, int64(first+each-1)*agents)
		if err := s.RecordPlan(ctx, p); err != nil {
			b.Fatal(err)
		}
		if err := s.CommitPlan(ctx, p, updates); err != nil {
			b.Fatal(err)
		}
		first += each
	}
	b.ReportMetric(float64(agents*each)*float64(b.N)/b.Elapsed().Seconds(), "statements/s")
}

func BenchmarkKeyByID(b *testing.B) {
	s := benchStore(b)
	key := newKey(b)
	if _, err := s.RedeemJoinToken(b.Context(), join(b, s, "acme", "one", ""), key); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.KeyByID(b.Context(), key.ID()); err != nil {
			b.Fatal(err)
		}
	}
}
