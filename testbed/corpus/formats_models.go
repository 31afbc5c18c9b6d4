package corpus

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// ModelFile is a file in a format of models, and what a scan must say of it.
type ModelFile = Setting

// ModelFiles are honest files in the formats that hold tensors and graphs, and
// files in them that break the format, reach outside of it, or run something.
func ModelFiles() []ModelFile {
	return slices.Concat(safetensorsFiles(), ggufFiles(), onnxFiles(), tensorflowFiles(), tfliteFiles(), torchFiles(), hdf5Files(), treeFiles(), foreignFiles())
}

// gap marks a case as one of which not all can be looked at.
func gap(m ModelFile) ModelFile {
	m.Complete = false
	return m
}

func safetensorsOf(header, data string) string { return le64(len(header)) + header + data }

func safetensorsFiles() []ModelFile {
	const id, bad = "safetensors", "safetensors.malformed"
	one := func(name, entry, data string) string { return safetensorsOf(`{"`+name+`":{`+entry+`}}`, data) }
	const entry = `"dtype":"F32","shape":[2],"data_offsets":[0,8]`
	whole := one("w", entry, floats(2))
	return []ModelFile{
		set(predicate.Pass, id, "safetensors: plain", whole),
		set(predicate.Pass, id, "safetensors: metadata and padding", safetensorsOf(`{"__metadata__":{"format":"pt"},"w":{`+entry+`}}   `, floats(2))),
		set(predicate.Pass, id, "safetensors: a tensor of a pickle's bytes", one("w", `"dtype":"U8","shape":[`+strconv.Itoa(len(payload()))+`],"data_offsets":[0,`+strconv.Itoa(len(payload()))+`]`, payload())),
		set(predicate.Warn, id, "safetensors: hole", one("w", `"dtype":"F32","shape":[2],"data_offsets":[8,16]`, strings.Repeat("\x00", 8)+floats(2)), bad),
		set(predicate.Warn, id, "safetensors: overlap", safetensorsOf(`{"a":{`+entry+`},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, floats(3)), bad),
		gap(set(predicate.Warn, id, "safetensors: beyond the end", one("w", `"dtype":"F32","shape":[99],"data_offsets":[0,396]`, floats(2)), bad)),
		gap(set(predicate.Warn, id, "safetensors: header longer than the file", le64(1<<20)+`{"w":{`+entry+`}}`+floats(2), bad)),
		set(predicate.Warn, id, "safetensors: shape that overflows", one("w", `"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]`, floats(2)), bad),
		set(predicate.Fail, id, "safetensors: pickle behind", whole+payload(), bad, ruleDangerous),
		set(predicate.Fail, id, "safetensors: pickle in the padding", safetensorsOf(`{"w":{`+entry+`}}`+payload(), floats(2)), bad, ruleDangerous),
		set(predicate.Fail, id, "safetensors: a key twice", safetensorsOf(`{"w":{`+entry+`},"\u0077":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}}`, floats(2)), "safetensors.key.duplicate"),
		set(predicate.Fail, id, "safetensors: name that climbs", one("../../w", entry, floats(2)), "tensor.name.path"),
	}
}

func ggufText(s string) string { return le64(len(s)) + s }

func ggufOf(tensors, entries int, rest, data string) string {
	head := "GGUF\x03\x00\x00\x00" + le64(tensors) + le64(entries) + rest
	return head + strings.Repeat("\x00", (32-len(head)%32)%32) + data
}

func ggufFiles() []ModelFile {
	const id, bad, over = "gguf", "gguf.malformed", "gguf.overflow"
	tensor := func(name string, kind int, offset string, dims ...int) string {
		s := ggufText(name) + le32(len(dims))
		for _, d := range dims {
			s += le64(d)
		}
		return s + le32(kind) + offset
	}
	entry := ggufText("general.architecture") + le32(8) + ggufText("llama")
	long := strings.Repeat("\xff", 8)
	return []ModelFile{
		set(predicate.Pass, id, "gguf: plain", ggufOf(1, 1, entry+tensor("w", 0, le64(0), 2), floats(2))),
		set(predicate.Fail, id, "gguf: pickle behind", ggufOf(1, 1, entry+tensor("w", 0, le64(0), 2), floats(2)+payload()), ruleHidden, ruleDangerous),
		set(predicate.Warn, id, "gguf: hole", ggufOf(1, 1, entry+tensor("w", 0, le64(64), 2), strings.Repeat("\x00", 64)+floats(2)), bad),
		set(predicate.Fail, id, "gguf: a key twice", ggufOf(0, 2, entry+entry, ""), "gguf.key.duplicate"),
		set(predicate.Fail, id, "gguf: name that climbs", ggufOf(1, 1, entry+tensor("../w", 0, le64(0), 2), floats(2)), "tensor.name.path"),
		gap(set(predicate.Fail, id, "gguf: entries that overflow", "GGUF\x03\x00\x00\x00"+le64(0)+long+entry, over)),
		gap(set(predicate.Fail, id, "gguf: tensors that overflow", "GGUF\x03\x00\x00\x00"+long+le64(0)+entry, over)),
		gap(set(predicate.Fail, id, "gguf: text that overflows", ggufOf(0, 1, ggufText("a")+le32(8)+long, ""), over)),
		gap(set(predicate.Fail, id, "gguf: array that overflows", ggufOf(0, 1, ggufText("a")+le32(9)+le32(4)+long, ""), over)),
		gap(set(predicate.Fail, id, "gguf: shape that overflows", ggufOf(1, 0, tensor("w", 0, le64(0), 1<<40, 1<<40), ""), over)),
		gap(set(predicate.Fail, id, "gguf: too many dimensions", ggufOf(1, 0, tensor("w", 0, le64(0), 1, 1, 1, 1, 1, 1, 1, 1), ""), over)),
		gap(set(predicate.Fail, id, "gguf: offset that overflows", ggufOf(1, 0, tensor("w", 0, long, 2), floats(2)), over)),
		gap(set(predicate.Warn, id, "gguf: cut short", ggufOf(1, 1, entry+tensor("w", 0, le64(0), 99), floats(2)), bad)),
		gap(set(predicate.Warn, id, "gguf: alignment of zero", ggufOf(0, 1, ggufText("general.alignment")+le32(4)+le32(0), ""), bad)),
	}
}

// protoField is a field of text, data or messages in protobuf's wire format.
func protoField(number int, parts ...string) string {
	payload := strings.Join(parts, "")
	b := binary.AppendUvarint(nil, uint64(number)<<3|2)
	return string(binary.AppendUvarint(b, uint64(len(payload)))) + payload
}

func protoNumber(number int, n uint64) string {
	return string(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(number)<<3), n))
}

func onnxFiles() []ModelFile {
	const id, path = "onnx", "onnx.external.path"
	model := func(parts ...string) string {
		return protoNumber(1, 10) + protoField(7, append(parts, protoField(2, "g"), protoField(12, protoField(1, "y")))...)
	}
	node := func(domain, op string, more ...string) string {
		return protoField(1, protoField(2, "y"), protoField(4, op), strings.Join(more, ""), protoField(7, domain))
	}
	weights := func(location string) string {
		return protoField(5, protoNumber(1, 2), protoNumber(2, 1), protoField(8, "w"),
			protoField(13, protoField(1, "location"), protoField(2, location)), protoNumber(14, 1))
	}
	body := func(inner string) string { return protoField(5, protoField(1, "body"), protoField(6, inner)) }
	return []ModelFile{
		set(predicate.Pass, id, "onnx: plain", model(node("", "Relu"), protoField(5, protoNumber(1, 2), protoNumber(2, 1), protoField(9, floats(2))))),
		set(predicate.Pass, id, "onnx: weights beside", model(weights("model.onnx.data")), "onnx.external.data"),
		set(predicate.Pass, id, "onnx: operator of a function", model(node("mine", "F"))+protoField(25, protoField(1, "F"), protoField(10, "mine"), protoField(7, protoField(4, "Add")))),
		set(predicate.Fail, id, "onnx: weights above", model(weights("../../../etc/passwd")), path),
		set(predicate.Fail, id, "onnx: weights above, further in", model(weights("a/../../b")), path),
		set(predicate.Fail, id, "onnx: weights at a root", model(weights("/etc/passwd")), path),
		set(predicate.Fail, id, "onnx: weights at an address", model(weights("*/_ORT_MEM_ADDR_/*")), path),
		set(predicate.Fail, id, "onnx: weights above, in a subgraph", model(node("", "Loop", body(weights("../x")))), path),
		set(predicate.Fail, id, "onnx: python", model(node("com.microsoft", "PythonOp")), "onnx.op.python"),
		set(predicate.Warn, id, "onnx: own operator", model(node("mine", "F")), "onnx.op.custom"),
		set(predicate.Warn, id, "onnx: own operator in a subgraph", model(node("", "Loop", body(node("mine", "F")))), "onnx.op.custom"),
		gap(set(predicate.Warn, id, "onnx: cut short", model(node("", "Relu"))[:14], "onnx.malformed")),
		gap(set(predicate.Error, id, "onnx: unknown field", model(node("", "Relu", protoField(99, "x"))))),
	}
}

func tensorflowFiles() []ModelFile {
	const saved, graph, path = "tf-saved-model", "tf-graph", "tf.path.outside"
	node := func(name, op string, more ...string) string {
		return protoField(1, protoField(1, name), protoField(2, op), strings.Join(more, ""))
	}
	from := func(name string) string { return protoField(3, name) }
	constant := node("c", "Const", protoField(5, protoField(1, "value"), protoField(2, protoField(8, protoNumber(1, 7), protoField(8, "/etc/passwd")))))
	model := func(nodes ...string) string {
		return protoNumber(1, 1) + protoField(2, protoField(1, protoField(5, "2.21.0")), protoField(2, append([]string{node("x", "Placeholder")}, nodes...)...))
	}
	inFunction := func(op string) string {
		return protoField(2, protoField(1, protoField(1, protoField(1, "f")), protoField(3, protoField(1, "n"), protoField(2, op))))
	}
	keras := func(config string) string {
		return protoField(1, protoNumber(2, 1), protoField(3, "root"), protoField(4, "_tf_keras_layer"), protoField(5, config))
	}
	return []ModelFile{
		set(predicate.Pass, saved, "tensorflow: saved model", model(node("y", "Relu", from("x")))),
		set(predicate.Pass, graph, "tensorflow: frozen graph", node("x", "Placeholder")+node("y", "Relu", from("x"))),
		set(predicate.Fail, saved, "tensorflow: python", model(node("p", "PyFunc")), "tf.op.python"),
		set(predicate.Fail, saved, "tensorflow: python in a function", model(inFunction("EagerPyFunc")), "tf.op.python"),
		set(predicate.Fail, graph, "tensorflow: python in a frozen graph", node("p", "PyFuncStateless"), "tf.op.python"),
		set(predicate.Fail, saved, "tensorflow: writes a file", model(node("w", "WriteFile", from("x"), from("x"))), "tf.op.file.write"),
		set(predicate.Fail, saved, "tensorflow: prints to a file", model(node("w", "PrintV2", protoField(5, protoField(1, "output_stream"), protoField(2, protoField(2, "file:///tmp/x"))))), "tf.op.file.write"),
		set(predicate.Warn, saved, "tensorflow: reads a file", model(node("r", "ReadFile", from("x"))), "tf.op.file.read"),
		set(predicate.Fail, saved, "tensorflow: reads a fixed file", model(constant, node("r", "ReadFile", from("c"))), "tf.op.file.read", path),
		set(predicate.Fail, saved, "tensorflow: restores from a fixed path", model(constant, node("i", "Identity", from("c")), node("r", "RestoreV2", from("i"))), path),
		set(predicate.Fail, saved, "tensorflow: listens", model(node("r", "RpcServer")), "tf.op.network"),
		set(predicate.Warn, saved, "tensorflow: own operator", model(node("r", "MyOwnOp")), "tf.op.custom"),
		set(predicate.Fail, "keras-metadata", "tensorflow: lambda layer", keras(`{"class_name":"Lambda","config":{"function":{"class_name":"__lambda__"}}}`), "keras.code.embedded"),
		gap(set(predicate.Error, saved, "tensorflow: compiled module", model(node("r", "XlaCallModule", protoField(5, protoField(1, "module"), protoField(2, protoField(2, "MLxR"))))))),
		gap(set(predicate.Error, "tf-text", "tensorflow: text format", "node {\n  name: \"p\"\n  op: \"PyFunc\"\n}\n")),
	}
}

func tfliteFiles() []ModelFile {
	const id, bad = "tflite", "tflite.malformed"
	// model is a root at 12 whose list of operators has one: a code and a name.
	model := func(code byte, name string) string {
		return "\x0c\x00\x00\x00TFL3" + "\x00\x00\x00\x00" + // the mark, padding
			"\xf8\xff\xff\xff\x10\x00\x00\x00" + // the root: layout at 20, list at 32
			"\x08\x00\x08\x00\x00\x00\x04\x00\x00\x00\x00\x00" + le32(1) + le32(16) + // operator at 52
			"\x08\x00\x0c\x00\x08\x00\x04\x00\x00\x00\x00\x00" + // its layout at 40
			"\x0c\x00\x00\x00" + le32(8) + string([]byte{code, 0, 0, 0}) + le32(len(name)) + name + "\x00"
	}
	return []ModelFile{
		set(predicate.Pass, id, "tflite: plain", model(0, "")),
		set(predicate.Warn, id, "tflite: own operator", model(32, "MyOwnOp"), "tflite.op.custom"),
		set(predicate.Pass, id, "tflite: operator of TensorFlow", model(32, "FlexRelu"), "tflite.op.flex"),
		set(predicate.Fail, id, "tflite: operator of TensorFlow that writes", model(32, "FlexWriteFile"), "tf.op.file.write", "tflite.op.flex"),
		set(predicate.Fail, id, "tflite: pickle behind", model(0, "")+payload(), ruleHidden, ruleDangerous),
		gap(set(predicate.Warn, id, "tflite: root beyond the end", "\xff\xff\xff\x7fTFL3"+words, bad)),
		gap(set(predicate.Warn, id, "tflite: cut short", model(32, "MyOwnOp")[:60], bad)),
	}
}
