package corpus

import (
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// coreMLModel is a specification with a description and a model of a kind.
func coreMLModel(kind int, body ...string) string {
	return protoNumber(1, 6) + protoField(2, protoField(1, protoField(1, "x"))) + protoField(kind, body...)
}

// coreMLWeights is the file of weights beside a program, with entries of the data.
func coreMLWeights(data ...string) string {
	s := le32(len(data)) + le32(2) + zeros(56)
	for _, d := range data {
		s += zeros((64 - len(s)%64) % 64)
		s += le32(0xdeadbeef) + le32(2) + le64(len(d)) + le64(len(s)+64) + zeros(40) + d
	}
	return s
}

func coremlFiles() []ModelFile {
	const id, custom, outside, linked, bad = "coreml", "coreml.op.custom", "coreml.path.outside", "coreml.model.linked", "coreml.malformed"
	layer := func(kind int, body ...string) string {
		return protoField(1, protoField(1, "l"), protoField(kind, body...))
	}
	value := func(file string) string { return protoField(5, protoField(1, file), protoNumber(2, 64)) }
	operation := func(kind, file string) string {
		entry := protoField(5, protoField(1, "val"), protoField(2, value(file)))
		block := protoField(2, protoField(1, "CoreML6"), protoField(2, protoField(3, protoField(1, kind), entry)))
		function := protoField(2, protoField(1, "main"), protoField(2, strings.Replace(block, "\x12", "\x1a", 1)))
		return coreMLModel(502, protoNumber(1, 1), function)
	}
	const weights = "@model_path/weights/weight.bin"
	return []ModelFile{
		set(predicate.Pass, id, "coreml: a network", coreMLModel(500, layer(140, protoNumber(1, 4)))),
		set(predicate.Pass, id, "coreml: a program", operation("const", weights)),
		set(predicate.Warn, id, "coreml: a layer of a class", coreMLModel(500, layer(500, protoField(10, "Mine"))), custom),
		set(predicate.Warn, id, "coreml: a model of a class", coreMLModel(555, protoField(10, "Mine")), custom),
		set(predicate.Warn, id, "coreml: a model in a pipeline", coreMLModel(202, protoField(1, coreMLModel(555, protoField(10, "Mine")))), custom),
		set(predicate.Warn, id, "coreml: a linked model", coreMLModel(556, protoField(1, protoField(1, protoField(1, "other.mlmodelc")))), linked),
		set(predicate.Fail, id, "coreml: a linked model outside", coreMLModel(556, protoField(1, protoField(1, protoField(1, "../other.mlmodelc")))), linked, outside),
		set(predicate.Warn, id, "coreml: an operation of nobody", operation("unheard", weights), custom),
		set(predicate.Fail, id, "coreml: weights outside", operation("const", "@model_path/../../"+inertWord), outside),
		set(predicate.Fail, id, "coreml: weights at an absolute path", operation("const", "/"+inertWord), outside),
		gap(set(predicate.Error, id, "coreml: what only Apple reads", coreMLModel(2000, protoNumber(1, 1), protoField(100, "data")))),
		gap(set(predicate.Warn, id, "coreml: cut short", coreMLModel(500, layer(140, protoNumber(1, 4)))[:18], bad)),
		set(predicate.Pass, "coreml-weights", "coreml: weights", coreMLWeights(floats(20), floats(3))),
		set(predicate.Fail, "coreml-weights", "coreml: pickle behind the weights", coreMLWeights(floats(16))+payload(), ruleHidden, ruleDangerous),
		gap(set(predicate.Warn, "coreml-weights", "coreml: weights longer than the file", strings.Replace(coreMLWeights(floats(16)), le64(64), le64(1<<40), 1), bad)),
		set(predicate.Pass, "json", "coreml: a manifest", `{"fileFormatVersion":"1.0.0","itemInfoEntries":{"A":{"path":"com.apple.CoreML/model.mlmodel"}},"rootModelIdentifier":"A"}`),
		set(predicate.Fail, "json", "coreml: a manifest that leads outside", `{"fileFormatVersion":"1.0.0","itemInfoEntries":{"A":{"path":"../../model.mlmodel"}},"rootModelIdentifier":"A"}`, outside),
	}
}
