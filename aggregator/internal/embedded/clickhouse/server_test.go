package clickhouse

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestHTTPInterface speaks HTTP as curl would.
func TestHTTPInterface(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	e.exec(t, "CREATE TABLE t (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
	addr, err := e.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	user, password := e.Credentials()
	type answer struct {
		Status     int
		Code, Body string
	}
	for _, tt := range []struct {
		name, method, path, body string
		header                   http.Header
		anonymous                bool
		want                     answer // Body is a part of it
	}{
		{name: "ping", method: "GET", path: "/ping", anonymous: true, want: answer{200, "", "Ok.\n"}},
		{name: "no password", method: "GET", path: "/?query=SELECT+1", anonymous: true, want: answer{403, "516", "AUTHENTICATION_FAILED"}},
		{name: "wrong password", method: "GET", path: "/?query=SELECT+1", anonymous: true,
			header: http.Header{"X-Clickhouse-User": {user}, "X-Clickhouse-Key": {"guess"}}, want: answer{403, "516", "AUTHENTICATION_FAILED"}},
		{name: "headers", method: "GET", path: "/?query=SELECT+1", anonymous: true,
			header: http.Header{"X-Clickhouse-User": {user}, "X-Clickhouse-Key": {password}}, want: answer{200, "", "1\n"}},
		{name: "format in text", method: "POST", path: "/", body: "SELECT 1 AS a FORMAT JSONEachRow", want: answer{200, "", `{"a":1}`}},
		{name: "values", method: "POST", path: "/", body: "INSERT INTO t VALUES (1, 'a;b')", want: answer{200, "", ""}},
		{name: "data in text", method: "POST", path: "/", body: "INSERT INTO t FORMAT CSV\n2,\"x;\ny\"\n", want: answer{200, "", ""}},
		{name: "data in body", method: "POST", path: "/?query=" + url.QueryEscape("INSERT INTO t SETTINGS max_threads = 1 FORMAT TSV"), body: "3\tz\n", want: answer{200, "", ""}},
		{name: "data in both", method: "POST", path: "/?query=" + url.QueryEscape("INSERT INTO t FORMAT TSV 4\tz"), body: "5\tz\n", want: answer{400, "62", "send the rows as the body"}},
		{name: "broken data", method: "POST", path: "/?query=" + url.QueryEscape("INSERT INTO t FORMAT Native"), body: "rubbish", want: answer{500, "", "DB::Exception"}},
		{name: "rows", method: "POST", path: "/", body: "SELECT * FROM t ORDER BY n", want: answer{200, "", "1\ta;b\n2\tx;\\ny\n3\tz\n"}},
		{name: "GET changes nothing", method: "GET", path: "/?query=" + url.QueryEscape("INSERT INTO t VALUES (9, '')"), want: answer{500, "164", "readonly"}},
		{name: "database", method: "POST", path: "/?database=system", body: "SELECT count() > 0 FROM settings", want: answer{200, "", "1\n"}},
		{name: "no database", method: "POST", path: "/?database=nowhere", body: "SELECT 1", want: answer{404, "81", "nowhere"}},
		{name: "compressed", method: "POST", path: "/", body: "x", header: http.Header{"Content-Encoding": {"gzip"}}, want: answer{501, "48", "turn compression off"}},
		{name: "compressed blocks", method: "POST", path: "/?compress=1", body: "SELECT 1", want: answer{501, "48", "turn compression off"}},
		{name: "session", method: "POST", path: "/?session_id=1", body: "SELECT 1", want: answer{501, "48", "session_id"}},
		{name: "external tables", method: "POST", path: "/", body: "x", header: http.Header{"Content-Type": {"multipart/form-data; boundary=x"}}, want: answer{501, "48", "External tables"}},
		{name: "method", method: "PUT", path: "/", body: "SELECT 1", want: answer{501, "48", "use POST"}},
		{name: "empty", method: "POST", path: "/", want: answer{400, "62", "Empty query"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(testContext(t), tt.method, "http://"+addr+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			for name, values := range tt.header {
				req.Header[name] = values
			}
			if !tt.anonymous {
				req.SetBasicAuth(user, password)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
			if err != nil {
				t.Fatal(err)
			}
			got := answer{res.StatusCode, res.Header.Get("X-ClickHouse-Exception-Code"), string(body)}
			if tt.want.Code == "" && tt.want.Status != 200 {
				got.Code = ""
			}
			if strings.Contains(got.Body, tt.want.Body) && (tt.want.Status != 200 || tt.want.Body != "") {
				got.Body = tt.want.Body
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s\n%s", diff, body)
			}
		})
	}
}
