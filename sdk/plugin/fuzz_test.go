package plugin

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/scanner"

	pb "github.com/cavra/cavra/schemas/gen/cavra/plugin/v1"
)

// FuzzReport feeds a scanner's messages to the host's side: what it takes is
// within the contract, accounts for the artifact, and is the same when it is
// sent again; what it refuses is a breach of the contract and nothing else.
func FuzzReport(f *testing.F) {
	const size = 1000
	at := finding.Location{Class: "pickle", Member: "a.zip!b", Offset: 3}
	seed := &pb.Report{
		Findings: []*pb.Finding{findingOut(finding.Finding{Rule: "known", Location: at, Evidence: []string{"os.system"}})},
		Imports:  []*pb.Import{importOut(finding.Import{Module: "os", Name: "system", How: predicate.ByGlobal, Judged: predicate.JudgedDangerous, Location: at})},
		Ranges:   []*pb.Range{rangeOut(coverage.Range{Kind: predicate.Parsed, End: 10}), rangeOut(coverage.Range{Kind: predicate.Unread, Start: 5, End: size, Reason: predicate.UnknownFormat})},
		Children: []*pb.Child{childOut(scanner.Child{Member: "b", Format: "pickle", Size: 9, Start: 1, End: 7})},
	}
	b, err := proto.Marshal(seed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var in pb.Report
		if proto.Unmarshal(b, &in) != nil {
			return
		}
		c := collector{rules: map[string]bool{"known": true}, size: size}
		if err := c.add(&in); err != nil {
			var broke *ContractError
			if !errors.As(err, &broke) {
				t.Fatalf("%v, want a breach of the contract", err)
			}
			return
		}
		if _, err := coverage.Account(c.report.Coverage, size); err != nil {
			t.Fatal(err)
		}
		again := collector{rules: c.rules, size: size}
		sent := parts{send: again.add}
		var done pb.Done
		if err := sent.all(c.report, &done); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.report, again.report); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzItem feeds a connector's listing to the host's side.
func FuzzItem(f *testing.F) {
	b, err := proto.Marshal(itemOut(artifact.Item{Key: "a/b", Path: "a/b"}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var in pb.Item
		if proto.Unmarshal(b, &in) != nil {
			return
		}
		item := itemIn(&in)
		if ValidateItem(item) != nil {
			return
		}
		if diff := cmp.Diff(item, itemIn(itemOut(item))); diff != "" {
			t.Fatal(diff)
		}
	})
}
