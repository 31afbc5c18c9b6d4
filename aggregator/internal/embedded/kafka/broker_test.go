package kafka_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/scram"
	"go.uber.org/goleak"

	"github.com/cavra/cavra/aggregator/internal/embedded/kafka"
	ingest "github.com/cavra/cavra/aggregator/internal/ingest/kafka"
)

const (
	superuser = "aggregator"
	password  = "password-of-aggregator"
	statement = "cavra.statements"
	childDir  = "CAVRA_TEST_KAFKA_CHILD_DIR"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		cfg := config(dir)
		b, err := kafka.New(cfg)
		if err == nil {
			done := make(chan error, 1)
			go func() { done <- b.Run(context.Background()) }()
			select {
			case <-b.Ready():
				fmt.Println(b.Addr())
			case err = <-done:
			}
			if err == nil {
				err = <-done // never comes: the parent kills us
			}
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func config(dir string) kafka.Config {
	cfg := kafka.Default()
	cfg.Dir, cfg.Superuser, cfg.Password = dir, superuser, password
	cfg.Topics = []kafka.Topic{{Name: statement, Partitions: 2}}
	cfg.MaxMessageBytes = 1 << 20
	return cfg
}

// start runs a broker in this process until stop is called.
func start(t *testing.T, cfg kafka.Config) (b *kafka.Broker, stop func()) {
	t.Helper()
	b, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	select {
	case <-b.Ready():
	case err := <-done:
		stopped = true
		cancel()
		t.Fatal(err)
	}
	return b, stop
}

func transport(t *testing.T, user, pass string) *kafkago.Transport {
	t.Helper()
	mech, err := scram.Mechanism(scram.SHA256, user, pass)
	if err != nil {
		t.Fatal(err)
	}
	tr := &kafkago.Transport{SASL: mech, MetadataTTL: time.Second}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func write(t *testing.T, addr, user, pass string, partition int, values ...string) error {
	t.Helper()
	return writeVia(t, transport(t, user, pass), addr, partition, values...)
}

func writeVia(t *testing.T, tr *kafkago.Transport, addr string, partition int, values ...string) error {
	t.Helper()
	w := &kafkago.Writer{
		Addr: kafkago.TCP(addr), Topic: statement, RequiredAcks: kafkago.RequireAll, BatchTimeout: time.Millisecond, BatchSize: 1,
		MaxAttempts: 1, Transport: tr,
		Balancer: kafkago.BalancerFunc(func(kafkago.Message, ...int) int { return partition }),
	}
	var msgs []kafkago.Message
	for _, v := range values {
		msgs = append(msgs, kafkago.Message{Value: []byte(v)})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := w.WriteMessages(ctx, msgs...)
	var each kafkago.WriteErrors // which does not unwrap
	if errors.As(err, &each) {
		err = errors.Join(each...)
	}
	return errors.Join(err, w.Close())
}

func client(addr, user, pass string) ingest.Config {
	cfg := ingest.Default()
	cfg.Brokers, cfg.Topic, cfg.GroupID = []string{addr}, statement, "group"
	cfg.SASL = ingest.SASL{Mechanism: ingest.ScramSHA256, Username: user, Password: pass}
	cfg.Timeout, cfg.StallTimeout = 5*time.Second, 5*time.Second
	return cfg
}

func reader(t *testing.T, cfg ingest.Config, partition int) *ingest.Partition {
	t.Helper()
	c, err := ingest.NewConsumer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := c.Partition(partition)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		c.Close()
	})
	return p
}

func admin(t *testing.T, addr string) *ingest.Admin {
	t.Helper()
	a, err := ingest.NewAdmin(client(addr, superuser, password))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func bounds(t *testing.T, addr string, partition int) [2]int64 {
	t.Helper()
	start, end, err := reader(t, client(addr, superuser, password), partition).Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return [2]int64{start, end}
}

// TestKill kills the process while it takes writes, again and again: every
// acknowledged one is there afterwards, once, and an agent's login still works.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	var acked []string
	for round := range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		addr := strings.TrimSpace(line)
		if round == 0 {
			if err := admin(t, addr).EnsureAgent(t.Context(), "agent-1", "password-of-agent-1"); err != nil {
				t.Fatal(err)
			}
		}
		if got := readAll(t, addr); !isSuperset(got, acked) {
			t.Fatalf("round %d: %d acknowledged writes, %d in the log, or in another order", round, len(acked), len(got))
		}
		// The kill comes while writes are under way.
		tr := transport(t, "agent-1", "password-of-agent-1")
		killed := make(chan error, 1)
		for i := 0; ; i++ {
			if i == 25 {
				go func() { killed <- cmd.Process.Kill() }()
			}
			v := fmt.Sprintf("round %d write %d", round, i)
			if err := writeVia(t, tr, addr, 0, v); err != nil {
				break
			}
			acked = append(acked, v)
		}
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // says that it was killed
	}
	if len(acked) < 100 {
		t.Fatalf("only %d writes were acknowledged", len(acked))
	}
}

func readAll(t *testing.T, addr string) []string {
	t.Helper()
	r, err := reader(t, client(addr, superuser, password), 0).ReadBatch(t.Context(), 0, 100_000, 64<<20, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range r.Messages {
		out = append(out, string(m.Value))
	}
	return out
}

// isSuperset reports whether log holds every acknowledged value in order, and
// between them only such as were not acknowledged.
func isSuperset(log, acked []string) bool {
	i := 0
	for _, v := range log {
		if i < len(acked) && v == acked[i] {
			i++
		}
	}
	return i == len(acked)
}

func TestRestartKeepsPortLoginsAndRules(t *testing.T) {
	cfg := config(t.TempDir())
	b, stop := start(t, cfg)
	addr := b.Addr()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin(t, addr).EnsureAgent(t.Context(), "agent-1", "password-of-agent-1"); err != nil {
		t.Fatal(err)
	}
	if err := write(t, addr, "agent-1", "password-of-agent-1", 1, "before"); err != nil {
		t.Fatal(err)
	}
	stop()
	if b.Addr() != "" {
		t.Errorf("a stopped broker has the address %s", b.Addr())
	}

	if cfg.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	cfg.Password = "the aggregator's new password"
	cfg.Topics = append(cfg.Topics, kafka.Topic{Name: "added.later", Partitions: 3})
	b, _ = start(t, cfg)
	if b.Addr() != addr {
		t.Errorf("address %s after the restart, was %s", b.Addr(), addr)
	}
	if err := write(t, addr, "agent-1", "password-of-agent-1", 1, "after"); err != nil {
		t.Errorf("agent after the restart: %v", err)
	}
	r, err := reader(t, client(addr, superuser, cfg.Password), 1).ReadExactly(t.Context(), 0, 2)
	if err != nil || string(r.Messages[0].Value) != "before" || string(r.Messages[1].Value) != "after" {
		t.Errorf("with the new password: %v", err)
	}
	if _, err := reader(t, client(addr, superuser, password), 1).ReadExactly(t.Context(), 0, 2); !errors.Is(err, kafkago.SASLAuthenticationFailed) {
		t.Errorf("with the old password: %v", err)
	}
	later := client(addr, superuser, cfg.Password)
	later.Topic = "added.later"
	if _, _, err := reader(t, later, 2).Bounds(t.Context()); err != nil {
		t.Errorf("topic that was added to the configuration: %v", err)
	}
}

func TestTrimFreesDiskAndKeepsOffsets(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.SegmentBytes = 64 << 10
	b, stop := start(t, cfg)
	big := strings.Repeat("x", 20<<10)
	for range 6 {
		if err := write(t, b.Addr(), superuser, password, 0, big, big, big, big, big); err != nil {
			t.Fatal(err)
		}
	}
	before := diskBytes(t, cfg.Dir)
	if err := b.TrimBefore(statement, 0, 31); err == nil {
		t.Error("trimmed beyond the end of the log")
	}
	if err := b.TrimBefore(statement, 0, 20); err != nil {
		t.Fatal(err)
	}
	if got := bounds(t, b.Addr(), 0); got != [2]int64{20, 30} {
		t.Errorf("log is %v, want [20 30]", got)
	}
	middle := diskBytes(t, cfg.Dir)
	if err := b.TrimBefore(statement, 0, 30); err != nil {
		t.Fatal(err)
	}
	after := diskBytes(t, cfg.Dir)
	if middle > before/2 || after > before/4 {
		t.Errorf("log takes %d bytes, then %d, then %d", before, middle, after)
	}
	if got := bounds(t, b.Addr(), 0); got != [2]int64{29, 30} {
		t.Errorf("log is %v, want [29 30]: the last batch stays", got)
	}
	stop()
	b, _ = start(t, cfg)
	if got := bounds(t, b.Addr(), 0); got != [2]int64{29, 30} {
		t.Errorf("log is %v after the restart, want [29 30]", got)
	}
	if err := b.TrimBefore("none", 0, 1); err == nil || !strings.Contains(err.Error(), "no such partition") {
		t.Errorf("unknown topic: %v", err)
	}
}

func diskBytes(t *testing.T, dir string) (total int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		total += info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return total
}

func TestDiskLimitRefusesWritesUntilTrimmed(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.MaxDiskBytes, cfg.SegmentBytes = 2<<20, 128<<10
	b, _ := start(t, cfg)
	tr := transport(t, superuser, password)
	big := strings.Repeat("x", 100<<10)
	written := int64(0)
	for ; written < 100; written++ {
		if err := writeVia(t, tr, b.Addr(), 0, big); errors.Is(err, kafkago.KafkaStorageError) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if written < 15 || written > 20 || diskBytes(t, cfg.Dir) > cfg.MaxDiskBytes {
		t.Fatalf("%d writes of 100 KiB went into 2 MiB, %d bytes on disk", written, diskBytes(t, cfg.Dir))
	}
	if got := bounds(t, b.Addr(), 0); got != [2]int64{0, written} {
		t.Fatalf("log is %v after %d acknowledged writes", got, written)
	}
	if err := b.TrimBefore(statement, 0, written); err != nil {
		t.Fatal(err)
	}
	end := time.NewTimer(10 * time.Second)
	defer end.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := writeVia(t, tr, b.Addr(), 0, big)
		if err == nil {
			return
		}
		select {
		case <-end.C:
			t.Fatalf("still refused after the trim: %v", err)
		case <-tick.C:
		}
	}
}

func TestInUse(t *testing.T) {
	cfg := config(t.TempDir())
	b, _ := start(t, cfg)
	run := func(cfg kafka.Config) error {
		second, err := kafka.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return second.Run(t.Context())
	}
	if err := run(cfg); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("folder in use: %v", err)
	}
	_, port, err := net.SplitHostPort(b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	other := config(t.TempDir())
	if other.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	if err := run(other); err == nil || !strings.Contains(err.Error(), "127.0.0.1:"+port+": the port is in use") {
		t.Errorf("port in use: %v", err)
	}
}

func TestNewReportsEveryMistake(t *testing.T) {
	_, err := kafka.New(kafka.Config{Port: 70_000, Topics: []kafka.Topic{{Name: "t"}}})
	var got []string
	for line := range strings.Lines(fmt.Sprint(err)) {
		got = append(got, strings.TrimSpace(line))
	}
	want := []string{
		"embedded kafka: folder: none given",
		"embedded kafka: port 70000: want 0 to 65535",
		"embedded kafka: superuser: needs a name and a password of at least 16 characters",
		`embedded kafka: topic "t" with 0 partitions: want a name and 1 to 1024`,
		"embedded kafka: message limit of 0 bytes: want 1 KiB to 64 MiB",
		"embedded kafka: segments of 0 bytes: want 1 KiB to 1 GiB",
		"embedded kafka: connection limit of 0: want at least 1",
		"embedded kafka: login time of 0s: want some",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	b, err := kafka.New(config(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.TrimBefore(statement, 0, 1); !errors.Is(err, kafka.ErrNotRunning) {
		t.Errorf("trim before Run: %v", err)
	}
}

func TestTLS(t *testing.T) {
	cert, pool := certificate(t)
	cfg := config(t.TempDir())
	cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	b, _ := start(t, cfg)
	secure := client(b.Addr(), superuser, password)
	secure.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	a, err := ingest.NewAdmin(secure)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	if err := a.EnsureAgent(t.Context(), "agent-1", "password-of-agent-1"); err != nil {
		t.Fatal(err)
	}
	tr := transport(t, "agent-1", "password-of-agent-1")
	tr.TLS = secure.TLS
	if err := writeVia(t, tr, b.Addr(), 0, "over tls"); err != nil {
		t.Fatal(err)
	}
	if r, err := reader(t, secure, 0).ReadExactly(t.Context(), 0, 1); err != nil || len(r.Messages) != 1 {
		t.Errorf("read: %+v, %v", r, err)
	}
	plain := client(b.Addr(), superuser, password)
	plain.Timeout, plain.StallTimeout = time.Second, time.Second
	if _, err := reader(t, plain, 0).ReadBatch(t.Context(), 0, 1, 1, 0); err == nil {
		t.Error("a client without TLS was served")
	}
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
