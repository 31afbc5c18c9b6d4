package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/cavra/cavra/schemas/predicate"
	schema "github.com/cavra/cavra/schemas/report"
	"github.com/cavra/cavra/sdk/finding"
)

func catalogue(t *testing.T) *finding.Catalogue {
	t.Helper()
	c, err := finding.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sample has an artifact of each verdict, and hostile names.
func sample() *schema.Report {
	at := predicate.At(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	found := func(rule string, s predicate.Severity, member string, evidence ...string) schema.Finding {
		return schema.Finding{Rule: rule, Class: "c", Severity: s, Title: "Title of " + rule, Location: schema.Location{Member: member, Offset: 3, Class: "pickle"}, Evidence: evidence}
	}
	whole := func(n int64) schema.Coverage {
		return schema.Coverage{Complete: true, BytesTotal: n, BytesParsed: n, Gaps: []schema.Gap{}}
	}
	r := &schema.Report{
		SchemaVersion: schema.Version, StartedAt: at, FinishedAt: at, Bundles: []schema.Bundle{}, Problems: []string{},
		Tool:    schema.Tool{Name: "cavra", Version: "1", Scanners: []predicate.Scanner{{Name: "f", Version: "1", Digest: predicate.ZeroDigest}}, Sandbox: []predicate.Layer{predicate.LayerProcess}},
		Ruleset: schema.Ruleset{Version: "1", Digest: predicate.ZeroDigest},
		Summary: schema.Summary{Artifacts: 4, BytesTotal: 3 << 20, Pass: 1, Warn: 1, Fail: 1, Error: 1, Incomplete: 1, Verdict: predicate.Fail, Score: 100},
		Artifacts: []schema.Artifact{
			{Path: "z/ok.txt", Digest: predicate.DigestOf(nil), Size: 1, Format: "text", Verdict: predicate.Pass, Coverage: whole(1)},
			{Path: "b/gone", Format: "unknown", Verdict: predicate.Error, Problem: predicate.NotFound, Message: "nothing is there",
				Coverage: schema.Coverage{Gaps: []schema.Gap{{Reason: predicate.NotFound, Where: "0-0"}}}},
			{Path: "a/warn\x1b[2J\u202egpj.pkl", Digest: predicate.DigestOf(nil), Size: 2, Format: "pickle", Verdict: predicate.Warn, Score: 50, Coverage: whole(2),
				Findings: []schema.Finding{found("pickle.import.unknown", predicate.Medium, "", "x\x07.y"), found("pickle.import.unknown", predicate.Medium, "", "x.z")}},
			{Path: "c/evil.pt", Digest: predicate.DigestOf(nil), Size: 3, Format: "torch.zip", Verdict: predicate.Fail, Score: 100, Coverage: whole(3),
				Findings: []schema.Finding{found("format.unsafe.pickle", predicate.Info, "a!b"), found("pickle.import.dangerous", predicate.Critical, "a!data.pkl\n", "posix.system")}},
		},
	}
	r.Bundles = []schema.Bundle{
		{Path: "c", Digest: predicate.DigestOf([]byte("c")), Files: 3, Size: 3, Verdict: predicate.Fail, Score: 100, Gaps: []schema.Gap{{Reason: predicate.Changed, Where: "0-0"}},
			Members: []schema.Member{{Path: "config.json", Digest: predicate.DigestOf(nil), Verdict: predicate.Pass}, {Path: "evil.pt", Digest: predicate.DigestOf(nil), Verdict: predicate.Fail}, {Path: "lost", Verdict: predicate.Error}},
			Findings: []schema.Finding{
				{Rule: "repository.code.missing", Class: "c", Severity: predicate.Medium, Title: "Missing", Location: schema.Location{Class: "bundle"}, Evidence: []string{"auto_map", "modeling\x1b"}},
				{Rule: "repository.weights.pickle", Class: "c", Severity: predicate.Info, Title: "Pickled", Location: schema.Location{Class: "bundle"}, Evidence: []string{"evil.pt"}},
			}},
		{Path: "z", Digest: predicate.DigestOf([]byte("z")), Files: 1, Size: 1, Verdict: predicate.Pass, Complete: true},
	}
	for i := range r.Artifacts {
		a := &r.Artifacts[i]
		a.Imports = []schema.Import{}
		if a.Findings == nil {
			a.Findings = []schema.Finding{}
		}
	}
	Sort(r)
	return r
}

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := WriteTable(&b, sample(), catalogue(t), TableOptions{Width: 100}); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/table.txt")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile("testdata/table.txt", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("(-want +got; UPDATE=1 writes it anew)\n%s", diff)
	}
}

func TestTableFits(t *testing.T) {
	r := sample()
	r.Artifacts[0].Path = strings.Repeat("long/", 300)
	r.Bundles[0].Path, r.Bundles[0].Members[1].Path = strings.Repeat("long/", 300), strings.Repeat("long/", 300)
	r.Bundles[0].Findings[0].Evidence = []string{strings.Repeat("e", 400)}
	r.Artifacts[1].Format = strings.Repeat("f", 64)
	for _, width := range []int{72, 80, 100, 200} {
		var b strings.Builder
		if err := WriteTable(&b, r, catalogue(t), TableOptions{Width: width}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			if n := len([]rune(line)); n > width {
				t.Errorf("width %d: a line of %d: %s", width, n, line)
			}
			if strings.IndexFunc(line, unicode.IsControl) >= 0 {
				t.Errorf("a control character in %q", line)
			}
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain é 日本": "plain é 日本", `a"b\c`: `a"b\c`, "\x1b[31m": `\x1b[31m`, "a\nb": `a\nb`,
		"\u202egpj": `\u202egpj`, "bad\xff": `bad\xff`, "\u200b": `\u200b`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func compile(t *testing.T, source []byte) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(source))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("s.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("s.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func document(t *testing.T, b []byte) any {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := WriteJSON(&b, sample()); err != nil {
		t.Fatal(err)
	}
	if err := compile(t, schema.Schema()).Validate(document(t, b.Bytes())); err != nil {
		t.Error(err)
	}
	var back schema.Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), &back, cmp.Comparer(predicate.Time.Equal)); diff != "" {
		t.Error(diff)
	}
}

func TestSARIF(t *testing.T) {
	var b bytes.Buffer
	r := sample()
	r.Artifacts[0].Findings[0].Accepted = &schema.Acceptance{By: schema.ByBaseline}
	r.Artifacts[2].Findings[0].Accepted = &schema.Acceptance{By: schema.BySuppression, Reason: "known", Until: "2026-12-31"}
	if err := WriteSARIF(&b, r, catalogue(t)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"ruleId": "pickle.import.dangerous"`, `"uri": "a/warn%1B%5B2J%E2%80%AEgpj.pkl"`, `"executionSuccessful": false`,
		`"fullyQualifiedName": "a!data.pkl\n"`, `"security-severity": "10.0"`,
		`"baselineState": "unchanged"`, `"justification": "known"`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s", want)
		}
	}
	if err := published(t, "sarif-schema-2.1.0.json").Validate(document(t, b.Bytes())); err != nil {
		t.Error(err)
	}
}

// published compiles a schema as its publisher has it, if the folder of them is
// beside the checkout.
func published(t *testing.T, name string, siblings ...string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	var id string
	for _, n := range append(siblings, name) {
		path := filepath.Join("../../../../shared/schemas", n)
		source, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			t.Skipf("not validated: %s is not beside the checkout", path)
		}
		if err != nil {
			t.Fatal(err)
		}
		doc := document(t, source)
		id = n
		if m, ok := doc.(map[string]any); ok && m["$id"] != nil {
			id = m["$id"].(string)
		}
		if err := c.AddResource(id, doc); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Compile(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCycloneDX(t *testing.T) {
	var b, again bytes.Buffer
	if err := errors.Join(WriteCycloneDX(&b, sample(), catalogue(t)), WriteCycloneDX(&again, sample(), catalogue(t))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Error("the same scan gives two bills of materials")
	}
	var bom cdxBOM
	if err := json.Unmarshal(b.Bytes(), &bom); err != nil {
		t.Fatal(err)
	}
	affected := map[string][]string{}
	for _, v := range bom.Vulnerabilities {
		for _, a := range v.Affects {
			affected[v.ID] = append(affected[v.ID], a.Ref)
		}
	}
	want := map[string][]string{
		"pickle.import.unknown": {"artifact-0"}, "format.unsafe.pickle": {"artifact-2"}, "pickle.import.dangerous": {"artifact-2"},
		"repository.code.missing": {"artifact-4"}, "repository.weights.pickle": {"artifact-4"},
	}
	if diff := cmp.Diff(want, affected); diff != "" {
		t.Error(diff)
	}
	wantParts := []cdxComposition{{"complete", []string{"artifact-0", "artifact-2", "artifact-3"}}, {"incomplete", []string{"artifact-1", "artifact-4"}}}
	if diff := cmp.Diff(wantParts, bom.Compositions); diff != "" {
		t.Error(diff)
	}
	s := published(t, "cyclonedx-bom-1.6.schema.json", "cyclonedx-jsf-0.82.schema.json", "cyclonedx-spdx.schema.json")
	if err := s.Validate(document(t, b.Bytes())); err != nil {
		t.Error(err)
	}
}

func TestHTML(t *testing.T) {
	r := sample()
	r.Artifacts[0].Findings[0].Evidence = []string{"<script>alert(1)</script>"}
	var b strings.Builder
	if err := WriteHTML(&b, r, catalogue(t)); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	for _, want := range []string{"default-src 'none'", `a/warn\x1b[2J\u202egpj.pkl`, "&lt;script&gt;", "posix.system", "nothing is there"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, bad := range []string{"<script", "\x1b", "\u202e", "http-equiv=\"refresh", "src="} {
		if strings.Contains(got, bad) {
			t.Errorf("%q is in the page", bad)
		}
	}
	if i, j := strings.Index(got, "c/evil.pt"), strings.Index(got, "a/warn"); i < 0 || j < i {
		t.Errorf("the worst is not first: %d, %d", i, j)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	put := func(s string, err error) error {
		return WriteFile(path, func(w io.Writer) error {
			_, werr := io.WriteString(w, s)
			return errors.Join(werr, err)
		})
	}
	broken := errors.New("broken")
	if err := put("one", nil); err != nil {
		t.Fatal(err)
	}
	if err := put("half", broken); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "one" {
		t.Errorf("%q, %v: a failed write took the old content", b, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	if err := WriteFile(filepath.Join(dir, "no", "out"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
