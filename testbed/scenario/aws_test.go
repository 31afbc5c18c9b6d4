//go:build keys

package scenario

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/enrol/v1/enrolv1connect"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/testbed/stack"
)

//go:embed aws_setup.py
var awsSetup []byte

// moto is a server in AWS's place that checks signatures.
type moto struct {
	url string
	// credentials are a key's identifier, its secret, and a session's token.
	credentials map[string][3]string
}

func startMoto(t *testing.T) *moto {
	t.Helper()
	python := os.Getenv("CAVRA_MOTO_PYTHON")
	if python == "" {
		t.Fatal("CAVRA_MOTO_PYTHON names no Python that has moto: run `make test-keys`")
	}
	port, err := stack.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	m := &moto{url: fmt.Sprintf("http://127.0.0.1:%d", port), credentials: map[string][3]string{}}
	cmd := exec.Command(python, "-m", "moto.server", "-H", "127.0.0.1", "-p", fmt.Sprint(port))
	cmd.Env = append(os.Environ(), "INITIAL_NO_AUTH_ACTION_COUNT=5")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for until := time.Now().Add(time.Minute); ; {
		res, err := http.Get(m.url + "/moto-api/")
		if err == nil {
			_ = res.Body.Close()
			break
		}
		if time.Now().After(until) {
			t.Fatalf("moto does not answer: %v", err)
		}
		<-time.After(50 * time.Millisecond)
	}
	script := filepath.Join(t.TempDir(), "setup.py")
	write(t, script, string(awsSetup))
	out, err := exec.Command(python, script, m.url).Output()
	if err != nil {
		t.Fatalf("prepare moto: %v", err)
	}
	if err := json.Unmarshal(out, &m.credentials); err != nil {
		t.Fatal(err)
	}
	return m
}

// env are somebody's credentials as the AWS SDK finds them.
func (m *moto) env(who string) []string {
	c := m.credentials[who]
	return []string{"AWS_ACCESS_KEY_ID=" + c[0], "AWS_SECRET_ACCESS_KEY=" + c[1], "AWS_SESSION_TOKEN=" + c[2], "AWS_REGION=us-east-1"}
}

// signedTap stands between an agent and the aggregator, and keeps what the agent has
// signed. It passes it on, unless it holds it back.
type signedTap struct {
	url  string
	hold bool
	last *enrolv1.JoinByAWSRequest
}

func (w *world) tapSigned() *signedTap {
	w.t.Helper()
	target, err := url.Parse(w.aggregator.URL())
	w.must(err)
	p := &signedTap{}
	forward := httputil.NewSingleHostReverseProxy(target)
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == enrolv1connect.EnrolmentServiceJoinByAWSProcedure {
			b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
			p.last = &enrolv1.JoinByAWSRequest{}
			if err != nil || proto.Unmarshal(b, p.last) != nil || p.hold {
				http.Error(rw, "held back", http.StatusBadGateway)
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(b))
		}
		forward.ServeHTTP(rw, r)
	}))
	w.t.Cleanup(s.Close)
	p.url = s.URL
	return p
}

// TestJoinByAWS: a session of a role and a user join by their identities, against
// a server that checks signatures; and what a thief of a signed request can do.
func TestJoinByAWS(t *testing.T) {
	m := startMoto(t)
	dir := folder(t)
	w := withSettings(t, dir, programs(t), "agents:\n  aws_sts_endpoint: "+m.url+"\n")
	tap := w.tapSigned()
	for name, arn := range map[string]string{
		"gpu": "arn:aws:sts::123456789012:assumed-role/gpu/*", "ada": "arn:aws:iam::123456789012:user/ada",
		"elsewhere": "arn:aws:sts::999999999999:assumed-role/gpu/*", "other-role": "arn:aws:sts::123456789012:assumed-role/gp/*",
	} {
		out, err := w.aggregator.CLI(w.ctx, "aws-rule", "create", name, "--arn", arn, "--agent-name", "{account}-{role}-{name}")
		w.must(err)
		w.must(exitCode(out))
	}
	enroll := func(server, rule, who, folder string) stack.Output {
		t.Helper()
		out, err := stack.Command(w.ctx, m.env(who), w.programs.Cavra(), "agent", "enroll", "--server", server, "--aws-sts", "default/"+rule,
			"--aws-sts-endpoint", m.url, "--dir", filepath.Join(dir, folder), "--scan", w.tree)
		w.must(err)
		return out
	}
	w.must(exitCode(enroll(tap.url, "gpu", "session", "node")))
	replayed := tap.last
	w.must(exitCode(enroll(w.aggregator.URL(), "ada", "user", "laptop")))
	agents, err := w.aggregator.Agents(w.ctx)
	w.must(err)
	names := map[string]bool{}
	for _, a := range agents {
		names[a.Name] = true
	}
	if !names["123456789012-gpu-i-0abc"] || !names["123456789012--ada"] || len(names) != 2 {
		t.Errorf("agents: %v", names)
	}
	for name, try := range map[string][2]string{
		"a user by a role's rule": {"gpu", "user"}, "another account's rule": {"elsewhere", "session"},
		"a role whose name goes on": {"other-role", "session"}, "no such rule": {"nowhere", "session"},
	} {
		out := enroll(w.aggregator.URL(), try[0], try[1], "refused")
		if out.Code != 1 || !strings.Contains(string(out.Stderr), "no rule of that name lets this caller in") {
			t.Errorf("%s: exit code %d: %s", name, out.Code, out.Stderr)
		}
	}

	// A thief has what an agent has signed, and the agent's request has not arrived.
	desk := enrolv1connect.NewEnrolmentServiceClient(http.DefaultClient, w.aggregator.URL())
	send := func(r *enrolv1.JoinByAWSRequest) string {
		_, err := desk.JoinByAWS(w.ctx, connect.NewRequest(r))
		return outcome(err)
	}
	tap.hold = true
	caught := func() *enrolv1.JoinByAWSRequest {
		t.Helper()
		if out := enroll(tap.url, "gpu", "session", "caught"); out.Code != 1 {
			t.Fatalf("held back, and enrolled: %s", out.Stdout)
		}
		return tap.last
	}
	mine := string(predicate.DigestOf([]byte("the thief's key")))
	set := func(r *enrolv1.JoinByAWSRequest, name, value string) {
		for _, h := range r.Headers {
			if h.Name == name {
				h.Value = value
			}
		}
	}
	var table strings.Builder
	for _, a := range []struct {
		what, want string
		do         func() *enrolv1.JoinByAWSRequest
	}{
		{"a signed request again", "refused: unauthenticated", func() *enrolv1.JoinByAWSRequest { return replayed }},
		{"a signed request, for another key", "refused: invalid_argument", func() *enrolv1.JoinByAWSRequest {
			r := caught()
			r.KeyId = mine
			return r
		}},
		{"the same, with the key's header changed", "refused: permission_denied", func() *enrolv1.JoinByAWSRequest {
			r := caught()
			r.KeyId = mine
			set(r, "x-cavra-key", mine)
			return r
		}},
		{"a challenge of its own in a signed request", "refused: permission_denied", func() *enrolv1.JoinByAWSRequest {
			r := caught()
			res, err := desk.Challenge(w.ctx, connect.NewRequest(&enrolv1.ChallengeRequest{Purpose: "aws-sts"}))
			w.must(err)
			r.Challenge = res.Msg.GetChallenge()
			set(r, "x-cavra-challenge", r.Challenge)
			return r
		}},
		{"a signed request, to be sent elsewhere", "refused: invalid_argument", func() *enrolv1.JoinByAWSRequest {
			r := caught()
			r.Host = "127.0.0.1:1"
			return r
		}},
		{"a signed request, with another action", "refused: invalid_argument", func() *enrolv1.JoinByAWSRequest {
			r := caught()
			r.Headers = append(r.Headers, &enrolv1.SignedHeader{Name: "x-amz-target", Value: "AWSSecurityTokenServiceV20110615.AssumeRole"})
			return r
		}},
	} {
		got := send(a.do())
		fmt.Fprintf(&table, "  %-52s %s\n", a.what, got)
		if got != a.want {
			t.Errorf("%s: %s, want %s", a.what, got, a.want)
		}
	}
	t.Logf("\n  %-52s %s\n%s", "attack", "outcome", table.String())
}
