package agent

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cavra/cavra/agent/internal/egress"
	"github.com/cavra/cavra/agent/internal/judge"
	"github.com/cavra/cavra/agent/internal/sign"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/scanner"
)

// smuggler hides a number in a scanner's report, and reads it out of the
// statement that leaves: as a hostile scanner and its accomplice would, who know
// all that is public and have agreed on how.
type smuggler struct {
	t      *testing.T
	judge  *judge.Judge
	maker  sign.Maker
	egress *egress.Reducer
	gate   *egress.Gate

	places  []place
	kinds   []string
	imports []finding.Import
	reasons []predicate.Reason
}

type place struct{ rule, class string }

func newSmuggler(t *testing.T) *smuggler {
	t.Helper()
	rules, err := finding.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	s := &smuggler{t: t, reasons: predicate.Reasons()}
	if s.judge, err = judge.New(rules); err != nil {
		t.Fatal(err)
	}
	key := make([]byte, 32)
	if s.egress, err = egress.NewReducer(key, 4096); err != nil {
		t.Fatal(err)
	}
	s.gate, err = egress.NewGate(egress.GateConfig{Privacy: predicate.Strict, Vocabulary: egress.Shipped(), Rules: rules, Reducer: s.egress})
	if err != nil {
		t.Fatal(err)
	}
	s.maker = sign.Maker{
		Names: egress.Namer{Privacy: predicate.Strict, Key: key, Vocabulary: egress.Shipped()}, Privacy: predicate.Strict,
		Ruleset: sign.Ruleset{Version: rules.Version(), Digest: rules.Digest()},
	}
	for k := range finding.ShippedKinds() {
		s.kinds = append(s.kinds, k)
	}
	slices.Sort(s.kinds)
	for _, r := range rules.Rules() {
		for _, k := range s.kinds {
			s.places = append(s.places, place{r.ID, k})
		}
	}
	words := s.words()
	for _, module := range words {
		for _, name := range words {
			for _, how := range predicate.Hows() {
				for _, judged := range []string{predicate.JudgedDangerous, predicate.JudgedHarmless, predicate.JudgedUnknown} {
					s.imports = append(s.imports, finding.Import{Module: module, Name: name, How: how, Judged: judged})
				}
			}
		}
	}
	return s
}

// words are the vocabulary's.
func (s *smuggler) words() (out []string) {
	f, err := os.Open("internal/egress/vocabulary.txt")
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if w := strings.TrimSpace(lines.Text()); w != "" && !strings.HasPrefix(w, "#") {
			out = append(out, w)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// digits takes numbers off a large one, in turn.
type digits struct{ left *big.Int }

func (d *digits) next(states *big.Int) *big.Int {
	out := new(big.Int)
	d.left.DivMod(d.left, states, out)
	return out
}

func (d *digits) small(states int) int { return int(d.next(big.NewInt(int64(states))).Int64()) }

// choose is the number'th subset of k of n things, by the combinatorial number
// system, and rank the number of a subset.
func choose(number *big.Int, n, k int) (out []int) {
	for ; k > 0; k-- {
		low, high := k-1, n // the largest c with C(c, k) not above the number
		for low < high-1 {
			if mid := (low + high) / 2; new(big.Int).Binomial(int64(mid), int64(k)).Cmp(number) > 0 {
				high = mid
			} else {
				low = mid
			}
		}
		number = new(big.Int).Sub(number, new(big.Int).Binomial(int64(low), int64(k)))
		out, n = append(out, low), low
	}
	slices.Sort(out)
	return out
}

func rank(chosen []int) *big.Int {
	slices.Sort(chosen)
	sum := new(big.Int)
	for i, c := range chosen {
		sum.Add(sum, new(big.Int).Binomial(int64(c), int64(i+1)))
	}
	return sum
}

// size is a content's of which the sixteenths are whole.
const size = 1 << 20

var steps = []uint64{0, 1, 10, 100, 1000}

// states are how many there are of each part, in the order in which they are
// hidden.
func (s *smuggler) states() []*big.Int {
	n := func(v int64) *big.Int { return big.NewInt(v) }
	return []*big.Int{
		new(big.Int).Binomial(int64(len(s.places)), egress.MaxFindings),
		new(big.Int).Binomial(int64(len(s.imports)), egress.MaxImports),
		n(int64(len(steps))), n(int64(len(steps))), n(int64(len(s.kinds))),
		n(153), n(1<<len(s.reasons) - 1), n(11),
	}
}

// splits are the ways to part sixteen steps in three.
func splits() (out [][2]int64) {
	for unread := range int64(17) {
		for inert := range 17 - unread {
			out = append(out, [2]int64{unread, inert})
		}
	}
	return out
}

// hide makes a report of a number, and the statement that leaves of it.
func (s *smuggler) hide(number *big.Int) []byte {
	s.t.Helper()
	d, states := digits{new(big.Int).Set(number)}, s.states()
	r := scanner.Report{}
	for _, i := range choose(d.next(states[0]), len(s.places), egress.MaxFindings) {
		r.AddFinding(finding.Finding{Rule: s.places[i].rule, Location: finding.Location{Class: s.places[i].class, Offset: 42}})
	}
	for _, i := range choose(d.next(states[1]), len(s.imports), egress.MaxImports) {
		r.AddImport(s.imports[i])
	}
	r.FindingsOmitted, r.ImportsOmitted = steps[d.small(len(steps))], steps[d.small(len(steps))]
	r.Format = s.kinds[d.small(len(s.kinds))]
	split := splits()[d.small(153)]
	mask := 1 + d.small(1<<len(s.reasons)-1)
	unread := split[0] * size / 16
	inert := unread + split[1]*size/16
	for i, why := range s.reasons {
		if mask>>i&1 == 1 {
			r.Coverage = append(r.Coverage, coverage.Range{Kind: predicate.Unread, Reason: why})
			if unread > 0 {
				r.Coverage = append(r.Coverage, coverage.Range{Kind: predicate.Unread, End: unread, Reason: why})
				unread = -1
			}
		}
	}
	if split[1] > 0 {
		r.Coverage = append(r.Coverage, coverage.Range{Kind: predicate.Inert, Start: split[0] * size / 16, End: inert})
	}
	if inert < size {
		r.Coverage = append(r.Coverage, coverage.Range{Kind: predicate.Parsed, Start: inert, End: size})
	}
	took := time.Duration(0)
	if n := d.small(11); n > 0 {
		took = time.Second << (n - 1)
	}
	if d.left.Sign() != 0 {
		s.t.Fatal("the number is too large")
	}
	return s.leave(r, took)
}

// leave takes a report the way that the agent takes it.
func (s *smuggler) leave(r scanner.Report, took time.Duration) []byte {
	s.t.Helper()
	account, err := coverage.Account(r.Coverage, size)
	if err != nil {
		s.t.Fatal(err)
	}
	j := s.judge.Artifact(r.Findings, r.FindingsOmitted, account)
	began := time.Unix(1_700_000_000, 0)
	judged := sign.Judged{
		Artifact: predicate.Artifact{Kind: predicate.File, Digest: predicate.DigestOf(nil), Size: size, Format: r.Format, Files: 1},
		Verdict:  j.Verdict, Score: j.Score, Account: account, FindingsOmitted: j.Omitted, Imports: r.Imports, ImportsOmitted: r.ImportsOmitted,
		Started: began, Finished: began.Add(took),
	}
	for _, f := range j.Findings {
		judged.Findings = append(judged.Findings, sign.Finding{Finding: f.Finding, Rule: f.By})
	}
	p := s.maker.Scan(judged)
	*p.Place() = predicate.Link{Tenant: "t", Agent: "a", KeyID: predicate.DigestOf(nil), Epoch: 1, Sequence: 2, Previous: predicate.DigestOf(nil), SignedAt: predicate.At(began)}
	s.egress.Reduce(p)
	payload, err := predicate.Marshal(p)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.gate.Check(payload); err != nil {
		s.t.Fatal(err)
	}
	return payload
}

// read takes the number out of a statement.
func (s *smuggler) read(payload []byte) *big.Int {
	s.t.Helper()
	p, err := predicate.Parse(payload)
	if err != nil {
		s.t.Fatal(err)
	}
	scan := p.(*predicate.Scan)
	index := func(n int, found bool) int {
		if !found {
			s.t.Fatal("the statement says what nobody hid")
		}
		return n
	}
	var found, imports []int
	for _, f := range scan.Findings {
		i := slices.Index(s.places, place{f.Rule, f.Location})
		found = append(found, index(i, i >= 0))
	}
	for _, m := range scan.Imports {
		i := slices.Index(s.imports, finding.Import{Module: m.Module.Plain, Name: m.Name.Plain, How: m.How, Judged: m.Judged})
		imports = append(imports, index(i, i >= 0))
	}
	mask := 0
	for _, r := range scan.Coverage.Ranges {
		mask |= 1 << slices.Index(s.reasons, r.Reason)
	}
	split := slices.Index(splits(), [2]int64{int64(scan.Coverage.BytesUnread) * 16 / size, int64(scan.Coverage.BytesInert) * 16 / size})
	took := 0
	for d := scan.FinishedAt.Time().Sub(scan.StartedAt.Time()); d >= time.Second; d /= 2 {
		took++
	}
	step := func(n uint64) *big.Int { return big.NewInt(int64(slices.Index(steps, n))) }
	values := []*big.Int{
		rank(found), rank(imports), step(scan.FindingsOmitted), step(scan.ImportsOmitted),
		big.NewInt(int64(slices.Index(s.kinds, scan.Artifact.Format))), big.NewInt(int64(split)), big.NewInt(int64(mask - 1)), big.NewInt(int64(took)),
	}
	number := new(big.Int)
	for i, states := range slices.Backward(s.states()) {
		number.Add(number.Mul(number, states), values[i])
	}
	return number
}

// TestCapacity hides random numbers in reports and reads them out of what leaves:
// what is said to be the capacity is there, and no more is.
func TestCapacity(t *testing.T) {
	s := newSmuggler(t)
	all := big.NewInt(1)
	for _, n := range s.states() {
		all.Mul(all, n)
	}
	for range 20 {
		number, err := rand.Int(rand.Reader, all)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.read(s.hide(number)); got.Cmp(number) != 0 {
			t.Fatalf("hidden %s, read %s", number, got)
		}
	}
	rules, err := finding.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	hidden := float64(all.BitLen() - 1)
	var report strings.Builder
	for _, known := range []int{0, 1000, 1_000_000} {
		shares := egress.Capacity(rules, egress.Shipped(), known)
		if bits := egress.Bits(shares); hidden > bits || known == 0 && hidden < 0.85*bits {
			t.Errorf("%.0f bits were hidden, and the capacity is said to be %.0f", hidden, bits)
		}
		fmt.Fprintf(&report, "%6.0f bits, with %d keyed names sent before\n", egress.Bits(shares), known)
		for _, share := range shares {
			fmt.Fprintf(&report, "       %6.1f  %s\n", share.Bits, share.What)
		}
	}
	t.Logf("%.0f bits were hidden in a report and read\n%s", hidden, report.String())
}
