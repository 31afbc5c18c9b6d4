package secret

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats/content"
)

// Secrets are put together here, so that no scanner of this repository finds one.
var (
	github = "gh" + "p_" + "x7Kq2mZ9vB4nR8tY1wL5cD3fG6hJ0pS2aQ4e"
	face   = "h" + "f_" + "qWeRtYuIoPaSdFgHjKlZxCvBnMqWeRtYuI"
	pem    = "-----BEGIN RSA " + "PRIVATE KEY-----\n" + strings.Repeat("MIIEowIBAAKCAQEA7f3q\n", 8) + "-----END RSA " + "PRIVATE KEY-----\n"
	cloud  = "data" + "dog_api_key = \"" + "4f8a1c9e2b7d6053f1e8a9c4b2d7e6058a3c1f9e" + "\""
)

func scanBytes(t testing.TB, b []byte) scanner.Report {
	t.Helper()
	var report scanner.Report
	v, err := content.NewVisit(bytes.NewReader(b), int64(len(b)), &report, content.NewBudget(content.DefaultLimits().For(int64(len(b)))), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Scan(context.Background(), v, MaxBytes); err != nil {
		t.Fatal(err)
	}
	return report
}

func TestScan(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"nothing":                  {"The model was trained on hf_hub_download and api_key tokens.", nil},
		"token of GitHub":          {"x = '" + github + "'\n", []string{"secret.token@5 github-pat"}},
		"token of Hugging Face":    {`{"token": "` + face + `"}`, []string{"secret.token@11 huggingface-access-token"}},
		"with a word of gitleaks'": {"x = '" + github + "' # gitleaks:" + "allow\n", []string{"secret.token@5 github-pat"}},
		"marks of a private key":   {"begin = '-----BEGIN RSA PRIVATE " + "KEY-----'\nlines = [line for line in text.splitlines() if not line.startswith('#')]\nend = '-----END RSA PRIVATE " + "KEY-----'\n", nil},
		"private key":              {"\n" + pem, []string{"secret.private-key@1 private-key"}},
		"beside a service's name":  {cloud, []string{"secret.credential@19 datadog-access-token"}},
		"across two pieces":        {strings.Repeat("a ", piece/2-8) + "'" + github + "'", []string{fmt.Sprintf("secret.token@%d github-pat", piece-15)}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range scanBytes(t, []byte(c.text)).Findings {
				got = append(got, fmt.Sprintf("%s@%d %s", f.Rule, f.Location.Offset, strings.Join(f.Evidence, " ")))
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestVocabulary holds that a tokenizer of 50,000 entries raises nothing,
// though every word of a rule is in it.
func TestVocabulary(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(`{"model":{"vocab":{`)
	for i := range 50_000 {
		entry := fmt.Sprintf("%x", i*7919)
		if i%200 == 0 {
			entry = words().words[i/200%len(words().words)] + entry
		}
		fmt.Fprintf(&b, "%q:%d,", entry, i)
	}
	b.WriteString(`"end":50000}}}`)
	for range 2 { // the first run compiles the rules
		start := time.Now()
		report := scanBytes(t, b.Bytes())
		t.Logf("%d bytes in %v", b.Len(), time.Since(start))
		for _, f := range report.Findings {
			t.Errorf("%s %v", f.Rule, f.Evidence)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte(github + pem))
	f.Add([]byte(cloud))
	f.Fuzz(func(t *testing.T, b []byte) {
		known := words().kinds
		for _, found := range scanBytes(t, b).Findings {
			if found.Rule != ruleLimit && known[found.Evidence[0]] == "" {
				t.Errorf("evidence outside of the list: %q", found.Evidence)
			}
		}
	})
}
