package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cavra/cavra/schemas/report"
)

// denseItems is how many entries the measured pickle has; each has seven
// opcodes. modelaudit stops at a million opcodes, so that it gets a smaller one,
// and we the same.
const (
	denseItems      = 1_000_000
	denseItemsSmall = 140_000
)

// pickle scans a dense pickle with us and picklescan, and a smaller one with us
// and modelaudit.
func (b *bench) pickle(ctx context.Context) error {
	picklescan := func(venv, file string) []string {
		return []string{filepath.Join(venv, "bin", "picklescan"), "-p", file}
	}
	modelaudit := func(venv, file string) []string {
		return []string{filepath.Join(venv, "bin", "modelaudit"), "scan", file}
	}
	if err := b.dense(ctx, "pickle", "picklescan", denseItems, picklescan); err != nil {
		return err
	}
	return b.dense(ctx, "smaller pickle", "modelaudit", denseItemsSmall, modelaudit)
}

// dense scans one dense pickle with us and a peer.
func (b *bench) dense(ctx context.Context, what, peer string, items int, command func(venv, file string) []string) error {
	dir, err := os.MkdirTemp(b.dir, "pickle")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "dense.pkl")
	ops, err := writeDense(file, items)
	if err != nil {
		return err
	}
	venv, err := b.installPeer(ctx, peer)
	if err != nil {
		return err
	}
	if err := warm(dir); err != nil {
		return err
	}
	ours, runs, err := b.scans(ctx, dir)
	if err != nil {
		return err
	}
	if err := b.complete(ours.stdout); err != nil {
		return err
	}
	run := command(venv, file)
	theirs, err := measure(ctx, []int{0}, peerEnv, run[0], run[1:]...)
	if err != nil {
		return err
	}
	rate := func(c cost) float64 { return float64(ops) / c.wall.Seconds() }
	size, err := os.Stat(file)
	if err != nil {
		return err
	}
	how := fmt.Sprintf("%d opcodes in %d MiB, whole programs; ours the %s", ops, size.Size()/mib, runs)
	b.rows = append(b.rows,
		row{what, fmt.Sprintf("%.2f M opcodes/s", rate(ours)/1e6), fmt.Sprintf("%.2f M opcodes/s (%s)", rate(theirs)/1e6, peer), fmt.Sprintf("%.1f times", rate(ours)/rate(theirs)), how},
		row{what + ", peak memory", fmt.Sprintf("%d MiB", ours.memory/mib), fmt.Sprintf("%d MiB (%s)", theirs.memory/mib, peer), fmt.Sprintf("%.2f of it", float64(ours.memory)/float64(theirs.memory)), "resident, summed over all processes of each"})
	return nil
}

// patience is how long one scan may take and still be done three times.
const patience = 30 * time.Second

// scans runs `cavra scan` over a folder three times, or once when that takes
// longer than patience. The wall time is the median; how says which it was.
func (b *bench) scans(ctx context.Context, dir string) (_ cost, how string, _ error) {
	var last cost
	var walls []time.Duration
	how = "median of 3"
	for range 3 {
		c, err := measure(ctx, []int{0}, nil, b.programs.Cavra(), "scan", "--quiet", "--format", "json", "--fail-on", "never", "--allow-incomplete", dir)
		if err != nil {
			return cost{}, "", err
		}
		c.memory = max(c.memory, last.memory)
		last = c
		walls = append(walls, c.wall)
		if c.wall > patience {
			how = "one run"
			break
		}
	}
	last.wall = median(walls)
	return last, how, nil
}

// complete checks that a scan looked at every byte: a fast scan of half a file
// is no figure.
func (b *bench) complete(stdout []byte) error {
	var r report.Report
	if err := json.Unmarshal(stdout, &r); err != nil {
		return fmt.Errorf("read report: %w", err)
	}
	if !r.Summary.Complete {
		return errors.New("the scan was not complete, so its time says nothing")
	}
	return nil
}

// writeDense writes a pickle of n small entries, as dense in opcodes as real
// vocabularies and configurations are, and counts the opcodes.
func writeDense(name string, n int) (ops int, err error) {
	f, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	w := bufio.NewWriterSize(f, mib)
	put := func(s string) {
		ops++
		_, _ = w.WriteString(s) // Flush gives the error
	}
	put("\x80\x02")
	put("}")
	put("q\x00")
	const batch = 1000
	for i := range n {
		if i%batch == 0 {
			put("(")
		}
		key := fmt.Sprintf("t%07d", i)
		put("X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(key)))) + key)
		put("r" + string(binary.LittleEndian.AppendUint32(nil, uint32(2*i+1))))
		put("J" + string(binary.LittleEndian.AppendUint32(nil, uint32(i))))
		put("K\x01")
		put("\x88")
		put("\x87")
		put("r" + string(binary.LittleEndian.AppendUint32(nil, uint32(2*i+2))))
		if i%batch == batch-1 || i == n-1 {
			put("u")
		}
	}
	put(".")
	return ops, errors.Join(w.Flush(), f.Close())
}
