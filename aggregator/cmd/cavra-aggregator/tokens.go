package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/cavra/cavra/aggregator/internal/serve/api"
)

func joinTokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "join-token", Short: "Make one-time tokens that enrol agents"}
	var c client
	var ttl time.Duration
	var req api.JoinTokenRequest
	create := &cobra.Command{
		Use: "create", Short: "Make a join token and print it, this once", Args: cobra.NoArgs,
		Example: "  cavra-aggregator join-token create --token-file ./data/admin.token > join.token\n  cavra-aggregator join-token create --agent a1b2c3 > join.token   # for `cavra agent enroll --reenroll`",
		RunE: func(cmd *cobra.Command, _ []string) error {
			req.TTLSeconds = int64(ttl / time.Second)
			var made api.MadeToken
			if err := c.call(cmd.Context(), http.MethodPost, "/v1/join-tokens", nil, req, &made); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), made.Token)
			return err
		},
	}
	c.flags(create)
	create.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it is good")
	create.Flags().StringVar(&req.AgentName, "name", "", "what the new agent is called")
	create.Flags().StringVar(&req.Agent, "agent", "", "an enrolled agent's id, to open a new epoch of it")
	cmd.AddCommand(create)
	return cmd
}

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Make, list and revoke API tokens"}
	cmd.AddCommand(tokenCreate(), tokenList(), tokenRevoke())
	return cmd
}

func tokenCreate() *cobra.Command {
	var c client
	var ttl time.Duration
	var req api.TokenRequest
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make an API token and print it, this once", Args: cobra.ExactArgs(1),
		Example: "  cavra-aggregator token create auditor --scope posture:read --ttl 720h",
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name, req.TTLSeconds = args[0], int64(ttl/time.Second)
			var made api.MadeToken
			if err := c.call(cmd.Context(), http.MethodPost, "/v1/tokens", nil, req, &made); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), made.Token)
			return err
		},
	}
	c.flags(cmd)
	cmd.Flags().StringSliceVar(&req.Scopes, "scope", nil, "what it may do: posture:read, quarantine:read, agents:read, agents:enrol, tokens:write, admin")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long it is good (default for good)")
	return cmd
}

func tokenList() *cobra.Command {
	var c client
	var s shown
	cmd := &cobra.Command{
		Use: "list", Short: "List the API tokens", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list api.TokenList
			if err := c.get(cmd.Context(), "/v1/tokens", nil, &list); err != nil {
				return err
			}
			return s.print(cmd.OutOrStdout(), list, func(w io.Writer) {
				t := newTable(w, "API tokens", "name", "scopes", "created", "expires")
				for _, k := range list.Tokens {
					expires := "never"
					if k.ExpiresAt != nil {
						expires = k.ExpiresAt.Format(time.RFC3339)
					}
					t.AppendRow(table.Row{visible(k.Name), k.Scopes, k.CreatedAt.Format(time.RFC3339), expires})
				}
				t.Render()
			})
		},
	}
	c.flags(cmd)
	s.flags(cmd)
	return cmd
}

func tokenRevoke() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use: "revoke NAME", Short: "End an API token and its sessions", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd.Context(), http.MethodDelete, "/v1/tokens/"+url.PathEscape(args[0]), nil, nil, nil)
		},
	}
	c.flags(cmd)
	return cmd
}
