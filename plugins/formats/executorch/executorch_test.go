package executorch

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/plugins/formats/flatbuffer"
)

// TestOrdered cuts objects around the data that lie within them.
func TestOrdered(t *testing.T) {
	of := func(start, end int64, k kind) part { return part{flatbuffer.Extent{Start: start, End: end}, k} }
	got := ordered([]part{of(0, 100, kindParsed), of(40, 60, kindDelegate), of(20, 30, kindInert), of(100, 120, kindInert), of(90, 110, kindParsed)})
	want := []part{
		of(0, 20, kindParsed), of(20, 30, kindInert), of(30, 40, kindParsed), of(40, 60, kindDelegate), of(60, 100, kindParsed), of(90, 100, kindParsed), of(100, 120, kindInert),
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(part{})); diff != "" {
		t.Error(diff)
	}
}
