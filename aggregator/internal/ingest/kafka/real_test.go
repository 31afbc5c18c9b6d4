//go:build kafka

package kafka_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// realBroker is an Apache Kafka that testbed's kafka-broker runs for us: this
// module does not import the testbed.
type realBroker struct {
	addr string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

func startReal(t *testing.T) *realBroker {
	t.Helper()
	program := t.TempDir() + "/kafka-broker"
	build := exec.Command("go", "build", "-C", "../../../../testbed", "-o", program, "./kafka/cmd/kafka-broker")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build kafka-broker: %v\n%s", err, out)
	}
	b := &realBroker{cmd: exec.Command(program, "-dir", t.TempDir(), "-user", adminUser)}
	b.cmd.Env = append(os.Environ(), "CAVRA_TEST_KAFKA_PASSWORD="+adminPassword)
	b.cmd.Stderr = os.Stderr
	in, err1 := b.cmd.StdinPipe()
	out, err2 := b.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, b.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	b.in, b.out = in, bufio.NewReader(out)
	t.Cleanup(func() {
		if err := errors.Join(b.in.Close(), b.cmd.Wait()); err != nil {
			t.Error(err)
		}
	})
	b.addr = b.line(t)
	return b
}

func (b *realBroker) line(t *testing.T) string {
	t.Helper()
	line, err := b.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func (b *realBroker) command(t *testing.T, what string) {
	t.Helper()
	if _, err := fmt.Fprintln(b.in, what); err != nil {
		t.Fatal(err)
	}
	if answer := b.line(t); answer != "ok" {
		t.Fatalf("%s: %s", what, answer)
	}
}

func (b *realBroker) Addr() string       { return b.addr }
func (b *realBroker) Kill(t *testing.T)  { t.Helper(); b.command(t, "kill") }
func (b *realBroker) Start(t *testing.T) { t.Helper(); b.command(t, "start") }

// Trim uses franz-go, since kafka-go has no DeleteRecords.
func (b *realBroker) Trim(t *testing.T, topic string, partition int, before int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.SASL(scram.Auth{User: adminUser, Pass: adminPassword}.AsSha256Mechanism()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	req := kmsg.NewPtrDeleteRecordsRequest()
	rt, rp := kmsg.NewDeleteRecordsRequestTopic(), kmsg.NewDeleteRecordsRequestTopicPartition()
	rp.Partition, rp.Offset = int32(partition), before
	rt.Topic, rt.Partitions = topic, append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	req.TimeoutMillis = 10_000
	res, err := req.RequestWith(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if code := res.Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Fatalf("delete records: error %d", code)
	}
}

func TestApacheKafka(t *testing.T) { conform(t, startReal(t)) }
