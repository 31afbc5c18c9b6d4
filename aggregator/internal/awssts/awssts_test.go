package awssts

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

const signature = "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260301/eu-central-1/sts/aws4_request, SignedHeaders=%s, Signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

const all = "content-length;content-type;host;x-amz-date;x-cavra-challenge;x-cavra-key"

// good is a request of the one shape.
func good(host string) Request {
	return Request{Host: host, Headers: []Header{
		{"authorization", fmt.Sprintf(signature, all)}, {"content-type", contentType}, {"x-amz-date", "20260301T120000Z"},
		{ChallengeHeader, "the-challenge"}, {KeyHeader, "the-key"},
	}}
}

// with changes a header, adds it, or takes it away when the value is empty.
func (r Request) with(name, value string) Request {
	out := Request{Host: r.Host}
	found := false
	for _, h := range r.Headers {
		if h.Name == name {
			found = true
			if value == "" {
				continue
			}
			h.Value = value
		}
		out.Headers = append(out.Headers, h)
	}
	if !found {
		out.Headers = append(out.Headers, Header{name, value})
	}
	return out
}

func TestCheck(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	aws := good("sts.eu-central-1.amazonaws.com")
	for name, r := range map[string]Request{
		"a region's": aws, "the global one": good("sts.amazonaws.com"),
		"of a session": aws.with("x-amz-security-token", "token==").with("authorization", fmt.Sprintf(signature, all+";x-amz-security-token")),
	} {
		if err := c.Check(r, "the-challenge", "the-key"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, r := range map[string]Request{
		"another host":                  good("sts.evil.example"),
		"a host that begins like AWS's": good("sts.amazonaws.com.evil.example"),
		"a host that ends like AWS's":   good("evil-sts.amazonaws.com"),
		"another service":               good("iam.amazonaws.com"),
		"a port":                        good("sts.amazonaws.com:8443"),
		"a user":                        good("x@sts.amazonaws.com"),
		"a path":                        good("sts.amazonaws.com/?Action=AssumeRole"),
		"a bucket":                      good("sts.us-east-1.s3.amazonaws.com"),
		"a line more":                   good("sts.amazonaws.com\r\nHost: evil.example"),
		"no host":                       good(""),
		"no signature":                  aws.with("authorization", ""),
		"signed for another service":    aws.with("authorization", strings.Replace(fmt.Sprintf(signature, all), "/sts/", "/iam/", 1)),
		"the challenge not signed":      aws.with("authorization", fmt.Sprintf(signature, strings.Replace(all, ";x-cavra-challenge", "", 1))),
		"the key not signed":            aws.with("authorization", fmt.Sprintf(signature, strings.Replace(all, ";x-cavra-key", "", 1))),
		"the host not signed":           aws.with("authorization", fmt.Sprintf(signature, strings.Replace(all, "host;", "", 1))),
		"a token that is not signed":    aws.with("x-amz-security-token", "t"),
		"another challenge":             aws.with(ChallengeHeader, "another"),
		"another key":                   aws.with(KeyHeader, "another"),
		"no challenge":                  aws.with(ChallengeHeader, ""),
		"another action by header":      aws.with("x-amz-target", "AssumeRole"),
		"a host by header":              aws.with("host", "evil.example"),
		"a cookie":                      aws.with("cookie", "a=b"),
		"a transfer encoding":           aws.with("transfer-encoding", "chunked"),
		"another content type":          aws.with("content-type", "application/json"),
		"a header with a line more":     aws.with("x-amz-date", "20260301T120000Z\r\nx-evil: 1"),
		"a header in capitals":          aws.with("X-Cavra-Key", "the-key"),
		"a header twice":                {Host: aws.Host, Headers: append(aws.Headers, Header{KeyHeader, "the-key"})},
		"a giant header":                aws.with("x-amz-date", strings.Repeat("1", maxHeader+1)),
	} {
		if err := c.Check(r, "the-challenge", "the-key"); !errors.Is(err, ErrShape) {
			t.Errorf("%s: %v, want ErrShape", name, err)
		}
	}
	if err := c.Check(aws.with(ChallengeHeader, ""), "", "the-key"); !errors.Is(err, ErrShape) {
		t.Errorf("no challenge, for none: %v", err)
	}
}

func said(arn, account string) string {
	return `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>` + arn +
		`</Arn><UserId>AROA:x</UserId><Account>` + account + `</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`
}

const session1 = "arn:aws:sts::123456789012:assumed-role/gpu/i-1"

// TestIdentify asks a server in STS's place, which sees exactly what was signed.
func TestIdentify(t *testing.T) {
	var answer http.HandlerFunc
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("the redirect was followed")
		_, _ = w.Write([]byte(said(session1, "123456789012")))
	}))
	t.Cleanup(other.Close)
	c, err := New(Config{Endpoint: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	r := good(strings.TrimPrefix(s.URL, "http://"))
	text := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	answer = func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.String() != "/" || r.Header.Get(ChallengeHeader) != "the-challenge" || r.Header.Get("User-Agent") != "" {
			t.Errorf("sent: %s %s %v", r.Method, r.URL, r.Header)
		}
		if err := r.ParseForm(); err != nil || r.PostForm.Encode() != Body {
			t.Errorf("sent: %v, %v", r.PostForm, err)
		}
		text(http.StatusOK, said(session1, "123456789012"))(w, r)
	}
	got, err := c.Identify(t.Context(), r, "the-challenge", "the-key")
	if err != nil || got.Raw != session1 || got.ARN.Role != "gpu" || got.ARN.Name != "i-1" || got.ARN.Account != "123456789012" {
		t.Errorf("%+v, %v", got, err)
	}
	for name, h := range map[string]http.HandlerFunc{
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		},
		"a refusal":              text(http.StatusForbidden, "<ErrorResponse/>"),
		"a giant answer":         text(http.StatusOK, strings.Repeat(" ", maxAnswer)+said(session1, "123456789012")),
		"no XML":                 text(http.StatusOK, "{}"),
		"another answer":         text(http.StatusOK, "<AssumeRoleResponse/>"),
		"nobody":                 text(http.StatusOK, "<GetCallerIdentityResponse/>"),
		"two":                    text(http.StatusOK, strings.Replace(said(session1, "123456789012"), "<UserId>", "<Arn>x</Arn><UserId>", 1)),
		"of another account":     text(http.StatusOK, said(session1, "999999999999")),
		"a name of no kind":      text(http.StatusOK, said("arn:aws:ec2::123456789012:instance/i-1", "123456789012")),
		"a session in a session": text(http.StatusOK, said("arn:aws:sts::123456789012:assumed-role/gpu/a/b", "123456789012")),
	} {
		answer = h
		if got, err := c.Identify(t.Context(), r, "the-challenge", "the-key"); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %+v, %v, want ErrRefused", name, got, err)
		}
	}
	asked.Store(0)
	if _, err := c.Identify(t.Context(), r, "another", "the-key"); !errors.Is(err, ErrShape) || asked.Load() > 0 {
		t.Errorf("another challenge: %v, sent %d times", err, asked.Load())
	}
	if _, err := c.Identify(t.Context(), good("sts.amazonaws.com"), "the-challenge", "the-key"); !errors.Is(err, ErrShape) {
		t.Errorf("AWS's own, where another is configured: %v", err)
	}
}

func TestPatterns(t *testing.T) {
	role, user := "arn:aws:sts::123456789012:assumed-role/gpu/*", "arn:aws:iam::123456789012:user/ml/ada"
	for pattern, names := range map[string]map[string]bool{
		role: {
			session1: true, "arn:aws:sts::123456789012:assumed-role/gpu/": false, "arn:aws:sts::123456789012:assumed-role/gpu": false,
			"arn:aws:sts::123456789012:assumed-role/gpu-evil/i-1": false, "arn:aws:sts::123456789012:assumed-role/gpu/a/b": false,
			"arn:aws:sts::999999999999:assumed-role/gpu/i-1": false, "arn:aws-cn:sts::123456789012:assumed-role/gpu/i-1": false,
			"arn:aws:iam::123456789012:assumed-role/gpu/i-1": false, "arn:aws:sts::123456789012:assumed-role/evil/gpu": false,
			"arn:aws:sts::123456789012:assumed-role/GPU/i-1": false, " " + session1: false, session1 + "\n": false,
			"arn:aws:iam::123456789012:user/assumed-role/gpu/i-1": false,
		},
		session1: {session1: true, session1 + "2": false, strings.TrimSuffix(session1, "1"): false},
		user:     {user: true, "arn:aws:iam::123456789012:user/ada": false, user + "/x": false},
	} {
		p, err := ParsePattern(pattern)
		if err != nil || p.Account() != "123456789012" {
			t.Fatalf("%s: account %s, %v", pattern, p.Account(), err)
		}
		for name, want := range names {
			if p.Matches(name) != want {
				t.Errorf("%s matches %q: %t", pattern, name, !want)
			}
		}
	}
	for _, bad := range []string{
		"", "*", "arn:aws:sts::123456789012:assumed-role/*", "arn:aws:sts::123456789012:assumed-role/*/i-1", "arn:aws:sts::*:assumed-role/gpu/*",
		"arn:aws:sts::123456789012:assumed-role/gp*/i-1", "arn:aws:iam::123456789012:user/*", "arn:aws:sts::123456789012:assumed-role/gpu/i-*",
		"arn:aws:sts::12345678901:assumed-role/gpu/*", "arn:aws:iam::123456789012:role/gpu", "arn:aws:iam::123456789012:root",
	} {
		if _, err := ParsePattern(bad); err == nil {
			t.Errorf("%q is a pattern", bad)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, endpoint := range []string{"sts", "http://sts.example", "https://sts.example/path", "https://u@sts.example", "ftp://127.0.0.1", "https://sts.example?x"} {
		if _, err := New(Config{Endpoint: endpoint}); err == nil {
			t.Errorf("%q is an endpoint", endpoint)
		}
	}
}

// FuzzParse: whatever STS answers, it is one well-formed caller or a refusal.
func FuzzParse(f *testing.F) {
	f.Add([]byte(said(session1, "123456789012")))
	f.Add([]byte("<GetCallerIdentityResponse><GetCallerIdentityResult/></GetCallerIdentityResponse>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parse(b)
		if err != nil {
			return
		}
		if again, err := ParseARN(got.Raw); err != nil || again != got.ARN {
			t.Errorf("%+v: %+v, %v", got, again, err)
		}
	})
}
