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
	return slices.Concat(torchEnds())
}

func torchEnds() []ModelFile {
	entries := []zipEntry{stored("m/data.pkl", harmless()), stored("m/version", "3\n")}
	const id, unsafe = "torch-zip", "format.unsafe.pickle"
	return []ModelFile{
		set(predicate.Pass, id, "torch: both kinds of end", bothEnds(entries, 0), unsafe),
		set(predicate.Warn, id, "torch: ends that disagree", bothEnds(entries, 1), unsafe, ruleMalformed),
	}
}
