package tensorflow_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

// block is a block of a table with its trailer; entries are keys and values.
func block(entries ...string) string {
	var b []byte
	for i := 0; i < len(entries); i += 2 {
		b = append(b, 0, byte(len(entries[i])), byte(len(entries[i+1])))
		b = append(b, entries[i]+entries[i+1]...)
	}
	b = append(b, 0, 0, 0, 0, 1, 0, 0, 0, 0)
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return string(binary.LittleEndian.AppendUint32(b, (sum>>15|sum<<17)+0xa282ead8))
}

func handle(at, size int) string {
	return string(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(at)), uint64(size-5)))
}

// table is an index of one block, with something before the index's own.
func table(data, hidden string) string {
	meta := block()
	index := block("~", handle(0, len(data)))
	end := handle(len(data), len(meta)) + handle(len(data)+len(meta)+len(hidden), len(index))
	return data + meta + hidden + index + end + string(make([]byte, 40-len(end))) + "\x57\xfb\x80\x8b\x24\x75\x47\xdb"
}

// overlapping is an index that names the same block again and again.
func overlapping() string {
	data, meta := block("w", number(5, 8)), block()
	var entries []string
	for range 9 {
		entries = append(entries, "~", handle(0, len(data)))
	}
	index := block(entries...)
	end := handle(len(data), len(meta)) + handle(len(data)+len(meta), len(index))
	return data + meta + index + end + string(make([]byte, 40-len(end))) + "\x57\xfb\x80\x8b\x24\x75\x47\xdb"
}

func TestCheckpointIndex(t *testing.T) {
	header := number(1, 1) + field(3, number(1, 1))
	entry := number(1, 1) + field(2, field(2, number(1, 2))) + number(5, 8) + "\x35abcd"
	plain := table(block("", header, "w", entry), "")
	const id = "tf-checkpoint-index"
	tests := []struct{ name, content, want string }{
		{"plain", plain, id},
		{"name that climbs", table(block("", header, "../w", entry), ""), id + " tensor.name.path"},
		{"key of a slice", table(block("", header, "\x00\x01w", entry), ""), id},
		{"unknown field", table(block("", header, "w", entry+field(30, "x")), ""), id + " incomplete"},
		{"negative size", table(block("", header, "w", number(5, 1<<64-1)), ""), id + " tf.malformed"},
		{"broken entry", table(block("", header, "w", "\x0f"), ""), id + " incomplete tf.malformed"},
		{"pickle between blocks", table(block("", header), "\x80\x02cos\nsystem\nU\x01x\x85R."), id + " archive.entry.hidden pickle.import.dangerous"},
		{"wrong checksum", string(bytes.Replace([]byte(plain), []byte("abcd"), []byte("abce"), 1)), id + " tf.malformed"},
		{"blocks that overlap", overlapping(), id + " incomplete tf.malformed"},
		{"nothing but the end", string(make([]byte, 40)) + plain[len(plain)-8:], id + " incomplete tf.malformed"},
		{"block beyond the end", string(bytes.Repeat([]byte{0x7f}, 40)) + plain[len(plain)-8:], id + " incomplete tf.malformed"},
	}
	for _, tt := range tests {
		if got := brief(scan(t, []byte(tt.content))); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
