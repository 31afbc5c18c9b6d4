package tensorrt

import (
	"context"
	"strings"
	"testing"

	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats/content"
)

// TestIdentify tells what is of the format from what only looks like it.
func TestIdentify(t *testing.T) {
	for text, want := range map[string]bool{"ftrt" + strings.Repeat("\x00", 20): true, "\x02\x00\x00\x00{}ptrt" + strings.Repeat("\x00", 20): true, "\x02\x00\x00\x00{}text" + strings.Repeat("\x00", 20): false, "\xff\xff\xff\xff{}ftrt" + strings.Repeat("\x00", 20): false, "ftrt": false} {
		var report scanner.Report
		v, err := content.NewVisit(strings.NewReader(text), int64(len(text)), &report, content.NewBudget(content.DefaultLimits()), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Format{}.Identify(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
