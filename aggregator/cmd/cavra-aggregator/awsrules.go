package main

import (
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/cavra/cavra/aggregator/internal/serve/api"
)

func awsRuleCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "aws-rule", Short: "Say who may enrol agents by their identity at AWS"}
	cmd.AddCommand(awsRuleCreate(), awsRuleList(), awsRuleDelete())
	return cmd
}

func awsRuleCreate() *cobra.Command {
	var c client
	var req api.AWSRuleRequest
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Let a user, a session or all sessions of a role enrol agents", Args: cobra.ExactArgs(1),
		Example: "  cavra-aggregator aws-rule create gpu --arn 'arn:aws:sts::123456789012:assumed-role/gpu-nodes/*' --agent-name '{role}/{name}'",
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name = args[0]
			return c.call(cmd.Context(), http.MethodPost, "/v1/aws-rules", nil, req, nil)
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&req.ARN, "arn", "", "the ARN that AWS STS names, with * for the name of a role's session and nowhere else")
	cmd.Flags().StringVar(&req.AgentName, "agent-name", "", "what a new agent is called, with {account}, {role} and {name} (default {name})")
	return cmd
}

func awsRuleList() *cobra.Command {
	var c client
	var s shown
	cmd := &cobra.Command{
		Use: "list", Short: "List the rules", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list api.AWSRuleList
			if err := c.get(cmd.Context(), "/v1/aws-rules", nil, &list); err != nil {
				return err
			}
			return s.print(cmd.OutOrStdout(), list, func(w io.Writer) {
				t := newTable(w, "AWS rules", "name", "account", "arn", "agents are called", "by", "created")
				for _, r := range list.Rules {
					t.AppendRow(table.Row{r.Name, r.Account, visible(r.ARN), visible(r.AgentName), visible(r.CreatedBy), r.CreatedAt.Format(time.RFC3339)})
				}
				t.Render()
			})
		},
	}
	c.flags(cmd)
	s.flags(cmd)
	return cmd
}

func awsRuleDelete() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete a rule; agents that it has let in stay", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd.Context(), http.MethodDelete, "/v1/aws-rules/"+url.PathEscape(args[0]), nil, nil, nil)
		},
	}
	c.flags(cmd)
	return cmd
}
