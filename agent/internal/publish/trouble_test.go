package publish

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cavra/cavra/schemas/topic"
)

// noAccess knows the agent and gives it no right.
func noAccess() []kfake.Opt {
	return []kfake.Opt{kfake.SeedTopics(3, topic.Statements), kfake.User(mechanism, agentName, agentPassword)}
}

func noTopic() []kfake.Opt {
	return []kfake.Opt{kfake.User(mechanism, agentName, agentPassword, rights()...)}
}

func grant(b *broker) {
	req := kmsg.NewPtrCreateACLsRequest()
	for _, a := range rights() {
		c := kmsg.NewCreateACLsRequestCreation()
		c.ResourceType, c.ResourceName, c.ResourcePatternType = a.Resource, a.Name, a.Pattern
		c.Principal, c.Host, c.Operation, c.PermissionType = "User:"+agentName, "*", a.Operation, kmsg.ACLPermissionTypeAllow
		req.Creations = append(req.Creations, c)
	}
	for _, r := range ask[*kmsg.CreateACLsResponse](b, req).Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			b.t.Fatal(err)
		}
	}
}

func configure(b *broker, key, value string) {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic.Statements
	c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	c.Name, c.Value = key, &value
	r.Configs = append(r.Configs, c)
	req.Resources = append(req.Resources, r)
	for _, r := range ask[*kmsg.IncrementalAlterConfigsResponse](b, req).Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			b.t.Fatal(err)
		}
	}
}

// refuseLogins answers every login as Apache Kafka answers a wrong one, until
// the agent may come in.
func refuseLogins(b *broker) (letIn func()) {
	var open atomic.Bool
	b.cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		if open.Load() {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode, resp.ErrorMessage = kerr.SaslAuthenticationFailed.Code, kmsg.StringPtr("Authentication failed")
		return resp, nil, true
	})
	return func() { open.Store(true) }
}

// answer lets every write be answered with the error, until it is mended.
func answer(b *broker, err *kerr.Error) (mend func()) {
	h := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: err, Count: -1})
	return h.Remove
}

// refusals are what brokers refuse, and how it is mended.
var refusals = map[string]struct {
	opts   []kfake.Opt
	access func(*Access)
	size   int
	// begin may change the broker that has started, and returns how to mend it.
	begin func(*broker) (mend func())
	want  error
	todo  string
}{
	"a wrong password, answered by hanging up": {
		opts: []kfake.Opt{kfake.SeedTopics(3, topic.Statements), kfake.User(mechanism, agentName, "another-password", rights()...)},
		begin: func(b *broker) func() {
			return func() {
				b.stop()
				b.dir = b.t.TempDir()
				b.opts = known()
				b.start()
			}
		},
		want: ErrAuthentication, todo: "enroll --reenroll",
	},
	"a login that is refused, answered in words": {
		opts: known(), begin: refuseLogins, want: ErrAuthentication, todo: "enroll --reenroll",
	},
	"no right to the topic": {
		opts: noAccess(), begin: func(b *broker) func() { return func() { grant(b) } },
		want: ErrAuthorization, todo: "the right to write and describe the topic",
	},
	"no topic": {
		opts: noTopic(), begin: func(b *broker) func() {
			return func() {
				if err := b.cluster.CreateTopic(topic.Statements, 3, nil); err != nil {
					b.t.Fatal(err)
				}
			}
		},
		want: ErrNoTopic, todo: "create the topic",
	},
	"a message that is too large": {
		opts: append(known(), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "4000"})), size: 5000,
		begin: func(b *broker) func() { return func() { configure(b, "max.message.bytes", "1048588") } },
		want:  ErrTooLarge, todo: "max.message.bytes",
	},
	"a policy": {
		opts: known(), begin: func(b *broker) func() { return answer(b, kerr.PolicyViolation) },
		want: ErrRefused, todo: "their log says more",
	},
	"a record that the broker takes for broken": {
		opts: known(), begin: func(b *broker) func() { return answer(b, kerr.InvalidRecord) },
		want: ErrRefused, todo: "their log says more",
	},
}

// TestRefusals: what a broker refuses is told of once, with what to do, is kept,
// is asked for again at a walk, and goes out when the reason is gone.
func TestRefusals(t *testing.T) {
	for name, tt := range refusals {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t, tt.opts...)
			b.start()
			mend := tt.begin(b)
			var asked atomic.Int64
			b.cluster.ControlKey(int16(kmsg.ApiVersions), func(kmsg.Request) (kmsg.Response, error, bool) {
				b.cluster.KeepControl()
				asked.Add(1)
				return nil, nil, false
			})
			q := newQueue(append(envelopes(t, 2, 10), envelopes(t, 3, 10+tt.size)[2]))
			once, _ := publisher(t, q, b.access(), quick)
			if err := once.RunUntilRefused(t.Context()); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.todo) {
				t.Errorf("one round ended with %v, want %v", err, tt.want)
			}
			if err := once.Close(); err != nil {
				t.Error(err)
			}
			r := run(t, q, b.access())
			r.logged(said)
			began, at := asked.Load(), time.Now()
			r.until("more tries", func() bool { return time.Since(at) > time.Second/2 })
			// A pause is at least 20 ms, then 40, then 80; a try makes three
			// connections at most.
			if n := asked.Load() - began; n > 30 || n < 3 {
				t.Errorf("%d connections in half a second", n)
			}
			if n := q.done(); n != 0 {
				t.Fatalf("%d statements were dropped", n)
			}
			lines := r.log.lines()
			last := lines[len(lines)-1]
			if !strings.Contains(last, "level=ERROR") || !strings.Contains(last, tt.want.Error()) || !strings.Contains(last, tt.todo) {
				t.Errorf("log: %s", last)
			}
			if n := strings.Count(strings.Join(lines, "\n"), said); n != 1 {
				t.Errorf("told of %d times:\n%s", n, strings.Join(lines, "\n"))
			}
			mend()
			r.drained(q)
			r.logged(saidGood)
			r.end()
			whole(t, b.records(), q.envelopes)
		})
	}
}

// TestRevokedWhileConnected takes the rights of an agent that delivers, then its
// login, and gives both back.
func TestRevokedWhileConnected(t *testing.T) {
	b := startBroker(t)
	all := envelopes(t, 40, 10)
	q := newQueue(all)
	var let atomic.Int64
	let.Store(10)
	r := run(t, &metered{queue: q, let: &let}, b.access())
	r.until("ten", func() bool { return q.done() == 10 })
	revoke := kmsg.NewPtrDeleteACLsRequest()
	f := kmsg.NewDeleteACLsRequestFilter()
	f.ResourceType, f.ResourcePatternType = kmsg.ACLResourceTypeTopic, kmsg.ACLResourcePatternTypeAny
	f.Operation, f.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	f.Principal = kmsg.StringPtr("User:" + agentName)
	revoke.Filters = append(revoke.Filters, f)
	ask[*kmsg.DeleteACLsResponse](b, revoke)
	let.Store(40)
	r.logged(ErrAuthorization.Error())
	letIn := refuseLogins(b)
	r.logged(ErrAuthentication.Error())
	if n := q.done(); n != 10 {
		t.Errorf("%d acknowledged, want the 10 of before", n)
	}
	letIn()
	grant(b)
	r.drained(q)
	r.end()
	whole(t, b.records(), all)
}

// metered hands out no more than let says, one at a time.
type metered struct {
	*queue
	let *atomic.Int64
}

func (m *metered) Next(ctx context.Context, _, mostBytes int) (Batch, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for int64(m.done()) >= m.let.Load() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return Batch{}, ctx.Err()
		}
	}
	return m.queue.Next(ctx, 1, mostBytes)
}

// TestLoginCutShort: a broker that dies in a login has not refused it.
func TestLoginCutShort(t *testing.T) {
	b := startBroker(t)
	var cut atomic.Int64
	b.cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		if cut.Add(1) <= 2 {
			return nil, errors.New("cut short"), true
		}
		return nil, nil, false
	})
	q := newQueue(envelopes(t, 1, 1))
	p, log := publisher(t, q, b.access(), quick)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- p.RunUntilRefused(ctx) }()
	select {
	case <-q.drained:
	case err := <-result:
		t.Fatalf("ended with %v", err)
	}
	cancel()
	<-result
	if out := strings.Join(log.lines(), "\n"); strings.Contains(out, "level=ERROR") {
		t.Error(out)
	}
}

// certificates makes an authority and a server's certificate by it.
func certificates(t *testing.T) (server tls.Certificate, authority string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestTLS(t *testing.T) {
	server, authority := certificates(t)
	_, other := certificates(t)
	b := newBroker(t, append(known(), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{server}}))...)
	b.start()
	q := newQueue(envelopes(t, 5, 10))
	access := b.access()
	access.TLS, access.CA = true, other
	stranger, _ := publisher(t, q, access, quick)
	if err := stranger.RunUntilRefused(t.Context()); !errors.Is(err, ErrCertificate) {
		t.Errorf("another authority: %v", err)
	}
	if err := Check(t.Context(), access); !errors.Is(err, ErrCertificate) {
		t.Errorf("check: %v", err)
	}
	access.CA = authority
	if err := Check(t.Context(), access); err != nil {
		t.Errorf("check: %v", err)
	}
	r := run(t, q, access)
	r.drained(q)
	r.end()
}

func TestCheck(t *testing.T) {
	b := startBroker(t)
	unreachable := newBroker(t)
	for name, tt := range map[string]struct {
		change func(*Access)
		want   error
	}{
		"all is well":               {func(*Access) {}, nil},
		"one of two brokers is off": {func(a *Access) { a.Brokers = []string{unreachable.addr(), b.addr()} }, nil},
		"nobody there":              {func(a *Access) { a.Brokers = []string{unreachable.addr()} }, ErrAway},
		"a wrong password":          {func(a *Access) { a.Password = "wrong" }, ErrAuthentication},
		"another user":              {func(a *Access) { a.Username = "somebody" }, ErrAuthentication},
		"another mechanism":         {func(a *Access) { a.Mechanism = "plain" }, ErrAuthentication},
		"a hidden topic":            {func(a *Access) { a.Topic = "secrets" }, ErrAuthorization},
	} {
		t.Run(name, func(t *testing.T) {
			access := b.access()
			tt.change(&access)
			if err := Check(t.Context(), access); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestClassify(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want error
	}{
		"hung up":            {io.ErrUnexpectedEOF, ErrAway},
		"no leader":          {kafka.LeaderNotAvailable, ErrAway},
		"too few replicas":   {kafka.NotEnoughReplicas, ErrAway},
		"full disk":          {kafka.KafkaStorageError, ErrAway},
		"unknown to us":      {errors.New("something"), ErrAway},
		"a number of theirs": {kafka.Error(9999), ErrAway},
		"one of a batch":     {kafka.WriteErrors{nil, kafka.TopicAuthorizationFailed}, ErrAuthorization},
		"the client's bound": {kafka.MessageTooLargeError{}, ErrTooLarge},
		"the cluster":        {kafka.ClusterAuthorizationFailed, ErrAuthorization},
	} {
		got := classify(tt.err)
		if !errors.Is(got, tt.want) || !errors.Is(kindOf(got), tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
		if adviceFor(got) == "" {
			t.Errorf("%s: no advice", name)
		}
	}
}

func TestPauses(t *testing.T) {
	var got []time.Duration
	p := defaultTiming().away
	for n := 1; n < 11; n++ {
		got = append(got, p.after(n))
	}
	ms := time.Millisecond
	want := []time.Duration{200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 12800 * ms, 25600 * ms, 30000 * ms, 30000 * ms}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := p.after(1 << 40); got != p.last {
		t.Errorf("after very many failures: %s", got)
	}
}

func TestNewRefuses(t *testing.T) {
	good := Access{Brokers: []string{"127.0.0.1:9092"}, Topic: "t", Mechanism: "none"}
	for name, tt := range map[string]struct {
		change func(*Access)
		want   string
	}{
		"no brokers":           {func(a *Access) { a.Brokers = nil }, "no brokers or no topic"},
		"no topic":             {func(a *Access) { a.Topic = "" }, "no brokers or no topic"},
		"an unknown mechanism": {func(a *Access) { a.Mechanism = "gssapi" }, `"gssapi" is not known`},
		"no mechanism":         {func(a *Access) { a.Mechanism = "" }, `"" is not known`},
		"an empty authority":   {func(a *Access) { a.TLS, a.CA = true, "none" }, "no certificate"},
	} {
		a := good
		tt.change(&a)
		if _, err := New(Config{Access: a}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

func TestNoSecretInLogs(t *testing.T) {
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("access", slog.Any("kafka", Access{Username: "u", Password: "hunter2"}))
	if strings.Contains(out.String(), "hunter2") {
		t.Error(out.String())
	}
}

// TestNoEnvelope: what is no envelope is not sent, and ends the publisher, since
// the spool that holds it is broken.
func TestNoEnvelope(t *testing.T) {
	b := startBroker(t)
	q := newQueue([][]byte{[]byte("{}")})
	p, _ := publisher(t, q, b.access(), quick)
	if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no envelope") {
		t.Errorf("got %v", err)
	}
	if n := q.done(); n != 0 {
		t.Errorf("%d acknowledged", n)
	}
}
