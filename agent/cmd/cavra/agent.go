package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/agent"
	"github.com/cavra/cavra/agent/internal/awsjoin"
	"github.com/cavra/cavra/agent/internal/config"
	"github.com/cavra/cavra/agent/internal/enrol"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/plugin"
)

// maxToken bounds a file that holds a join token.
const maxToken = 8 << 10

func newAgent() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Look after models for good, and tell an aggregator",
		Long: `The agent goes round its scopes, scans what is new or changed, signs what it
found, and sends it to an aggregator. Nothing of an artifact leaves the machine.`,
		Example: `  cavra agent enroll --server https://cavra.example:8480 --token-file join.token --dir /var/lib/cavra --scan /models
  cavra agent run --dir /var/lib/cavra
  cavra agent status --dir /var/lib/cavra`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newEnroll(), newAgentRun(), newAgentStatus(), newAgentCheckIn(), newAgentPreview(), newAgentSent(), newAgentKept(), newAgentRotate())
	return cmd
}

func dirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", "", "the agent's folder")
	// It fails only for a flag that is not there, and this one is.
	_ = cmd.MarkFlagRequired("dir")
}

func newEnroll() *cobra.Command {
	var r enrol.Request
	var tokenFile, rule, endpoint string
	var c choices
	cmd := &cobra.Command{
		Use:   "enroll",
		Short: "Exchange a one-time join token for this agent's identity",
		Long: `enroll makes a key in the agent's folder, which never leaves it, and exchanges a
one-time join token for the agent's identity and its way to the topic.

With --aws-sts, the machine's identity at AWS stands for the token, where the
aggregator has a rule for it: the credentials stay here, and sign a request that
says nothing but who signed it.

With --key, a key in AWS KMS or in a PKCS #11 token certifies that one, for a
time: nothing but that is ever signed by it, so that a scan of any size asks it
nothing. Whoever holds its public half can verify the whole chain.`,
		Example: `  cavra agent enroll --server http://127.0.0.1:8480 --token-file join.token --dir ./agent --scan /models
  cavra agent enroll --aws-sts acme/gpu-nodes --server https://cavra.example:8480 --dir ./agent --scan /models
  cavra agent enroll --key kms:arn:aws:kms:eu-central-1:111122223333:key/… --server https://cavra.example:8480 --token-file join.token --dir ./agent --scan /models
  cavra agent enroll --reenroll --server https://cavra.example:8480 --token-file join.token --dir ./agent`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if rule != "" {
				if r.AWS, err = awsRule(rule, endpoint, r.Reenroll || tokenFile != "" || r.JoinToken != ""); err != nil {
					return err
				}
			} else if r.JoinToken, err = readToken(cmd.InOrStdin(), tokenFile, r.JoinToken); err != nil {
				return err
			}
			r.Version = version
			if !cmd.Flags().Changed("keyed-below") {
				c.keyedBelow = unset
			}
			settings, err := settingsFor(r.Dir, c)
			if err != nil {
				return err
			}
			if err := hold(cmd.Context(), &r, settings.Key, askPIN(cmd.InOrStdin(), cmd.ErrOrStderr())); err != nil {
				return err
			}
			id, err := enrol.Enrol(cmd.Context(), r)
			if err != nil {
				return &exitError{exitFindings, err}
			}
			if err := writeSettings(r.Dir, settings); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "enrolled agent %s of tenant %s, epoch %d; start it with: cavra agent run --dir %s\n", id.Agent, id.Tenant, id.Epoch, r.Dir)
			return err
		},
	}
	dirFlag(cmd, &r.Dir)
	f := cmd.Flags()
	f.StringVar(&r.Server, "server", "http://127.0.0.1:8480", "the aggregator's address")
	f.StringVar(&tokenFile, "token-file", "", "a file that holds the join token; - is standard input")
	f.StringVar(&r.JoinToken, "token", "", "the join token itself; others on this machine can see it, so prefer --token-file")
	f.StringVar(&rule, "aws-sts", "", "TENANT/RULE: join by this machine's identity at AWS, which the tenant's rule lets in")
	f.StringVar(&endpoint, "aws-sts-endpoint", "", "the URL of AWS STS, where the aggregator is configured with another than AWS's own")
	f.StringVar(&r.CAFile, "ca", "", "the aggregator's certificate authority, PEM")
	f.StringVar(&r.HolderName, "key", "", "where the key is that everything rests on: file (the default), kms:ARN, or pkcs11:token=…;object=…?module-path=…[&pin-source=file:/…]")
	f.BoolVar(&r.Reenroll, "reenroll", false, "open a new epoch for an agent that is enrolled, with a token made for it")
	f.StringArrayVar(&c.scan, "scan", nil, "a folder or file to look after; may be given again")
	f.StringVar(&c.sandbox, "sandbox", "", "isolation of the scanners: require (the default), best-effort where the machine cannot give all of it, or off-unsafe")
	f.Int64Var(&c.keyedBelow, "keyed-below", config.DefaultKeyedBelow, "name files of less than so many bytes, and bundles, by keyed digests where they leave; 0 none")
	f.BoolVar(&c.remote, "remote-config", false, "let the aggregator make this agent slower or smaller than its own configuration says (remote_config: on)")
	f.StringVar(&c.privacy, "privacy", "", "strict (the default) sends names as keyed hashes, names sends them in the clear, full-local keeps all reports on this machine")
	return cmd
}

// awsRule is the rule that stands for a join token.
func awsRule(name, endpoint string, other bool) (*awsjoin.Rule, error) {
	if other {
		return nil, errors.New("--aws-sts enrols a new agent, without a join token: leave --token-file, --token and --reenroll out")
	}
	rule, err := awsjoin.ParseRule(name)
	if err != nil {
		return nil, fmt.Errorf("--aws-sts: %w", err)
	}
	rule.Endpoint = endpoint
	return &rule, nil
}

func readToken(stdin io.Reader, file, token string) (string, error) {
	if (file == "") == (token == "") {
		return "", errors.New("give the join token by either --token-file or --token; `cavra-aggregator join-token create` makes one")
	}
	if token != "" {
		return token, nil
	}
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("read join token: %w", err)
		}
		defer f.Close() //nolint:errcheck // it was only read
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxToken))
	if err != nil {
		return "", fmt.Errorf("read join token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// choices are the flags that a configuration is made of.
type choices struct {
	scan             []string
	privacy, sandbox string
	keyedBelow       int64
	remote           bool
}

// unset is a number that was not chosen.
const unset = -1

// settingsFor is the configuration that the flags ask for, over the folder's
// own if it has one.
func settingsFor(dir string, by choices) (config.Config, error) {
	c, err := config.Load(dir)
	if errors.Is(err, os.ErrNotExist) {
		c, err = config.Default(), nil
	}
	if err != nil {
		return config.Config{}, err
	}
	for _, path := range by.scan {
		abs, err := filepath.Abs(path)
		if err == nil {
			_, err = os.Stat(abs)
		}
		if err != nil {
			return config.Config{}, fmt.Errorf("--scan %s: %w", path, err)
		}
		c.Scopes = append(c.Scopes, config.Scope{Connector: "fs", Root: abs})
	}
	if by.remote {
		c.RemoteConfig = config.RemoteOn
	}
	if by.privacy != "" {
		c.Privacy = predicate.Privacy(by.privacy)
	}
	if by.sandbox != "" {
		c.Sandbox = plugin.Sandbox(by.sandbox)
	}
	if by.keyedBelow != unset {
		c.KeyedBelow = by.keyedBelow
	}
	if err := c.Validate(); err != nil {
		return config.Config{}, fmt.Errorf("%w (name what to look after with --scan PATH)", err)
	}
	return c, nil
}

func writeSettings(dir string, c config.Config) error {
	b, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return diskio.WriteFile(diskio.OS{}, filepath.Join(dir, config.File), b, 0o600)
}

// The exit codes of `cavra agent run` beyond the common ones.
const (
	exitAway = 4
	exitDisk = 5
)

func newAgentRun() *cobra.Command {
	var r agentRun
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Scan round after round, and publish",
		Long: `Scan round after round, and publish. While the brokers are away or the disk of
the agent's folder fails, scanning waits, and goes on by itself; the log and
cavra agent status say why.

Exit codes: 0 it was told to stop, or --once is done; 1 it could not go on, or
another agent runs over the folder; 2 wrong usage or configuration; 4 with
--once, the brokers were away for as long as --wait says: what is signed waits
in the spool; 5 with --once, the disk of the agent's folder failed or was full.`,
		Example: "  cavra agent run --dir /var/lib/cavra\n  cavra agent run --dir /var/lib/cavra --once --wait 1m",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.run(cmd.Context(), cmd.ErrOrStderr())
		},
	}
	dirFlag(cmd, &r.dir)
	f := cmd.Flags()
	f.BoolVar(&r.once, "once", false, "do one round, publish everything, and end")
	f.DurationVar(&r.wait, "wait", 5*time.Minute, "how long --once waits for brokers that are away or a disk that is full")
	f.StringVar(&r.logFormat, "log-format", "text", "text or json")
	return cmd
}

type agentRun struct {
	dir, logFormat string
	once           bool
	wait           time.Duration
}

func (r agentRun) run(ctx context.Context, stderr io.Writer) error {
	log, err := logger(stderr, r.logFormat)
	if err != nil {
		return err
	}
	settings, err := config.Load(r.dir)
	if err != nil {
		return err
	}
	// Nobody of this user, a plugin least of all, may trace the process or read the
	// key in its memory.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep the agent's memory from others: %w", err)
	}
	cfg := agent.Config{Dir: r.dir, Settings: settings, Version: version, Log: log}
	if r.once {
		err = agent.Once(ctx, cfg, r.wait)
	} else {
		err = agent.Keep(ctx, cfg)
	}
	var disk *agent.DiskError
	var start *agent.StartError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &disk):
		return &exitError{exitDisk, err}
	case errors.Is(err, agent.ErrAway):
		return &exitError{exitAway, err}
	case errors.As(err, &start) && !errors.Is(err, agent.ErrRunning):
		return err
	}
	return &exitError{exitFindings, err}
}

func logger(w io.Writer, format string) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, nil)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", format)
}

func newAgentStatus() *cobra.Command {
	var dir, format string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show where the chain stands, what waits, and whether the brokers take it",
		Long: `Show where the chain stands, what waits, and whether the brokers take it, while
the agent runs and while it does not. It changes nothing in the folder.

Exit codes: 0 it could be told; 1 a process that has only just started has the
folder in use, so ask again; 2 wrong usage or configuration.`,
		Example: "  cavra agent status --dir /var/lib/cavra\n  cavra agent status --dir /var/lib/cavra --format json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := config.Load(dir)
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			s, err := agent.StatusOf(cmd.Context(), agent.Config{Dir: dir, Settings: settings, Version: version, Log: log})
			if errors.Is(err, agent.ErrRunning) {
				return &exitError{exitFindings, err}
			}
			if err != nil {
				return err
			}
			switch format {
			case "json":
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			case "text":
				return showStatus(cmd.OutOrStdout(), s)
			}
			return fmt.Errorf("--format %q: want text or json", format)
		},
	}
	dirFlag(cmd, &dir)
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

func newAgentCheckIn() *cobra.Command {
	var dir, format string
	var renew bool
	cmd := &cobra.Command{
		Use:   "check-in",
		Short: "Call the aggregator once, for an agent that does not run",
		Long: `Call the aggregator once: get another certificate where it is time for one, come
back by the enrolled key where the certificate has ended, and show what is wrong
with this agent in the aggregator's eyes. A running agent does all of it by itself.

Exit codes: 0 the aggregator has answered; 1 it has not, or refuses this agent, or
a running agent calls by itself; 2 wrong usage or configuration.`,
		Example: "  cavra agent check-in --dir /var/lib/cavra\n  cavra agent check-in --dir /var/lib/cavra --renew",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := config.Load(dir)
			if err != nil {
				return err
			}
			if format != "text" && format != "json" {
				return fmt.Errorf("--format %q: want text or json", format)
			}
			log := slog.New(slog.DiscardHandler) // the error says it
			c, err := agent.CheckIn(cmd.Context(), agent.Config{Dir: dir, Settings: settings, Version: version, Log: log}, renew)
			if err != nil {
				return &exitError{exitFindings, err}
			}
			if format == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(c)
			}
			return writeLines(cmd.OutOrStdout(), contactLines(c))
		},
	}
	dirFlag(cmd, &dir)
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.Flags().BoolVar(&renew, "renew", false, "get another certificate, whether or not it is time")
	return cmd
}

// contactLines are what there is to say of an agent's calls.
func contactLines(c agent.Contact) [][2]string {
	last := "none"
	if c.LastCall != nil {
		last = c.LastCall.String()
	}
	lines := [][2]string{
		{"certificate", fmt.Sprintf("generation %d, good until %s", c.Generation, c.NotAfter)},
		{"last check-in", last},
	}
	for _, p := range c.Problems {
		lines = append(lines, [2]string{"problem", p})
	}
	if c.Error != "" {
		lines = append(lines, [2]string{"no contact", c.Error})
	}
	return lines
}

// showStatus writes a line for each thing, the odd ones only where they are.
func showStatus(w io.Writer, s agent.Status) error {
	when := func(t *predicate.Time, none string) string {
		if t == nil {
			return none
		}
		return t.String()
	}
	running := "no"
	if s.Running > 0 {
		running = fmt.Sprintf("process %d, as of %s", s.Running, s.AsOf)
	}
	lines := [][2]string{
		{"agent", fmt.Sprintf("%s of tenant %s", s.Agent, s.Tenant)},
		{"aggregator", s.Server},
		{"key", string(s.KeyID)},
		{"key holder", s.Key.Holder},
		{"key age", fmt.Sprintf("made %s, another follows from %s on", when(s.Key.MadeAt, "at an unknown time"), when(s.Key.DueAt, "when it is asked for"))},
		{"privacy", string(s.Privacy)},
		{"running", running},
		{"last round", when(s.LastRound, "none has ended")},
		{"epoch", strconv.FormatUint(s.Epoch, 10)},
		{"sequence", strconv.FormatUint(s.Sequence, 10)},
		{"acknowledged", fmt.Sprintf("sequence %d of epoch %d", s.Acknowledged.Sequence, s.Acknowledged.Epoch)},
		{"last ack", when(s.LastAck, "none")},
		{"waiting", fmt.Sprintf("%d statements, %d bytes", s.Waiting, s.WaitingBytes)},
		{"disk", fmt.Sprintf("%d of %d bytes", s.Bytes, s.MaxBytes)},
	}
	if s.Kept > 0 {
		lines = append(lines, [2]string{"kept here", fmt.Sprintf("%d statements, %d bytes on the disk: cavra agent kept shows them", s.Kept, s.KeptBytes)})
	}
	if s.Key.Authority != "" {
		lines = append(lines, [2]string{"certified by", fmt.Sprintf("%s, until %s", s.Key.Authority, when(s.Key.EndsAt, "another key follows"))})
	}
	if s.FullSince != nil && s.DiskError == "" {
		lines = append(lines, [2]string{"full since", s.FullSince.String() + ": scanning waits for the brokers"})
	}
	if s.DiskError != "" {
		lines = append(lines, [2]string{"disk trouble", s.DiskError})
	}
	if s.Damaged > 0 {
		lines = append(lines, [2]string{"damaged", fmt.Sprintf("%d segments: only what stands before the damage is counted here; the agent mends it when it starts", s.Damaged)})
	}
	if s.Refused > 0 {
		lines = append(lines, [2]string{"refused", fmt.Sprintf("%d attempts of connectors to reach what their scopes do not allow: the log names the places", s.Refused)})
	}
	if s.Trouble != nil {
		lines = append(lines, [2]string{"not sent", fmt.Sprintf("since %s: %s", s.Trouble.Since, s.Trouble.Error)})
	}
	lines = append(lines, [2]string{"brokers", s.Brokers})
	if s.Contact != nil {
		lines = append(lines, contactLines(*s.Contact)...)
	}
	return writeLines(w, lines)
}

func writeLines(w io.Writer, lines [][2]string) error {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%-13s %s\n", l[0], l[1])
	}
	_, err := io.WriteString(w, b.String())
	return err
}
