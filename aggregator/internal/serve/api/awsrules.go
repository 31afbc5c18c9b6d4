package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/awssts"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/schemas/predicate"
)

// AWSRuleRequest asks for a rule.
type AWSRuleRequest struct {
	Name      string `json:"name" minLength:"1" maxLength:"64" doc:"What it is called."`
	ARN       string `json:"arn" minLength:"1" maxLength:"512" doc:"Who is let in: the ARN of a user or of a role's session, or that of all sessions of a role, arn:aws:sts::ACCOUNT:assumed-role/ROLE/*."`
	AgentName string `json:"agent_name,omitempty" maxLength:"128" doc:"What a new agent is called, with {account}, {role} and {name}; {name} unless it is set."`
}

// AWSRule is a rule.
type AWSRule struct {
	Name      string    `json:"name"`
	Account   string    `json:"account"`
	ARN       string    `json:"arn"`
	AgentName string    `json:"agent_name"`
	CreatedBy string    `json:"created_by"`
	CreatedAt time.Time `json:"created_at"`
}

// AWSRuleList lists all rules.
type AWSRuleList struct {
	Rules []AWSRule `json:"rules"`
}

func (o operations) awsRules() {
	add(o, access.AgentsEnrol, get("list-aws-rules", "/v1/aws-rules", "AWS rules", "Who may enrol agents of the tenant by their identity at AWS.", "agents"),
		func(ctx context.Context, p access.Principal, _ *none) (*body[AWSRuleList], error) {
			rules, err := o.cfg.Control.AWSRules(ctx, p.Tenant)
			list := AWSRuleList{Rules: make([]AWSRule, len(rules))}
			for i, r := range rules {
				list.Rules[i] = AWSRule{Name: r.Name, ARN: r.ARN, AgentName: r.AgentName, CreatedBy: r.CreatedBy, CreatedAt: r.CreatedAt}
				if pattern, err := awssts.ParsePattern(r.ARN); err == nil {
					list.Rules[i].Account = pattern.Account()
				}
			}
			return &body[AWSRuleList]{list}, err
		})
	add(o, access.Admin, huma.Operation{
		OperationID: "create-aws-rule", Method: http.MethodPost, Path: "/v1/aws-rules", Summary: "Let an identity at AWS enrol agents",
		Description: "Whoever AWS STS says is this caller may enrol agents of the tenant, one for each key that is presented, until the rule is deleted.",
		Tags:        []string{"agents"}, DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusConflict},
	}, o.createAWSRule)
	add(o, access.Admin, huma.Operation{
		OperationID: "delete-aws-rule", Method: http.MethodDelete, Path: "/v1/aws-rules/{name}", Summary: "Delete an AWS rule",
		Description: "Nobody is enrolled by it any more. Agents that it has let in stay.", Tags: []string{"agents"}, DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, p access.Principal, in *namePath) (*none, error) {
		return nil, o.cfg.Control.DeleteAWSRule(ctx, p.Tenant, in.Name)
	})
}

func (o operations) createAWSRule(ctx context.Context, p access.Principal, in *body[AWSRuleRequest]) (*none, error) {
	b := in.Body
	if b.AgentName == "" {
		b.AgentName = "{name}"
	}
	if err := predicate.ValidateID(b.Name); err != nil {
		return nil, huma.Error422UnprocessableEntity("name: " + err.Error())
	}
	if _, err := awssts.ParsePattern(b.ARN); err != nil {
		return nil, huma.Error422UnprocessableEntity("arn: " + err.Error())
	}
	if err := predicate.PlainAllowed(b.AgentName); err != nil {
		return nil, huma.Error422UnprocessableEntity("agent_name: " + err.Error())
	}
	return nil, o.cfg.Control.CreateAWSRule(ctx, control.AWSRule{Tenant: p.Tenant, Name: b.Name, ARN: b.ARN, AgentName: b.AgentName, CreatedBy: p.Name})
}
