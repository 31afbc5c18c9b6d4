package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
)

// The documents of the API, as far as tests read them, written down here again:
// a change of their names is a change for every user.

// Posture is GET /v1/posture.
type Posture struct {
	Tenant     string            `json:"tenant"`
	Score      *float64          `json:"score"`
	Artifacts  map[string]uint64 `json:"artifacts"`
	References map[string]uint64 `json:"references"`
	Exposures  map[string]uint64 `json:"exposures"`
	Agents     map[string]uint64 `json:"agents"`
	Statements map[string]uint64 `json:"statements"`
}

// Artifact is an entry of GET /v1/artifacts.
type Artifact struct {
	Digest     predicate.Digest `json:"digest"`
	Kind       string           `json:"kind"`
	Format     string           `json:"format"`
	Verdict    string           `json:"verdict"`
	References uint64           `json:"references"`
	Statement  predicate.Digest `json:"statement"`
	Coverage   struct {
		Complete bool `json:"complete"`
	} `json:"coverage"`
}

// Exposure is an entry of GET /v1/exposures.
type Exposure struct {
	Path     string           `json:"path"`
	Artifact predicate.Digest `json:"artifact"`
	Rule     string           `json:"rule"`
	Location string           `json:"location"`
	Severity string           `json:"severity"`
	Status   string           `json:"status"`
}

// AgentState is an entry of GET /v1/agents.
type AgentState struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Status   string `json:"status"`
	Privacy  string `json:"privacy"`
	Troubles []struct {
		Kind string `json:"kind"`
	} `json:"troubles"`
	Statements uint64  `json:"statements"`
	Replayed   uint64  `json:"replayed"`
	Chains     []Chain `json:"chains"`
}

// AgentEvents is GET /v1/agent-events.
type AgentEvents struct {
	Events        []AgentEvent `json:"events"`
	Dropped       uint64       `json:"dropped"`
	UnknownTokens uint64       `json:"unknown_tokens"`
}

// AgentEvent is something odd about an agent or a join token.
type AgentEvent struct {
	Kind      string `json:"kind"`
	Agent     string `json:"agent"`
	Presented string `json:"presented"`
	Known     string `json:"known"`
	Count     uint64 `json:"count"`
}

// Chain is one epoch of an agent.
type Chain struct {
	Epoch        uint64           `json:"epoch"`
	HeadSequence uint64           `json:"head_sequence"`
	HeadDigest   predicate.Digest `json:"head_digest"`
	Highest      uint64           `json:"highest_sequence"`
	GapCount     uint64           `json:"gap_count"`
	Gaps         []struct {
		First uint64 `json:"first"`
		Last  uint64 `json:"last"`
	} `json:"gaps"`
	ForkCount uint64 `json:"fork_count"`
	Forks     []struct {
		Sequence uint64             `json:"sequence"`
		Digests  []predicate.Digest `json:"digests"`
	} `json:"forks"`
}

// Refused is an entry of GET /v1/quarantine.
type Refused struct {
	Partition int32            `json:"partition"`
	Offset    int64            `json:"offset"`
	Reason    string           `json:"reason"`
	Detail    string           `json:"detail"`
	Digest    predicate.Digest `json:"digest"`
}

// Evidence is GET /v1/agents/{id}/evidence.
type Evidence struct {
	Envelopes []json.RawMessage `json:"envelopes"`
	Keys      []struct {
		KeyID     predicate.Digest    `json:"key_id"`
		Algorithm predicate.Algorithm `json:"algorithm"`
		PublicKey []byte              `json:"public_key"`
	} `json:"keys"`
	Next string `json:"next"`
}

// Posture asks for the posture.
func (a *Aggregator) Posture(ctx context.Context) (Posture, error) {
	var p Posture
	// as_of and the score's definition are no maps of counts.
	var raw struct {
		Posture
		AsOf any `json:"as_of"`
	}
	err := a.Get(ctx, "/v1/posture", nil, &raw)
	p = raw.Posture
	return p, err
}

// Agents asks for all agents, page by page, the worst first.
func (a *Aggregator) Agents(ctx context.Context) ([]AgentState, error) {
	var out []AgentState
	err := a.pages(ctx, "/v1/agents", url.Values{"limit": {"500"}}, func(b []byte) (uint32, error) {
		var page struct {
			Agents []AgentState `json:"agents"`
			Next   uint32       `json:"next"`
		}
		err := json.Unmarshal(b, &page)
		out = append(out, page.Agents...)
		return page.Next, err
	})
	return out, err
}

// Agent asks for one agent.
func (a *Aggregator) Agent(ctx context.Context, id string) (AgentState, error) {
	var s AgentState
	err := a.Get(ctx, "/v1/agents/"+url.PathEscape(id), nil, &s)
	return s, err
}

// AwaitHead waits until the aggregator's chain of an agent ends, without a gap,
// at a head.
func (a *Aggregator) AwaitHead(ctx context.Context, agent string, head Head) error {
	return Poll(ctx, fmt.Sprintf("chain %s, epoch %d, to reach %d", agent, head.Epoch, head.Sequence), func(ctx context.Context) (bool, string, error) {
		s, err := a.Agent(ctx, agent)
		if err != nil {
			// A restart is under way, or it is about to be known.
			return false, err.Error(), nil
		}
		for _, c := range s.Chains {
			if c.Epoch != head.Epoch {
				continue
			}
			heard := fmt.Sprintf("head %d, highest %d, %d gaps", c.HeadSequence, c.Highest, c.GapCount)
			if c.HeadSequence != head.Sequence || c.Highest != head.Sequence {
				return false, heard, nil
			}
			if c.HeadDigest != head.Digest {
				return false, "", fmt.Errorf("at %d the aggregator has %s and the agent %s", head.Sequence, c.HeadDigest, head.Digest)
			}
			return true, heard, nil
		}
		return false, fmt.Sprintf("the agent has %d chains, none of epoch %d", len(s.Chains), head.Epoch), nil
	})
}

// maxPages bounds how often a list is asked for more.
const maxPages = 10_000

// Artifacts asks for all artifacts, page by page.
func (a *Aggregator) Artifacts(ctx context.Context) ([]Artifact, error) {
	var out []Artifact
	query := url.Values{}
	for range maxPages {
		var page struct {
			Artifacts []Artifact `json:"artifacts"`
			Next      string     `json:"next"`
		}
		if err := a.Get(ctx, "/v1/artifacts", query, &page); err != nil {
			return nil, err
		}
		out = append(out, page.Artifacts...)
		if page.Next == "" {
			return out, nil
		}
		query.Set("after", page.Next)
	}
	return nil, fmt.Errorf("list artifacts: more than %d pages", maxPages)
}

// Exposures asks for all exposures of a status, page by page.
func (a *Aggregator) Exposures(ctx context.Context, status string) ([]Exposure, error) {
	var out []Exposure
	err := a.pages(ctx, "/v1/exposures", url.Values{"status": {status}}, func(b []byte) (uint32, error) {
		var page struct {
			Exposures []Exposure `json:"exposures"`
			Next      uint32     `json:"next"`
		}
		err := json.Unmarshal(b, &page)
		out = append(out, page.Exposures...)
		return page.Next, err
	})
	return out, err
}

// Quarantine asks for all that was refused, page by page: the tenant's own, or
// what names no known key and so belongs to no tenant.
func (a *Aggregator) Quarantine(ctx context.Context, unattributed bool) ([]Refused, error) {
	var out []Refused
	err := a.pages(ctx, "/v1/quarantine", url.Values{"unattributed": {strconv.FormatBool(unattributed)}}, func(b []byte) (uint32, error) {
		var page struct {
			Refused []Refused `json:"refused"`
			Next    uint32    `json:"next"`
		}
		err := json.Unmarshal(b, &page)
		out = append(out, page.Refused...)
		return page.Next, err
	})
	return out, err
}

func (a *Aggregator) pages(ctx context.Context, path string, query url.Values, add func([]byte) (next uint32, err error)) error {
	for range maxPages {
		var page json.RawMessage
		if err := a.Get(ctx, path, query, &page); err != nil {
			return err
		}
		next, err := add(page)
		if err != nil {
			return fmt.Errorf("get %s: %w", path, err)
		}
		if next == 0 {
			return nil
		}
		query.Set("offset", strconv.FormatUint(uint64(next), 10))
	}
	return fmt.Errorf("get %s: more than %d pages", path, maxPages)
}

// AwaitStatement waits until the API has a statement, asking every so often.
func (a *Aggregator) AwaitStatement(ctx context.Context, digest predicate.Digest, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var none json.RawMessage
		err := a.Get(ctx, "/v1/statements/"+string(digest), nil, &none)
		var status *StatusError
		if !errors.As(err, &status) || status.Code != http.StatusNotFound {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for statement %s: %w", digest, context.Cause(ctx))
		}
	}
}
