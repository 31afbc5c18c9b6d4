// Package awssts finds out who somebody is at AWS: it sends a request for
// GetCallerIdentity that they have signed, and reads the answer.
//
// It guarantees that nothing else can be sent, and to nobody else: method, path
// and body are fixed, the host is one of AWS STS or the configured one, no
// redirect is followed, headers are those of a short list, and the signature has
// to cover the challenge and the key that the request is for. Whether the
// signature is good AWS says, not this package.
package awssts

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The headers that bind a request to what it is for.
const (
	ChallengeHeader = "x-cavra-challenge"
	KeyHeader       = "x-cavra-key"
)

// Body is the body of every request.
const Body = "Action=GetCallerIdentity&Version=2011-06-15"

const (
	contentType = "application/x-www-form-urlencoded; charset=utf-8"
	maxHeaders  = 8
	maxHeader   = 4 << 10
	maxAnswer   = 64 << 10
	timeout     = 10 * time.Second
)

// allowed are the headers that a request may have. Host is given by itself.
var allowed = []string{"authorization", "content-type", KeyHeader, ChallengeHeader, "x-amz-date", "x-amz-security-token"}

// host are AWS's own endpoints of STS, the global one and those of regions.
var host = regexp.MustCompile(`^sts(\.[a-z]{2}(-[a-z]+)+-[0-9])?\.amazonaws\.com$`)

// authorization is a signature of version 4 for STS.
var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=[A-Za-z0-9]{4,128}/[0-9]{8}/[a-z0-9-]{1,32}/sts/aws4_request, ?SignedHeaders=([a-z0-9;-]{1,256}), ?Signature=[0-9a-f]{64}$`)

// ErrShape says that a request is not one that is sent.
var ErrShape = errors.New("the signed request is not one for GetCallerIdentity at AWS STS that binds the challenge and the key")

// ErrRefused says that AWS did not say who it is.
var ErrRefused = errors.New("AWS STS does not say who signed the request")

// Header is one of a signed request.
type Header struct{ Name, Value string }

// Request is what somebody has signed.
type Request struct {
	Host    string
	Headers []Header
}

// Config says where STS is.
type Config struct {
	// Endpoint is a URL in place of AWS's own: a private endpoint, or a test's.
	// With it, no other is called.
	Endpoint string
}

// Client asks STS.
type Client struct {
	endpoint *url.URL
	http     *http.Client
}

// New checks the configuration.
func New(cfg Config) (*Client, error) {
	c := &Client{http: &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if cfg.Endpoint == "" {
		return c, nil
	}
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("AWS STS endpoint %q: want https://host", cfg.Endpoint)
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme != "https" && (u.Scheme != "http" || ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("AWS STS endpoint %q: want https; plain http is for this machine alone", cfg.Endpoint)
	}
	c.endpoint = u
	return c, nil
}

// target is where a request for a host goes.
func (c *Client) target(requested string) (string, error) {
	if c.endpoint != nil {
		if requested != c.endpoint.Host {
			return "", fmt.Errorf("%w: its host is not the endpoint %q", ErrShape, c.endpoint.Host)
		}
		return c.endpoint.Scheme + "://" + c.endpoint.Host + "/", nil
	}
	if !host.MatchString(requested) {
		return "", fmt.Errorf("%w: its host is not one of AWS STS", ErrShape)
	}
	return "https://" + requested + "/", nil
}

// Check reports whether a request is of the one shape that is sent, and binds
// this challenge and this key.
func (c *Client) Check(r Request, challenge, key string) error {
	if _, err := c.target(r.Host); err != nil {
		return err
	}
	if len(r.Headers) > maxHeaders {
		return fmt.Errorf("%w: %d headers", ErrShape, len(r.Headers))
	}
	values := map[string]string{}
	for _, h := range r.Headers {
		if _, twice := values[h.Name]; twice || !slices.Contains(allowed, h.Name) || len(h.Value) > maxHeader || strings.ContainsFunc(h.Value, unprintable) {
			return fmt.Errorf("%w: a header that is not sent, or comes twice", ErrShape)
		}
		values[h.Name] = h.Value
	}
	signature := authorization.FindStringSubmatch(values["authorization"])
	if signature == nil {
		return fmt.Errorf("%w: it has no signature of version 4 for STS", ErrShape)
	}
	signed := strings.Split(signature[1], ";")
	for name := range values {
		if name != "authorization" && !slices.Contains(signed, name) {
			return fmt.Errorf("%w: the signature does not cover %s", ErrShape, name)
		}
	}
	for _, name := range signed {
		if _, sent := values[name]; !sent && name != "host" && name != "content-length" {
			return fmt.Errorf("%w: the signature covers %s, which is not sent", ErrShape, name)
		}
	}
	if !slices.Contains(signed, "host") || values["x-amz-date"] == "" || values["content-type"] != contentType {
		return fmt.Errorf("%w: host, time and content type have to be signed", ErrShape)
	}
	if challenge == "" || key == "" || values[ChallengeHeader] != challenge || values[KeyHeader] != key {
		return fmt.Errorf("%w: it is for another challenge or another key", ErrShape)
	}
	return nil
}

func unprintable(r rune) bool { return r < ' ' || r > '~' }

// Caller is who signed a request, as AWS says.
type Caller struct {
	ARN ARN
	// Raw is the name as AWS wrote it.
	Raw string
}

// Identify sends a request, which was checked for this challenge and key, and
// returns who AWS says it is from.
func (c *Client) Identify(ctx context.Context, r Request, challenge, key string) (Caller, error) {
	if err := c.Check(r, challenge, key); err != nil {
		return Caller{}, err
	}
	target, err := c.target(r.Host)
	if err != nil {
		return Caller{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(Body))
	if err != nil {
		return Caller{}, fmt.Errorf("ask AWS STS: %w", err)
	}
	for _, h := range r.Headers {
		req.Header.Set(h.Name, h.Value)
	}
	// Nothing of ours: what is not signed is not sent.
	req.Header.Set("User-Agent", "")
	req.Header.Set("Accept-Encoding", "identity")
	res, err := c.http.Do(req)
	if err != nil {
		return Caller{}, fmt.Errorf("ask AWS STS: %w", err)
	}
	defer res.Body.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return Caller{}, fmt.Errorf("ask AWS STS: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return Caller{}, fmt.Errorf("%w: status %d", ErrRefused, res.StatusCode)
	}
	if len(b) > maxAnswer {
		return Caller{}, fmt.Errorf("%w: more than %d bytes", ErrRefused, maxAnswer)
	}
	return parse(b)
}

// answer is GetCallerIdentity's.
type answer struct {
	XMLName xml.Name `xml:"GetCallerIdentityResponse"`
	Results []struct {
		ARN     []string `xml:"Arn"`
		Account []string `xml:"Account"`
	} `xml:"GetCallerIdentityResult"`
}

// parse reads an answer that says one thing, once.
func parse(b []byte) (Caller, error) {
	var a answer
	if err := xml.Unmarshal(b, &a); err != nil {
		return Caller{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if len(a.Results) != 1 || len(a.Results[0].ARN) != 1 || len(a.Results[0].Account) != 1 {
		return Caller{}, fmt.Errorf("%w: the answer names nobody, or several", ErrRefused)
	}
	arn, err := ParseARN(a.Results[0].ARN[0])
	if err != nil {
		return Caller{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if account := a.Results[0].Account[0]; account != arn.Account {
		return Caller{}, fmt.Errorf("%w: its account and its name differ", ErrRefused)
	}
	return Caller{arn, a.Results[0].ARN[0]}, nil
}
