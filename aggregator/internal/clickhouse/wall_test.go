package clickhouse

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	driver "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/aggregator/internal/row"
)

// ofTenant is a row of a tenant with every other column set.
func ofTenant[T any](tb testing.TB, seed int, tenant string) T {
	out := filled[T](tb, seed)
	reflect.ValueOf(&out).Elem().FieldByName("Tenant").SetString(tenant)
	return out
}

// TestWallHoldsWhatAQueryForgot asks without any condition, for each table, and
// gets one tenant's rows.
func TestWallHoldsWhatAQueryForgot(t *testing.T) {
	db := newDB(t)
	const odd = "o'd\\\x00d"
	b := &row.Batch{}
	for i, tenant := range []string{"one", "two", odd, ""} {
		b.Receipts = append(b.Receipts, ofTenant[row.Receipt](t, i, tenant))
		b.Quarantine = append(b.Quarantine, ofTenant[row.Quarantined](t, i, tenant))
		b.Statements = append(b.Statements, ofTenant[row.Statement](t, i, tenant))
		b.Scans = append(b.Scans, ofTenant[row.Scan](t, i, tenant))
		b.Findings = append(b.Findings, ofTenant[row.Finding](t, i, tenant))
		b.Imports = append(b.Imports, ofTenant[row.Import](t, i, tenant))
		b.Inventories = append(b.Inventories, ofTenant[row.Inventory](t, i, tenant))
		b.References = append(b.References, ofTenant[row.Reference](t, i, tenant))
		b.AgentReports = append(b.AgentReports, ofTenant[row.AgentReport](t, i, tenant))
	}
	if err := db.Insert(t.Context(), b, "token"); err != nil {
		t.Fatal(err)
	}
	forgetful := []string{
		"SELECT tenant AS word, count() AS n FROM references GROUP BY tenant ORDER BY tenant",
		"SELECT tenant AS word, count() AS n FROM references AS r FINAL WHERE r.tenant != {tenant:String} OR 1 = 1 GROUP BY tenant ORDER BY tenant",
		"WITH x AS (SELECT tenant FROM references UNION ALL SELECT tenant FROM references WHERE 1) SELECT tenant AS word, count() AS n FROM x GROUP BY tenant ORDER BY tenant",
		"SELECT b.tenant AS word, count() AS n FROM receipts AS a, references AS b GROUP BY word ORDER BY word",
		"SELECT tenant AS word, count() AS n FROM references WHERE tenant IN (SELECT tenant FROM receipts) GROUP BY tenant ORDER BY tenant",
	}
	var there []string
	if err := db.ask(t.Context(), "SELECT groupArray(table) FROM system.columns WHERE database = currentDatabase() AND name = 'tenant'", &there); err != nil {
		t.Fatal(err)
	}
	if len(there) != len(tables) {
		t.Errorf("tables with a tenant: %v", there)
	}
	for _, name := range there {
		forgetful = append(forgetful, fmt.Sprintf("SELECT tenant AS word, count() AS n FROM `%s` GROUP BY tenant ORDER BY tenant", name))
	}
	for _, query := range forgetful {
		for _, tenant := range []string{"one", "two", odd, ""} {
			var got []Count
			if err := db.Reader().wall.read(t.Context(), tenant, &got, query); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
			for i := range got {
				got[i].Count = 1 // a cross join has more than a row
			}
			if diff := cmp.Diff([]Count{{tenant, 1}}, got); diff != "" {
				t.Errorf("%s as %q (-want +got):\n%s", query, tenant, diff)
			}
		}
		// Without the wall the query would have shown all of them.
		var all []Count
		if err := db.conn.Select(t.Context(), &all, query, driver.Named("tenant", "one")); err != nil || len(all) != 4 {
			t.Errorf("%s without the wall: %v %v", query, all, err)
		}
	}
}

// TestWallIsNotTheQuerysToTakeDown: the text of a query changes no setting and
// writes nothing.
func TestWallIsNotTheQuerysToTakeDown(t *testing.T) {
	db := newDB(t)
	for _, query := range []string{
		"SELECT tenant AS word, count() AS n FROM receipts GROUP BY tenant SETTINGS additional_table_filters = {}",
		"SELECT tenant AS word, count() AS n FROM receipts GROUP BY tenant SETTINGS readonly = 0",
		"INSERT INTO receipts (tenant) VALUES ('two')",
	} {
		var out []Count
		const readonly = 164
		var exception *driver.Exception
		if err := db.Reader().wall.read(t.Context(), "one", &out, query); !errors.As(err, &exception) || exception.Code != readonly {
			t.Errorf("%s: %v %v", query, out, err)
		}
	}
}
