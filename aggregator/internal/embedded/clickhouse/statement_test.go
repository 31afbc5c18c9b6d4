package clickhouse

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseStatement(t *testing.T) {
	for _, tt := range []struct {
		text       string
		want       string // the text with INFILE where the engine is to read data
		format     string
		data       string
		wantsError bool
	}{
		{text: "SELECT 1", want: "SELECT 1"},
		{text: "SELECT 1 ; -- done\n", want: "SELECT 1 "},
		{text: "SELECT ';' , \";\", `;` /* ; /* ; */ ; */ # ;\n, $x$;$x$", want: "SELECT ';' , \";\", `;` /* ; /* ; */ ; */ # ;\n, $x$;$x$"},
		{text: "SELECT 'it''s \\'; x'", want: "SELECT 'it''s \\'; x'"},
		{text: "SELECT 1 FORMAT JSON", want: "SELECT 1 FORMAT JSON", format: "JSON"},
		{text: "SELECT 1 FORMAT JSON SETTINGS a = 1", want: "SELECT 1 FORMAT JSON SETTINGS a = 1", format: "JSON"},
		{text: "SELECT 1 SETTINGS a = 1 FORMAT JSON", want: "SELECT 1 SETTINGS a = 1 FORMAT JSON", format: "JSON"},
		{text: "SELECT format FROM t", want: "SELECT format FROM t"},
		{text: "SELECT 1 AS format SETTINGS a = 1", want: "SELECT 1 AS format SETTINGS a = 1"},
		{text: "SELECT t.format x", want: "SELECT t.format x"},
		{text: "INSERT INTO format VALUES (1)", want: "INSERT INTO format VALUES (1)"},
		{text: "INSERT INTO d.format FORMAT Values (1)", want: "INSERT INTO d.format  FROM INFILE '/f' FORMAT Values", format: "Values", data: "(1)"},
		{text: "INSERT INTO values FORMAT Native", want: "INSERT INTO values  FROM INFILE '/f' FORMAT Native", format: "Native"},
		{text: "INSERT INTO t (a, format) VALUES (1, 'FORMAT Native')", want: "INSERT INTO t (a, format) VALUES (1, 'FORMAT Native')"},
		{text: "INSERT INTO t SELECT 1 FORMAT Null", want: "INSERT INTO t SELECT 1 FORMAT Null", format: "Null"},
		{text: "insert into d.`FORMAT x` (a) format Native", want: "insert into d.`FORMAT x` (a)  FROM INFILE '/f' format Native", format: "Native"},
		{text: "INSERT INTO t SETTINGS a = 1 FORMAT Native;", want: "INSERT INTO t  FROM INFILE '/f' SETTINGS a = 1 FORMAT Native", format: "Native"},
		{text: "INSERT INTO t FORMAT CSV\n1;\"2\n", want: "INSERT INTO t  FROM INFILE '/f' FORMAT CSV", format: "CSV", data: "1;\"2\n"},
		{text: "INSERT INTO t (format, x) FORMAT TSV\r\n\n1", want: "INSERT INTO t (format, x)  FROM INFILE '/f' FORMAT TSV", format: "TSV", data: "\n1"},
		{text: "SELECT 1; SELECT 2", wantsError: true},
		{text: "SELECT 1;; ;", want: "SELECT 1"},
		{text: " -- nothing", wantsError: true},
		{text: "", wantsError: true},
		{text: ";", wantsError: true},
	} {
		s, err := parseStatement(tt.text)
		if exception := (*Exception)(nil); errors.As(err, &exception) != tt.wantsError {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		if tt.wantsError {
			continue
		}
		got := s.text
		if s.insert {
			got = s.withInfile("/f")
		}
		if diff := cmp.Diff([]string{tt.want, tt.format, tt.data}, []string{got, s.format, s.data}); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.text, diff)
		}
	}
}

// FuzzParseStatement: the text is cut nowhere but at its end, and what is left
// holds one statement.
func FuzzParseStatement(f *testing.F) {
	for _, s := range []string{"SELECT 1;", "INSERT INTO t FORMAT CSV\n1", "SELECT '\\", "/* /*", "$a$ $a$", "a;b", "INSERT INTO t SETTINGS x=1 FORMAT Native"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseStatement(text)
		if err != nil {
			return
		}
		if !strings.HasPrefix(text, s.text) || s.insert && (s.infile > len(s.text) || !strings.HasSuffix(text, s.data)) {
			t.Fatalf("%q became %+v", text, s)
		}
		if again, err := parseStatement(s.text); err != nil || again.text != s.text {
			t.Fatalf("%q became %q, and that %q (%v)", text, s.text, again.text, err)
		}
	})
}

func FuzzParseException(f *testing.F) {
	f.Add("Code: 60. DB::Exception: Unknown table. (UNKNOWN_TABLE)")
	f.Add("Error: Code: 1. x")
	f.Fuzz(func(t *testing.T, text string) {
		e := parseException(text)
		if e.Code <= 0 || e.status() < 400 {
			t.Fatalf("%q became %+v", text, e)
		}
	})
}
