package egress

import (
	"math"
	"math/big"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/finding"
)

// Share is what a scanner can choose in one part of a report, in bits.
type Share struct {
	What string
	Bits float64
}

const (
	// scanSeconds is how long one scan may take, so how much later it can have the
	// next one begin, and jobs how many it can have overtake each other.
	scanSeconds = 300
	jobs        = 256
)

// Capacity bounds what a scanner can hide in one report for a reader who has no
// key, by counting the reports that may leave. The digest, the size, the names of
// places and programs, the rules' classes and severities are not its own choice.
// A keyed name means to a reader no more than which one it is of those that were
// sent before, of which there are known. When a report arrives is not counted.
func Capacity(rules *finding.Catalogue, v Vocabulary, known int) []Share {
	places := len(rules.Rules()) * (len(finding.ShippedKinds()))
	// A name that was not sent before is one of those that this report brings.
	names := int64(len(v.words) + known + 2*MaxImports)
	imports := new(big.Int).Mul(big.NewInt(names), big.NewInt(names))
	imports.Mul(imports, big.NewInt(int64(len(predicate.Hows())*len(judgements))))
	steps := float64(len(countSteps))
	return []Share{
		{"findings: which rules at which places, and how many", log2(subsets(big.NewInt(int64(places)), MaxFindings, int64(len(countSteps)-1)))},
		{"imports: which names, how, and what they are judged", log2(subsets(imports, MaxImports, 1))},
		{"findings and imports that are left out", 2 * math.Log2(steps)},
		{"format", math.Log2(float64(len(finding.ShippedKinds())))},
		{"verdict, score, whether complete", math.Log2(4 * 101 * 2)},
		{"parts that were parsed, inert, and not read", log2(new(big.Int).Binomial(coverageSteps+2, 2))},
		{"reasons why bytes were not read", float64(len(predicate.Reasons()))},
		{"when it began and how long it took", math.Log2(scanSeconds+1) + math.Log2(math.Log2(maxDuration)+2)},
		{"which of those at work is told first", math.Log2(jobs)},
	}
}

// Bits adds shares up.
func Bits(shares []Share) float64 {
	var sum float64
	for _, s := range shares {
		sum += s.Bits
	}
	return sum
}

// subsets counts those of up to most of n things, each in so many states.
func subsets(n *big.Int, most int, states int64) *big.Int {
	sum, term := new(big.Int), big.NewInt(1)
	for k := 0; ; k++ {
		sum.Add(sum, term)
		if k == most {
			return sum
		}
		// One more: (n-k)/(k+1) times as many subsets.
		term = new(big.Int).Mul(term, new(big.Int).Sub(n, big.NewInt(int64(k))))
		term.Mul(term, big.NewInt(states))
		term.Div(term, big.NewInt(int64(k+1)))
	}
}

// log2 is exact to far below a bit.
func log2(n *big.Int) float64 {
	const kept = 64
	shift := max(0, n.BitLen()-kept)
	top, _ := new(big.Float).SetInt(new(big.Int).Rsh(n, uint(shift))).Float64()
	return math.Log2(top) + float64(shift)
}
