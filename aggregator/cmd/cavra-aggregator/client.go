package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cavra/cavra/aggregator/internal/config"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 512 << 20

// client calls the API of a running aggregator.
type client struct {
	server, tokenFile string
}

func (c *client) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.server, "server", "http://"+config.DefaultListen, "the aggregator's address")
	cmd.Flags().StringVar(&c.tokenFile, "token-file", os.Getenv("CAVRA_TOKEN_FILE"), "a file that holds an API token (default $CAVRA_TOKEN_FILE)")
}

// problem is an error of the API (RFC 9457).
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

func (p *problem) Error() string {
	if p.Detail == "" {
		return fmt.Sprintf("the aggregator answered %d %s", p.Status, http.StatusText(p.Status))
	}
	return fmt.Sprintf("the aggregator answered %d: %s", p.Status, p.Detail)
}

// call sends a request and reads the answer into out, unless out is nil.
func (c *client) call(ctx context.Context, method, path string, query url.Values, body, out any) error {
	if c.tokenFile == "" {
		return usage(errors.New("name a file that holds an API token: --token-file DIR/admin.token, or set CAVRA_TOKEN_FILE"))
	}
	token, err := config.Secret(c.tokenFile)
	if err != nil {
		return usage(err)
	}
	base, err := url.Parse(c.server)
	if err != nil || base.Host == "" {
		return usage(fmt.Errorf("--server %q: want http://host:port or https://host:port", c.server))
	}
	target := base.JoinPath(path)
	target.RawQuery = query.Encode()
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("write request: %w", err)
		}
		sent = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, target.String(), sent)
	if err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(token))
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("reach the aggregator at %s: %w (is it running, and is --server right?)", c.server, err)
	}
	defer res.Body.Close() //nolint:errcheck // it was only read
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if len(answer) > maxAnswer {
		return fmt.Errorf("read answer: more than %d bytes", maxAnswer)
	}
	if res.StatusCode >= 300 {
		p := &problem{}
		if json.Unmarshal(answer, p) != nil || p.Status == 0 {
			p = &problem{Status: res.StatusCode}
		}
		return p
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read answer of %s: %w", path, err)
	}
	return nil
}

func (c *client) get(ctx context.Context, path string, query url.Values, out any) error {
	return c.call(ctx, http.MethodGet, path, query, nil, out)
}
