package matlab

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats/content"
)

// TestOrders reads the same variable in both byte orders.
func TestOrders(t *testing.T) {
	header := strings.Repeat(" ", 116) + strings.Repeat("\x00", 8)
	for name, text := range map[string]string{
		"little": header + "\x00\x01IM" + "\x0e\x00\x00\x00\x30\x00\x00\x00" + "\x06\x00\x00\x00\x08\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00" +
			"\x05\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00" + "\x01\x00\x01\x00w\x00\x00\x00" + "\x04\x00\x02\x00ab\x00\x00",
		"big": header + "\x01\x00MI" + "\x00\x00\x00\x0e\x00\x00\x00\x30" + "\x00\x00\x00\x06\x00\x00\x00\x08\x00\x00\x00\x06\x00\x00\x00\x00" +
			"\x00\x00\x00\x05\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00\x01" + "\x00\x01\x00\x01w\x00\x00\x00" + "\x00\x02\x00\x04ab\x00\x00",
	} {
		var report scanner.Report
		v, err := content.NewVisit(strings.NewReader(text), int64(len(text)), &report, content.NewBudget(content.DefaultLimits()), nil)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := (Format{}).Identify(context.Background(), v); !ok || err != nil {
			t.Fatal(name, ok, err)
		}
		if err := (Format{}).Scan(context.Background(), v); err != nil {
			t.Fatal(err)
		}
		account, err := coverage.Account(v.Claims(), v.Size)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(0, len(report.Findings)); diff != "" || !coverage.Sum(account).Complete {
			t.Errorf("%s: %v %v", name, report.Findings, account)
		}
	}
}
