package rdata

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats/content"
)

// TestText reads names as the text representation escapes them.
func TestText(t *testing.T) {
	for name, want := range map[string][]string{"system": {"system"}, `s\171stem`: {"system"}, `\163ystem`: {"system"}, `system\n`: nil} {
		length := map[string]string{`system\n`: "7"}[name]
		if length == "" {
			length = "6"
		}
		text := "A\n2\n262658\n131840\n6\n1\n262153\n" + length + "\n" + name + "\n254\n"
		var report scanner.Report
		v, err := content.NewVisit(strings.NewReader(text), int64(len(text)), &report, content.NewBudget(content.DefaultLimits()), nil)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := (Format{}).Identify(context.Background(), v); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := (Format{}).Scan(context.Background(), v); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range report.Findings {
			got = append(got, f.Evidence...)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
