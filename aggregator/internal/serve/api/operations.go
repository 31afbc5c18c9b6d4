package api

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/topic"
)

type none struct{}

type digestPath struct {
	Digest string `path:"digest" pattern:"^sha256:[0-9a-f]{64}$" doc:"A digest."`
}

type artifactPath struct {
	Digest string `path:"digest" pattern:"^(hmac-)?sha256:[0-9a-f]{64}$" doc:"An artifact's digest, plain or keyed."`
}

type agentPath struct {
	ID string `path:"id" maxLength:"64" doc:"An agent's id."`
}

type agentQuery struct {
	Trouble string `query:"trouble" enum:"forked,gap,less_isolated,silent,configuration_refused,never_seen,stale,no_complete_round,backlog,programs_differ,configuration_drift,version_differs,key_replaced,cloned,restored,clock_off" doc:"Only agents with this trouble."`
	Status  string `query:"status" enum:"online,stale,silent,never,revoked" doc:"Only agents of this status."`
	Search  string `query:"q" maxLength:"128" doc:"Only agents with this in their name, identifier or version."`
	Offset  uint32 `query:"offset" maximum:"10000000"`
	Limit   uint32 `query:"limit" minimum:"1" maximum:"500" default:"100"`
}

type agentEventQuery struct {
	Agent string `query:"agent" maxLength:"64" doc:"Only events of this agent."`
}

type artifactQuery struct {
	Verdict string `query:"verdict" enum:"pass,warn,fail,error,unassessed" doc:"Only artifacts of this verdict."`
	After   string `query:"after" maxLength:"80" doc:"The cursor that the page before gave as next."`
	Limit   uint32 `query:"limit" minimum:"1" maximum:"500" default:"100"`
}

type exposureQuery struct {
	Severity string `query:"severity" enum:"info,low,medium,high,critical"`
	Status   string `query:"status" enum:"open,resolved"`
	Offset   uint32 `query:"offset" maximum:"10000000"`
	Limit    uint32 `query:"limit" minimum:"1" maximum:"500" default:"100"`
}

type quarantineQuery struct {
	Unattributed bool   `query:"unattributed" doc:"What was refused before a key was found, and so belongs to no tenant; for the aggregator's operator alone."`
	Offset       uint32 `query:"offset" maximum:"10000000"`
	Limit        uint32 `query:"limit" minimum:"1" maximum:"500" default:"100"`
}

func (o operations) posture() {
	add(o, access.PostureRead, get("get-posture", "/v1/posture", "Posture", "The tenant's posture now.", "posture"),
		func(ctx context.Context, p access.Principal, _ *none) (*body[serve.Posture], error) {
			doc, err := o.cfg.Service.Posture(ctx, p.Tenant)
			return &body[serve.Posture]{doc}, err
		})
	add(o, access.PostureRead, get("list-artifacts", "/v1/artifacts", "Artifacts", "What something points to now, the worst first.", "posture"),
		func(ctx context.Context, p access.Principal, in *artifactQuery) (*body[serve.ArtifactList], error) {
			doc, err := o.cfg.Service.Artifacts(ctx, p.Tenant, in.Verdict, in.After, in.Limit)
			return &body[serve.ArtifactList]{doc}, err
		})
	add(o, access.PostureRead, get("get-artifact", "/v1/artifacts/{digest}", "Artifact", "One artifact: what was found, and where it lies.", "posture"),
		func(ctx context.Context, p access.Principal, in *artifactPath) (*body[serve.ArtifactDetail], error) {
			doc, err := o.cfg.Service.Artifact(ctx, p.Tenant, predicate.Digest(in.Digest))
			return &body[serve.ArtifactDetail]{doc}, err
		})
	add(o, access.PostureRead, get("list-exposures", "/v1/exposures", "Exposures", "Findings at references: open ones first, by falling severity.", "posture"),
		func(ctx context.Context, p access.Principal, in *exposureQuery) (*body[serve.ExposureList], error) {
			doc, err := o.cfg.Service.Exposures(ctx, p.Tenant, in.Severity, in.Status, in.Offset, in.Limit)
			return &body[serve.ExposureList]{doc}, err
		})
}

func (o operations) agents() {
	add(o, access.AgentsRead, get("list-agents", "/v1/agents", "Agents", "The tenant's agents, the worst first: how they stand, their chains, gaps and forks; and the fleet summed up.", "agents"),
		func(ctx context.Context, p access.Principal, in *agentQuery) (*body[serve.AgentList], error) {
			doc, err := o.cfg.Service.Agents(ctx, p.Tenant, serve.AgentQuery(*in))
			return &body[serve.AgentList]{doc}, err
		})
	add(o, access.AgentsRead, get("get-agent", "/v1/agents/{id}", "Agent", "One agent.", "agents"),
		func(ctx context.Context, p access.Principal, in *agentPath) (*body[serve.Agent], error) {
			doc, err := o.cfg.Service.Agent(ctx, p.Tenant, in.ID)
			return &body[serve.Agent]{doc}, err
		})
	add(o, access.AgentsRead, get("list-agent-events", "/v1/agent-events", "Events of agents", "What is odd about agents and join tokens: clones, restored snapshots, clocks that are off, tokens that came again. The latest first.", "agents"),
		func(ctx context.Context, p access.Principal, in *agentEventQuery) (*body[serve.AgentEventList], error) {
			doc, err := o.cfg.Service.AgentEvents(ctx, p, in.Agent)
			return &body[serve.AgentEventList]{doc}, err
		})
	add(o, access.Admin, huma.Operation{
		OperationID: "revoke-agent", Method: http.MethodPost, Path: "/v1/agents/{id}/revoke", Summary: "Revoke an agent",
		Description: "Ends its keys and certificates, the join tokens made for it and its access to Kafka. What it has signed and what has not been taken in yet is refused from then on. " +
			"A join token that is made for it later brings it back. After an error, ask again.",
		Tags: []string{"agents"}, DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, p access.Principal, in *agentPath) (*none, error) {
		return nil, o.cfg.Agents.Revoke(ctx, p.Tenant, in.ID)
	})
	add(o, access.QuarantineRead, get("list-quarantine", "/v1/quarantine", "Quarantine", "What was refused, and why; the latest first.", "agents"),
		func(ctx context.Context, p access.Principal, in *quarantineQuery) (*body[serve.RefusedList], error) {
			var doc serve.RefusedList
			var err error
			if in.Unattributed {
				doc, err = o.cfg.Service.Unattributed(ctx, p, in.Offset, in.Limit)
			} else {
				doc, err = o.cfg.Service.Quarantine(ctx, p.Tenant, in.Offset, in.Limit)
			}
			return &body[serve.RefusedList]{doc}, err
		})
}

// FleetConfigRequest sets something on agents.
type FleetConfigRequest struct {
	Agent    string               `json:"agent,omitempty" maxLength:"64" doc:"An agent's id; left out, it is for all agents that have nothing of their own."`
	Settings *serve.FleetSettings `json:"settings,omitempty" doc:"All that is to be set; left out, what was set before is taken back."`
}

type fleetConfigQuery struct {
	Before uint64 `query:"before" maximum:"9007199254740991" doc:"The version that the page before gave as next."`
	Limit  uint32 `query:"limit" minimum:"1" maximum:"500" default:"100"`
}

func (o operations) fleet() {
	add(o, access.Admin, huma.Operation{
		OperationID: "set-fleet-configuration", Method: http.MethodPost, Path: "/v1/fleet/configurations", Summary: "Set something on agents",
		Description: "Makes a new version, which the agents fetch when they call and take if their installation lets them. " +
			"Scopes, privacy, sandbox, egress and keys are for the installation alone to decide.",
		Tags: []string{"agents"}, DefaultStatus: http.StatusCreated, Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, p access.Principal, in *body[FleetConfigRequest]) (*body[serve.FleetConfig], error) {
		doc, err := o.cfg.Service.SetFleetConfig(ctx, p, in.Body.Agent, in.Body.Settings)
		return &body[serve.FleetConfig]{doc}, err
	})
	add(o, access.AgentsRead, get("list-fleet-configurations", "/v1/fleet/configurations", "What was set on agents", "Every version of what was set on the tenant's agents, the latest first.", "agents"),
		func(ctx context.Context, p access.Principal, in *fleetConfigQuery) (*body[serve.FleetConfigList], error) {
			doc, err := o.cfg.Service.FleetConfigs(ctx, p.Tenant, in.Before, in.Limit)
			return &body[serve.FleetConfigList]{doc}, err
		})
}

// envelope is an answer with an envelope's exact bytes.
type envelope struct {
	ContentType        string `header:"Content-Type"`
	ContentDisposition string `header:"Content-Disposition"`
	Body               []byte
}

// evidenceQuery names the artifact itself, and chainQuery the agent: parameters
// of an embedded struct that is not exported are not read.
type evidenceQuery struct {
	Digest string `path:"digest" pattern:"^(hmac-)?sha256:[0-9a-f]{64}$" doc:"An artifact's digest, plain or keyed."`
	After  string `query:"after" maxLength:"110" doc:"The cursor that the page before gave as next."`
}

type chainQuery struct {
	ID    string `path:"id" maxLength:"64" doc:"An agent's id."`
	After string `query:"after" maxLength:"110" doc:"The cursor that the page before gave as next."`
	Limit uint32 `query:"limit" minimum:"1" maximum:"10000" default:"10000"`
}

func (o operations) evidence() {
	add(o, access.PostureRead, get("get-statement", "/v1/statements/{digest}", "Statement", "One signed statement, verified again, with its envelope.", "evidence"),
		func(ctx context.Context, p access.Principal, in *digestPath) (*body[serve.Statement], error) {
			doc, err := o.cfg.Service.Statement(ctx, p.Tenant, predicate.Digest(in.Digest))
			return &body[serve.Statement]{doc}, err
		})
	op := get("get-envelope", "/v1/statements/{digest}/envelope", "Envelope", "The DSSE envelope, byte for byte as it arrived.", "evidence")
	op.Responses = map[string]*huma.Response{"200": {
		Description: "The envelope.",
		Content:     map[string]*huma.MediaType{topic.ContentType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}},
	}}
	add(o, access.PostureRead, op, func(ctx context.Context, p access.Principal, in *digestPath) (*envelope, error) {
		digest := predicate.Digest(in.Digest)
		doc, err := o.cfg.Service.Statement(ctx, p.Tenant, digest)
		return &envelope{topic.ContentType, `attachment; filename="` + digest.Hex() + `.dsse.json"`, doc.Envelope}, err
	})
	add(o, access.PostureRead, get("export-artifact", "/v1/artifacts/{digest}/evidence", "Evidence of an artifact", "A page of its scan statements, the latest first, and the keys, for `cavra verify`.", "evidence"),
		func(ctx context.Context, p access.Principal, in *evidenceQuery) (*body[serve.Export], error) {
			doc, err := o.cfg.Service.ExportArtifact(ctx, p.Tenant, predicate.Digest(in.Digest), in.After)
			return &body[serve.Export]{doc}, err
		})
	add(o, access.AgentsRead, get("export-chain", "/v1/agents/{id}/evidence", "Evidence of an agent", "A page of its chain and the keys, for `cavra verify`.", "evidence"),
		func(ctx context.Context, p access.Principal, in *chainQuery) (*body[serve.Export], error) {
			doc, err := o.cfg.Service.ExportChain(ctx, p.Tenant, in.ID, in.After, in.Limit)
			return &body[serve.Export]{doc}, err
		})
}

type growthQuery struct {
	From uint64 `query:"from" maximum:"4611686018427387904" doc:"The size that the log had in an earlier checkpoint."`
}

func (o operations) log() {
	add(o, access.PostureRead, get("get-log", "/v1/log", "Transparency log", "The log of all that was accepted: its key and its latest signed checkpoint.", "evidence"),
		func(ctx context.Context, _ access.Principal, _ *none) (*body[serve.LogState], error) {
			doc, err := o.cfg.Service.LogState(ctx)
			return &body[serve.LogState]{doc}, err
		})
	add(o, access.PostureRead, get("prove-log-growth", "/v1/log/growth", "Growth of the log", "The proof that the log has only grown since a checkpoint that you kept: nothing before it was changed, moved or taken out.", "evidence"),
		func(ctx context.Context, _ access.Principal, in *growthQuery) (*body[serve.LogGrowth], error) {
			doc, err := o.cfg.Service.LogGrowth(ctx, in.From)
			return &body[serve.LogGrowth]{doc}, err
		})
}

// GiveUpRequest names a plan that cannot be read again.
type GiveUpRequest struct {
	Partition int    `json:"partition" minimum:"0" maximum:"2147483647"`
	From      int64  `json:"from" minimum:"0" doc:"The plan's, as GET /v1/ingest gives it."`
	Next      int64  `json:"next" minimum:"1" doc:"The plan's, as GET /v1/ingest gives it."`
	Reason    string `json:"reason" minLength:"1" maxLength:"500" doc:"Why the log cannot be restored; it is kept with the record."`
}

func (o operations) ingest() {
	add(o, access.Admin, get("get-ingest", "/v1/ingest", "Ingest", "How the log is taken in: partitions, what was lost, and what was given up. For the aggregator's operator alone.", "ingest"),
		func(ctx context.Context, p access.Principal, _ *none) (*body[serve.IngestHealth], error) {
			doc, err := o.cfg.Service.IngestHealth(ctx, p)
			return &body[serve.IngestHealth]{doc}, err
		})
	add(o, access.Admin, huma.Operation{
		OperationID: "give-up-plan", Method: http.MethodPost, Path: "/v1/ingest/give-up", Summary: "Give up a plan that cannot be read again",
		Description: "Counts what the plan held as lost, with a record of who decided it and why, and lets its partition go on. " +
			"Only a plan that its partition has stopped at because the log does not hold it any more can be given up. For the aggregator's operator alone.",
		Tags: []string{"ingest"}, DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusConflict},
	}, func(ctx context.Context, p access.Principal, in *body[GiveUpRequest]) (*none, error) {
		return nil, o.cfg.Service.GiveUp(ctx, p, in.Body.Partition, in.Body.From, in.Body.Next, in.Body.Reason)
	})
}

// JoinTokenRequest asks for a join token.
type JoinTokenRequest struct {
	TTLSeconds int64  `json:"ttl_seconds" minimum:"1" maximum:"2592000" doc:"How long it is good, at most 30 days."`
	AgentName  string `json:"agent_name,omitempty" maxLength:"128" doc:"What the new agent is called; agent, unless it is given."`
	Agent      string `json:"agent,omitempty" maxLength:"64" doc:"An enrolled agent, to open a new epoch of it."`
}

// TokenRequest asks for an API token.
type TokenRequest struct {
	Name       string   `json:"name" minLength:"1" maxLength:"128" pattern:"^[A-Za-z0-9][A-Za-z0-9 ._@:+-]*$" patternDescription:"letters, digits, blank and . _ @ : + -, a letter or digit first"`
	Scopes     []string `json:"scopes" minItems:"1" maxItems:"16" doc:"posture:read, quarantine:read, agents:read, agents:enrol, tokens:write, admin"`
	TTLSeconds int64    `json:"ttl_seconds,omitempty" minimum:"0" maximum:"315360000" doc:"0 is for good."`
}

// MadeToken is a secret that is shown this once.
type MadeToken struct {
	Token     string     `json:"token"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// TokenList lists API tokens, without their secrets.
type TokenList struct {
	Tokens []Token `json:"tokens"`
}

// Token is an API token.
type Token struct {
	Name      string     `json:"name"`
	Scopes    []string   `json:"scopes"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

type namePath struct {
	Name string `path:"name" maxLength:"128"`
}

func (o operations) tokens() {
	op := huma.Operation{
		OperationID: "create-join-token", Method: http.MethodPost, Path: "/v1/join-tokens", Summary: "Make a join token",
		Description: "A one-time token that enrols one agent.", Tags: []string{"tokens"}, DefaultStatus: http.StatusCreated,
	}
	add(o, access.AgentsEnrol, op, o.createJoinToken)
	op = huma.Operation{
		OperationID: "create-token", Method: http.MethodPost, Path: "/v1/tokens", Summary: "Make an API token",
		Description: "A token for this tenant, with no scope that the caller has not.", Tags: []string{"tokens"}, DefaultStatus: http.StatusCreated,
		Errors: []int{http.StatusConflict},
	}
	add(o, access.TokensWrite, op, o.createToken)
	add(o, access.TokensWrite, get("list-tokens", "/v1/tokens", "API tokens", "The tenant's live API tokens.", "tokens"),
		func(ctx context.Context, p access.Principal, _ *none) (*body[TokenList], error) {
			stored, err := o.cfg.Control.APITokens(ctx, p.Tenant)
			list := TokenList{Tokens: []Token{}}
			for _, t := range stored {
				if !t.Live(o.cfg.Now()) {
					continue
				}
				k := Token{Name: t.Name, Scopes: t.Scopes, CreatedAt: t.CreatedAt.UTC()}
				if !t.ExpiresAt.IsZero() {
					k.ExpiresAt = &t.ExpiresAt
				}
				list.Tokens = append(list.Tokens, k)
			}
			return &body[TokenList]{list}, err
		})
	op = huma.Operation{
		OperationID: "revoke-token", Method: http.MethodDelete, Path: "/v1/tokens/{name}", Summary: "Revoke an API token",
		Description: "Ends the token and its sessions at once.", Tags: []string{"tokens"}, DefaultStatus: http.StatusNoContent,
	}
	add(o, access.TokensWrite, op, func(ctx context.Context, p access.Principal, in *namePath) (*none, error) {
		return nil, o.cfg.Gate.RevokeToken(ctx, p, in.Name)
	})
}

func (o operations) createJoinToken(ctx context.Context, p access.Principal, in *body[JoinTokenRequest]) (*body[MadeToken], error) {
	b := in.Body
	name := cmp.Or(b.AgentName, b.Agent, "agent")
	if err := predicate.PlainAllowed(name); err != nil {
		return nil, huma.Error422UnprocessableEntity("agent_name: " + err.Error())
	}
	expires := o.after(b.TTLSeconds)
	secret, err := o.cfg.Gate.CreateJoinToken(ctx, p, b.Agent, name, expires)
	return &body[MadeToken]{MadeToken{secret, &expires}}, err
}

// after is the moment so many seconds from now.
func (o operations) after(seconds int64) time.Time {
	return o.cfg.Now().UTC().Add(time.Duration(seconds) * time.Second)
}

func (o operations) createToken(ctx context.Context, p access.Principal, in *body[TokenRequest]) (*body[MadeToken], error) {
	scopes := make([]access.Scope, len(in.Body.Scopes))
	for i, word := range in.Body.Scopes {
		scope, err := access.ParseScope(word)
		if err != nil {
			return nil, huma.Error422UnprocessableEntity(err.Error())
		}
		scopes[i] = scope
	}
	var made MadeToken
	var expires time.Time
	if in.Body.TTLSeconds > 0 {
		expires = o.after(in.Body.TTLSeconds)
		made.ExpiresAt = &expires
	}
	var err error
	made.Token, err = o.cfg.Gate.CreateToken(ctx, p, in.Body.Name, scopes, expires)
	return &body[MadeToken]{made}, err
}
