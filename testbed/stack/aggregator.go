package stack

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
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// AggregatorConfig says what to run, and where.
type AggregatorConfig struct {
	Programs Programs
	// Dir is the embedded folder; the log lies beside it.
	Dir string
	// Config is a configuration file, for a run that is not wholly embedded. Its
	// embedded.dir is Dir, where the address is written.
	Config string
	// TokenFile holds an administrator's token; empty for the one that the first
	// start writes into Dir.
	TokenFile string
	// Listen is a host:port; empty for a free port of 127.0.0.1, which is kept
	// over restarts, as the broker's is.
	Listen string
	// Env is added to the environment of every run.
	Env []string
}

// Aggregator is a running cavra-aggregator. Its methods are not safe for
// concurrent use, but for those that ask the API.
type Aggregator struct {
	cfg       AggregatorConfig
	kafkaPort int
	// agents is the host:port that agents call.
	agents  string
	log     string
	process *process
	url     string
	kafka   string
	token   string
}

// NewAggregator chooses the ports. Start starts it.
func NewAggregator(cfg AggregatorConfig) (*Aggregator, error) {
	log, err := logFile(filepath.Dir(cfg.Dir), filepath.Base(cfg.Dir)+"-aggregator")
	if err != nil {
		return nil, err
	}
	a := &Aggregator{cfg: cfg, log: log}
	if cfg.Listen == "" {
		port, err := FreePort()
		if err != nil {
			return nil, err
		}
		a.cfg.Listen = "127.0.0.1:" + strconv.Itoa(port)
	}
	if a.kafkaPort, err = FreePort(); err != nil {
		return nil, err
	}
	port, err := FreePort()
	a.agents = "127.0.0.1:" + strconv.Itoa(port)
	return a, err
}

// startTimeout is how long the aggregator may take until it serves, recovery
// after a kill included.
const startTimeout = 90 * time.Second

// address is what the aggregator writes once it serves.
type address struct {
	URL   string `json:"url"`
	Kafka string `json:"kafka"`
}

// Start starts the program and returns when it serves. env is added to the
// environment.
func (a *Aggregator) Start(ctx context.Context, env ...string) error {
	if a.process != nil && a.process.running() {
		return errors.New("start aggregator: it runs already")
	}
	if err := a.Launch(env...); err != nil {
		return err
	}
	return a.Ready(ctx)
}

// Launch starts the program without waiting for it.
func (a *Aggregator) Launch(env ...string) error {
	// What an earlier run wrote is not an answer.
	if err := os.Remove(a.addressFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("start aggregator: %w", err)
	}
	args := []string{"serve", "--embedded", a.cfg.Dir, "--listen", a.cfg.Listen, "--kafka-port", strconv.Itoa(a.kafkaPort), "--agents-listen", a.agents}
	if a.cfg.Config != "" {
		args = []string{"serve", "--config", a.cfg.Config, "--agents-listen", a.agents}
	}
	var err error
	a.process, err = start(a.log, slices.Concat(a.cfg.Env, env), a.cfg.Programs.Aggregator(), args...)
	return err
}

// Ready waits until the program that Launch started serves.
func (a *Aggregator) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := Poll(ctx, "the aggregator", func(context.Context) (bool, string, error) {
		if !a.process.running() {
			return false, "", fmt.Errorf("it ended: %w", cmpErr(a.process.err, errNotRunning))
		}
		b, err := os.ReadFile(a.addressFile())
		if errors.Is(err, os.ErrNotExist) {
			return false, "it has not written " + a.addressFile(), nil
		}
		var at address
		if err == nil {
			err = json.Unmarshal(b, &at)
		}
		a.url, a.kafka = at.URL, at.Kafka
		return err == nil, "", err
	})
	if err != nil {
		return fmt.Errorf("start aggregator: %w\n%s:\n%s", err, a.log, tail(a.log))
	}
	token, err := os.ReadFile(a.TokenFile())
	if err != nil {
		return fmt.Errorf("start aggregator: read admin token: %w", err)
	}
	a.token = strings.TrimSpace(string(token))
	return nil
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

func (a *Aggregator) addressFile() string { return filepath.Join(a.cfg.Dir, "address.json") }

// URL is the address of API and page.
func (a *Aggregator) URL() string { return a.url }

// KafkaPort is the embedded broker's port.
func (a *Aggregator) KafkaPort() int { return a.kafkaPort }

// Kafka is the broker's host:port.
func (a *Aggregator) Kafka() string { return a.kafka }

// Dir is the embedded folder.
func (a *Aggregator) Dir() string { return a.cfg.Dir }

// Log is the file that holds what it printed.
func (a *Aggregator) Log() string { return a.log }

// TokenFile holds the administrator's token.
func (a *Aggregator) TokenFile() string {
	if a.cfg.TokenFile != "" {
		return a.cfg.TokenFile
	}
	return filepath.Join(a.cfg.Dir, "admin.token")
}

// Running reports whether the program runs.
func (a *Aggregator) Running() bool { return a.process != nil && a.process.running() }

// Pid is the program's process id.
func (a *Aggregator) Pid() int { return a.process.cmd.Process.Pid }

// Kill ends the program with SIGKILL, and only it: what it started has to
// notice by itself, as after a real crash.
func (a *Aggregator) Kill() {
	if a.Running() {
		a.process.killAlone()
	}
}

// Close kills what still runs, the program's whole group.
func (a *Aggregator) Close() {
	if a.process != nil {
		a.process.kill()
	}
}

// Stop ends the program in good order.
func (a *Aggregator) Stop() error {
	if !a.Running() {
		return nil
	}
	return a.process.stop()
}

// Died waits until the program has ended by SIGKILL; any other end is an error.
func (a *Aggregator) Died(ctx context.Context) error {
	err := a.process.wait(ctx)
	if killed(err) {
		return nil
	}
	return fmt.Errorf("the aggregator did not die of SIGKILL: %w\n%s:\n%s", cmpErr(err, errors.New("it ended well")), a.log, tail(a.log))
}

// Ended is closed when the program that was started last has ended.
func (a *Aggregator) Ended() <-chan struct{} { return a.process.done }

// CLI runs a command of the aggregator's program against the API, with the
// administrator's token.
func (a *Aggregator) CLI(ctx context.Context, args ...string) (Output, error) {
	args = append(args, "--server", a.url, "--token-file", a.TokenFile())
	return Command(ctx, nil, a.cfg.Programs.Aggregator(), args...)
}

// JoinToken makes a one-time token by the command line and writes it to a file.
func (a *Aggregator) JoinToken(ctx context.Context, file string, args ...string) error {
	out, err := a.CLI(ctx, append([]string{"join-token", "create"}, args...)...)
	if err != nil {
		return err
	}
	if out.Code != 0 {
		return fmt.Errorf("make join token: exit code %d: %s", out.Code, out.Stderr)
	}
	if err := os.WriteFile(file, out.Stdout, 0o600); err != nil {
		return fmt.Errorf("make join token: %w", err)
	}
	return nil
}

// MakeJoinToken makes a one-time token by the API.
func (a *Aggregator) MakeJoinToken(ctx context.Context, name string) (string, error) {
	var made struct {
		Token string `json:"token"`
	}
	err := a.Post(ctx, "/v1/join-tokens", map[string]any{"ttl_seconds": 3600, "agent_name": name}, &made)
	return made.Token, err
}

// maxAnswer bounds an answer of the API.
const maxAnswer = 256 << 20

// StatusError is an answer of the API that is not 2xx.
type StatusError struct {
	Code int
	Body string
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %d: %s", e.Code, e.Body) }

// Get asks the API with the administrator's token.
func (a *Aggregator) Get(ctx context.Context, path string, query url.Values, out any) error {
	return a.GetAs(ctx, a.token, path, query, out)
}

// GetAs asks the API with a token.
func (a *Aggregator) GetAs(ctx context.Context, token, path string, query url.Values, out any) error {
	target := path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	return a.ask(ctx, http.MethodGet, token, target, nil, out)
}

// Post sends a document to the API with the administrator's token.
func (a *Aggregator) Post(ctx context.Context, path string, document, out any) error {
	b, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("post %s: %w", path, err)
	}
	return a.ask(ctx, http.MethodPost, a.token, path, b, out)
}

func (a *Aggregator) ask(ctx context.Context, method, token, path string, sent []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, bytes.NewReader(sent))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if sent != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer res.Body.Close() //nolint:errcheck // it was only read
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", method, path, err)
	case len(body) > maxAnswer:
		return fmt.Errorf("%s %s: more than %d bytes", method, path, maxAnswer)
	case res.StatusCode/100 != 2:
		return fmt.Errorf("%s %s: %w", method, path, &StatusError{res.StatusCode, string(body[:min(len(body), 500)])})
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}
