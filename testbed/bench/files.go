package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/report"
	"github.com/cavra/cavra/testbed/corpus"
)

// torch scans a checkpoint with one storage of a GiB, and hashes it.
func (b *bench) torch(ctx context.Context) error {
	dir := filepath.Join(b.dir, "torch")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, "model.pt")
	if err := writeTorch(file, gib); err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the whole folder is removed at the end
	read := func() error {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, f)
		return errors.Join(err, f.Close())
	}
	if err := read(); err != nil {
		return err
	}
	const times = 3
	var hashes []time.Duration
	for range times {
		c, err := measure(ctx, []int{0}, nil, "openssl", "dgst", "-sha256", file)
		if err != nil {
			return err
		}
		hashes = append(hashes, c.wall)
	}
	ours, runs, err := b.scans(ctx, dir)
	if err != nil {
		return err
	}
	if err := b.complete(ours.stdout); err != nil {
		return err
	}
	theirs := median(hashes)
	rate := func(d time.Duration) string {
		return fmt.Sprintf("%s, %.0f MiB/s", d.Round(10*time.Millisecond), gib/d.Seconds()/mib)
	}
	b.rows = append(b.rows, row{"torch zip of 1 GiB", rate(ours.wall), rate(theirs) + " (openssl dgst -sha256)",
		fmt.Sprintf("%.2f of its time", ours.wall.Seconds()/theirs.Seconds()), "warm cache, " + runs + ", digest and checksum of every byte"})
	return nil
}

// treeFiles is the size of the tree of small files.
const treeFiles = 10_000

// trees scans many small files, and reads them with cat. Each malicious file
// costs a new scanner process, since the one that read it is not trusted with
// another; so a harmless tree and a hostile one are measured apart.
func (b *bench) trees(ctx context.Context) error {
	err := b.tree(ctx, "harmless", corpus.WriteManyHarmless)
	return errors.Join(err, b.tree(ctx, "mixed", corpus.WriteMany))
}

func (b *bench) tree(ctx context.Context, name string, write func(dir string, n int, seed uint64) (corpus.Manifest, error)) error {
	dir := filepath.Join(b.dir, name)
	manifest, err := write(dir, treeFiles, 1)
	if err != nil {
		return err
	}
	if err := warm(dir); err != nil {
		return err
	}
	const times = 3
	var reads []time.Duration
	for range times {
		c, err := measure(ctx, []int{0}, nil, "sh", "-c", `find "$1" -type f -exec cat {} + | wc -c`, "sh", dir)
		if err != nil {
			return err
		}
		reads = append(reads, c.wall)
	}
	ours, runs, err := b.scans(ctx, dir)
	if err != nil {
		return err
	}
	if err := agrees(ours.stdout, dir, manifest); err != nil {
		return err
	}
	theirs := median(reads)
	rate := func(d time.Duration) string {
		return fmt.Sprintf("%s, %.0f files/s", d.Round(10*time.Millisecond), treeFiles/d.Seconds())
	}
	what := fmt.Sprintf("%s tree of %d small files, %d of them malicious", name, treeFiles, manifest.Verdicts()[predicate.Fail])
	b.rows = append(b.rows, row{what, rate(ours.wall), rate(theirs) + " (find and cat)",
		fmt.Sprintf("%.1f times its time", ours.wall.Seconds()/theirs.Seconds()), "warm cache, " + runs + ", every verdict checked"})
	return nil
}

// agrees compares a scan's verdicts with what was written.
func agrees(stdout []byte, dir string, manifest corpus.Manifest) error {
	var r report.Report
	if err := json.Unmarshal(stdout, &r); err != nil {
		return fmt.Errorf("read report: %w", err)
	}
	if len(r.Artifacts) != len(manifest.Files) {
		return fmt.Errorf("%d files were written and %d reported", len(manifest.Files), len(r.Artifacts))
	}
	want := make(map[string]predicate.Verdict, len(manifest.Files))
	for _, f := range manifest.Files {
		want[filepath.Join(dir, filepath.FromSlash(f.Path))] = f.Verdict
	}
	for _, a := range r.Artifacts {
		if a.Verdict != want[a.Path] {
			return fmt.Errorf("%s was written to be %q and is reported as %q: %s%v", a.Path, want[a.Path], a.Verdict, a.Message, a.Findings)
		}
	}
	return nil
}

// writeTorch writes an archive as torch.save does, with one storage of so many
// random bytes.
func writeTorch(name string, storage int) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	le16 := func(n int) string { return string(binary.LittleEndian.AppendUint16(nil, uint16(n))) }
	le32 := func(n int) string { return string(binary.LittleEndian.AppendUint32(nil, uint32(n))) }
	text := func(s string) string { return "X" + le32(len(s)) + s }
	id := "(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + "J" + le32(storage/4) + "tQ"
	pickle := "\x80\x02}q\x00(" + text("weight") + "ctorch._utils\n_rebuild_tensor_v2\n(" + id + "K\x00" + "J" + le32(storage/4) +
		"\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRu."
	w := bufio.NewWriterSize(f, mib)
	at := 0
	put := func(s string) {
		at += len(s)
		_, _ = w.WriteString(s) // Flush gives the error
	}
	var directory string
	members := []struct{ name, data string }{{"model/data.pkl", pickle}, {"model/byteorder", "little"}, {"model/data/0", ""}, {"model/version", "3\n"}}
	for _, m := range members {
		size, sum := len(m.data), crc32.ChecksumIEEE([]byte(m.data))
		if m.data == "" {
			size, sum = storage, 0
			for block := range blocks(storage) {
				sum = crc32.Update(sum, crc32.IEEETable, block)
			}
		}
		start := at
		fields := le16(0) + le16(0) + le32(0) + le32(int(sum)) + le32(size) + le32(size) + le16(len(m.name))
		pad := (64 - (at+30+len(m.name)+4)%64) % 64
		put("PK\x03\x04" + le16(20) + fields + le16(4+pad) + m.name + "FB" + le16(pad))
		put(string(make([]byte, pad)))
		if m.data != "" {
			put(m.data)
		} else {
			for block := range blocks(storage) {
				at += len(block)
				_, _ = w.Write(block)
			}
		}
		directory += "PK\x01\x02" + le16(20) + le16(20) + fields + le16(0) + le16(0) + le16(0) + le16(0) + le32(0) + le32(start) + m.name
	}
	start := at
	put(directory)
	put("PK\x05\x06" + le16(0) + le16(0) + le16(len(members)) + le16(len(members)) + le32(len(directory)) + le32(start) + le16(0))
	return w.Flush()
}

// blocks yields so many random bytes, the same each time.
func blocks(n int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		rng := rand.NewChaCha8([32]byte{1})
		block := make([]byte, mib)
		for left := n; left > 0; left -= len(block) {
			block = block[:min(len(block), left)]
			_, _ = rng.Read(block) // it never fails
			if !yield(block) {
				return
			}
		}
	}
}
