// Command fleet simulates a fleet of agents against one aggregator on this
// machine and prints what it measured. Every statement is accounted for; a run
// that loses one fails.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cavra/cavra/testbed/fleet"
	"github.com/cavra/cavra/testbed/stack"
)

func main() {
	var cfg fleet.Config
	bin := flag.String("bin", "bin", "folder of the built programs")
	flag.StringVar(&cfg.Dir, "dir", "", "a folder to keep what the aggregator writes; a temporary one unless it is given")
	flag.IntVar(&cfg.Agents, "agents", 10_000, "how many agents")
	flag.DurationVar(&cfg.Heartbeat, "heartbeat", time.Minute, "time between an agent's signs of life")
	flag.DurationVar(&cfg.CheckIn, "check-in", time.Minute, "time between an agent's calls over mutual TLS")
	flag.DurationVar(&cfg.Steady, "steady", 2*time.Minute, "how long the fleet does nothing but that")
	flag.IntVar(&cfg.Load, "load", 64, "how many agents report at a time, under load")
	flag.DurationVar(&cfg.LoadTime, "load-time", 30*time.Second, "how long they do")
	flag.IntVar(&cfg.Backlog, "backlog", 10, "how many reports each agent has waiting after an outage")
	flag.DurationVar(&cfg.Limit, "limit", 40*time.Minute, "what the whole run may take")
	flag.Parse()
	cfg.Programs = stack.Programs(*bin)
	began := time.Now()
	cfg.Progress = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%5.0fs "+format+"\n", append([]any{time.Since(began).Seconds()}, args...)...)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, cfg)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg fleet.Config) (err error) {
	bin, err := filepath.Abs(string(cfg.Programs))
	if err != nil {
		return err
	}
	cfg.Programs = stack.Programs(bin)
	if err := cfg.Programs.Check(); err != nil {
		return err
	}
	if cfg.Dir == "" {
		if cfg.Dir, err = os.MkdirTemp("", "cavra-fleet-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(cfg.Dir)) }()
	}
	result, err := fleet.Run(ctx, cfg)
	if err != nil {
		return err
	}
	return result.Print(os.Stdout)
}
