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
	return slices.Concat(torchEnds(), torchModules())
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
