package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/cavra/cavra/schemas/predicate"
)

// wall is the one way to rows of tenants. The database itself adds the tenant's
// condition to every read of every table of ours, by a setting of the request
// that the query's text cannot take off, so that a query which forgets its own
// condition still sees one tenant's rows only.
//
// It works on a server as in the embedded engine and needs no rights. It holds
// for reads of the tables by their names, and not for table functions (merge,
// remote), of which no query of ours has any.
type wall struct {
	conn driver.Conn
}

// read reads rows of one tenant into out, a pointer to a slice of structs. The
// query has the parameters tenant, zero (the digest that stands for none), and
// those of more: names and values in turn.
func (w wall) read(ctx context.Context, tenant string, out any, query string, more ...any) error {
	return w.readWith(ctx, tenant, nil, out, query, more...)
}

// readWith is read with settings of the database beside the wall's.
func (w wall) readWith(ctx context.Context, tenant string, settings clickhouse.Settings, out any, query string, more ...any) error {
	all := clickhouse.Settings{}
	maps.Copy(all, settings)
	all["additional_table_filters"] = tenantFilters(tenant)
	all["readonly"] = 1
	args := []any{clickhouse.Named("tenant", tenant), clickhouse.Named("zero", predicate.ZeroDigest.Hex())}
	for i := 0; i+1 < len(more); i += 2 {
		args = append(args, clickhouse.Named(more[i].(string), more[i+1]))
	}
	return w.conn.Select(clickhouse.Context(ctx, clickhouse.WithSettings(all)), out, query, args...)
}

// tenantFilters is the tenant's condition for every table of ours, as the setting
// spells it. The tenant goes in as hexadecimal digits: nothing in it needs to be
// quoted, twice, to stay within its literal.
func tenantFilters(tenant string) string {
	condition := `tenant = unhex(\'` + fmt.Sprintf("%x", tenant) + `\')`
	filters := make([]string, len(tables))
	for i, t := range tables {
		filters[i] = "'" + t.name + "': '" + condition + "'"
	}
	return "{" + strings.Join(filters, ", ") + "}"
}
