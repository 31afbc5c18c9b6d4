package corpus

import (
	"encoding/binary"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// thriftField is a field of Thrift's compact protocol, as many ids behind the one
// before; thriftStruct is a structure of fields.
func thriftField(delta, kind int, data string) string {
	return string([]byte{byte(delta<<4 | kind)}) + data
}

func thriftStruct(fields ...string) string { return strings.Join(fields, "") + "\x00" }

func thriftInt(delta int, n int) string {
	return thriftField(delta, 6, string(binary.AppendVarint(nil, int64(n))))
}

func thriftInt32(delta int, n int) string {
	return thriftField(delta, 5, string(binary.AppendVarint(nil, int64(n))))
}

func thriftText(s string) string { return string([]byte{byte(len(s))}) + s }

// thriftList is a list of one structure.
func thriftList(delta int, item string) string { return thriftField(delta, 9, "\x1c"+item) }

// parquet is a file of one column with one page of values, stored by a codec, at
// the path of a file beside if there is one.
func parquet(kind, codec int, values, packed, path string) string {
	page := thriftStruct(thriftInt32(1, 0), thriftInt32(1, len(values)), thriftInt32(1, len(packed)),
		thriftField(2, 12, thriftStruct(thriftInt32(1, 1), thriftInt32(1, 0), thriftInt32(1, 3), thriftInt32(1, 3)))) + packed
	meta := thriftStruct(thriftInt32(1, kind), thriftField(1, 9, "\x15\x00"), thriftField(1, 9, "\x18"+thriftText("c")), thriftInt32(1, codec),
		thriftInt(1, 1), thriftInt(1, len(values)), thriftInt(1, len(page)), thriftInt(2, 4))
	column := thriftInt(2, 4) + thriftField(1, 12, meta)
	if path != "" {
		column = thriftField(1, 8, thriftText(path)) + thriftInt(1, 4) + thriftField(1, 12, meta)
	}
	footer := thriftStruct(thriftInt32(1, 1), thriftList(1, thriftStruct(thriftField(4, 8, thriftText("c")))), thriftInt(1, 1),
		thriftList(1, thriftStruct(thriftList(1, column+"\x00"), thriftInt(1, len(page)), thriftInt(1, 1))))
	return "PAR1" + page + footer + le32(len(footer)) + "PAR1"
}

func parquetFiles() []ModelFile {
	const id, pickled, bad = "parquet", "parquet.pickle", "parquet.malformed"
	of := func(values ...string) string {
		var s strings.Builder
		for _, v := range values {
			s.WriteString(le32(len(v)) + v)
		}
		return s.String()
	}
	honest, evil := of("some", "words"), of("some", payload(), "words")
	snappy := func(s string) string {
		return string(binary.AppendUvarint(nil, uint64(len(s)))) + string([]byte{60 << 2, byte(len(s) - 1)}) + s
	}
	plain := func(values string) string { return parquet(6, 0, values, values, "") }
	old := "cos\nsystem\n(S'" + inertWord + "'\ntR." // protocol 0
	return []ModelFile{
		set(predicate.Pass, id, "parquet: plain", plain(honest)),
		set(predicate.Pass, id, "parquet: numbers", parquet(4, 0, floats(4), floats(4), "")),
		set(predicate.Pass, id, "parquet: levels before the values", plain(le32(2)+"\x06\x01"+honest)),
		set(predicate.Pass, id, "parquet: gzip", parquet(6, 2, honest, gzipOf(honest), "")),
		set(predicate.Pass, id, "parquet: snappy", parquet(6, 1, honest, snappy(honest), "")),
		set(predicate.Fail, id, "parquet: a pickle among the values", plain(evil), pickled, ruleDangerous),
		set(predicate.Fail, id, "parquet: a pickle behind levels", plain(le32(2)+"\x06\x01"+evil), pickled, ruleDangerous),
		set(predicate.Fail, id, "parquet: a pickle of protocol 0", plain(of("some", old)), pickled, ruleDangerous),
		set(predicate.Fail, id, "parquet: a pickle in gzip", parquet(6, 2, evil, gzipOf(evil), ""), pickled, ruleDangerous),
		set(predicate.Fail, id, "parquet: a pickle in zstd", parquet(6, 6, evil, zstdOf(evil), ""), pickled, ruleDangerous),
		set(predicate.Fail, id, "parquet: a pickle in snappy", parquet(6, 1, evil, snappy(evil), ""), pickled, ruleDangerous),
		set(predicate.Fail, id, "parquet: a pickle of a fixed length", parquet(7, 0, payload(), payload(), ""), pickled, ruleDangerous),
		gap(set(predicate.Error, id, "parquet: brotli", parquet(6, 4, honest, "packed", ""))),
		gap(set(predicate.Error, id, "parquet: a column in another file", parquet(6, 0, honest, honest, "b.parquet"))),
		gap(set(predicate.Fail, id, "parquet: a column outside", parquet(6, 0, honest, honest, "../"+inertWord), "parquet.path.outside")),
		set(predicate.Fail, id, "parquet: a pickle between the parts", strings.Replace(plain(honest), "words", "words"+payload(), 1), ruleHidden, ruleDangerous),
		gap(set(predicate.Warn, id, "parquet: values that lie", plain(le32(1<<30)+"words"), bad)),
		gap(set(predicate.Warn, id, "parquet: snappy that is none", parquet(6, 1, honest, "\xff\xff\xff\xff\xff", ""), bad)),
		gap(set(predicate.Warn, id, "parquet: cut short", plain(honest)[:60], bad)),
	}
}
