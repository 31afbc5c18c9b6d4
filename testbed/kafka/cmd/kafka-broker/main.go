// Command kafka-broker runs an Apache Kafka for the tests of modules that cannot
// import its launcher. It prints the broker's address, then obeys the commands
// "kill", "stop" and "start" on standard input, one a line, and answers each with
// "ok" or the error. When the input ends it stops the broker.
//
// The administrator's password comes from CAVRA_TEST_KAFKA_PASSWORD.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/cavra/cavra/testbed/kafka"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "kafka-broker:", err)
		os.Exit(1)
	}
}

func run() error {
	cfg := kafka.Config{Password: os.Getenv("CAVRA_TEST_KAFKA_PASSWORD")}
	flag.StringVar(&cfg.Dir, "dir", "", "folder for data and output")
	flag.StringVar(&cfg.User, "user", "", "the administrator's name")
	flag.IntVar(&cfg.Port, "port", 0, "port for clients; 0 takes a free one")
	flag.Parse()
	var err error
	if cfg.Cache, err = kafka.DefaultCache("."); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b, err := kafka.Start(ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Println(b.Addr())
	return errors.Join(obey(ctx, b, os.Stdin, os.Stdout), b.Stop())
}

func obey(ctx context.Context, b *kafka.Broker, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var err error
		switch lines.Text() {
		case "kill":
			err = b.Kill()
		case "stop":
			err = b.Stop()
		case "start":
			err = b.Restart(ctx)
		default:
			err = fmt.Errorf("no such command: %q", lines.Text())
		}
		answer := "ok"
		if err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		if _, err := fmt.Fprintln(out, answer); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
	return lines.Err()
}
