package fleet

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Usage is what the aggregator takes at a moment: its own process and the
// database engine's below it.
type Usage struct {
	// Program and Engine are resident memory, in bytes.
	Program, Engine int64
	// CPU is the processor time of both since they started.
	CPU time.Duration
	// Connections are the program's open sockets, and Threads its threads.
	Connections, Threads int
}

func (u Usage) max(v Usage) Usage {
	return Usage{
		max(u.Program, v.Program), max(u.Engine, v.Engine), max(u.CPU, v.CPU),
		max(u.Connections, v.Connections), max(u.Threads, v.Threads),
	}
}

// ticks is the kernel's USER_HZ, which is 100 on every machine that Linux runs
// Go on.
const ticks = 100

// usage reads /proc. What has gone is not counted.
func (r *run) usage() Usage {
	var u Usage
	pid := r.aggregator.Pid()
	for _, p := range append([]int{pid}, childrenOf(pid)...) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			continue
		}
		// What follows the name, which may hold blanks.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 22 {
			continue
		}
		n := func(i int) int64 { v, _ := strconv.ParseInt(fields[i], 10, 64); return v }
		u.CPU += time.Duration(n(11)+n(12)) * (time.Second / ticks)
		if rss := n(21) * int64(os.Getpagesize()); p == pid {
			u.Program, u.Threads = rss, int(n(17))
		} else {
			u.Engine += rss
		}
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return u
	}
	for _, e := range entries {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			u.Connections++
		}
	}
	return u
}

func childrenOf(pid int) []int {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	var out []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for _, word := range strings.Fields(string(b)) {
			if p, err := strconv.Atoi(word); err == nil {
				out = append(out, p)
			}
		}
	}
	return out
}

// Figure is something that was done, and what it cost the aggregator.
type Figure struct {
	What  string
	Count int
	Took  time.Duration
	// CPU is the aggregator's processor time meanwhile.
	CPU   time.Duration
	After Usage
}

// Rate is how many a second.
func (f Figure) Rate() float64 { return float64(f.Count) / f.Took.Seconds() }

// Result is what a run measured.
type Result struct {
	Agents                               int
	Idle, Peak                           Usage
	Enrol, Online, Steady, Load, Backlog Figure
	// Published is when the brokers had acknowledged the backlog.
	Published time.Duration
	// Latencies are from the signing of a report until the API has it.
	Latencies []time.Duration
	// Signed is what the agents have signed, Present what the aggregator has of
	// it once, Replayed what it got again, and Refused what it did not take.
	Signed, Present, Replayed uint64
	Refused                   int
	// Retries counts the writes that had to be made again, Calls the calls over
	// mutual TLS while the fleet was at rest, and FailedCalls those that came to
	// nothing.
	Retries, Calls, FailedCalls int
}

// Percentile is the latency that p of a hundred reports do not exceed.
func (r *Result) Percentile(p int) time.Duration {
	if len(r.Latencies) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(r.Latencies))
	return sorted[min(len(sorted)*p/100, len(sorted)-1)]
}

// Print writes the tables.
func (r *Result) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(t, format+"\n", args...) } // Flush gives the error
	line("%d agents\tcount\ttook\ta second\tCPU\tCPU each\tmemory after\tengine after\tconnections after", r.Agents)
	for _, f := range []Figure{r.Enrol, r.Online, r.Steady, r.Load, r.Backlog} {
		line("%s\t%d\t%s\t%.0f\t%s\t%s\t%s\t%s\t%d", f.What, f.Count, f.Took.Round(10*time.Millisecond), f.Rate(), f.CPU.Round(10*time.Millisecond),
			(f.CPU / time.Duration(max(f.Count, 1))).Round(time.Microsecond), mega(f.After.Program), mega(f.After.Engine), f.After.Connections)
	}
	line("")
	line("from signing to queryable\tp50 %s\tp95 %s\tp99 %s\tof %d reports", r.Percentile(50).Round(time.Millisecond),
		r.Percentile(95).Round(time.Millisecond), r.Percentile(99).Round(time.Millisecond), len(r.Latencies))
	line("the backlog was acknowledged after\t%s", r.Published.Round(10*time.Millisecond))
	line("memory of the aggregator\tidle %s\tpeak %s\ta connection-less agent %.1f KiB", mega(r.Idle.Program), mega(r.Peak.Program),
		float64(r.Enrol.After.Program-r.Idle.Program)/1024/float64(r.Agents))
	line("connections at a time\t%d\tthreads %d", r.Peak.Connections, r.Peak.Threads)
	line("processors for heartbeats and calls\t%.3f\tof one", r.Steady.CPU.Seconds()/r.Steady.Took.Seconds())
	line("calls over mutual TLS meanwhile\t%d\t%.0f a second\tfailed %d", r.Calls, float64(r.Calls)/r.Steady.Took.Seconds(), r.FailedCalls)
	line("statements\tsigned %d\tpresent %d\tsent again %d\trefused %d", r.Signed, r.Present, r.Replayed, r.Refused)
	line("writes that were repeated\t%d", r.Retries)
	return t.Flush()
}

func mega(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }
