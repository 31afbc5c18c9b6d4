package corpus

import (
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// paddleTensor is a tensor of n floats with the head that it has in a file of
// parameters.
func paddleTensor(n int, data string) string {
	desc := "\x08\x05\x10" + string([]byte{byte(n)})
	return le32(0) + le64(0) + le32(0) + le32(len(desc)) + desc + data
}

func paddleFiles() []ModelFile {
	const id, params, bad = "paddle", "paddle-params", "paddle.malformed"
	program := func(ops ...string) string {
		block := protoNumber(1, 0) + protoNumber(2, 1<<31) + protoField(3, protoField(1, "x"), protoField(2, protoNumber(1, 7)))
		for _, op := range ops {
			block += protoField(4, protoField(1, protoField(1, "X"), protoField(2, "x")), protoField(3, op), protoField(4, protoField(1, "axis"), protoNumber(2, 0), protoNumber(3, 1)))
		}
		return protoField(1, block) + protoField(4, protoNumber(1, 0))
	}
	pir := func(ops ...string) string {
		var list []string
		for _, op := range ops {
			list = append(list, `{"#":"`+op+`","A":[],"I":[],"O":[]}`)
		}
		return `{"base_code":{"magic":"pir","trainable":true,"version":4},"program":{"regions":[{"#":"region_0","blocks":[{"#":"block_0","args":[],"ops":[` + strings.Join(list, ",") + `]}]}]}}`
	}
	good := paddleTensor(4, floats(4))
	return []ModelFile{
		set(predicate.Pass, id, "paddle: a program", program("feed", "relu", "softmax", "fetch")),
		set(predicate.Fail, id, "paddle: a function of Python", program("py_func"), "paddle.op.python"),
		set(predicate.Warn, id, "paddle: an operator that opens a file", program("load_combine"), "paddle.op.file"),
		set(predicate.Fail, id, "paddle: an operator that listens", program("listen_and_serv"), "paddle.op.network"),
		set(predicate.Warn, id, "paddle: an operator of nobody", program("unheard"), "paddle.op.custom"),
		set(predicate.Warn, id, "paddle: what another compiler made", program("tensorrt_engine"), "paddle.op.custom"),
		gap(set(predicate.Warn, id, "paddle: cut short", program("relu")+"\x22\x09", bad)),
		set(predicate.Pass, "json", "paddle: a program in JSON", pir("1.data", "1.relu", "0.shadow_output")),
		set(predicate.Fail, "json", "paddle: a function of Python in JSON", pir("1.py_func"), "paddle.op.python"),
		set(predicate.Warn, "json", "paddle: an operator of nobody in JSON", pir("custom_op.mine"), "paddle.op.custom"),
		set(predicate.Pass, params, "paddle: parameters", good+paddleTensor(2, floats(2))),
		set(predicate.Fail, params, "paddle: pickle behind the parameters", good+payload(), ruleHidden, ruleDangerous),
		gap(set(predicate.Warn, params, "paddle: parameters cut short", good+paddleTensor(100, floats(4)), bad)),
	}
}
