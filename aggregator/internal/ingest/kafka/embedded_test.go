package kafka_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	embedded "github.com/cavra/cavra/aggregator/internal/embedded/kafka"
)

// The embedded broker runs in a child of the test, which is this binary again,
// so that it can be killed as a process is.
const (
	childDir  = "CAVRA_TEST_EMBEDDED_KAFKA_DIR"
	childPort = "CAVRA_TEST_EMBEDDED_KAFKA_PORT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := serveEmbedded(dir, os.Getenv(childPort)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// serveEmbedded prints the broker's address, then answers commands from standard
// input until that ends.
func serveEmbedded(dir, port string) error {
	cfg := embedded.Default()
	cfg.Dir, cfg.Superuser, cfg.Password = dir, adminUser, adminPassword
	var err error
	if cfg.Port, err = strconv.Atoi(port); err != nil {
		return err
	}
	b, err := embedded.New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	select {
	case <-b.Ready():
	case err := <-done:
		return err
	}
	fmt.Println(b.Addr())
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		f := strings.Fields(in.Text())
		partition, err1 := strconv.Atoi(f[1])
		before, err2 := strconv.ParseInt(f[2], 10, 64)
		fmt.Println(errors.Join(err1, err2, b.TrimBefore(f[0], partition, before)))
	}
	cancel()
	return <-done
}

type embeddedBroker struct {
	dir, addr string
	cmd       *exec.Cmd
	in        io.WriteCloser
	out       *bufio.Reader
}

func startEmbedded(t *testing.T) *embeddedBroker {
	t.Helper()
	b := &embeddedBroker{dir: t.TempDir()}
	b.Start(t)
	t.Cleanup(func() {
		if err := errors.Join(b.in.Close(), b.cmd.Wait()); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *embeddedBroker) Addr() string { return b.addr }

func (b *embeddedBroker) Start(t *testing.T) { t.Helper(); b.start(t) }

func (b *embeddedBroker) start(t testing.TB) {
	t.Helper()
	port := "0"
	if b.addr != "" {
		_, port, _ = net.SplitHostPort(b.addr)
	}
	b.cmd = exec.Command(os.Args[0])
	b.cmd.Env = append(os.Environ(), childDir+"="+b.dir, childPort+"="+port)
	b.cmd.Stderr = os.Stderr
	in, err1 := b.cmd.StdinPipe()
	out, err2 := b.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, b.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	b.in, b.out = in, bufio.NewReader(out)
	b.addr = b.line(t)
}

func (b *embeddedBroker) line(t testing.TB) string {
	t.Helper()
	line, err := b.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func (b *embeddedBroker) Kill(t *testing.T) {
	t.Helper()
	if err := b.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = b.cmd.Wait() // says that it was killed
}

func (b *embeddedBroker) Trim(t *testing.T, topic string, partition int, before int64) {
	t.Helper()
	fmt.Fprintln(b.in, topic, partition, before)
	if answer := b.line(t); answer != "<nil>" {
		t.Fatal(answer)
	}
}

func TestEmbeddedBroker(t *testing.T) { conform(t, startEmbedded(t)) }
