// Package tensor is what the formats of tensors share: the arithmetic of shapes,
// which never overflows, and what a tensor's name may hide.
package tensor

import (
	"math"
	"math/bits"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cavra/cavra/plugins/formats/content"
)

// The rules that names meet.
const (
	RulePath = "tensor.name.path"
	RuleOdd  = "tensor.name.odd"
)

// MaxDims bounds the number of dimensions. numpy allows 64, torch no fixed number.
const MaxDims = 64

// Items is the product of the dimensions, or false when it is beyond 2^63 - 1.
// A dimension of 0 makes it 0 whatever the others are, unless their product
// without it overflows: readers multiply in different orders.
func Items(dims []uint64) (int64, bool) {
	items, zero := uint64(1), false
	for _, d := range dims {
		if d == 0 {
			zero = true
			continue
		}
		hi, lo := bits.Mul64(items, d)
		if hi != 0 || lo > math.MaxInt64 {
			return 0, false
		}
		items = lo
	}
	if zero {
		return 0, true
	}
	return int64(items), true
}

// Times is a × b for values that are not negative, or false beyond 2^63 - 1.
func Times(a, b int64) (int64, bool) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if a < 0 || b < 0 || hi != 0 || lo > math.MaxInt64 {
		return 0, false
	}
	return int64(lo), true
}

// Add is a + b for values that are not negative, or false beyond 2^63 - 1.
func Add(a, b int64) (int64, bool) {
	if a < 0 || b < 0 || a > math.MaxInt64-b {
		return 0, false
	}
	return a + b, true
}

// CheckName returns the rule that a tensor's name meets, or nothing. Programs
// that write a file for each tensor follow a name that climbs. Names that begin
// with a slash are ordinary in models that were traced, so they are odd only.
func CheckName(name string) string {
	for part := range strings.SplitSeq(strings.ReplaceAll(name, `\`, "/"), "/") {
		if part == ".." {
			return RulePath
		}
	}
	if strings.ContainsRune(name, 0) || !utf8.ValidString(name) || content.Leaves(name) || strings.ContainsFunc(name, hidden) {
		return RuleOdd
	}
	return ""
}

func hidden(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }
