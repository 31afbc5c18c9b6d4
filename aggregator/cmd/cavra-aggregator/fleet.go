package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/aggregator/internal/serve/api"
	"github.com/cavra/cavra/sdk/remoteconfig"
)

func fleetCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "fleet", Short: "Set what agents may be told from here"}
	config := &cobra.Command{
		Use: "config", Short: "Set, take back and list what is set on agents",
		Long: `What is set here is signed by the aggregator and fetched by the agents, which take
it where their own configuration says remote_config: on. It can make an agent
slower or smaller than its own configuration, and decides nothing else: scopes,
privacy, sandbox, egress and keys are for the installation alone.`,
	}
	config.AddCommand(fleetConfigSet(), fleetConfigClear(), fleetConfigShow())
	cmd.AddCommand(config)
	return cmd
}

func fleetConfigSet() *cobra.Command {
	var c client
	var agent string
	cmd := &cobra.Command{
		Use: "set NAME=VALUE...", Short: "Set all that agents are told, or one of them", Args: cobra.MinimumNArgs(1),
		Long: `Set all that agents are told: what is not named is the agent's own again.

Names: interval, heartbeat, inventory and check_in, as 10m; jobs; spool_max_bytes.`,
		Example: "  cavra-aggregator fleet config set heartbeat=1m interval=30m --token-file ./data/admin.token\n" +
			"  cavra-aggregator fleet config set jobs=1 --agent a1b2c3 --token-file ./data/admin.token",
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := readSettings(args)
			if err != nil {
				return usage(err)
			}
			return setFleetConfig(cmd, &c, api.FleetConfigRequest{Agent: agent, Settings: set})
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&agent, "agent", "", "an agent's id; without it, for all that have nothing of their own")
	return cmd
}

// readSettings reads NAME=VALUE, and says of what no aggregator may set that it may
// not.
func readSettings(args []string) (*serve.FleetSettings, error) {
	members := map[string]any{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if _, twice := members[name]; !ok || name == "" || twice {
			return nil, fmt.Errorf("%q: want NAME=VALUE, each name once", arg)
		}
		members[name] = value
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			members[name] = n
		}
	}
	raw, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	if _, err := remoteconfig.ParseSettings(raw); err != nil {
		return nil, err
	}
	var set serve.FleetSettings
	return &set, json.Unmarshal(raw, &set)
}

func fleetConfigClear() *cobra.Command {
	var c client
	var agent string
	cmd := &cobra.Command{
		Use: "clear", Short: "Take back what was set on all agents, or on one of them", Args: cobra.NoArgs,
		Example: "  cavra-aggregator fleet config clear --token-file ./data/admin.token",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return setFleetConfig(cmd, &c, api.FleetConfigRequest{Agent: agent})
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&agent, "agent", "", "an agent's id, to take back what was set on it alone")
	return cmd
}

func setFleetConfig(cmd *cobra.Command, c *client, req api.FleetConfigRequest) error {
	var made serve.FleetConfig
	if err := c.call(cmd.Context(), http.MethodPost, "/v1/fleet/configurations", nil, req, &made); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "version %d\n", made.Version)
	return err
}

func fleetConfigShow() *cobra.Command {
	var c client
	var s shown
	cmd := &cobra.Command{
		Use: "show", Short: "List the last 100 versions of what was set, the latest first", Args: cobra.NoArgs,
		Example: "  cavra-aggregator fleet config show --token-file ./data/admin.token",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list serve.FleetConfigList
			if err := c.get(cmd.Context(), "/v1/fleet/configurations", nil, &list); err != nil {
				return err
			}
			return s.print(cmd.OutOrStdout(), list, func(w io.Writer) {
				t := newTable(w, "Set on agents", "version", "on", "settings", "by", "at")
				for _, v := range list.Configurations {
					on, set := "all", "taken back"
					if v.Agent != "" {
						on = v.Agent
					}
					if !v.Cleared {
						set = settingsText(v.Settings)
					}
					t.AppendRow(table.Row{v.Version, on, set, visible(v.CreatedBy), v.CreatedAt.Format("2006-01-02 15:04:05Z")})
				}
				t.Render()
			})
		},
	}
	c.flags(cmd)
	s.flags(cmd)
	return cmd
}

// settingsText writes settings as set takes them.
func settingsText(s serve.FleetSettings) string {
	var out []string
	for _, p := range []struct{ name, value string }{
		{"interval", s.Interval}, {"heartbeat", s.Heartbeat}, {"inventory", s.Inventory}, {"check_in", s.CheckIn},
	} {
		if p.value != "" {
			out = append(out, p.name+"="+p.value)
		}
	}
	if s.Jobs > 0 {
		out = append(out, fmt.Sprintf("jobs=%d", s.Jobs))
	}
	if s.SpoolMaxBytes > 0 {
		out = append(out, fmt.Sprintf("spool_max_bytes=%d", s.SpoolMaxBytes))
	}
	return strings.Join(out, " ")
}
