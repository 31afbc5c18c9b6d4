package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/cavra/cavra/aggregator"
	"github.com/cavra/cavra/aggregator/internal/config"
	"github.com/cavra/cavra/aggregator/internal/control"
)

func serveCommand() *cobra.Command {
	var dir, file, listen, agentsListen, library, logFormat string
	var kafkaPort int
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the aggregator",
		Long: `serve runs the aggregator until it is stopped. With --embedded, everything runs in
this one program and is kept in one folder. With --config, it uses the Kafka
cluster, the ClickHouse cluster and the control store that the file names.`,
		Example: "  cavra-aggregator serve --embedded ./data\n  cavra-aggregator serve --config /etc/cavra/aggregator.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := settingsOf(dir, file)
			if err != nil {
				return usage(err)
			}
			flags := cmd.Flags()
			if flags.Changed("listen") {
				settings.Listen = listen
			}
			if flags.Changed("agents-listen") {
				settings.Agents.Listen = agentsListen
			}
			if flags.Changed("kafka-port") {
				settings.Embedded.KafkaPort = kafkaPort
			}
			if library != "" {
				settings.Embedded.EngineLibrary = library
			}
			if err := settings.Validate(); err != nil {
				return usage(err)
			}
			var log *slog.Logger
			switch logFormat {
			case "text":
				log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			case "json":
				log = slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), nil))
			default:
				return usage(fmt.Errorf("--log-format %q: want text or json", logFormat))
			}
			a, err := aggregator.New(aggregator.Config{Settings: settings, Version: version, Log: log})
			if err != nil {
				return usage(err)
			}
			return a.Run(cmd.Context(), func(at aggregator.Address) {
				out := cmd.OutOrStdout()
				_, _ = fmt.Fprintf(out, "The page and the API are at %s\n", at.URL)
				if settings.Embedded.Dir != "" {
					_, _ = fmt.Fprintf(out, "Log in with the token in %s\n", filepath.Join(settings.Embedded.Dir, "admin.token"))
				}
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "embedded", "", "run everything here, and keep it in this folder")
	f.StringVar(&file, "config", "", "the configuration file")
	f.StringVar(&listen, "listen", config.DefaultListen, "host:port of the page and the API")
	f.StringVar(&agentsListen, "agents-listen", config.DefaultAgentsListen, "host:port that agents call, with certificates of the aggregator's own")
	f.IntVar(&kafkaPort, "kafka-port", config.DefaultKafkaPort, "port of the embedded broker on 127.0.0.1; 0 takes a free one")
	f.StringVar(&library, "engine-library", "", "the path of libchdb.so (default beside the program)")
	f.StringVar(&logFormat, "log-format", "text", "text or json")
	return cmd
}

// settingsOf is the configuration that the two flags ask for.
func settingsOf(dir, file string) (config.Config, error) {
	switch {
	case dir != "" && file != "":
		return config.Config{}, errors.New("name either --embedded or --config; a configuration file can set embedded.dir")
	case file != "":
		return config.Load(file)
	case dir != "":
		abs, err := filepath.Abs(dir)
		if err != nil {
			return config.Config{}, fmt.Errorf("--embedded %s: %w", dir, err)
		}
		c := config.Default()
		c.Embedded.Dir = abs
		return c, nil
	}
	return config.Config{}, errors.New("say what to run: --embedded DIR runs everything here, --config FILE uses clusters")
}

// tenantCommand works on the control store itself: no API has a role that
// reaches over tenants.
func tenantCommand() *cobra.Command {
	var dir, file string
	cmd := &cobra.Command{
		Use:     "tenant",
		Short:   "Create and list tenants, on the control store itself",
		Example: "  cavra-aggregator tenant create acme --embedded ./data\n  cavra-aggregator tenant list --embedded ./data",
	}
	cmd.PersistentFlags().StringVar(&dir, "embedded", "", "the folder of an embedded aggregator")
	cmd.PersistentFlags().StringVar(&file, "config", "", "the configuration file of an aggregator")
	with := func(run func(ctx context.Context, cmd *cobra.Command, s *control.Store, args []string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) (err error) {
			settings, err := settingsOf(dir, file)
			if err != nil {
				return usage(err)
			}
			store, err := aggregator.OpenControl(cmd.Context(), settings)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, store.Close()) }()
			return run(cmd.Context(), cmd, store, args)
		}
	}
	create := &cobra.Command{
		Use: "create ID", Short: "Create a tenant and print its first admin token, this once", Args: cobra.ExactArgs(1),
		RunE: with(func(ctx context.Context, cmd *cobra.Command, s *control.Store, args []string) error {
			token, err := aggregator.CreateTenant(ctx, s, args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		}),
	}
	list := &cobra.Command{
		Use: "list", Short: "List the tenants", Args: cobra.NoArgs,
		RunE: with(func(ctx context.Context, cmd *cobra.Command, s *control.Store, _ []string) error {
			tenants, err := s.Tenants(ctx)
			if err != nil {
				return err
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			for _, t := range tenants {
				if err := enc.Encode(map[string]string{"id": t.ID, "name": t.Name}); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	cmd.AddCommand(create, list)
	return cmd
}
