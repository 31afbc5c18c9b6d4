package mxnet

import (
	"context"
	"strings"
	"testing"

	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats/content"
)

// TestIdentify tells what is of the format from what only looks like it.
func TestIdentify(t *testing.T) {
	for text, want := range map[string]bool{"\x12\x01" + strings.Repeat("\x00", 22): true, "\x12\x01" + strings.Repeat("\x01", 22): false, "\x12\x01": false} {
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
