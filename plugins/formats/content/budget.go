package content

import (
	"github.com/cavra/cavra/schemas/predicate"
)

// Limits bound the work and the memory that one artifact may take, however it
// is nested. They count operations and bytes, not seconds, so that the same
// bytes always meet them at the same place; the host bounds the time.
type Limits struct {
	// Depth of containers within containers.
	Depth int
	// Members of all containers together.
	Members int64
	// Inflated is how many bytes decompression may give, all together: those
	// of slow compressions count several times, and so does what is decompressed
	// again. InflatedPerByte is added for each byte of the artifact.
	Inflated, InflatedPerByte int64
	// Held is how many decompressed bytes may be in memory at a time.
	Held int64
	// Ratio of decompressed to compressed bytes, for members of more than
	// RatioFrom bytes.
	Ratio, RatioFrom int64
	// Opcodes of all pickles together, and those that are added for each byte of
	// the artifact.
	Opcodes, OpcodesPerByte int64
	// Memo entries and stack values of one pickle.
	Memo, Stack int
	// DirectoryBytes bounds the central directory of one archive.
	DirectoryBytes int64
}

// DefaultLimits are what the shipped program uses.
func DefaultLimits() Limits {
	return Limits{
		Depth:           8,
		Members:         50_000,
		Inflated:        192 << 20,
		InflatedPerByte: 16,
		Held:            96 << 20,
		Ratio:           400,
		RatioFrom:       64 << 20,
		Opcodes:         60_000_000,
		OpcodesPerByte:  8,
		Memo:            8 << 20,
		Stack:           6 << 20,
		DirectoryBytes:  32 << 20,
	}
}

// For are the limits for an artifact of size bytes: what a small file may cost
// is little, so that one that was made to cost much ends soon.
func (l Limits) For(size int64) Limits {
	const most = 1 << 55
	l.Inflated = min(most, l.Inflated+min(size, most/max(1, l.InflatedPerByte))*l.InflatedPerByte)
	l.Opcodes = min(most, l.Opcodes+min(size, most/max(1, l.OpcodesPerByte))*l.OpcodesPerByte)
	return l
}

// Budget is what is left of the limits for one artifact.
type Budget struct {
	Limits
	members, inflated, held, opcodes int64

	found map[string]int
}

// NewBudget begins a budget.
func NewBudget(l Limits) *Budget { return &Budget{Limits: l, found: make(map[string]int)} }

// descend draws on the budget for content at a depth, of size bytes that are not
// the artifact's own: to look at them costs as much as to decompress them.
func (b *Budget) descend(depth int, size int64) predicate.Reason {
	if depth > b.Depth {
		return predicate.LimitDepth
	}
	b.members++
	if b.members > b.Members {
		return predicate.LimitMembers
	}
	if !b.Inflate(size) {
		return predicate.LimitBytes
	}
	return ""
}

// Spent reports whether nothing more can be looked into: a loop over members ends
// then, instead of meeting the limit for each of them.
func (b *Budget) Spent() bool { return b.members > b.Members || b.inflated > b.Inflated }

// Stream draws one of the streams that lie one behind the other in compressed
// content; they count as members.
func (b *Budget) Stream() bool {
	b.members++
	return b.members <= b.Members
}

// Inflate draws n decompressed bytes, and reports whether they were there.
func (b *Budget) Inflate(n int64) bool {
	b.inflated += n
	return b.inflated <= b.Inflated
}

// Hold asks to keep n bytes in memory; Release gives them back.
func (b *Budget) Hold(n int64) bool {
	if b.held+n > b.Held {
		return false
	}
	b.held += n
	return true
}

// Release gives back what Hold has granted.
func (b *Budget) Release(n int64) { b.held -= n }

// OpcodesLeft is how many opcodes may still be walked.
func (b *Budget) OpcodesLeft() int64 { return max(0, b.Opcodes-b.opcodes) }

// SpendOpcodes draws n opcodes.
func (b *Budget) SpendOpcodes(n int64) { b.opcodes += n }

// maxFound is how many places of one rule are listed; the rest is counted. All
// rules together stay below scanner.MaxFindings, so that no flood of one rule
// crowds out another.
const maxFound = 250

func (b *Budget) find(rule string) bool {
	b.found[rule]++
	return b.found[rule] <= maxFound
}
