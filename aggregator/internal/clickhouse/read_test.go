package clickhouse

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/aggregator/internal/embedded/clickhouse/enginetest"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }

// book writes rows as the statements of one agent would.
type book struct {
	t    *testing.T
	conn driver.Conn
	db   *DB
	n    int
}

func hex(name string) string { return fmt.Sprintf("%064x", name) }

func day(n int) time.Time { return time.Date(2026, 3, 1+n, 12, 0, 0, 0, time.UTC) }

func (b *book) exec(query string, args ...any) {
	b.t.Helper()
	if err := b.conn.Exec(context.Background(), query, args...); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
}

// round writes an inventory round: path → artifact name.
func (b *book) round(tenant string, at int, complete bool, refs map[string]string) {
	b.n++
	id := fmt.Sprintf("r%d", b.n)
	b.exec(`INSERT INTO inventories (tenant, agent, registry, root, round, part, parts, complete, references, statement, epoch, sequence, listed_at, received_at) VALUES (?, 'a', 'fs', '/m', ?, 1, 1, ?, ?, ?, 1, ?, ?, ?)`,
		tenant, id, complete, uint64(len(refs)), hex(id), uint64(b.n), day(at), day(at))
	for path, artifact := range refs {
		b.exec(`INSERT INTO references (tenant, agent, registry, root, name, version, path, artifact, bundle, size, problem, round, statement, listed_at, received_at) VALUES (?, 'a', 'fs', '/m', '', '', ?, ?, ?, 10, '', ?, ?, ?, ?)`,
			tenant, path, hex(artifact), strings.Repeat("0", 64), id, hex(id), day(at), day(at))
	}
}

func (b *book) scan(tenant, artifact string, at int, verdict string, score uint8, rules ...string) {
	b.n++
	statement := hex(fmt.Sprintf("s%d", b.n))
	b.exec(`INSERT INTO scans (tenant, artifact, statement, agent, kind, format, size, files, verdict, score, complete, findings, epoch, sequence, scanned_at, received_at) VALUES (?, ?, ?, 'a', 'file', 'pickle', 10, 1, ?, ?, true, ?, 1, ?, ?, ?)`,
		tenant, hex(artifact), statement, verdict, score, uint64(len(rules)), uint64(b.n), day(at), day(at))
	for _, rule := range rules {
		b.exec(`INSERT INTO findings (tenant, artifact, rule, location, statement, class, severity, count, scanned_at, received_at) VALUES (?, ?, ?, 'pickle', ?, 'code_execution_on_load', 'critical', 1, ?, ?)`,
			tenant, hex(artifact), rule, statement, day(at), day(at))
	}
}

func (b *book) exposures(tenant string) []string {
	b.t.Helper()
	list, err := b.db.Reader().Exposures(context.Background(), tenant, ExposurePage{Limit: 100})
	if err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		line := e.Path + " " + e.Rule + " " + e.Status
		if e.Reopened {
			line += " reopened"
		}
		out = append(out, line)
	}
	return out
}

func (b *book) want(tenant string, want ...string) {
	b.t.Helper()
	if diff := cmp.Diff(want, b.exposures(tenant)); diff != "" {
		b.t.Fatalf("exposures (-want +got):\n%s", diff)
	}
}

func newBook(t *testing.T) *book {
	conn := enginetest.Start(t)
	db, err := New(conn, Default())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := &book{t: t, conn: conn, db: db}
	return b
}

func TestExposureLifecycle(t *testing.T) {
	b := newBook(t)
	b.scan("one", "bad", 0, "fail", 100, "pickle.import.dangerous")
	b.scan("one", "good", 0, "pass", 0)
	b.round("one", 0, true, map[string]string{"m.pkl": "bad", "n.pkl": "good"})
	b.want("one", "m.pkl pickle.import.dangerous open")

	b.round("one", 1, false, map[string]string{"n.pkl": "good"})
	b.want("one", "m.pkl pickle.import.dangerous open") // a partial round closes nothing

	b.round("one", 2, true, map[string]string{"m.pkl": "good", "n.pkl": "good"})
	b.want("one", "m.pkl pickle.import.dangerous resolved")

	b.round("one", 3, true, map[string]string{"m.pkl": "bad"})
	b.want("one", "m.pkl pickle.import.dangerous open reopened")

	b.round("one", 4, true, map[string]string{})
	b.want("one", "m.pkl pickle.import.dangerous resolved")

	b.round("one", 5, true, map[string]string{"m.pkl": "bad"})
	b.scan("one", "bad", 6, "pass", 0) // rules that know better
	b.want("one", "m.pkl pickle.import.dangerous resolved")

	if got := b.exposures("two"); len(got) != 0 {
		t.Errorf("another tenant sees %v", got)
	}
}

func TestWhatIsNotAssessedIsAnExposure(t *testing.T) {
	b := newBook(t)
	b.round("one", 0, true, map[string]string{"new.bin": "nobody-scanned-this"})
	b.want("one", "new.bin artifact.unscanned open")

	list, err := b.db.Reader().Artifacts(context.Background(), "one", ArtifactPage{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Verdict != Unassessed || list[0].References != 1 {
		t.Errorf("artifacts: %+v", list)
	}
}

func TestArtifactsPageByFallingScore(t *testing.T) {
	b := newBook(t)
	refs := map[string]string{}
	for i := range 5 {
		name := fmt.Sprintf("a%d", i)
		refs[name] = name
		b.scan("one", name, 0, "warn", uint8(i/2*10))
	}
	b.round("one", 0, true, refs)
	b.round("one", 0, true, refs) // the same again changes nothing
	reader := b.db.Reader()
	var seen []string
	page := ArtifactPage{Limit: 2}
	for {
		list, err := reader.Artifacts(context.Background(), "one", page)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		for _, a := range list {
			seen = append(seen, fmt.Sprintf("%d", a.Score))
		}
		last := list[len(list)-1]
		page.AfterScore, page.AfterDigest = last.Score, last.Digest
	}
	if diff := cmp.Diff([]string{"20", "10", "10", "0", "0"}, seen); diff != "" {
		t.Error(diff)
	}
	counts, err := reader.Verdicts(context.Background(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Count{{"warn", 5}}, counts); diff != "" {
		t.Error(diff)
	}
}

// TestChainPagesAreBoundedInBytes: every statement comes once, both sides of
// the fork at 3 too, however the pages fall.
func TestChainPagesAreBoundedInBytes(t *testing.T) {
	b := newBook(t)
	var want []ChainPlace
	add := func(epoch, sequence uint64, name string, bytes int) {
		b.exec(`INSERT INTO statements (tenant, agent, epoch, sequence, digest, topic, envelope, received_at) VALUES ('one', 'a', ?, ?, ?, 't', ?, ?)`,
			epoch, sequence, hex(name), strings.Repeat("x", bytes), day(0))
		want = append(want, ChainPlace{epoch, sequence, hex(name)})
	}
	add(1, 1, "a", 10)
	add(1, 2, "b", 500)
	add(1, 3, "c1", 40)
	add(1, 3, "c2", 40)
	add(2, 1, "d", 60)
	b.exec(`INSERT INTO statements SELECT * FROM statements WHERE sequence = 3`)
	for limit := uint32(1); limit <= 6; limit++ {
		for _, bytes := range []uint64{1, 50, 80, 99, 100, 540, 650} {
			p := ChainPage{Limit: limit, Bytes: bytes}
			var got []ChainPlace
			for more := true; more && len(got) < 10; {
				var list []Statement
				var err error
				if list, more, err = b.db.Reader().Chain(t.Context(), "one", "a", p); err != nil {
					t.Fatal(err)
				}
				total := uint64(0)
				for _, s := range list {
					total += uint64(len(s.Envelope))
					p.After = s.Place()
					got = append(got, p.After)
				}
				if len(list) > int(limit) || len(list) > 1 && total > bytes {
					t.Errorf("a page of %d statements and %d bytes has %d and %d", limit, bytes, len(list), total)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("pages of %d and %d bytes (-want +got):\n%s", limit, bytes, diff)
			}
		}
	}
}

func TestScanStatementsFollowEachOther(t *testing.T) {
	b := newBook(t)
	for at := range 3 {
		b.scan("one", "model", at/2, "pass", 0) // the first two at one moment
	}
	b.exec(`INSERT INTO scans SELECT * FROM scans`)
	reader := b.db.Reader()
	whole, err := reader.ScanStatements(t.Context(), "one", hex("model"), ScanPlace{}, 10)
	if err != nil || len(whole) != 3 {
		t.Fatalf("%d statements: %v", len(whole), err)
	}
	var got []ScanPlace
	for after := (ScanPlace{}); len(got) < 4; {
		list, err := reader.ScanStatements(t.Context(), "one", hex("model"), after, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		after = list[0]
		got = append(got, list...)
	}
	if diff := cmp.Diff(whole, got); diff != "" {
		t.Errorf("one by one (-whole +got):\n%s", diff)
	}
}
