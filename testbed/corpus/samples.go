package corpus

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

const readme = `# Tiny example model

This model exists so that a scanner has something to look at. It isn't of any
other use.

` + "```python\nimport torch\n\nstate = torch.load(\"model.pt\")\n```\n"

// benign files pass, and everything in them is looked at.
func benign() []sample {
	ok := func(path, format, content string, rules []string, imports ...Import) sample {
		return sample{path, []byte(content), format, predicate.Pass, true, rules, imports}
	}
	pickled := []string{"format.unsafe.pickle"}
	ordered := global("collections", "OrderedDict") + ")R"
	return []sample{
		ok("benign/README.md", "text", readme, nil),
		ok("benign/config.json", "json", `{"architectures": ["TinyModel"], "hidden_size": 16, "layers": [1, 2.5e-3, null, true]}`+"\n", nil),
		ok("benign/labels.csv", "text", "id,label\n1,cat\n2,dog\n", nil),
		ok("benign/vocab.txt", "text", "cat\ndog\nin\nthe\ncold\n", nil),
		ok("benign/settings.yaml", "text", "model:\n  hidden_size: 16\n  name: tiny\n", nil),
		ok("benign/code.py", "python", "import json\n\n\ndef load(path):\n    return json.load(open(path))\n", nil),
		ok("benign/.gitattributes", "text", "*.pt filter=lfs diff=lfs merge=lfs -text\n", nil),
		ok("benign/empty", "empty", "", nil),
		ok("benign/pixel.png", "png", string(png()), nil),
		ok("benign/model.pt", "torch-zip", string(zipped(torchMembers(stateDict()))), pickled, tensorImports...),
		ok("benign/state.pkl", "pickle", proto(2)+"}"+binPut(0)+"("+binUnicode("a")+"K\x01"+binUnicode("b")+ordered+"u.", pickled,
			imp("collections", "OrderedDict")),
		ok("benign/state4.pkl", "pickle",
			framed(shortUnicode("collections")+"\x94"+shortUnicode("OrderedDict")+"\x94\x93\x94)R\x94("+shortUnicode("k")+"\x94K\x07u."),
			pickled, impStack("collections", "OrderedDict")),
		ok("benign/state0.pkl", "pickle", "(dp0\nVkey\np1\nI42\ns.", pickled),
		ok("benign/array.pickle", "pickle", proto(3)+numpyArray(), pickled,
			imp("numpy.core.multiarray", "_reconstruct"), imp("numpy", "ndarray"), imp("numpy", "dtype")),
		ok("benign/array.npy", "npy", npy("'<f4'", "(2, 8)", floats(16)), nil),
		ok("benign/arrays.npz", "npz", string(zipped([]member{
			{name: "x.npy", data: npy("'<f4'", "(16,)", floats(16))},
			{name: "y.npy", data: npy("'|u1'", "(3,)", "abc")},
		})), nil),
		ok("benign/no_extension", "pickle", proto(2)+"](K\x01K\x02e.", pickled),
	}
}

// numpyArray is an array of three bytes as pickled by numpy 1.
func numpyArray() string {
	return global("numpy.core.multiarray", "_reconstruct") + global("numpy", "ndarray") + "K\x00\x85C\x01b\x87R" +
		"(K\x01K\x03\x85" + global("numpy", "dtype") + "X\x02\x00\x00\x00u1\x89\x88\x87R" +
		"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89C\x03abctb."
}

// malicious files fail.
func malicious() []sample {
	bad := func(path, format, content string, complete bool, rules []string, imports ...Import) sample {
		return sample{path, []byte(content), format, predicate.Fail, complete, rules, imports}
	}
	danger := []string{"pickle.import.dangerous"}
	word := binUnicode(inertWord)
	system := proto(2) + global("os", "system") + word + "\x85R."
	posix := proto(2) + global("posix", "system") + word + "\x85R."
	eval := proto(2) + "}(" + binUnicode("weight") + global("builtins", "eval") + word + "\x85Ru."
	return []sample{
		bad("malicious/global.pkl", "pickle", system, true, danger, imp("os", "system")),
		bad("malicious/looks_like.json", "pickle", system, true, danger, imp("os", "system")),
		bad("malicious/memo.pkl", "pickle",
			proto(4)+shortUnicode("system")+"\x94"+"0"+shortUnicode("os")+"\x94"+"0"+binGet(1)+binGet(0)+"\x93"+shortUnicode(inertWord)+"\x85R.",
			true, danger, impStack("os", "system")),
		bad("malicious/inst.pkl", "pickle", "(S'"+inertWord+"'\nios\nsystem\n.", true, danger, Import{"os", "system", predicate.ByInst}),
		bad("malicious/protocol0.pkl", "pickle", "cposix\nsystem\np0\n(S'"+inertWord+"'\np1\ntp2\nRp3\n.", true, danger, imp("posix", "system")),
		bad("malicious/python2.pkl", "pickle", "c__builtin__\neval\n(S'"+inertWord+"'\ntR.", true, danger,
			imp("__builtin__", "eval"), imp("builtins", "eval")),
		bad("malicious/model.pt", "torch-zip", string(zipped(torchMembers(eval))), true, danger, imp("builtins", "eval")),
		bad("malicious/duplicate.pt", "torch-zip", string(zipped(append(torchMembers(stateDict()), member{name: "model/data.pkl", data: posix}))), true,
			[]string{"archive.entry.duplicate", "format.unsafe.pickle", "pickle.import.dangerous"}, append([]Import{imp("posix", "system")}, tensorImports...)...),
		bad("malicious/hidden.pt", "torch-zip", string(zipped(torchMembers(stateDict()), member{name: "model/extra.pkl", data: posix})), true,
			[]string{"archive.entry.hidden", "format.unsafe.pickle", "pickle.import.dangerous"}, append([]Import{imp("posix", "system")}, tensorImports...)...),
		bad("malicious/storage.pt", "torch-zip", string(zipped(append(torchMembers(stateDict()), member{name: "model/data/2", data: posix}))), true,
			[]string{"format.unsafe.pickle", "pickle.import.dangerous"}, append([]Import{imp("posix", "system")}, tensorImports...)...),
		bad("malicious/escape.zip", "zip", string(zipped([]member{{name: "../outside.txt", data: "Some words.\n"}})), true, []string{"archive.entry.path"}),
		bad("malicious/objects.npz", "npz", string(zipped([]member{
			{name: "x.npy", data: npy("'<f4'", "(16,)", floats(16))},
			{name: "o.npy", data: npy("'|O'", "(1,)", posix)},
		})), true, []string{"numpy.object.array", "pickle.import.dangerous"}, imp("posix", "system")),
		bad("malicious/nested.zip", "zip", string(zipped([]member{{name: "inner.pt", data: string(zipped(torchMembers(eval)))}})), true, danger, imp("builtins", "eval")),
		bad("malicious/broken.pkl", "pickle", proto(2)+global("os", "system")+word+"\x85R\xff\xff\xff", false,
			[]string{"pickle.import.dangerous", "pickle.malformed"}, imp("os", "system")),
		bad("malicious/second_stream.pkl", "pickle", proto(2)+"N."+posix, true, danger, imp("posix", "system")),
		bad("malicious/computed.pkl", "pickle",
			proto(4)+global("builtins", "str")+shortUnicode("os")+"\x85R"+shortUnicode("system")+"\x93"+shortUnicode(inertWord)+"\x85R.", true,
			[]string{"pickle.import.dangerous", "pickle.import.unresolved"}, imp("builtins", "str"), Import{"os", "system", predicate.ByComputed}),
		bad("malicious/class_state.pkl", "pickle", proto(2)+global("collections", "OrderedDict")+"}"+binUnicode("a")+"K\x01sb.", true,
			[]string{"pickle.state.global"}, imp("collections", "OrderedDict")),
		bad("malicious/frame.pkl", "pickle",
			proto(4)+"\x95"+le64(1<<40)+shortUnicode("os")+shortUnicode("system")+"\x93"+shortUnicode(inertWord)+"\x85R.", true,
			[]string{"pickle.import.dangerous", "pickle.malformed"}, impStack("os", "system")),
	}
}

// suspicious files get a warning.
func suspicious() []sample {
	warn := func(path, format, content string, complete bool, rules []string, imports ...Import) sample {
		return sample{path, []byte(content), format, predicate.Warn, complete, rules, imports}
	}
	own := proto(2) + global("mymodel.layers", "Attention") + ")\x81}b."
	return []sample{
		warn("suspicious/own_class.pkl", "pickle", own, true, []string{"pickle.import.unknown"}, imp("mymodel.layers", "Attention")),
		warn("suspicious/extension.pkl", "pickle", proto(2)+"\x82\x05.", true, []string{"pickle.extension"}),
		warn("suspicious/truncated.pkl", "pickle", proto(2)+"}("+binUnicode("weight")+"K", false, []string{"pickle.malformed"}),
		warn("suspicious/short.npy", "npy", npy("'<f4'", "(99,)", floats(4)), false, []string{"numpy.malformed"}),
		warn("suspicious/truncated.pt", "zip", string(zipped(torchMembers(stateDict()))[:900]), false,
			[]string{"archive.malformed", "format.unsafe.pickle"}, tensorImports...),
	}
}

// incomplete files have nothing bad in what can be looked at, and never pass.
func incomplete() []sample {
	gap := func(path, format, content string, rules []string, imports ...Import) sample {
		return sample{path, []byte(content), format, predicate.Error, false, rules, imports}
	}
	random := make([]byte, 512)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	random[0] = 0xff // no format begins so, and no opcode is it
	return []sample{
		gap("incomplete/random.bin", "unknown", string(random), nil),
		gap("incomplete/runs.db", "sqlite", "SQLite format 3\x00"+strings.Repeat("\x00", 32), nil),
		gap("incomplete/model.ggml", "ggml", "lmgg"+strings.Repeat("\x00", 32), nil),
		gap("incomplete/model.h5", "hdf5", hdf5Filtered(), nil),
		gap("incomplete/code.py", "python", "import json\nx = = json.load(open('x'))\n", []string{"python.unparsed"}),
		gap("incomplete/run.sh", "script", "#!/bin/sh\ntrue\n", []string{"executable.script"}),
		gap("incomplete/page.html", "html", "<!doctype html>\n<title>Model</title>\n", nil),
		gap("incomplete/page.jinja", "jinja", "<html>{% for m in messages %}{{ m.content }}{% endfor %}</html>\n", nil),
		gap("incomplete/drawing.svg", "svg", "<svg xmlns='http://www.w3.org/2000/svg'></svg>\n", nil),
		gap("incomplete/trailing.pkl", "pickle", proto(2)+"N.\x00\x00\x00\x00", []string{"format.unsafe.pickle", "pickle.trailing.data"}),
		gap("incomplete/trailing.png", "png", string(png())+"more bytes", nil),
		gap("incomplete/unknown_member.zip", "zip", string(zipped([]member{{name: "blob", data: string(random)}, {name: "note.txt", data: "Some words.\n"}})), nil),
	}
}

// kind makes one small file: number i, random content.
type kind func(i int, rng *rand.Rand) sample

// harmlessKinds pass; otherKinds do not.
var harmlessKinds = []kind{
	func(i int, rng *rand.Rand) sample {
		text := fmt.Sprintf("# Model %d\n\nThis model has the number %d.\n", i, rng.Uint64())
		return sample{fmt.Sprintf("%06d.md", i), []byte(text), "text", predicate.Pass, true, nil, nil}
	},
	func(i int, rng *rand.Rand) sample {
		text := fmt.Sprintf(`{"model": %d, "seed": %d}`, i, rng.Uint32())
		return sample{fmt.Sprintf("%06d.json", i), []byte(text), "json", predicate.Pass, true, nil, nil}
	},
	func(i int, rng *rand.Rand) sample {
		pkl := proto(2) + "](" + binInt(i) + binUnicode(fmt.Sprint(rng.Uint64())) + "e."
		return sample{fmt.Sprintf("%06d.pkl", i), []byte(pkl), "pickle", predicate.Pass, true, []string{"format.unsafe.pickle"}, nil}
	},
	func(i int, rng *rand.Rand) sample {
		members := append(torchMembers(stateDict()), member{name: "model/data/2", data: fmt.Sprintf("\x00\x00%016d", rng.Uint64()>>12)})
		return sample{fmt.Sprintf("%06d.pt", i), zipped(members), "torch-zip", predicate.Pass, true, []string{"format.unsafe.pickle"}, tensorImports}
	},
	func(i int, rng *rand.Rand) sample {
		return sample{fmt.Sprintf("%06d.npy", i), []byte(npy("'<u8'", "(2,)", le64(i)+le64(int(rng.Uint32())))), "npy", predicate.Pass, true, nil, nil}
	},
}

var otherKinds = []kind{
	func(i int, rng *rand.Rand) sample {
		word := fmt.Sprintf("%s-%d-%d", inertWord, i, rng.Uint32())
		pkl := proto(2) + global("os", "system") + binUnicode(word) + "\x85R."
		return sample{fmt.Sprintf("%06d.bin", i), []byte(pkl), "pickle", predicate.Fail, true, []string{"pickle.import.dangerous"}, []Import{imp("os", "system")}}
	},
	func(i int, rng *rand.Rand) sample {
		name := fmt.Sprintf("Layer%d_%d", i, rng.Uint32())
		pkl := proto(2) + global("mymodel.layers", name) + ")\x81."
		return sample{fmt.Sprintf("%06d.ckpt", i), []byte(pkl), "pickle", predicate.Warn, true, []string{"pickle.import.unknown"}, []Import{imp("mymodel.layers", name)}}
	},
	func(i int, rng *rand.Rand) sample {
		return sample{fmt.Sprintf("%06d.dat", i), []byte("\xff\xfe\x00" + le64(i) + le64(int(rng.Uint32()))), "unknown", predicate.Error, false, nil, nil}
	},
}
