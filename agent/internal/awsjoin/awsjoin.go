// Package awsjoin gets a join token for the identity that this machine has at
// AWS. It guarantees that no credential leaves the machine: what is sent is a
// signed request that says nothing but who signed it, good for one challenge and
// one key.
package awsjoin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"

	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/enrol/v1/enrolv1connect"
	"github.com/cavra/cavra/schemas/predicate"
)

const (
	purpose     = "aws-sts"
	body        = "Action=GetCallerIdentity&Version=2011-06-15"
	contentType = "application/x-www-form-urlencoded; charset=utf-8"
	// globalRegion is what the global endpoint's requests are signed for.
	globalRegion = "us-east-1"
)

// Rule is what lets this machine in.
type Rule struct {
	Tenant, Name string
	// Endpoint is a URL in place of AWS's own, as the aggregator is configured with;
	// empty for the region's.
	Endpoint string
}

// ParseRule reads TENANT/RULE.
func ParseRule(s string) (Rule, error) {
	tenant, name, ok := strings.Cut(s, "/")
	if !ok || predicate.ValidateID(tenant) != nil || predicate.ValidateID(name) != nil {
		return Rule{}, fmt.Errorf("%q: want TENANT/RULE, as the aggregator's administrator named them", s)
	}
	return Rule{Tenant: tenant, Name: name}, nil
}

// Token gets a join token that is good for the key alone.
func Token(ctx context.Context, desk enrolv1connect.EnrolmentServiceClient, r Rule, key predicate.Digest) (string, error) {
	given, err := desk.Challenge(ctx, connect.NewRequest(&enrolv1.ChallengeRequest{Purpose: purpose}))
	if err != nil {
		return "", err
	}
	signed, err := sign(ctx, r, given.Msg.GetChallenge(), string(key))
	if err != nil {
		return "", fmt.Errorf("sign for AWS STS: %w", err)
	}
	m := &enrolv1.JoinByAWSRequest{
		Tenant: r.Tenant, Rule: r.Name, Challenge: given.Msg.GetChallenge(), KeyId: string(key), Host: signed.URL.Host,
	}
	for name, values := range signed.Header {
		m.Headers = append(m.Headers, &enrolv1.SignedHeader{Name: strings.ToLower(name), Value: values[0]})
	}
	answer, err := desk.JoinByAWS(ctx, connect.NewRequest(m))
	if err != nil {
		return "", err
	}
	return answer.Msg.GetJoinToken(), nil
}

// sign makes a request for GetCallerIdentity that binds the challenge and the
// key, with the credentials that the AWS SDK finds here.
func sign(ctx context.Context, r Rule, challenge, key string) (*http.Request, error) {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("find AWS credentials: %w", err)
	}
	credentials, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("find AWS credentials: %w", err)
	}
	region, endpoint := cfg.Region, r.Endpoint
	switch {
	case endpoint == "" && region == "":
		region, endpoint = globalRegion, "https://sts.amazonaws.com"
	case endpoint == "":
		endpoint = "https://sts." + region + ".amazonaws.com"
	case region == "":
		region = globalRegion
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("AWS STS endpoint %q: want https://host", endpoint)
	}
	u.Path = "/"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("X-Cavra-Challenge", challenge)
	req.Header.Set("X-Cavra-Key", key)
	sum := sha256.Sum256([]byte(body))
	return req, v4.NewSigner().SignHTTP(ctx, credentials, req, hex.EncodeToString(sum[:]), "sts", region, time.Now())
}
