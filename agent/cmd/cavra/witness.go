package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cavra/cavra/agent/internal/witness"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/logproof"
)

const (
	witnessSeed    = "witness.seed"
	witnessTimeout = 30 * time.Second
)

type witnessOptions struct {
	listen, dir, name string
	logs              []string
}

func newWitness() *cobra.Command {
	var o witnessOptions
	cmd := &cobra.Command{
		Use:   "witness",
		Short: "Sign a transparency log's checkpoints, as long as each extends the last",
		Long: `Run a witness of one or more transparency logs (c2sp.org/tlog-witness). It signs a
checkpoint only if that extends the last one that it signed of the log, and notes
it on its disk first: an aggregator that needs its signature cannot show one
history to some and another to others. It is for somebody other than the
aggregator's operator to run.

It writes its key, which aggregators take in evidence.witnesses and cavra verify
in --witness-key. What it answers is signed, so that it needs no TLS; a folder that
is lost or restored from a backup makes it a witness that does not know what it has
signed: begin with a new key then.

Exit codes: 0 it was told to stop; 1 it could not go on; 2 wrong usage.`,
		Example: "  cavra witness --dir ./witness --name audit.example.com/cavra --log-key log.key --listen 127.0.0.1:8482",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runWitness(cmd, o)
		},
	}
	dirFlag(cmd, &o.dir)
	cmd.Flags().Lookup("dir").Usage = "the witness's folder: its key, and what it has signed"
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:8482", "where logs send their checkpoints")
	f.StringVar(&o.name, "name", "", "what the witness is called in its signatures, as a URL without a scheme")
	f.StringArrayVar(&o.logs, "log-key", nil, "a log's public `KEY`, or a file that holds it; may be given again")
	return cmd
}

func runWitness(cmd *cobra.Command, o witnessOptions) (err error) {
	if o.name == "" || len(o.logs) == 0 {
		return errors.New("name the witness with --name, and the logs that it looks after with --log-key")
	}
	logs := map[string]string{}
	for _, given := range o.logs {
		key, err := logKey(given)
		if err != nil {
			return err
		}
		origin, err := logproof.Origin(key)
		if err != nil {
			return fmt.Errorf("--log-key %s: %w", given, err)
		}
		logs[origin] = key
	}
	cosigner, err := takeCosigner(o.dir, o.name)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
	w, err := witness.Open(witness.Config{Dir: o.dir, Cosigner: cosigner, Logs: logs, Log: log})
	if err != nil {
		return &exitError{exitFindings, err}
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	l, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", o.listen)
	if err != nil {
		return &exitError{exitFindings, fmt.Errorf("listen on %s: %w", o.listen, err)}
	}
	if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\nhttp://%s\n", cosigner, l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	return serveWitness(cmd.Context(), l, w.Handler())
}

func serveWitness(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadTimeout: witnessTimeout, WriteTimeout: witnessTimeout, IdleTimeout: witnessTimeout, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close() // who is still connected has had their time
		}
	})
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return &exitError{exitFindings, fmt.Errorf("serve: %w", err)}
	}
	return nil
}

// takeCosigner reads the witness's key, or makes one.
func takeCosigner(dir, name string) (*logproof.Cosigner, error) {
	file := filepath.Join(dir, witnessSeed)
	seed, err := diskio.ReadFile(file, maxLogKey)
	if errors.Is(err, os.ErrNotExist) {
		seed = make([]byte, 32)
		if _, err := rand.Read(seed); err != nil {
			return nil, fmt.Errorf("make key: %w", err)
		}
		if err = diskio.MakeDir(diskio.OS{}, dir, 0o700); err == nil {
			err = diskio.WriteFile(diskio.OS{}, file, seed, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	return logproof.NewCosigner(name, seed, time.Now)
}

// witnessKeys reads witnesses' keys: each itself, or a file that holds it.
func witnessKeys(given []string) ([]logproof.Witness, error) {
	var out []logproof.Witness
	for _, g := range given {
		key, err := logKey(g)
		if err != nil {
			return nil, err
		}
		w, err := logproof.ParseWitness(strings.TrimSpace(key))
		if err != nil {
			return nil, fmt.Errorf("--witness-key %s: %w", g, err)
		}
		out = append(out, w)
	}
	return out, nil
}
