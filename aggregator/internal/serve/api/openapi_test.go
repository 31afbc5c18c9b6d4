package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/danielgtaylor/huma/v2"
)

var update = flag.Bool("update", false, "write the API's description anew")

const described = "../../../api/openapi.json"

// describe registers every operation without anything behind it.
func describe(t testing.TB) huma.API {
	t.Helper()
	a, err := register(Config{}, http.NewServeMux())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestDescriptionIsCommitted(t *testing.T) {
	raw, err := json.Marshal(describe(t).OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := json.Indent(&want, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	want.WriteByte('\n')
	if *update {
		if err := os.MkdirAll(filepath.Dir(described), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(described, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(described)
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Fatalf("aggregator/api/openapi.json is not what the code says (%v): in the folder aggregator run `go test ./internal/serve/api -update`, and review the change", err)
	}
}

// operation is one of the description's.
type operation struct {
	method, path string
	scope        access.Scope
	op           *huma.Operation
}

// all lists the operations with the scope that each declares.
func all(t testing.TB) []operation {
	t.Helper()
	var out []operation
	for path, item := range describe(t).OpenAPI().Paths {
		for method, op := range map[string]*huma.Operation{
			http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodDelete: item.Delete,
			http.MethodPut: item.Put, http.MethodPatch: item.Patch, http.MethodHead: item.Head, http.MethodOptions: item.Options, http.MethodTrace: item.Trace,
		} {
			if op == nil {
				continue
			}
			o := operation{method: method, path: path, op: op}
			if len(op.Security) != 2 || len(op.Security[0][byToken]) != 1 || len(op.Security[1][bySession]) != 1 {
				t.Fatalf("%s %s declares no scope: %v", method, path, op.Security)
			}
			o.scope = access.Scope(op.Security[0][byToken][0])
			out = append(out, o)
		}
	}
	if len(out) < 15 {
		t.Fatalf("only %d operations", len(out))
	}
	return out
}

func TestEveryOperationDeclaresItsScope(t *testing.T) {
	for _, o := range all(t) {
		if _, err := access.ParseScope(string(o.scope)); err != nil || !strings.HasPrefix(o.path, "/v1/") {
			t.Errorf("%s %s: %v", o.method, o.path, err)
		}
		if o.method != http.MethodGet && strings.HasSuffix(string(o.scope), ":read") {
			t.Errorf("%s %s changes things with the scope %s", o.method, o.path, o.scope)
		}
	}
}

func TestOperationWithoutScopeMakesNoAPI(t *testing.T) {
	for _, scope := range []access.Scope{"", "posture:write"} {
		o := operations{api: describe(t), faults: new([]error)}
		add[none, none](o, scope, huma.Operation{OperationID: "open", Method: http.MethodGet, Path: "/v1/open"}, nil)
		if len(*o.faults) != 1 || o.api.OpenAPI().Paths["/v1/open"] != nil {
			t.Errorf("scope %q: %v, registered %t", scope, *o.faults, o.api.OpenAPI().Paths["/v1/open"] != nil)
		}
	}
}
