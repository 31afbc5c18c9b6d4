// Command bench measures CAVRA against what a reader can check it by, on the
// machine that it runs on, and prints one table: the pickle scanner against
// picklescan over the same file, a large checkpoint against `openssl dgst`, a
// tree of small files against cat, and verified ingest into the embedded engine.
// Every figure is measured in this run; a figure that could not be is an error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/cavra/cavra/testbed/stack"
)

func main() {
	var b bench
	bin := flag.String("bin", "bin", "folder of the built programs")
	flag.StringVar(&b.cache, "cache", ".cache/bench", "folder for the reference scanner's virtual environment")
	flag.DurationVar(&b.limit, "limit", 8*time.Minute, "what the whole run may take")
	peers := flag.Bool("peers", false, "compare detection with other scanners instead")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := b.run(ctx, *bin, *peers, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	cache    string
	limit    time.Duration
	programs stack.Programs
	dir      string
	rows     []row
	// peers are lines of the other table: files, scanner, outcomes, cost.
	peers [][4]string
}

// row is a line of the table.
type row struct{ what, ours, theirs, ratio, how string }

func (b *bench) run(ctx context.Context, bin string, peers bool, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, b.limit, fmt.Errorf("the run took longer than %s", b.limit))
	defer cancel()
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if b.cache, err = filepath.Abs(b.cache); err != nil {
		return err
	}
	b.programs = stack.Programs(bin)
	if err := b.programs.Check(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "cavra-bench-"); err != nil {
		return err
	}
	defer func() {
		if removed := os.RemoveAll(b.dir); err == nil {
			err = removed
		}
	}()
	if peers {
		return errors.Join(b.comparePeers(ctx), b.printPeers(out))
	}
	return b.measureAll(ctx, out)
}

func (b *bench) printPeers(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(t, "files\tscanner\toutcomes\ttime and memory\n") // Flush gives the error
	for _, r := range b.peers {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r[0], r[1], r[2], r[3])
	}
	return t.Flush()
}

func (b *bench) measureAll(ctx context.Context, out io.Writer) error {
	for _, m := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"pickle opcodes, against picklescan", b.pickle},
		{"a torch zip of 1 GiB, against openssl", b.torch},
		{"trees of 10,000 small files, against cat", b.trees},
		{"verified ingest", b.ingest},
	} {
		began := time.Now()
		if err := m.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if _, err := fmt.Fprintf(out, "measured: %s (%s)\n", m.name, time.Since(began).Round(time.Second)); err != nil {
			return err
		}
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(t, "\nwhat\tCAVRA\treference\tratio\thow\n") // Flush gives the error
	for _, r := range b.rows {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.what, r.ours, r.theirs, r.ratio, r.how)
	}
	return t.Flush()
}

// median is the middle of an odd number of figures.
func median[T int64 | float64 | time.Duration](of []T) T {
	for i := range of {
		for j := i; j > 0 && of[j] < of[j-1]; j-- {
			of[j], of[j-1] = of[j-1], of[j]
		}
	}
	return of[len(of)/2]
}

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)
