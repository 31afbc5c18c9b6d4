package corpus

import (
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

func executorchFiles() []ModelFile {
	const id, custom, index, bad = "executorch", "executorch.op.custom", "executorch.index", "executorch.malformed"
	// A program of one method: two values, a call with the arguments, an operator,
	// and the delegates and segments given.
	program := func(op string, call, arg int, delegates, inline, segments []fbTable, header string) string {
		value := fbTable{byte(2), fbTable{uint64(3)}}
		chain := fbTable{[]int{}, []int{}, []fbTable{{byte(1), fbTable{call, []int{0, arg}}}}}
		plan := fbTable{"forward", nil, []fbTable{value, value}, []int{0}, []int{1}, []fbTable{chain}, []fbTable{{op, "out"}}, delegates}
		return flatbuffer("ET12", header, fbTable{0, []fbTable{plan}, nil, inline, segments})
	}
	plain := func(op string, call, arg int) string { return program(op, call, arg, nil, nil, nil, "") }
	delegate := func(id string, location byte, index int) []fbTable { return []fbTable{{id, fbTable{location, index}}} }
	segmented := func(delegates []fbTable, size int, data string) string {
		header := func(base int) string { return "eh00" + le32(24) + le64(base) + le64(base) }
		segments := []fbTable{{uint64(0), uint64(size)}}
		base := len(program("aten::add", 0, 1, delegates, nil, segments, header(0)))
		return program("aten::add", 0, 1, delegates, nil, segments, header(base)) + data
	}
	const words = "Some words for a backend.\n"
	return []ModelFile{
		set(predicate.Pass, id, "executorch: plain", plain("aten::add", 0, 1)),
		set(predicate.Pass, id, "executorch: weights in a segment", segmented(nil, 16, floats(4))),
		set(predicate.Warn, id, "executorch: an operator of nobody", plain("mine::add", 0, 1), custom),
		set(predicate.Fail, id, "executorch: an operator that is not there", plain("aten::add", 7, 1), index),
		set(predicate.Fail, id, "executorch: a value that is not there", plain("aten::add", 0, 99), index),
		set(predicate.Pass, id, "executorch: a delegate with text", program("aten::add", 0, 1, delegate("XnnpackBackend", 0, 0), []fbTable{{words}}, nil, ""), "executorch.delegate"),
		gap(set(predicate.Warn, id, "executorch: a delegate of nobody", segmented(delegate("Mine", 1, 0), 16, "\xff"+floats(4)[1:]), "executorch.delegate.unknown")),
		gap(set(predicate.Fail, id, "executorch: a program for a delegate", segmented(delegate("QnnBackend", 1, 0), 64, elfHeader()), "executorch.delegate", "executable.native", "executable.embedded")),
		set(predicate.Fail, id, "executorch: data of a delegate that are not there", segmented(delegate("XnnpackBackend", 1, 5), 16, floats(4)), "executorch.delegate", index),
		gap(set(predicate.Fail, id, "executorch: a segment outside", segmented(nil, 1<<20, floats(4)), index, ruleHidden)),
		set(predicate.Fail, id, "executorch: pickle behind", plain("aten::add", 0, 1)+payload(), ruleHidden, ruleDangerous),
		gap(set(predicate.Warn, id, "executorch: cut short", plain("aten::add", 0, 1)[:100], bad)),
		gap(set(predicate.Warn, id, "executorch: a root outside", "\xff\xff\xff\x7fET12"+strings.Repeat(words, 3), bad)),
	}
}
