package openvino

import (
	"bytes"
	"context"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats/content"
)

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// TestWeightsBeside holds a graph against the weights in its bundle.
func TestWeightsBeside(t *testing.T) {
	const graph = `<net name="m" version="11"><layers><layer type="Const" version="opset1"><data element_type="f32" shape="2" offset="8" size="8"/></layer></layers></net>`
	for size, want := range map[int][]string{-1: nil, 16: nil, 15: {"a constant lies beyond the end of the weights", "16", "15"}} {
		var report scanner.Report
		v, err := content.NewVisit(strings.NewReader(graph), int64(len(graph)), &report, content.NewBudget(content.DefaultLimits()), nil)
		if err != nil {
			t.Fatal(err)
		}
		v.Place = "a/model.xml"
		v.Sibling = func(_ context.Context, path string) (artifact.Reader, error) {
			if path != "a/model.bin" || size < 0 {
				return nil, fs.ErrNotExist
			}
			return memory{bytes.NewReader(make([]byte, size))}, nil
		}
		if err := (Format{}).Scan(context.Background(), v); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range report.Findings {
			got = append(got, f.Evidence...)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d bytes of weights (-want +got):\n%s", size, diff)
		}
	}
}
