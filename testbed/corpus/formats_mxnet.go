package corpus

import (
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

func mxnetFiles() []ModelFile {
	const id, bad = "mxnet", "mxnet.malformed"
	array := func(kind, n int, data string) string {
		return le32(0xf993fac9) + le32(kind) + le32(1) + le64(n) + le32(1) + le32(0) + le32(0) + data
	}
	list := func(names int, arrays ...string) string {
		s := le64(0x112) + le64(0) + le64(len(arrays)) + strings.Join(arrays, "") + le64(names)
		for range names {
			s += le64(5) + "arg:w"
		}
		return s
	}
	symbol := func(op string) string {
		return `{"nodes":[{"op":"null","name":"x","inputs":[]},{"op":"` + op + `","name":"y","attrs":{"op_type":"z"},"inputs":[[0,0,0]]}],"arg_nodes":[0],"node_row_ptr":[0,1,2],"heads":[[1,0,0]],"attrs":{"mxnet_version":["int",10901]}}`
	}
	good := array(0, 4, floats(4))
	return []ModelFile{
		set(predicate.Pass, id, "mxnet: arrays", list(2, good, good)),
		set(predicate.Fail, id, "mxnet: pickle behind the arrays", list(1, good)+payload(), ruleHidden, ruleDangerous),
		gap(set(predicate.Warn, id, "mxnet: an array longer than the file", list(1, array(0, 1<<40, floats(4))), bad)),
		gap(set(predicate.Warn, id, "mxnet: names too many", list(3, good), bad)),
		gap(set(predicate.Error, id, "mxnet: a sparse array", list(1, array(1, 4, floats(4))))),
		set(predicate.Pass, "json", "mxnet: a symbol", symbol("Activation")),
		set(predicate.Fail, "json", "mxnet: an operator of Python", symbol("Custom"), "mxnet.op.python"),
		set(predicate.Fail, "json", "mxnet: an operator with an address", symbol("_Native"), "mxnet.op.python"),
		set(predicate.Warn, "json", "mxnet: an operator of nobody", symbol("unheard"), "mxnet.op.native"),
		set(predicate.Warn, "json", "mxnet: a graph of another compiler", symbol("_TensorRT"), "mxnet.op.native"),
		gap(set(predicate.Warn, "tensorrt", "tensorrt: an engine", "ftrt"+zeros(28)+strings.Repeat("\xff", 32), "tensorrt.engine")),
		gap(set(predicate.Warn, "tensorrt", "tensorrt: an engine with settings before it", le32(17)+`{"stride": 32 }  `+"ftrt"+zeros(28)+strings.Repeat("\xff", 32), "tensorrt.engine")),
	}
}
