package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cavra/cavra/agent"
	"github.com/cavra/cavra/agent/internal/config"
	"github.com/cavra/cavra/agent/internal/enrol"
	"github.com/cavra/cavra/agent/internal/keys"
	"github.com/cavra/cavra/sdk/identity"
)

// askPIN reads a token's PIN from the terminal, which does not show it. It is
// nil where there is no terminal.
func askPIN(in io.Reader, out io.Writer) func() (string, error) {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return func() (string, error) {
		if _, err := fmt.Fprint(out, "PIN of the token: "); err != nil {
			return "", err
		}
		pin, err := term.ReadPassword(int(f.Fd()))
		if _, e := fmt.Fprintln(out); err == nil {
			err = e
		}
		return string(pin), err
	}
}

// hold opens the holder of a key that --key names; nil for a file. An agent that
// is enrolled anew keeps the holder that it has unless it is told another.
func hold(ctx context.Context, r *enrol.Request, life config.Key, ask func() (string, error)) error {
	if r.HolderName == "" && r.Reenroll {
		if l, err := enrol.Load(r.Dir); err == nil {
			r.HolderName = l.Holder
		}
	}
	if err := keys.Validate(r.HolderName); err != nil {
		return fmt.Errorf("--key: %w", err)
	}
	r.KeyLife = life.Life()
	if !keys.Remote(r.HolderName) {
		r.HolderName = ""
		return nil
	}
	holder, err := keys.Open(ctx, r.HolderName, ask)
	if err != nil {
		return &exitError{exitFindings, err}
	}
	r.Holder = holder
	return nil
}

func newAgentRotate() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Change to a new key now",
		Long: `Make a new key, have the aggregator take it on, and open the chain's next epoch.
The agent does so by itself when its key has key.max_age; what the former key
signed is taken in for some days more. Where the key is certified by one in a KMS
or a token, that is asked once. While an agent runs over the folder, it is asked
to do so.

Exit codes: 0 the new epoch has begun; 1 the present key stays, and why; 2 wrong
usage or configuration.`,
		Example: "  cavra agent rotate --dir /var/lib/cavra",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := config.Load(dir)
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			cfg := agent.Config{Dir: dir, Settings: settings, Version: version, Log: log}
			epoch, err := agent.Rotate(cmd.Context(), cfg, askPIN(cmd.InOrStdin(), cmd.ErrOrStderr()))
			if err != nil {
				return &exitError{exitFindings, err}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "a new key signs from epoch %d on\n", epoch)
			return err
		},
	}
	dirFlag(cmd, &dir)
	return cmd
}

// checkKey says whether the key of an agent's folder can be used.
func checkKey(ctx context.Context, dir string) []check {
	l, err := enrol.Load(dir)
	if errors.Is(err, enrol.ErrNotEnrolled) {
		return []check{{levelWarn, fmt.Sprintf("key: %v", err), "enrol the agent"}}
	}
	if err != nil {
		return []check{{levelFail, fmt.Sprintf("key: %v", err), "restore the folder, or enrol again with --reenroll"}}
	}
	local := identity.Local{Key: l.Key, Where: l.KeyFile}
	out := []check{{levelOK, fmt.Sprintf("key: %s, %s, %s", l.KeyID, l.Key.Public().Algorithm, local.Describe()), ""}}
	if !keys.Remote(l.Holder) {
		return out
	}
	// Nobody is asked: this is what the agent can do by itself.
	holder, err := keys.Open(ctx, l.Holder, nil)
	switch {
	case err != nil:
		return append(out, check{levelFail, fmt.Sprintf("key: what certifies it does not answer: %v", err),
			fmt.Sprintf("the agent signs on until %s, and then needs it: mend it, or run `cavra agent rotate` where somebody can be asked", l.EndsAt)})
	case holder.Public().ID() != l.Authority:
		return append(out, check{levelFail, fmt.Sprintf("key: %s holds %s now, and the agent's was certified by %s", holder.Describe(), holder.Public().ID(), l.Authority),
			"enrol again with --reenroll"})
	}
	return append(out, check{levelOK, fmt.Sprintf("key: certified until %s by %s, %s", l.EndsAt, holder.Public().ID(), holder.Describe()), ""})
}
