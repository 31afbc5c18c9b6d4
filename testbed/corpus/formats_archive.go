package corpus

import (
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// archiveFiles are models in archives of single frameworks: TorchServe's and
// NeMo's.
func archiveFiles() []ModelFile {
	const custom, dangerous, outside, requirements = "torchserve.handler.custom", "torchserve.handler.dangerous", "torchserve.path.outside", "torchserve.requirements"
	mar := func(model string, members ...zipEntry) string {
		manifest := `{"createdOn":"1/1/2025","runtime":"python","archiverVersion":"0.12.0","model":{` + model + `,"modelName":"m","modelVersion":"1.0"}}`
		return rawZip(append([]zipEntry{stored("MAR-INF/MANIFEST.json", manifest)}, members...))
	}
	const quiet = "def go(data, context):\n    return data\n"
	const loud = "import os\n\n\ndef handle(data, context):\n    os.system('" + inertWord + "')\n"
	nemo := func(config, weights string) string {
		return tarEntry("./model_config.yaml", config) + tarEntry("./model_weights.ckpt", weights) + strings.Repeat("\x00", 1024)
	}
	const target = "encoder:\n  _target_: nemo.collections.asr.modules.ConvASREncoder\n"
	return []ModelFile{
		set(predicate.Pass, "zip", "torchserve: a handler of the server", mar(`"handler":"image_classifier","serializedFile":"m.safetensors"`)),
		set(predicate.Pass, "zip", "torchserve: a handler of its own", mar(`"handler":"h.py:go"`, stored("h.py", quiet)), custom),
		set(predicate.Fail, "zip", "torchserve: a handler that runs a command", mar(`"handler":"h.py"`, stored("h.py", loud)), custom, "python.call.use"),
		set(predicate.Fail, "zip", "torchserve: a handler that is a command", mar(`"handler":"subprocess:call"`), dangerous),
		set(predicate.Fail, "zip", "torchserve: weights outside", mar(`"handler":"image_classifier","serializedFile":"../../m.pt"`), outside),
		set(predicate.Warn, "zip", "torchserve: packages to install", mar(`"handler":"image_classifier","requirementsFile":"requirements.txt"`), requirements),
		set(predicate.Fail, "zip", "torchserve: a pickle for weights", mar(`"handler":"image_classifier","serializedFile":"m.pt"`, stored("m.pt", payload())), ruleDangerous),
		set(predicate.Fail, "tar", "nemo: a target that runs a command", nemo("x:\n  _target_: os.system\n", ""), "repository.target.dangerous"),
		set(predicate.Fail, "tar", "nemo: a pickle for weights", nemo(target, payload()), ruleDangerous),
	}
}
