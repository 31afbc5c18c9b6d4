package egress

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
)

// whole is a scan statement that says all that is known.
func whole() *predicate.Scan {
	began := time.Unix(1_700_000_000, 345e6)
	return &predicate.Scan{
		Link:     link(),
		Artifact: predicate.Artifact{Kind: predicate.File, Digest: predicate.DigestOf([]byte("x")), Size: 10_007, Format: "acme-format", Files: 1},
		Verdict:  predicate.Fail, Score: 100,
		Coverage: predicate.Coverage{BytesTotal: 10_007, BytesParsed: 4_004, BytesInert: 6_000, BytesUnread: 3, Ranges: []predicate.Range{
			{Kind: predicate.Parsed, Start: 0, End: 4_004}, {Kind: predicate.Unread, Start: 4_004, End: 4_007, Reason: predicate.Encrypted}, {Kind: predicate.Inert, Start: 4_007, End: 10_007}}},
		Findings: []predicate.Finding{
			{Rule: "pickle.import.dangerous", Class: "code_execution_on_load", Location: "pickle", Severity: predicate.Critical, Count: 57},
			{Rule: "pickle.import.dangerous", Class: "code_execution_on_load", Location: "secretplan", Severity: predicate.Critical, Count: 3}},
		FindingsOmitted: 77, ImportsOmitted: 12_345,
		Imports:        []predicate.Import{{Module: predicate.KeyedName([]byte("k"), "m"), Name: predicate.KeyedName([]byte("k"), "n"), How: predicate.ByGlobal, Judged: predicate.JudgedUnknown}},
		Scanners:       []predicate.Scanner{{Name: "cavra-scanner-x", Version: "secretplan", Digest: predicate.DigestOf(nil)}},
		RulesetVersion: "1", RulesetDigest: predicate.DigestOf(nil), Privacy: predicate.Strict, Sandbox: []predicate.Layer{},
		StartedAt: predicate.At(began), FinishedAt: predicate.At(began.Add(7*time.Second + 123*time.Millisecond)),
	}
}

func TestReduceScan(t *testing.T) {
	s := whole()
	reducer(t, 4096).Reduce(s)
	want := whole()
	want.Artifact.Format = "other"
	want.Coverage = predicate.Coverage{BytesTotal: 10_007, BytesParsed: 3_754, BytesInert: 5_628, BytesUnread: 625,
		Ranges: []predicate.Range{{Kind: predicate.Unread, Reason: predicate.Encrypted}}}
	want.Findings = []predicate.Finding{
		{Rule: "pickle.import.dangerous", Class: "code_execution_on_load", Location: "other", Severity: predicate.Critical, Count: 1},
		{Rule: "pickle.import.dangerous", Class: "code_execution_on_load", Location: "pickle", Severity: predicate.Critical, Count: 10}}
	want.FindingsOmitted, want.ImportsOmitted = 10, 1000
	want.Scanners[0].Version = "other"
	want.StartedAt = predicate.At(time.Unix(1_700_000_000, 0))
	want.FinishedAt = predicate.At(time.Unix(1_700_000_004, 0))
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := gate(t, predicate.Strict, 4096).Check(marshal(t, s)); err != nil {
		t.Errorf("what was brought down is refused: %v", err)
	}
	if err := gate(t, predicate.Strict, 4096).Check(marshal(t, whole())); err == nil {
		t.Error("a whole statement went out")
	}
}

// TestGateRefusesWhatSaysMore edits a statement that may leave.
func TestGateRefusesWhatSaysMore(t *testing.T) {
	g := gate(t, predicate.Strict, 4096)
	for name, edit := range map[string]func(*predicate.Scan){
		"a format of its own": func(s *predicate.Scan) { s.Artifact.Format = "secretplan" },
		"a place of its own":  func(s *predicate.Scan) { s.Findings[1].Location = "secretplan" },
		"a rule of its own":   func(s *predicate.Scan) { s.Findings[1].Rule = "secret.plan" },
		"another severity":    func(s *predicate.Scan) { s.Findings[1].Severity = predicate.Low },
		"another class":       func(s *predicate.Scan) { s.Findings[1].Class = "secretplan" },
		"a fine count":        func(s *predicate.Scan) { s.Findings[1].Count = 11 },
		"a fine omission":     func(s *predicate.Scan) { s.ImportsOmitted = 11 },
		"a fine part":         func(s *predicate.Scan) { s.Coverage.BytesParsed++; s.Coverage.BytesInert-- },
		"a place of a range":  func(s *predicate.Scan) { s.Coverage.Ranges[0].Start, s.Coverage.Ranges[0].End = 7, 7 },
		"a fine time":         func(s *predicate.Scan) { s.FinishedAt = predicate.At(s.FinishedAt.Time().Add(time.Second)) },
		"a version in words":  func(s *predicate.Scan) { s.Scanners[0].Version = "secretplan" },
		"a small file's digest": func(s *predicate.Scan) {
			s.Artifact.Size, s.Coverage = 4095, predicate.Coverage{BytesTotal: 4095, BytesParsed: 4095, Ranges: s.Coverage.Ranges}
		},
		"a bundle's digest":        func(s *predicate.Scan) { s.Artifact.Kind = predicate.Bundle },
		"a keyed one's exact size": func(s *predicate.Scan) { s.Artifact.Digest = predicate.KeyedDigest([]byte("k"), s.Artifact.Digest) },
		"a word not in the list":   func(s *predicate.Scan) { s.Imports[0].Module = predicate.Name{Plain: "secretplan"} },
		"imports in another order": func(s *predicate.Scan) {
			s.Imports = append(s.Imports, predicate.Import{Module: predicate.Name{Plain: "os"}, Name: predicate.Name{Plain: "system"}, How: predicate.ByGlobal, Judged: predicate.JudgedDangerous})
		},
		"one finding more than may": func(s *predicate.Scan) {
			for i := range MaxFindings {
				s.Findings = append(s.Findings, predicate.Finding{Rule: fmt.Sprintf("pickle.zz%02d", i), Class: "c", Location: "zip", Severity: predicate.Low, Count: 1})
			}
		},
	} {
		s := whole()
		reducer(t, 4096).Reduce(s)
		edit(s)
		if g.Check(marshal(t, s)) == nil {
			t.Errorf("%s went out", name)
		}
	}
}

// TestSmallFilesAndBundlesAreKeyed: the same with the same key, another with
// another, and no size that helps to guess.
func TestSmallFilesAndBundlesAreKeyed(t *testing.T) {
	plain := predicate.DigestOf([]byte("a secret that can be guessed"))
	for name, tt := range map[string]struct {
		below int64
		kind  predicate.ArtifactKind
		size  uint64
		keyed bool
		want  uint64
	}{
		"empty":          {4096, predicate.File, 0, true, 4096},
		"small":          {4096, predicate.File, 4095, true, 4096},
		"at the bound":   {4096, predicate.File, 4096, false, 4096},
		"large":          {4096, predicate.File, 1 << 30, false, 1 << 30},
		"small of more":  {1 << 20, predicate.File, 4097, true, 8192},
		"larger of more": {1 << 20, predicate.File, 900_001, true, 917_504},
		"a bundle":       {4096, predicate.Bundle, 1<<30 + 7, true, 1<<30 + 1<<26},
		"turned off":     {0, predicate.File, 7, false, 7},
		"a bundle, off":  {0, predicate.Bundle, 7, false, 7},
	} {
		r := reducer(t, tt.below)
		d, size := r.artifact(tt.kind, plain, tt.size)
		if d.Keyed() != tt.keyed || size != tt.want || d.ValidateArtifact() != nil {
			t.Errorf("%s: %s of %d bytes, want %d", name, d, size, tt.want)
		}
		if again, _ := r.artifact(tt.kind, plain, tt.size); again != d {
			t.Errorf("%s: %s, then %s", name, d, again)
		}
		other, err := NewReducer(bytes.Repeat([]byte{1}, 32), tt.below)
		if err != nil {
			t.Fatal(err)
		}
		if another, _ := other.artifact(tt.kind, plain, tt.size); tt.keyed == (another == d) {
			t.Errorf("%s: under another key it is %s as well", name, d)
		}
	}
	// Nothing that a name can be hashed to is the key of the digests.
	key := reducer(t, 1).key
	for _, name := range []string{"cavra artifact v1", "\x01", "", "cavra artifact v1\x01"} {
		if n := predicate.KeyedName(make([]byte, 32), name); strings.HasSuffix(n.Keyed, fmt.Sprintf("%x", key)) {
			t.Errorf("a file called %q would tell the key", name)
		}
	}
}

func TestReduceInventory(t *testing.T) {
	namer := Namer{Privacy: predicate.Strict, Key: []byte("k"), Vocabulary: Shipped()}
	v := inventory(namer, "x")
	v.References = append(v.References,
		predicate.Reference{Path: namer.Name("y"), Digest: predicate.DigestOf([]byte("y")), Bundle: predicate.DigestOf([]byte("b")), Size: 17},
		predicate.Reference{Path: namer.Name("z"), Problem: predicate.PermissionDenied, Size: 123_456_789})
	g := gate(t, predicate.Strict, 4096)
	if g.Check(marshal(t, v)) == nil {
		t.Error("a small file's digest went out")
	}
	reducer(t, 4096).Reduce(v)
	if r := v.References[1]; !r.Digest.Keyed() || !r.Bundle.Keyed() || r.Size != 4096 {
		t.Errorf("%+v", r)
	}
	if r := v.References[2]; r.Size != 0 {
		t.Errorf("the size of what could not be read is the listing's word: %+v", r)
	}
	if err := g.Check(marshal(t, v)); err != nil {
		t.Error(err)
	}
}

// TestReducingAgainChangesNothing, whatever the numbers are.
func TestReducingAgainChangesNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		s := whole()
		size := random.Uint64N(1 << random.UintN(53))
		unread := random.Uint64N(size + 1)
		inert := random.Uint64N(size - unread + 1)
		s.Artifact.Size = size
		s.Coverage = predicate.Coverage{BytesTotal: size, BytesUnread: unread, BytesInert: inert, BytesParsed: size - unread - inert, Ranges: []predicate.Range{}}
		s.Findings[0].Count, s.FindingsOmitted = 1+random.Uint64N(200), random.Uint64N(5000)
		s.FinishedAt = predicate.At(s.StartedAt.Time().Add(time.Duration(random.Int64N(int64(time.Hour)))))
		r := reducer(t, 4096)
		r.Reduce(s)
		if size >= 4096 && s.Coverage.BytesUnread < unread {
			t.Fatalf("of %d bytes %d were not read, and it says %d", size, unread, s.Coverage.BytesUnread)
		}
		once := marshal(t, s)
		r.Reduce(s)
		if diff := cmp.Diff(string(once), string(marshal(t, s))); diff != "" {
			t.Fatalf("(-once +again):\n%s", diff)
		}
	}
}
