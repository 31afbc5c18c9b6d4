package aggregator

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/cavra/cavra/aggregator/internal/config"
	"github.com/cavra/cavra/aggregator/internal/embedded/clickhouse/enginetest"
	"github.com/cavra/cavra/aggregator/internal/enrol"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/enrol/v1/enrolv1connect"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }

// whole is a running aggregator with everything embedded.
type whole struct {
	tb    testing.TB
	at    Address
	token string
	stop  func()
}

func start(tb testing.TB, dir string, with ...func(*config.Config)) *whole {
	tb.Helper()
	set := config.Default()
	for _, w := range with {
		w(&set)
	}
	set.Agents.Listen = "127.0.0.1:0"
	set.Listen, set.Embedded.Dir, set.Embedded.KafkaPort, set.Embedded.EngineLibrary = "127.0.0.1:0", dir, 0, enginetest.Library(tb)
	a, err := New(Config{Settings: set, Version: "test", Log: slog.New(slog.NewTextHandler(tb.Output(), nil))})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended, started := make(chan error, 1), make(chan Address, 1)
	go func() { ended <- a.Run(ctx, func(at Address) { started <- at }) }()
	w := &whole{tb: tb}
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("run: %v", err)
		}
	}
	tb.Cleanup(w.stop)
	select {
	case w.at = <-started:
	case err := <-ended:
		stopped = true
		cancel()
		tb.Fatalf("start: %v", err)
	}
	if w.token, err = config.Secret(filepath.Join(dir, "admin.token")); err != nil {
		tb.Fatal(err)
	}
	return w
}

// post asks the API, and wants a status.
func (w *whole) post(path, body string, want int, out any) {
	w.tb.Helper()
	req, err := http.NewRequestWithContext(w.tb.Context(), http.MethodPost, w.at.URL+path, strings.NewReader(body))
	if err != nil {
		w.tb.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(w.token))
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.tb.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		w.tb.Fatal(err)
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != want {
		w.tb.Fatalf("POST %s: %d %s", path, res.StatusCode, b.String())
	}
	if out != nil {
		if err := json.Unmarshal(b.Bytes(), out); err != nil {
			w.tb.Fatal(err)
		}
	}
}

// enrol enrols a new agent, or the given one anew.
func (w *whole) enrol(agent string) *enrolv1.EnrolResponse {
	w.tb.Helper()
	var made struct{ Token string }
	w.post("/v1/join-tokens", `{"ttl_seconds":60,"agent":"`+agent+`"}`, http.StatusCreated, &made)
	key, err := identity.Generate(predicate.Ed25519)
	if err != nil {
		w.tb.Fatal(err)
	}
	der, err := key.Public().DER()
	if err != nil {
		w.tb.Fatal(err)
	}
	proof, err := key.Sign(enrol.Proof(made.Token))
	if err != nil {
		w.tb.Fatal(err)
	}
	res, err := enrolv1connect.NewEnrolmentServiceClient(http.DefaultClient, w.at.URL).Enrol(w.tb.Context(), connect.NewRequest(&enrolv1.EnrolRequest{
		JoinToken: made.Token, PublicKey: der, Algorithm: string(predicate.Ed25519), Proof: proof, AgentVersion: "0.1.0",
	}))
	if err != nil {
		w.tb.Fatal(err)
	}
	return res.Msg
}

// writer writes to the embedded broker as an agent does.
func (w *whole) writer(access *enrolv1.KafkaAccess) *kafkago.Writer {
	w.tb.Helper()
	mechanism, err := scram.Mechanism(scram.SHA256, access.GetUsername(), access.GetPassword())
	if err != nil {
		w.tb.Fatal(err)
	}
	out := &kafkago.Writer{
		Addr: kafkago.TCP(w.at.Kafka), Topic: access.GetTopic(), RequiredAcks: kafkago.RequireAll,
		BatchTimeout: time.Millisecond, MaxAttempts: 1, Transport: &kafkago.Transport{SASL: mechanism},
	}
	if access.GetTls() {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(access.GetCaPem()))
		out.Transport = &kafkago.Transport{SASL: mechanism, TLS: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}}
	}
	w.tb.Cleanup(func() {
		if err := out.Close(); err != nil {
			w.tb.Error(err)
		}
	})
	return out
}

func write(tb testing.TB, w *kafkago.Writer) error {
	err := w.WriteMessages(tb.Context(), kafkago.Message{Value: []byte("{}")})
	var each kafkago.WriteErrors
	if errors.As(err, &each) {
		return errors.Join(each...)
	}
	return err
}

// TestARevokedAgentIsKeptOffTheBroker: on the connection that it has, on a new
// one, and after the aggregator was started again; and enrolled anew it is back.
func TestARevokedAgentIsKeptOffTheBroker(t *testing.T) {
	dir := t.TempDir()
	w := start(t, dir)
	agent, other := w.enrol(""), w.enrol("")
	connected := w.writer(agent.GetKafka())
	if err := write(t, connected); err != nil {
		t.Fatal(err)
	}
	w.post("/v1/agents/"+agent.GetAgent()+"/revoke", "", http.StatusNoContent, nil)
	if err := write(t, connected); !errors.Is(err, kafkago.TopicAuthorizationFailed) {
		t.Errorf("on its open connection: %v", err)
	}
	if err := write(t, w.writer(agent.GetKafka())); !errors.Is(err, kafkago.SASLAuthenticationFailed) {
		t.Errorf("on a new connection: %v", err)
	}
	w.stop()
	w = start(t, dir)
	if err := write(t, w.writer(agent.GetKafka())); !errors.Is(err, kafkago.SASLAuthenticationFailed) {
		t.Errorf("after a restart: %v", err)
	}
	if err := write(t, w.writer(other.GetKafka())); err != nil {
		t.Errorf("another agent: %v", err)
	}
	if err := write(t, w.writer(w.enrol(agent.GetAgent()).GetKafka())); err != nil {
		t.Errorf("enrolled anew: %v", err)
	}
}

// TestTheEmbeddedBrokerOverTLS: agents are given the authority that its
// certificate is of, and nobody is served without.
func TestTheEmbeddedBrokerOverTLS(t *testing.T) {
	w := start(t, t.TempDir(), func(c *config.Config) { c.Embedded.TLS = true })
	access := w.enrol("").GetKafka()
	if err := write(t, w.writer(access)); err != nil {
		t.Errorf("an agent: %v", err)
	}
	plain := &enrolv1.KafkaAccess{Topic: access.GetTopic(), Username: access.GetUsername(), Password: access.GetPassword()}
	if err := write(t, w.writer(plain)); err == nil {
		t.Error("it was served in the clear")
	}
	// The aggregator itself reads over TLS as well: what was written is taken in,
	// and refused for what it is.
	deadline := time.Now().Add(time.Minute)
	for {
		var list struct {
			Refused []struct{ Reason string }
		}
		w.get("/v1/quarantine?unattributed=true", &list)
		if len(list.Refused) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("what was written has not been taken in within a minute")
		}
		<-time.After(50 * time.Millisecond)
	}
}

// get asks the API.
func (w *whole) get(path string, out any) {
	w.tb.Helper()
	req, err := http.NewRequestWithContext(w.tb.Context(), http.MethodGet, w.at.URL+path, nil)
	if err != nil {
		w.tb.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.tb.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		w.tb.Fatalf("GET %s: %s", path, res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		w.tb.Fatal(err)
	}
}
