package corpus

import (
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// bothEnds ends an archive as torch 2.15 does: by the records of zip64,
// and by a plain end record that says the same, moved by as much as is asked for.
func bothEnds(entries []zipEntry, moved int) string {
	plain, long := rawZip(entries, func(e *zipEnd) { e.count -= moved }), zip64Of(entries, "")
	return long[:strings.LastIndex(long, "PK\x05\x06")] + plain[strings.LastIndex(plain, "PK\x05\x06"):]
}

// torchFiles are archives of the kinds that torch writes.
func torchFiles() []ModelFile {
	return slices.Concat(torchEnds(), torchModules(), torchScripts(), exportedPrograms())
}

func torchEnds() []ModelFile {
	entries := []zipEntry{stored("m/data.pkl", harmless()), stored("m/version", "3\n")}
	const id, unsafe = "torch-zip", "format.unsafe.pickle"
	return []ModelFile{
		set(predicate.Pass, id, "torch: both kinds of end", bothEnds(entries, 0), unsafe),
		set(predicate.Warn, id, "torch: ends that disagree", bothEnds(entries, 1), unsafe, ruleMalformed),
	}
}

// torchModules are modules that were saved whole: zip archives, whose line feeds
// make a stream of what follows the first of them, and files of before, in which
// a persistent id gives a class with its source.
func torchModules() []ModelFile {
	const unsafe = "format.unsafe.pickle"
	linear := global("torch.nn.modules.linear", "Linear")
	state := ")\x81}(" + binUnicode("bias") + global("collections", "OrderedDict") + ")R" + "ub."
	lines := func(class string) string {
		// As torch writes it: what the sizes are stands behind the data, so that
		// the local header is ASCII, as the line of a PERSID has to be.
		return rawZip([]zipEntry{stored("model/data.pkl", proto(2)+class+state).with(func(e *zipEntry) {
			f := e.local
			e.descriptor = "PK\x07\x08" + le32(f.sum) + le32(f.packed) + le32(f.raw)
			e.local.sum, e.local.packed, e.local.raw, e.local.flags, e.central.flags = 0, 0, 0, 8, 8
		})})
	}
	source := func(class string) string {
		id := "(" + binUnicode("module") + class + binUnicode("m.py") + binUnicode("class M: pass") + "tQ"
		file := string(LegacyTorch("", "", "", proto(2)+id+state, proto(2)+"]."))
		return strings.TrimSuffix(file, le64(16)+floats(16)) // there is no storage
	}
	return []ModelFile{
		set(predicate.Pass, "torch-zip", "torch: a module by lines", lines(linear), unsafe),
		set(predicate.Warn, "torch-zip", "torch: a class that nobody knows", lines(global("elsewhere", "Module")), "pickle.import.unknown"),
		set(predicate.Pass, "pickle", "legacy torch: a class with its source", source(linear), unsafe),
		set(predicate.Warn, "pickle", "legacy torch: an unknown class with its source", source(global("elsewhere", "Module")), "pickle.import.unknown"),
		set(predicate.Fail, "pickle", "legacy torch: a function as a class with its source", source(global("os", "system")), ruleDangerous),
	}
}

// torchScripts are archives of torch.jit.save, whose source torch compiles, and of
// torch.package, whose Python it runs.
func torchScripts() []ModelFile {
	const unsafe, id = "format.unsafe.pickle", "torchscript"
	const source = "class M(Module):\n  __parameters__ = [\"w\", ]\n  w : Tensor\n  def forward(self: __torch__.M,\n    x: Tensor) -> Tensor:\n    _0 = "
	instance := func(module, class string) string { return proto(2) + global(module, class) + ")\x81}b." }
	script := func(code string) string {
		return rawZip([]zipEntry{stored("m/data.pkl", instance("__torch__", "M")), stored("m/code/__torch__.py", code), stored("m/constants.pkl", proto(2)+"(t.")})
	}
	body := func(expression string) string { return script(source + expression + "\n    return _0\n") }
	pack := func(entries ...zipEntry) string {
		return rawZip(append([]zipEntry{stored("m/.data/extern_modules", "torch\n"), stored("m/.data/0.storage", floats(4)), stored("m/o/o.pkl", instance("net", "Net"))}, entries...))
	}
	return []ModelFile{
		set(predicate.Pass, id, "TorchScript", body("torch.add(x, torch.relu_(CONSTANTS.c0))"), unsafe),
		set(predicate.Fail, id, "TorchScript that saves", body("torch.save(x, \"/tmp/x\")"), "torch.op.file", unsafe),
		set(predicate.Fail, id, "TorchScript that maps a file", body("ops.aten.from_file(\"/etc/hostname\")"), "torch.op.file", unsafe),
		set(predicate.Fail, id, "TorchScript that saves by a method", body("(x).save(\"f\")"), "torch.op.file", unsafe),
		set(predicate.Fail, id, "TorchScript that calls Python", body("^inert(1)(x)"), "torch.op.python", unsafe),
		set(predicate.Fail, id, "TorchScript that calls others", body("rpc_sync(\"w\", x, ())"), "torch.op.network", unsafe),
		set(predicate.Warn, id, "TorchScript with an operator of a library", body("ops.mine.fused(x)"), "torch.op.custom", unsafe),
		set(predicate.Pass, id, "TorchScript with an operator of a known library", body("ops.torchvision.nms(x, x, 0.5)"), "torch.op.library", unsafe),
		set(predicate.Warn, id, "TorchScript with an operator nobody knows", body("torch.no_such(x)"), "torch.op.unknown", unsafe),
		set(predicate.Warn, id, "TorchScript without its class", script("def f(x: Tensor) -> Tensor:\n  return x\n"), "pickle.import.unknown", unsafe),
		set(predicate.Warn, "torch-zip", "TorchScript's class without source", rawZip([]zipEntry{stored("m/data.pkl", instance("__torch__", "M"))}), "pickle.import.unknown"),
		partial(set(predicate.Fail, id, "TorchScript that is Python", script("import os\nos.system('"+inertWord+"')\n"), "torchscript.malformed", "pickle.import.unknown", "python.call.dangerous", unsafe)),
		set(predicate.Warn, "torch-package", "torch.package", pack(stored("m/net.py", "class Net:\n    pass\n")), "torch.package.code", unsafe),
		set(predicate.Fail, "torch-package", "torch.package that runs a command", pack(stored("m/net.py", "import os\nos.system('"+inertWord+"')\n")), "torch.package.code", "python.call.dangerous", unsafe),
		set(predicate.Warn, "torch-package", "torch.package with an import from elsewhere", pack(), "pickle.import.unknown"),
		set(predicate.Fail, "torch-package", "torch.package with a module of a known name", rawZip([]zipEntry{stored("m/.data/extern_modules", "\n"),
			stored("m/o/o.pkl", proto(2)+callSystem+"."), stored("m/os.py", "x = 1\n")}), "torch.package.code", ruleDangerous),
	}
}

// partial is a file of which not all is understood.
func partial(f ModelFile) ModelFile {
	f.Complete = false
	return f
}

// exportedPrograms are archives of torch.export.save.
func exportedPrograms() []ModelFile {
	const id = "torch-export"
	weights := func(size string) string {
		return `{"config": {"w": {"path_name": "weight_0", "is_param": true, "use_pickle": false, "tensor_meta": {"dtype": 7, "sizes": [{"as_int": ` + size + `}]}}}}`
	}
	program := func(target, size, guard string) string {
		return `{"graph_module": {"graph": {"nodes": [{"target": ` + inJSON(target) + `, "inputs": []}], "sym_int_values": {"s": {"as_expr": {"expr_str": ` +
			inJSON(size) + `, "hint": {"as_int": 4}}}}}}, "guards_code": [` + inJSON(guard) + `]}`
	}
	archive := func(model string, more ...zipEntry) string {
		return rawZip(append([]zipEntry{stored("m/archive_format", "pt2"), stored("m/models/model.json", model)}, more...))
	}
	const relu, size, guard = "torch.ops.aten.relu.default", "FloorDiv(Symbol('s7', positive=True, integer=True), 2) + Max(s1, 4)", "L['x'].size()[0] >= 2"
	raw := func(n int, size string) []zipEntry {
		return []zipEntry{stored("m/data/weights/weight_0", floats(n)), stored("m/data/weights/model_weights_config.json", weights(size))}
	}
	ok := program(relu, size, guard)
	return []ModelFile{
		set(predicate.Pass, id, "exported program", archive(ok, raw(4, "4")...)),
		set(predicate.Pass, id, "exported program that adds sizes", archive(program("_operator.add", size, guard))),
		set(predicate.Fail, id, "exported program that calls a module's function", archive(program("torch.serialization.os.system", size, guard)), "torch.export.target"),
		set(predicate.Fail, id, "exported program that calls an operator's attribute", archive(program("torch.ops.aten.relu.default.__globals__", size, guard)), "torch.export.target"),
		set(predicate.Fail, id, "exported program that maps a file", archive(program("torch.ops.aten.from_file.default", size, guard)), "torch.op.file"),
		set(predicate.Warn, id, "exported program with an operator of a library", archive(program("torch.ops.mine.fused.default", size, guard)), "torch.op.custom"),
		set(predicate.Fail, id, "exported program with code for a size", archive(program(relu, "__import__('os').system('"+inertWord+"')", guard)), "torch.export.expression"),
		set(predicate.Fail, id, "exported program with an attribute in a size", archive(program(relu, "s0.func", guard)), "torch.export.expression"),
		set(predicate.Fail, id, "exported program with a guard that runs", archive(program(relu, size, "L['x'].__class__.__mro__")), "torch.export.guard"),
		partial(set(predicate.Error, id, "exported program with weights of another size", archive(ok, raw(4, "5")...))),
		partial(set(predicate.Fail, id, "exported program with native code", archive(ok, stored("m/data/aotinductor/m/m.so", "\x7fELF\x02\x01\x01")), "torch.export.native")),
	}
}
