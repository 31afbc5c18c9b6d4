package onnx

import (
	"strconv"

	"github.com/cavra/cavra/plugins/formats/tensor"
)

// sizes are those of the element types in bits, by number; strings have none.
var sizes = map[uint64]int64{
	1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
	17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}

// take takes an entry of external_data.
func (t *weights) take(p pair) {
	t.external = true
	switch p.key {
	case "location":
		t.has = true
		// Of two, the one that leaves counts: readers differ.
		if t.location == "" || leaves(p.value) {
			t.location = p.value
		}
	case "offset", "length":
		if _, err := strconv.ParseUint(p.value, 10, 63); err != nil {
			t.bad = "an offset or length that is no number"
		}
	}
}

// judgeWeights says where a tensor's data lies, and whether what lies in the
// file is as long as its type and shape need.
func (s *scan) judgeWeights(t weights) {
	if t.external {
		s.judgeExternal(t)
	}
	items, ok := tensor.Items(t.dims)
	bits, known := sizes[t.kind]
	if ok && known {
		items, ok = tensor.Times(items, bits)
	}
	switch {
	case !ok:
		t.bad = "a shape overflows"
	case known && t.raw >= 0 && !t.external && (items+7)/8 != t.raw:
		t.bad = "data that is not as long as type and shape need"
	}
	if t.bad != "" {
		s.v.Found("onnx.malformed", ID, t.at, t.bad)
	}
}

func (s *scan) judgeExternal(t weights) {
	switch {
	case !t.has || t.location == "":
		s.v.Found("onnx.malformed", ID, t.at, "external data without a location")
	case leaves(t.location):
		s.v.Found("onnx.external.path", ID, t.at, t.location)
	case s.external < 0:
		s.external = t.at
		s.v.Found("onnx.external.data", ID, t.at, t.location)
	}
}
